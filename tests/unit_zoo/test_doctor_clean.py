"""The published sets on this disk are clean: the doctor raises no error on any, and notes what is odd in them."""

from __future__ import annotations

import pytest

from benchmarks.doctor import words_of
from benchmarks.zero_shot import is_here
from tests.doctored import MODEL_FREE, base
from tests.real_data import skip_without
from zoo.data.catalogue import data_set_names
from zoo.doctor import Report, examine
from zoo.doctor.command import split_words


def report_on(name: str, families: str = "") -> Report:
    if not is_here(name):
        skip_without(name)
    own, words = split_words(words_of(name))
    only = families or own["only"]
    device = ["backbone.device=cpu", "training.threads=1"]
    return examine([*words, *device], potential=base(), sample=int(own["sample"]), only=only.strip("[]").split(","))


@pytest.mark.parametrize("name", ["acac", "rmd17/ethanol", "mptrj-1k", "oc20/samples", "nio-deltaspin"])
def test_no_error_in_the_labels_and_structures_of_a_clean_set(name: str) -> None:
    report = report_on(name, ",".join(MODEL_FREE))
    assert report.of_level("error") == (), report.text()
    assert len([check for check in report.checks if not check.skipped]) >= 10


def test_what_is_odd_in_a_clean_set_is_said() -> None:
    """Forces of 70 eV/Å and more among relaxed crystals."""
    report = report_on("mptrj-1k", "outliers")
    (finding,) = report.of_check("outliers.forces")
    assert finding.level == "warning"
    assert any(name.startswith("mptrj-random-1k.xyz: frame") for name in finding.frames)


@pytest.mark.slow
@pytest.mark.parametrize("name", data_set_names())
def test_no_error_on_a_clean_set(name: str) -> None:
    report = report_on(name)
    assert report.of_level("error") == (), report.text()
