"""The matrix of the contract tests: every registered family, every registered method, and variants whose code path differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.method import method_names
from zoo.backbones import family_names, is_installed, load_family
from zoo.data.frame import Frame
from zoo.evaluation.probes import probe_frames
from zoo.potential import Potential

# a method registered later is met by its name alone, with its default settings
VARIANTS: tuple[dict[str, Any], ...] = (
    {"name": "elora", "rank": 3, "alpha": 5.0, "initialisation": "scaled", "dense_substitution": "when_smaller"},
    {"name": "elora", "rank": 2, "extra_trainable": ["*"]},
    {"name": "sparse", "start": "base", "setting": "every"},
    {"name": "sparse", "form": "printed", "setting": "every"},
)
SPECS: tuple[dict[str, Any], ...] = (*({"name": name} for name in method_names()), *VARIANTS)


def spec_id(spec: dict[str, Any]) -> str:
    return " ".join([spec["name"], *(f"{key}={value}" for key, value in spec.items() if key != "name")])


@pytest.fixture(params=family_names())
def family(request: pytest.FixtureRequest) -> str:
    if not is_installed(request.param):
        pytest.skip(f"the optional package of the family {request.param!r} is not installed")
    return str(request.param)


@pytest.fixture(params=SPECS, ids=spec_id)
def spec(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture
def potential(family: str) -> Potential:
    """The family's toy, random weights in float64."""
    return Potential(load_family(family).toy(0))


@pytest.fixture
def frames(potential: Potential) -> list[Frame]:
    """A molecule, a wire, a slab and a sheared crystal."""
    return probe_frames(potential.backbone.elements)


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``checkpoint_of("sevennet")`` is the toy in that package's own file format (float32), written once."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(family: str) -> Path:
        path = folder / f"{family}.pth"
        if not path.exists():
            load_family(family).toy(0).rebuilt(torch.float32).write_upstream_checkpoint(path, {})
        return path

    return write
