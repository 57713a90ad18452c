"""Coverage and trainable counts for ``docs/adapters.md``: ``python -m benchmarks.counts``.

Of the cards whose weights a package ships, and of networks in the shapes of published models that would have to be downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from adapters.blocks import Coverage, find_blocks
from adapters.errors import AdapterError
from adapters.method import create_method, method_names
from adapters.stack import AdapterStack
from benchmarks.shapes import (
    EQUIFORMER_V2_ROLES,
    EQUIFORMER_V2_SHAPES,
    MATERIALS_PROJECT,
    ORGANIC,
    allegro_oam_l,
    equiformer_v2,
    mace_shape,
    nequip_oam_l,
)
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.backbones.equiformer_v2.backbone import EquiformerV2
from zoo.loading import load
from zoo.potential import Potential
from zoo.registry import describe, list_models

METHODS: dict[str, Mapping[str, Any]] = {
    **{f"`{name}`": {"name": name} for name in method_names()},  # a method registered later gets its row
    "`elora`, rank 4": {"name": "elora", "rank": 4},
    "`elora`, `dense_substitution=when_smaller`": {"name": "elora", "dense_substitution": "when_smaller"},
    "`elora`, rank 4, `dense_substitution=when_smaller`": {"name": "elora", "rank": 4, "dense_substitution": "when_smaller"},
    "`elora`, `magnitude=true`": {"name": "elora", "magnitude": True},
    "`elora_paper` preset (rank 16, and what the code unfreezes)": {"name": "elora", "rank": 16, "extra_trainable": "reference"},
    "`mmea_paper` preset (gates, and ELoRA elsewhere)": {"name": "mmea", "elsewhere": "elora"},
    "`freeze`, `up_to=1`": {"name": "freeze", "up_to": 1},
    "`sparse`, `setting=every`": {"name": "sparse", "setting": "every"},
}


@dataclass(frozen=True)
class Counted:
    """What counting needs of a potential."""

    backbone: nn.Module
    coverage: Coverage


def load_all() -> dict[str, Potential]:
    """The potential of each card whose weights need no download; a multi-head model with its first head, which changes no count."""
    cards = [card for card in map(describe, list_models()) if card.ships_with_a_package]
    return {card.name: load(card.name, head=(card.heads or (None,))[0]) for card in cards}


def load_shapes() -> dict[str, Potential]:
    """Networks of random weights in the shapes of published models."""
    return {
        "MACE-MP-0 medium": Potential(mace_shape("mace-mp-0-medium", MATERIALS_PROJECT)),
        "MACE-MP-0 large, cut to Cu": Potential(mace_shape("mace-mp-0-large", (8, 29)).restricted_to([29])),
        "MACE-OFF23 medium": Potential(mace_shape("mace-off23-medium", ORGANIC)),
        "MACE-OFF23 medium, cut to H C O": Potential(mace_shape("mace-off23-medium", ORGANIC).restricted_to([1, 6, 8])),
        "NequIP-OAM-L": Potential(nequip_oam_l()),
        "Allegro-OAM-L": Potential(allegro_oam_l()),
    }


def load_equiformers() -> dict[str, Counted]:
    """EquiformerV2 in its published OC20 sizes, without weights."""
    found = {}
    for size in EQUIFORMER_V2_SHAPES:
        with torch.device("meta"):
            network = equiformer_v2(size)
        found[f"EquiformerV2 {size}"] = Counted(network, find_blocks(network, EQUIFORMER_V2_ROLES, EquiformerV2.adapter_layers))
    return found


def share_of_maces_own_lora(potential: Potential) -> float:
    """Share of the weights that ``mace_run_train --lora`` reaches, 0 to 1: those of the layers that it wraps."""
    import copy

    from mace.modules.lora import inject_lora

    network = copy.deepcopy(potential.backbone.network)
    total = sum(parameter.numel() for parameter in network.parameters())
    inject_lora(network)
    return sum(parameter.numel() for name, parameter in network.named_parameters() if ".base." in name) / total


def reach_table(potentials: Mapping[str, Potential]) -> str:
    """Which share of the weights ELoRA reaches, and what ``mace_run_train --lora`` does where the shape is MACE's."""
    rows = []
    for name, potential in potentials.items():
        stack = AdapterStack(potential.backbone, potential.coverage)
        reached = potential.coverage.share(stack.add("counted", create_method("elora")).blocks)
        upstream = f"{share_of_maces_own_lora(potential):.1%}" if potential.backbone.family == "mace" else ""
        rows.append([name, f"{reached:.3%}", upstream])
    return markdown_table(["shape", "reached by `elora`", "by `mace_run_train --lora`"], rows)


def coverage_table(coverages: Mapping[str, Coverage]) -> str:
    """Weights (and blocks) by role, a column a model."""
    roles = sorted({role for coverage in coverages.values() for role in coverage.roles})
    rows = [[role, *[_role_cell(coverage, role) for coverage in coverages.values()]] for role in roles]
    rows.append(["**adaptable**", *[f"**{c.trainable_count:,}** ({len(c.blocks)})" for c in coverages.values()]])
    reasons = sorted({reason for coverage in coverages.values() for reason in coverage.not_adaptable.values()})
    for reason in reasons:
        cells = [f"{_reason_count(c, reason):,}" for c in coverages.values()]
        rows.append([f"not adaptable: {reason}", *cells])
    return markdown_table(["role", *[f"`{name}`" for name in coverages]], rows)


def trainable_table(potentials: Mapping[str, Potential | Counted]) -> str:
    """Trained numbers by method, with the share of full fine-tuning's."""
    rows = []
    for label, spec in METHODS.items():
        cells = []
        for potential in potentials.values():
            count = _trainable_count(potential, spec)
            cells.append("none" if count is None else f"{count:,} ({count / potential.coverage.trainable_count:.1%})")
        rows.append([label, *cells])
    return markdown_table(["method", *[f"`{name}`" for name in potentials]], rows)


def _trainable_count(potential: Potential | Counted, spec: Mapping[str, Any]) -> int | None:
    """None where the method refuses a model that has nothing for it."""
    stack = AdapterStack(potential.backbone, potential.coverage)
    try:
        return stack.add("counted", create_method(spec)).trainable_count
    except AdapterError:
        return None


def _role_cell(coverage: Coverage, role: str) -> str:
    blocks = [block for block in coverage.blocks if block.role == role]
    return f"{sum(block.numel for block in blocks):,} ({len(blocks)})"


def _reason_count(coverage: Coverage, reason: str) -> int:
    return sum(coverage.sizes[name] for name, why in coverage.not_adaptable.items() if why == reason)


if __name__ == "__main__":
    potentials = load_all()
    page = ROOT / "docs" / "adapters.md"
    write_between_markers(page, "coverage", coverage_table({name: potential.coverage for name, potential in potentials.items()}))
    write_between_markers(page, "trainable", trainable_table(potentials))
    shapes = load_shapes()
    write_between_markers(page, "coverage of shapes", coverage_table({name: potential.coverage for name, potential in shapes.items()}))
    write_between_markers(page, "trainable of shapes", trainable_table(shapes))
    write_between_markers(page, "reach", reach_table(shapes))
    equiformers = load_equiformers()
    coverages = {name: counted.coverage for name, counted in equiformers.items()}
    write_between_markers(page, "coverage of EquiformerV2", coverage_table(coverages))
    write_between_markers(page, "trainable of EquiformerV2", trainable_table(equiformers))
