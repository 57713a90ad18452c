"""UMA, eSEN and what else is built from fairchem-core's eSCN-MD layers."""

import logging

_handlers = list(logging.root.handlers)

from zoo.backbones.uma.family import FAMILY  # noqa: E402

logging.root.handlers[:] = _handlers  # a message at its import gives the root logger a handler: every later message would come twice

__all__ = ["FAMILY"]
