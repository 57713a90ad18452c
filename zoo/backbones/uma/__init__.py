"""UMA, eSEN and what else is built from fairchem-core's eSCN-MD layers."""

from zoo.backbones.uma.family import FAMILY

__all__ = ["FAMILY"]
