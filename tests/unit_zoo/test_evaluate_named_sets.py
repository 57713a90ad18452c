"""What ``zoo evaluate`` reports of a published set: the numbers its protocol asks for, of the files it needs and no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from tests.refusals import cli_refusal, lacks
from tests.structures import dimers


@pytest.fixture
def make_set(own_set) -> Callable[..., Path]:
    """``make_set(metrics)``: ``own/set`` with 15 + 5 frames and a test of 6, in a protocol with those metrics."""
    frames = dimers(26)
    return lambda metrics: own_set(frames[:20], frames[20:], n_train=15, n_valid=5, metrics=metrics)


def _printed(text: str, part: str) -> list[str]:
    """Labels of the metrics in the order of their lines."""
    rows = [line.removeprefix(part).strip() for line in text.splitlines() if line.startswith(f"{part} ")]
    return [row.rsplit(maxsplit=2)[0].strip() for row in rows]


def test_the_protocols_metrics_are_printed_and_the_record_holds_all(make_set, toy_checkpoint, zoo, tmp_path):
    from zoo.evaluation.metrics import METRICS

    # not in the order of the table
    headline = ["force_rmse_mev_per_angstrom", "energy_mae_mev", "stress_mae_mev_per_angstrom3"]
    make_set(headline)
    words = ["evaluate", f"backbone={toy_checkpoint}", "data=own/set"]
    short = zoo(*words, "record=short.json")
    assert short.code == 0, short.err
    # the frames have no stress
    assert _printed(short.out, "hot") == [METRICS[name].label for name in headline[:2]]
    recorded = {metric["name"]: metric["value"] for metric in json.loads((tmp_path / "short.json").read_text())["metrics"]}
    assert len(recorded) > 8
    assert f"({len(recorded) - 2} more numbers with metrics=all)" in short.out

    everything = zoo(*words, "metrics=all", "record=all.json")
    rows = [line for line in everything.out.splitlines() if line.startswith("hot ")]
    for name, value in recorded.items():
        (row,) = [row for row in rows if row[4:].strip().startswith(f"{METRICS[name].label}  ")]
        assert f"{value:12.3f}" in row
    assert len(rows) == len(recorded)
    assert "numbers with metrics=all" not in everything.out
    again = {metric["name"]: metric["value"] for metric in json.loads((tmp_path / "all.json").read_text())["metrics"]}
    assert again == recorded


def test_all_metrics_are_printed_where_a_part_has_none_of_the_protocols(make_set, toy_checkpoint, zoo):
    make_set(["stress_mae_mev_per_angstrom3"])
    words = ["evaluate", f"backbone={toy_checkpoint}", "data=own/set"]
    shown, everything = zoo(*words), zoo(*words, "metrics=all")
    assert [line for line in shown.out.splitlines() if line.startswith("hot ")] == [
        line for line in everything.out.splitlines() if line.startswith("hot ")
    ]
    assert "metrics=all" not in shown.out
    assert not lacks(cli_refusal(zoo(*words, "metrics=some")), "metrics='some'", "protocol", "all")


def test_one_test_of_a_published_set_is_evaluated_without_its_pool(make_set, toy_checkpoint, zoo, tmp_path):
    make_set(["energy_mae_mev"])
    words = ["evaluate", f"backbone={toy_checkpoint}", "data=own/set", "split=hot"]
    (tmp_path / "downloads" / "my pool.xyz").rename(tmp_path / "elsewhere.xyz")
    finished = zoo(*words, "record=record.json")
    assert finished.code == 0, finished.err
    splits = json.loads((tmp_path / "record.json").read_text())["data"]["splits"]
    assert {name: split["frames"] for name, split in splits.items()} == {"hot": 6}
    assert "protocol: own/set/all tests alone (protocol paper)" in finished.out
    for choice in ("model", "least_squares"):
        assert "pool.xyz" in cli_refusal(zoo(*words, f"reference_energies={choice}"))
    assert "pool.xyz" in cli_refusal(zoo(*words[:-1]))
    assert "pool.xyz" in cli_refusal(zoo(*words[:-1], "split=train"))
    (tmp_path / "elsewhere.xyz").rename(tmp_path / "downloads" / "my pool.xyz")
    fitted = zoo(*words, "reference_energies=model")
    assert fitted.code == 0, fitted.err
    assert "reference energies fitted on 15 frames" in fitted.out


ELEMENTS_OF_SLAB = (6, 8, 13, 29, 34)


@pytest.fixture
def toy_of_slab(tmp_path) -> Path:
    """The toy with its five species taken for those of OC20's sample slab."""
    import torch
    from sevenn import _keys as keys

    from zoo.backbones import load_family

    payload = load_family("sevennet").toy(0).upstream_checkpoint({})
    payload["config"][keys.TYPE_MAP] = {number: index for index, number in enumerate(ELEMENTS_OF_SLAB)}
    payload["config"][keys.CHEMICAL_SPECIES] = ["C", "O", "Al", "Cu", "Se"]
    torch.save(payload, tmp_path / "toy.pth")
    return tmp_path / "toy.pth"


def test_published_linear_references_are_added_to_a_model_of_oc20(data_folder, toy_of_slab, zoo, tmp_path):
    from ase.data import chemical_symbols

    from zoo import load

    folder = data_folder("oc20")
    words = ["evaluate", f"backbone={toy_of_slab}", "backbone.dtype=float64", "data=oc20/samples", "split=slab"]
    finished = zoo(*words, "reference_energies=linear", "record=record.json")
    assert finished.code == 0, finished.err
    with np.load(folder / "oc20_linref.npz", allow_pickle=False) as published:
        coefficients = published["coeff"]
    record = json.loads((tmp_path / "record.json").read_text())
    values = {symbol: record["reference_energies"]["values"].get(symbol) for symbol in map(chemical_symbols.__getitem__, ELEMENTS_OF_SLAB)}
    assert values == {chemical_symbols[number]: coefficients[number] for number in ELEMENTS_OF_SLAB}
    atoms = read(folder / "atoms.json")
    (prediction,) = load(toy_of_slab, dtype="float64").predict([atoms])
    error = prediction.energy + coefficients[atoms.numbers].sum() - atoms.calc.results["energy"]
    metrics = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert metrics["energy_mae_mev"] == pytest.approx(1000 * abs(error), rel=1e-6)
    without = zoo(*words, "record=without.json")
    assert without.code == 0, without.err
    assert json.loads((tmp_path / "without.json").read_text())["reference_energies"]["values"] == {}
    # forces of the 24 held atoms are no labels, though the file has numbers there
    free = np.ones(len(atoms), dtype=bool)
    free[atoms.constraints[0].index] = False
    forces = atoms.calc.results["forces"][free]
    assert metrics["force_mae_mev_per_angstrom"] == pytest.approx(1000 * np.abs(prediction.forces[free] - forces).mean(), rel=1e-6)
    assert (free.sum(), len(free)) == (10, 34)
