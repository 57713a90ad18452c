"""Which frames ``zoo evaluate`` and ``zoo predict`` look at, and what they refuse or say about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from tests.refusals import cli_refusal, lacks
from tests.structures import dimers


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory) -> Path:
    """A finished run on 8 + 4 of the embedded frames, split with another seed than the default."""
    from zoo.cli import main

    folder = tmp_path_factory.mktemp("evaluate") / "run"
    words = ["adapter.rank=2", "training.steps=1", "data.split_seed=3"]
    main(["train", *[word for word in small_run if word != "data.test=[]"], *words, f"hydra.run.dir={folder}", "run.name=run"])
    return folder


def _force_mae(text: str, part: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{part} ") and "force MAE" in line]
    return float(line.split("force MAE")[1].split()[0])


def test_a_file_is_evaluated_whole(toy_checkpoint, zoo, tmp_path):
    from zoo import load
    from zoo.data.readers import read_frames

    write(tmp_path / "mine.xyz", dimers(20))
    finished = zoo("evaluate", f"backbone={toy_checkpoint}", "data=mine.xyz", "record=record.json")
    assert finished.code == 0, finished.err
    frames = read_frames(tmp_path / "mine.xyz")
    predicted = load(toy_checkpoint).predict(frames)
    errors = [np.abs(found.forces - frame.forces).mean() for found, frame in zip(predicted, frames, strict=True)]
    assert _force_mae(finished.out, "mine") == pytest.approx(1000 * np.mean(errors), abs=2e-3)
    record = json.loads((tmp_path / "record.json").read_text())
    assert {name: split["frames"] for name, split in record["data"]["splits"].items()} == {"mine": 20}


@pytest.mark.parametrize("words", [["split=valid"], ["data.n_valid=2"], ["data.valid_fraction=0.1"]])
def test_a_file_is_split_where_a_part_or_size_is_asked_for(words, toy_checkpoint, zoo, tmp_path):
    write(tmp_path / "mine.xyz", dimers(20))
    finished = zoo("evaluate", f"backbone={toy_checkpoint}", "data=mine.xyz", "data.split_seed=0", *words)
    assert finished.code == 0, finished.err
    assert "\nvalid " in finished.out
    assert "mine.xyz: 2 frames" in finished.out


def test_reference_energies_are_not_fitted_on_the_frames_they_are_judged_by(toy_checkpoint, zoo, tmp_path):
    write(tmp_path / "mine.xyz", dimers(20))
    assert not lacks(
        cli_refusal(zoo("evaluate", f"backbone={toy_checkpoint}", "data=mine.xyz", "reference_energies=model")), "file/mine", "data.n_train"
    )


def test_frames_without_labels_have_no_metrics_and_that_is_an_error(toy_checkpoint, zoo, tmp_path):
    write(tmp_path / "bare.xyz", [Atoms("CuAu", [[0, 0, 0], [2.5, 0, 0]])] * 3)
    assert not lacks(
        cli_refusal(zoo("evaluate", f"backbone={toy_checkpoint}", "data=bare.xyz")), "bare: no frame has an energy", "data.energy_key="
    )


def test_a_run_is_evaluated_on_its_own_test_frames(run, zoo):
    finished = zoo("evaluate", f"run={run}")
    assert finished.code == 0, finished.err
    stored = {metric["name"]: metric["value"] for metric in json.loads((run / "record.json").read_text())["metrics"]}
    assert _force_mae(finished.out, "test") == pytest.approx(stored["force_mae_mev_per_angstrom"], abs=2e-3)
    assert "warning" not in finished.out
    own_valid = zoo("evaluate", f"run={run}", "split=valid")
    assert "4 frames are in both valid and evaluated valid" in own_valid.out


def test_evaluated_frames_that_the_run_trained_on_are_told(run, zoo, tmp_path):
    other = zoo("evaluate", f"run={run}", "data=emt-cuau", "split=train")
    assert "warning" in other.out
    # the eighth is among this split's validation frames
    assert "7 frames are in both train and evaluated train" in other.out
    write(tmp_path / "mine.xyz", dimers(20))
    assert "warning" not in zoo("evaluate", f"run={run}", "data=mine.xyz").out


def test_evaluation_goes_on_where_the_runs_data_is_gone_and_says_so(zoo, small_run, tmp_path):
    write(tmp_path / "gone.xyz", dimers(20))
    write(tmp_path / "mine.xyz", dimers(20))
    words = ["data=gone.xyz", "training.steps=1", "hydra.run.dir=run", "run.name=run"]
    assert zoo("train", *[word for word in small_run if not word.startswith("data.")], *words).code == 0
    assert "warning: run: 18 frames are in both train" in zoo("evaluate", "run=run", "data=mine.xyz").out
    (tmp_path / "gone.xyz").unlink()
    finished = zoo("evaluate", "run=run", "data=mine.xyz")
    assert finished.code == 0, finished.err
    assert "warning: run: cannot tell whether it was trained on these frames" in finished.out
    assert "gone.xyz" in cli_refusal(zoo("evaluate", "run=run"))


def test_an_option_of_data_beside_a_run_wants_the_data_named(run, zoo):
    assert not lacks(cli_refusal(zoo("evaluate", f"run={run}", "data.n_train=8")), "data.n_train=8", "data=")


@pytest.mark.parametrize("word", ["backbone.dtype=float64", "backbone.name=sevennet-0", "++backbone.head=a", "backbone.trust_pickle=true"])
def test_a_run_brings_its_own_base(word, run, zoo):
    assert not lacks(cli_refusal(zoo("evaluate", f"run={run}", word)), word, "brings its own base")


def test_the_device_of_a_run_may_be_chosen(run, zoo):
    assert zoo("evaluate", f"run={run}", "backbone.device=cpu").code == 0


def _apart() -> Atoms:
    atoms = dimers(1)[0]
    atoms.positions[1] += 30.0
    return atoms


def test_frames_of_several_atoms_without_an_edge_are_refused_everywhere(toy_checkpoint, small_run, zoo, tmp_path):
    write(tmp_path / "apart.xyz", [*dimers(2), _apart()])
    base = f"backbone={toy_checkpoint}"
    wanted = ["apart.xyz: frame 2", "2 atoms but no pair within the cutoff of 4 Å"]
    assert not lacks(cli_refusal(zoo("evaluate", base, "data=apart.xyz")), *wanted)
    assert not lacks(cli_refusal(zoo("predict", base, "input=apart.xyz", "output=out.xyz")), *wanted)
    write(tmp_path / "mine.xyz", dimers(20))
    words = [word for word in small_run if word != "data.test=[]"]
    assert not lacks(cli_refusal(zoo("train", *words, "data=mine.xyz", "data.test=apart.xyz", "run.name=run")), *wanted)
    assert not (tmp_path / "runs/run").exists()


def test_an_isolated_atom_has_no_edge_and_is_predicted(toy_checkpoint, zoo, tmp_path):
    write(tmp_path / "atom.xyz", [Atoms("Cu")])
    assert zoo("predict", f"backbone={toy_checkpoint}", "input=atom.xyz", "output=out.xyz").code == 0


def test_isolated_atoms_must_be_given_for_every_element_of_the_data(small_run, zoo, tmp_path):
    write(tmp_path / "mine.xyz", dimers(20))
    copper, gold = Atoms("Cu"), Atoms("Au")
    copper.info["energy"], gold.info["energy"] = -3.0, -4.0
    words = [*small_run, "data=mine.xyz", "strategy.reference_energies_before=isolated_atoms", "training.steps=1"]
    write(tmp_path / "atoms.xyz", [copper])
    assert not lacks(
        cli_refusal(zoo("train", *words, "data.isolated_atoms=atoms.xyz", "run.name=half")), "isolated", "Au", "data.isolated_atoms"
    )
    write(tmp_path / "both.xyz", [copper, gold])
    assert zoo("train", *words, "data.isolated_atoms=both.xyz", "run.name=whole").code == 0


ATOMS = {29: -3.0, 79: -4.0}
REFERENCES = {29: -2.96, 79: -2.69}


@pytest.fixture
def mixed(emt_atoms, tmp_path) -> list[str]:
    """Words for 12 + 4 + 4 frames of many compositions of Cu and Au, 10 eV an atom lower than EMT has them, with both kinds of tables."""
    labelled = emt_atoms(20)
    for atoms in labelled:
        atoms.calc.results["energy"] -= 10.0 * len(atoms)
    write(tmp_path / "mixed.xyz", labelled)
    isolated = [Atoms([number], info={"energy": energy}) for number, energy in ATOMS.items()]
    write(tmp_path / "atoms.xyz", isolated)
    coefficients = np.full(100, 3e11)
    coefficients[list(REFERENCES)] = list(REFERENCES.values())
    np.savez(tmp_path / "linear.npz", coeff=coefficients)
    tables = ["data.isolated_atoms=atoms.xyz", "data.linear_references=linear.npz"]
    return ["data=mixed.xyz", "data.n_train=12", "data.n_valid=4", "data.n_test=4", *tables]


def _expected_shifts(choice: str, potential, splits) -> dict[int, float]:
    """Worked out apart from the code under test."""
    elements = (29, 79)
    counts = np.array([[np.sum(frame.atomic_numbers == number) for number in elements] for frame in splits.train])
    labels = np.array([frame.energy for frame in splits.train])
    own = dict(zip(elements, [prediction.energy for prediction in potential.predict([Atoms("Cu"), Atoms("Au")])], strict=True))
    if choice == "model":
        residuals = labels - [prediction.energy for prediction in potential.predict(splits.train)]
        return dict(zip(elements, np.linalg.solve(counts.T @ counts, counts.T @ residuals), strict=True))
    if choice == "isolated_atoms":
        return {number: energy - own[number] for number, energy in ATOMS.items()}
    if choice == "linear":
        return REFERENCES
    if choice == "base":
        return {}
    fitted = np.linalg.solve(counts.T @ counts, counts.T @ labels)
    return {number: energy - own[number] for number, energy in zip(elements, fitted, strict=True)}


def _splits(tmp_path: Path):
    from zoo.data.config import DataConfig
    from zoo.data.source import load_splits

    return load_splits(DataConfig(name="file", path=str(tmp_path / "mixed.xyz"), n_train=12, n_valid=4, n_test=4))


@pytest.mark.parametrize("choice", ["base", "model", "isolated_atoms", "least_squares", "average", "linear"])
def test_each_choice_of_reference_energies_is_applied_and_recorded(choice, mixed, toy_checkpoint, zoo, tmp_path):
    from ase.data import atomic_numbers

    from zoo import load

    words = ["evaluate", f"backbone={toy_checkpoint}", "backbone.dtype=float64", *mixed]
    finished = zoo(*words, f"reference_energies={choice}", "record=record.json")
    assert finished.code == 0, finished.err
    record = json.loads((tmp_path / "record.json").read_text())
    potential, splits = load(toy_checkpoint, dtype="float64"), _splits(tmp_path)
    wanted = _expected_shifts(choice, potential, splits)
    found = {atomic_numbers[symbol]: value for symbol, value in record["reference_energies"]["values"].items()}
    assert found == pytest.approx(wanted, rel=1e-7)
    stored = "least_squares" if choice == "average" else choice
    assert (record["reference_energies"]["before"], record["reference_energies"]["after"]) == ("base", stored)
    predicted = np.array([prediction.energy for prediction in potential.predict(splits.tests["test"])])
    predicted += [sum(wanted.get(int(number), 0.0) for number in frame.atomic_numbers) for frame in splits.tests["test"]]
    mae = 1000 * np.abs(predicted - [frame.energy for frame in splits.tests["test"]]).mean()
    metrics = {metric["name"]: metric["value"] for metric in record["metrics"] if metric["test_set"] == "test"}
    assert metrics["energy_mae_mev"] == pytest.approx(mae, rel=1e-6)
    assert ("energies: with the base's own" in finished.out) == (choice == "base")


def test_energies_fitted_to_labels_alone_are_kept_by_a_training_and_recorded(mixed, small_run, toy_checkpoint, zoo, tmp_path):
    from ase.data import atomic_numbers

    from zoo import load

    small = [word for word in small_run if not word.startswith("data.")]
    choice = ["strategy.reference_energies_before=average", "strategy.refit_reference_energies=false", "backbone.dtype=float64"]
    finished = zoo("train", *small, *mixed, *choice, "training.steps=1", "training.validate_every=1", "run.name=labels")
    assert finished.code == 0, finished.err
    assert "from the labels alone, reference energies fitted on 12 frames" in finished.out
    record = json.loads((tmp_path / "runs/labels/record.json").read_text())
    assert (record["reference_energies"]["before"], record["reference_energies"]["after"]) == ("least_squares", "least_squares")
    assert record["training"]["strategy"]["reference_energies_before"] == "least_squares"
    assert record["training"]["data"]["linear_references"] == "linear.npz"
    found = {atomic_numbers[symbol]: value for symbol, value in record["reference_energies"]["values"].items()}
    assert found == pytest.approx(_expected_shifts("least_squares", load(toy_checkpoint, dtype="float64"), _splits(tmp_path)), rel=1e-7)


def test_tables_of_reference_energies_must_be_there_and_hold_every_element(mixed, toy_checkpoint, zoo, tmp_path):
    words = ["evaluate", f"backbone={toy_checkpoint}", *mixed]
    without = [word for word in words if not word.startswith(("data.isolated", "data.linear"))]
    assert not lacks(
        cli_refusal(zoo(*without, "reference_energies=isolated_atoms")), "file has no isolated atoms", "data.isolated_atoms=FILE"
    )
    assert not lacks(
        cli_refusal(zoo(*without, "reference_energies=linear")), "file has no linear references", "data.linear_references=FILE"
    )
    # gold masked: its coefficient is what the solver left of an element that the set lacks
    coefficients = np.full(100, 3e11)
    coefficients[29] = -2.96
    np.savez(tmp_path / "linear.npz", coeff=coefficients)
    assert not lacks(cli_refusal(zoo(*words, "reference_energies=linear")), "the linear references lack Au,", "data.linear_references=FILE")


def test_an_element_that_no_training_frame_holds_is_named(toy_checkpoint, zoo, tmp_path):
    write(tmp_path / "train.xyz", dimers(20))
    water = Atoms("H2O", [[0, 0, 0], [1.5, 0.6, 0], [0.8, 0, 0]])
    water.calc = SinglePointCalculator(water, energy=-14.0, forces=np.zeros((3, 3)))
    write(tmp_path / "test.xyz", [water])
    words = ["data=file", "data.train=train.xyz", "data.test=test.xyz"]
    for choice in ("model", "least_squares"):
        finished = zoo("evaluate", f"backbone={toy_checkpoint}", *words, f"reference_energies={choice}")
        assert finished.code == 0, finished.err
        assert "leave Cu, Au open" in finished.out
        assert "in no training frame, so left at the model's own energy: H, O" in finished.out


def test_predict_keeps_labels_and_minds_none_that_are_missing_or_odd(toy_checkpoint, zoo, tmp_path):
    labelled, renamed, odd = dimers(3)
    renamed.arrays["REF_forces"] = renamed.calc.results.pop("forces")
    odd.calc.results["forces"][0, 0] = np.nan
    write(tmp_path / "in.xyz", [labelled, renamed, odd])
    finished = zoo("predict", f"backbone={toy_checkpoint}", "input=in.xyz", "output=out.xyz")
    assert finished.code == 0, finished.err
    found = read(tmp_path / "out.xyz", ":")
    assert [atoms.info["reference_energy"] for atoms in found] == pytest.approx(
        [a.calc.results["energy"] for a in (labelled, renamed, odd)]
    )
    assert np.allclose(found[0].arrays["reference_forces"], labelled.get_forces(), atol=1e-7)
    assert ["reference_forces" in atoms.arrays for atoms in found] == [True, False, False]


# --- published sets
