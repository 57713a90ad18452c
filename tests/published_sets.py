"""Published sets as the package reads them, each file once for all tests."""

from __future__ import annotations

from functools import cache

from zoo.data.card_files import read_card_file
from zoo.data.catalogue import data_card
from zoo.data.frame import Frame

KCAL_PER_MOL = 4184 / (6.022140857e23 * 1.6021766208e-19)  # eV, CODATA 2014, which BOTNet's ethanol in eV confirms


@cache
def frames_of(name: str, key: str) -> tuple[Frame, ...]:
    """The frames of one file of a set, through its card."""
    return tuple(read_card_file(data_card(name), key).frames)
