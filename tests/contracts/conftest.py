"""The matrix of the contract tests: every toy of every registered family, every registered method, and variants whose code path differs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.method import method_names
from tests import direct_family
from tests.families import skip_without
from zoo.backbones import family_names, is_installed, load_family
from zoo.backbones.base import Backbone
from zoo.data.frame import Frame
from zoo.potential import Potential
from zoo.testing import Lender, Toy, activations_integrated_once
from zoo.testing.backbone_claims import backbone_frames
from zoo.testing.trial import spec_label

# a method registered later is met by its name alone, with its default settings
VARIANTS: tuple[dict[str, Any], ...] = (
    {"name": "elora", "rank": 3, "alpha": 5.0, "initialisation": "scaled", "dense_substitution": "when_smaller"},
    {"name": "elora", "rank": 2, "extra_trainable": ["*"]},
    {"name": "elora", "rank": 2, "ranks": {"readout": 1}, "magnitude": True, "initialisation": "orthogonal"},
    {"name": "mmea", "rank": 3, "scaling": "residual", "elsewhere": "elora", "elsewhere_rank": 2},
    {"name": "sparse", "start": "base", "setting": "every"},
    {"name": "sparse", "form": "printed", "setting": "every"},
)
SPECS: tuple[dict[str, Any], ...] = (*({"name": name} for name in method_names()), *VARIANTS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each toy for each test that has one, each method for each that has one."""
    methods = "spec" in metafunc.fixturenames
    if "toy" in metafunc.fixturenames:
        metafunc.parametrize("toy", _toys(methods))
    if methods and not _names_its_own(metafunc, "spec"):
        metafunc.parametrize("spec", SPECS, ids=spec_label)


def _names_its_own(metafunc: pytest.Metafunc, argument: str) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    return any(argument in (mark.args[0].split(",") if isinstance(mark.args[0], str) else mark.args[0]) for mark in marks)


def _toys(methods: bool) -> list[object]:
    """All toys; with adapter methods beside them, all but the families' main ones are slow.

    The tests' own direct family is met as a registered one is: it alone has forces that are no gradient, and all its toys are quick.
    """
    direct = direct_family.FAMILY
    toys = [pytest.param(toy, id=str(toy)) for toy in (Toy(direct.name), *(Toy(direct.name, variant) for variant in direct.more_toys))]
    for name in family_names():
        toys.append(pytest.param(Toy(name), id=name, marks=skip_without(name)))
        for variant in load_family(name).more_toys if is_installed(name) else ():
            toy = Toy(name, variant)
            toys.append(pytest.param(toy, id=str(toy), marks=[pytest.mark.slow] if methods else []))
    return toys


@pytest.fixture(scope="session", autouse=True)
def activations_are_integrated_once() -> Iterator[None]:
    with activations_integrated_once():
        yield


@pytest.fixture(autouse=True)
def the_direct_family_is_registered() -> Iterator[None]:
    """For each test alone: tests elsewhere count the real families."""
    with direct_family.registered():
        yield


@pytest.fixture(scope="session")
def lender() -> Lender:
    return Lender()


@pytest.fixture
def backbone(toy: Toy, lender: Lender) -> Iterator[Backbone]:
    """The toy of seed 0, random weights in float64."""
    yield from lender.lend(toy, lambda: toy.build(0))


@pytest.fixture
def potential(backbone: Backbone) -> Potential:
    """The toy with nothing on it."""
    return Potential(backbone)


@pytest.fixture
def frames(potential: Potential) -> list[Frame]:
    """A molecule, a wire, a slab and a sheared crystal."""
    return backbone_frames(potential)


@pytest.fixture
def single(toy: Toy, backbone: Backbone, lender: Lender) -> Iterator[Backbone]:
    """The toy in float32."""
    yield from lender.lend((toy, "float32"), lambda: backbone.rebuilt(torch.float32))


@pytest.fixture
def twin(toy: Toy, single: Backbone, lender: Lender) -> Iterator[Backbone]:
    """The toy in float32, in float64 again: what `zoo.load` reads from the checkpoint when asked for float64."""
    yield from lender.lend((toy, "float64"), lambda: single.rebuilt(torch.float64))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def checkpoint(toy: Toy, single: Backbone, checkpoints: Path) -> Path:
    """The toy in its package's own file format (float32), written once."""
    path = checkpoints / f"{toy}.pth"
    if not path.exists():
        single.write_upstream_checkpoint(path, {})
    return path
