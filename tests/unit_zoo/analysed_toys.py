"""The families' toys for tests of the analysis, each built once."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from tests.families import skip_without
from zoo.backbones import family_names, is_installed, load_family
from zoo.backbones.base import Backbone


@functools.cache
def built(name: str, variant: str) -> tuple[Backbone, dict[str, bool]]:
    """A toy, and which of its parameters its authors let train."""
    family = load_family(name)
    backbone = family.more_toys[variant](0) if variant else family.toy(0)
    return backbone, {name: parameter.requires_grad for name, parameter in backbone.named_parameters()}


def toy(name: str, variant: str = "") -> Backbone:
    """A toy that no potential has frozen; built once, because code is generated for it."""
    backbone, trains = built(name, variant)
    for parameter, value in trains.items():
        backbone.get_parameter(parameter).requires_grad_(value)
    return backbone


def toys() -> Iterator[object]:
    """Every toy of every family; all but the main ones are slow."""
    for name in family_names():
        yield pytest.param(name, "", id=name, marks=skip_without(name))
        for variant in load_family(name).more_toys if is_installed(name) else ():
            yield pytest.param(name, variant, id=f"{name} {variant}", marks=pytest.mark.slow)
