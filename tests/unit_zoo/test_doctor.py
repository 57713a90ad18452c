"""Each fault that users meet, planted in real data, is found by name; the data without it pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from tests.doctored import MODEL_FREE, Change, acac, base, cut, diagnosis, parted, run_config, with_train
from tests.families import skip_without
from tests.published_sets import frames_of
from zoo.backbones import load_family
from zoo.data.frame import Frame
from zoo.data.stored_frames import HeldFrames, StoredFrames
from zoo.doctor import Report, examine
from zoo.units import ENERGY_IN_EV

KCAL, HARTREE, GPA = ENERGY_IN_EV["kcal/mol"], ENERGY_IN_EV["Hartree"], 1 / 160.21766
pytestmark = pytest.mark.usefixtures("zoo_data")


def energy_times(factor: float) -> Change:
    return lambda frame: replace(frame, energy=frame.energy * factor)


def forces_times(factor: float) -> Change:
    return lambda frame: replace(frame, forces=frame.forces * factor)


def stress_times(factor: float) -> Change:
    return lambda frame: replace(frame, stress=frame.stress * factor)


def errors(report: Report, check: str) -> str:
    """What the errors of a check say, in one text; empty where it found none."""
    return " ".join(finding.line for finding in report.of_check(check) if finding.level == "error")


def warnings(report: Report, check: str) -> str:
    return " ".join(finding.line for finding in report.of_check(check) if finding.level == "warning")


def test_data_without_a_fault_pass_the_checks_that_find_them() -> None:
    report = diagnosis(acac(), (*MODEL_FREE, "zero_shot", "neighbours"))
    assert report.passed, report.text()
    assert report.exit_code == 0
    notes = [finding.check for finding in report.findings]
    # a positive control: these checks had something to look at
    assert {"forces.energies", "energies.total", "energies.isolated_atoms", "zero_shot.zero"} <= set(notes)


def test_forces_of_the_wrong_sign_contradict_the_energies_and_the_base() -> None:
    report = diagnosis(acac(change=forces_times(-1)), ("forces", "zero_shot"))
    assert "wrong sign" in errors(report, "forces.energies")
    assert "gradients instead of forces" in errors(report, "zero_shot.forces")
    assert report.of_check("forces.energies")[0].frames


@pytest.mark.parametrize(("unit", "in_ev"), [("kcal/mol", KCAL), ("Hartree", HARTREE)])
def test_energies_in_another_unit_are_named_by_three_checks(unit: str, in_ev: float) -> None:
    report = diagnosis(acac(change=energy_times(1 / in_ev)), ("energies", "forces", "zero_shot"))
    for check in ("energies.total", "forces.energies", "zero_shot.energies"):
        assert unit in errors(report, check), (check, report.text())
    assert f"data.energy_unit={unit}" in errors(report, "energies.total")


def test_ev_that_the_user_called_kcal_are_told_to_be_ev() -> None:
    """Labels are divided by 23 on reading: by their size alone they would look like Hartree, or energies per atom."""

    def change(frame: Frame) -> Frame:
        return replace(frame, energy=frame.energy * KCAL, forces=frame.forces * KCAL)

    config = run_config()
    splits = acac(change=change)
    for unit, right in (("kcal/mol", "eV"), (None, None)):
        data = config.data.model_copy(update={"name": "file", "path": "mine.extxyz", "energy_unit": unit})
        given = config.model_copy(update={"data": data})
        report = examine(given, splits=splits if unit else acac(), potential=base(), sample=12, only=["energies.total", "zero_shot"])
        for check in ("energies.total", "zero_shot.energies"):
            assert (f"data.energy_unit={right}" in errors(report, check)) is (right is not None), report.text()
        assert ("look like eV/Å" in errors(report, "zero_shot.forces")) is (right is not None)
        assert report.passed is (right is None)


def test_energies_and_forces_both_in_kcal_are_told_by_the_base() -> None:
    def change(frame: Frame) -> Frame:
        return replace(frame, energy=frame.energy / KCAL, forces=frame.forces / KCAL)

    report = diagnosis(acac(change=change), ("forces", "zero_shot"))
    assert errors(report, "forces.energies") == ""  # they agree with each other
    assert "kcal/mol" in errors(report, "zero_shot.forces")
    assert "kcal/mol" in errors(report, "zero_shot.energies")


def test_kcal_is_found_where_every_frame_has_another_composition() -> None:
    frames = cut("mptrj-1k", "frames", 400, most_atoms=12)
    assert errors(diagnosis(parted(frames), ("zero_shot.energies",)), "zero_shot.energies") == ""
    report = diagnosis(parted(frames, energy_times(1 / KCAL)), ("zero_shot.energies",))
    assert "kcal/mol" in errors(report, "zero_shot.energies")


def test_energies_per_atom_are_found_by_their_changes_and_by_their_size() -> None:
    report = diagnosis(acac(change=lambda frame: replace(frame, energy=frame.energy / len(frame))), ("energies", "forces"))
    assert "multiply by the number of atoms" in errors(report, "energies.total")
    assert "per atom" in errors(report, "forces.energies")


def test_graphite_with_a_pseudopotential_is_not_taken_for_hartree_per_atom() -> None:
    """-9.22 eV/atom with PBE; 2.6 % off a quarter of an all-electron total in Hartree, as a cell has four atoms."""
    cells = [frame for frame in cut("mptrj-1k", "frames", 1000) if len(frame) == 4][:6]
    graphite = [replace(frame, atomic_numbers=np.full(4, 6), energy=-36.88 + 0.01 * place) for place, frame in enumerate(cells)]
    assert diagnosis(parted(graphite), ("energies.total",)).findings == ()


def test_interaction_energies_are_near_zero_and_do_not_follow_the_total_forces() -> None:
    """Total energies less those of the parts at the same geometry, for which the base stands in."""
    frames = cut("acac", "train_300K", 200)
    parts = dict(zip([frame.name for frame in frames], (one.energy for one in base().predict(frames, batch_size=16)), strict=True))
    shift = float(np.mean([frame.energy - parts[frame.name] for frame in frames]))
    splits = parted(frames, lambda frame: replace(frame, energy=frame.energy - parts[frame.name] - shift))
    report = diagnosis(splits, ("forces", "zero_shot.zero"))
    assert "interaction" in errors(report, "forces.energies")
    assert "interaction" in warnings(report, "zero_shot.zero")


def test_the_sign_and_the_unit_of_a_stress_are_told_by_the_base() -> None:
    frames = cut("mptrj-highest-stress-1k", "frames", 400, most_atoms=12)
    assert errors(diagnosis(parted(frames), ("zero_shot.forces",), sample=6), "zero_shot.stress") == ""
    assert "negate stresses that are in eV" in errors(
        diagnosis(parted(frames, stress_times(-1)), ("zero_shot.forces",), sample=6), "zero_shot.stress"
    )
    assert "GPa" in errors(diagnosis(parted(frames, stress_times(1 / GPA)), ("zero_shot.forces",), sample=6), "zero_shot.stress")


def test_the_sign_and_the_unit_of_a_stress_are_told_by_energies_of_strained_cells() -> None:
    frames = cut("cu-snap", "Elastic", 122)
    (note,) = diagnosis(parted(frames), ("stress",)).findings
    assert (note.level, note.check) == ("note", "stress.energies")
    assert "data.stress_unit=-kbar" in errors(diagnosis(parted(frames, stress_times(-10 / GPA)), ("stress",)), "stress.energies")
    other_sign = errors(diagnosis(parted(frames, stress_times(-1)), ("stress",)), "stress.energies")
    assert "negate the stresses in the file" in other_sign
    assert "kbar" not in other_sign  # their size is right already
    assert "data.stress_unit=GPa" in errors(diagnosis(parted(frames, stress_times(1 / GPA)), ("stress",)), "stress.energies")


def test_training_frames_among_the_tests_are_named_however_they_are_shifted() -> None:
    splits = acac(50)
    copies = [
        replace(frame, positions=frame.positions + 3.0, source="test.xyz", frame_id=index) for index, frame in enumerate(splits.train[:3])
    ]
    report = diagnosis(replace(splits, tests={"test": [*splits.tests["test"], *copies]}), ("structures",))
    (finding,) = report.of_check("structures.leakage")
    assert finding.level == "error"
    assert finding.frames == ("test.xyz: frame 0", "test.xyz: frame 1", "test.xyz: frame 2")
    assert "in train too" in finding.found


def test_a_frame_that_training_holds_twice_is_a_note() -> None:
    splits = acac(50)
    report = diagnosis(with_train(splits, [*splits.train, replace(splits.train[0], frame_id=900)]), ("structures",))
    (finding,) = report.of_check("structures.repeats")
    assert (finding.level, finding.frames) == ("note", ("train_300K.xyz: frame 900",))
    assert report.passed


def test_an_element_that_the_base_does_not_know_is_an_error() -> None:
    splits = acac(20)
    odd = replace(splits.train[3], atomic_numbers=np.where(splits.train[3].atomic_numbers == 8, 84, splits.train[3].atomic_numbers))
    report = diagnosis(with_train(splits, [*splits.train[:3], odd, *splits.train[4:]]), ("structures", "zero_shot"))
    (finding,) = (one for one in report.of_check("structures.elements") if one.level == "error")
    assert "Po in 1 frame" in finding.found
    assert finding.frames == (odd.name,)


def test_elements_of_the_tests_alone_are_a_warning() -> None:
    splits = acac(20)
    test = replace(splits.valid[0], atomic_numbers=np.where(splits.valid[0].atomic_numbers == 8, 16, splits.valid[0].atomic_numbers))
    assert "S in validation or test frames" in warnings(diagnosis(replace(splits, tests={"test": [test]}), ("structures",)), "structures")


def test_one_frame_with_a_force_of_100_ev_per_angstrom_is_named() -> None:
    splits = acac(100)
    forces = splits.train[7].forces.copy()
    forces[4, 0] = 100.0
    broken = replace(splits.train[7], forces=forces)
    report = diagnosis(with_train(splits, [*splits.train[:7], broken, *splits.train[8:]]))
    (finding,) = report.of_check("outliers.forces")
    assert finding.frames == (f"{broken.name} (100 eV/Å)",)
    assert diagnosis(splits).of_check("outliers.forces") == ()


def test_frames_that_are_not_looked_at_closely_are_searched_for_outliers_unknown_elements_and_repeats() -> None:
    """On disk, as sets are that this is for; the broken frames are none of the few that are spread over the part."""
    splits = acac(100)
    train = list(splits.train)
    train[7] = replace(train[7], forces=train[7].forces + 100.0)
    train[8] = replace(train[8], atomic_numbers=np.where(train[8].atomic_numbers == 8, 95, train[8].atomic_numbers))
    train[9] = replace(train[11], frame_id=train[9].frame_id)
    on_disk = StoredFrames.all_of(HeldFrames(train))
    few = examine(run_config(), splits=replace(splits, train=on_disk), potential=base(), most_frames=4, only=MODEL_FREE)
    whole = examine(run_config(), splits=with_train(splits, train), potential=base(), most_frames=None, only=MODEL_FREE)
    assert "looked at" not in whole.facts
    assert few.facts["looked at"].startswith("12 of 100 frames, evenly spaced")
    for name in ("outliers", "structures.elements", "structures.repeats"):
        assert few.of_check(name) == whole.of_check(name), name
    (force,), (repeat,) = few.of_check("outliers.forces"), few.of_check("structures.repeats")
    assert [name.partition(" (")[0] for name in force.frames] == [train[7].name]
    assert repeat.frames == (train[11].name,)
    assert "Am" in errors(few, "structures.elements")


def test_a_force_of_100_ev_per_angstrom_is_found_among_five_frames() -> None:
    frames = cut("acac", "train_300K", 5)
    forces = frames[2].forces.copy()
    forces[4, 0] = 100.0
    broken = replace(frames[2], forces=forces)
    (finding,) = diagnosis(parted([*frames[:2], broken, *frames[3:]]), ("outliers.forces",)).findings
    assert finding.frames == (f"{broken.name} (100 eV/Å)",)
    assert diagnosis(parted(frames), ("outliers.forces",)).findings == ()


def test_free_atoms_among_the_frames_are_named_and_no_outliers() -> None:
    splits = acac(40)
    atoms = list(frames_of("acac", "isolated_atoms"))
    assert all(len(frame) == 1 for frame in atoms)
    (finding,) = diagnosis(with_train(splits, [*atoms, *splits.train]), ("outliers", "structures.free_atoms")).findings
    assert (finding.check, finding.level, finding.frames) == ("structures.free_atoms", "warning", tuple(frame.name for frame in atoms))
    assert diagnosis(splits, ("structures.free_atoms",)).findings == ()


def test_one_frame_with_another_energy_is_named() -> None:
    splits = acac(100)
    broken = replace(splits.train[7], energy=splits.train[7].energy + 27.0)
    (finding,) = diagnosis(with_train(splits, [*splits.train[:7], broken, *splits.train[8:]])).of_check("outliers.energies")
    assert [name.partition(" (")[0] for name in finding.frames] == [broken.name]


@pytest.mark.parametrize(
    ("theory", "level"),
    [
        ("PBE, VASP", "note"),
        ("PBE+U", "note"),
        ("RPBE (OC20)", "warning"),
        ("omegaB97X/6-31G(d)", "warning"),
        ("PBE+D3/def2-SVP", "warning"),
        ("", "note"),
        ("CASPT2", "note"),
    ],
)
def test_another_level_of_theory_than_the_base_is_a_warning(theory: str, level: str) -> None:
    splits = parted(cut("acac", "train_300K", 10), level_of_theory=theory)
    (finding,) = diagnosis(splits, ("theory",)).findings
    assert (finding.level, finding.check) == (level, "theory.level")


@skip_without("mace")
def test_the_wrong_head_is_told_by_the_forces_of_the_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("heads") / "heads.model"
    torch.save(load_family("mace").more_toys["two heads"](0).upstream_checkpoint({}), path)
    models = {head: zoo.load(path, head=head, trust_pickle=True) for head in ("mp", "omol")}
    frames = cut("acac", "train_300K", 12)
    labelled = [
        replace(frame, energy=one.energy, forces=one.forces) for frame, one in zip(frames, models["omol"].predict(frames), strict=True)
    ]
    config = run_config()
    config = config.model_copy(
        update={"backbone": config.backbone.model_copy(update={"name": str(path), "trust_pickle": True, "dtype": None})}
    )
    found = {head: examine(config, splits=parted(labelled), potential=models[head], only=["heads"]) for head in models}
    assert "backbone.head=omol" in errors(found["mp"], "heads.fit")
    assert found["omol"].passed


def test_the_wrong_head_of_a_published_base_is_a_warning_that_names_the_right_one() -> None:
    """Heads of two functionals differ by less than a factor of 3, and a wish for the other one is conceivable: no error, unless strict."""
    frames = [frame for frame in cut("mptrj-1k", "frames", 300, most_atoms=8) if np.abs(frame.forces).max() > 0.3][:12]
    config = run_config()
    for head, level in (("PBE", "note"), ("R2SCAN", "warning")):
        backbone = config.backbone.model_copy(update={"name": "sevennet-mf-0", "head": head})
        given, potential = config.model_copy(update={"backbone": backbone}), zoo.load("sevennet-mf-0", head=head)
        report = examine(given, splits=parted(frames, level_of_theory="PBE/PBE+U"), potential=potential, only=["heads", "theory"])
        assert {finding.level for finding in report.findings} == {level}
        for check in ("heads.fit", "theory.level"):
            assert ("backbone.head=PBE" in warnings(report, check)) is (level == "warning")


def test_frames_in_another_length_unit_have_no_neighbours() -> None:
    splits = acac(20, lambda frame: replace(frame, positions=frame.positions * 10))
    report = diagnosis(splits, ("neighbours",))
    (finding,) = report.findings
    assert finding.level == "error"
    assert "20 of 20 frames have no pair" in finding.found
    assert len(finding.frames) == 20


def test_forces_per_bohr_are_told_from_forces_per_angstrom() -> None:
    assert "per Bohr" in errors(diagnosis(acac(change=forces_times(0.529177)), ("forces",)), "forces.energies")


def test_atoms_on_top_of_each_other_are_found() -> None:
    splits = acac(20)
    positions = splits.train[2].positions.copy()
    positions[1] = positions[0] + 1e-4
    report = diagnosis(with_train(splits, [*splits.train[:2], replace(splits.train[2], positions=positions)]), ("structures.distances",))
    assert "two atoms at one place" in errors(report, "structures.distances")


def test_total_energies_in_float32_are_told_from_full_ones() -> None:
    assert diagnosis(acac(50), ("energies.precision",)).findings == ()
    (finding,) = diagnosis(acac(50, lambda frame: replace(frame, energy=float(np.float32(frame.energy)))), ("energies.precision",)).findings
    assert "float32 of eV: steps of 0.977 meV a frame" in finding.found
    (finding,) = diagnosis(acac(50, lambda frame: replace(frame, energy=round(frame.energy, 1))), ("energies.precision",)).findings
    assert (finding.level, "1 decimals of eV" in finding.found) == ("warning", True)


def test_isolated_atoms_in_another_unit_are_an_error() -> None:
    splits = acac(20)
    atoms = {number: energy / HARTREE for number, energy in (splits.isolated_atom_energies or {}).items()}
    broken = replace(splits, origin=replace(splits.origin, isolated_atom_energies=atoms))
    assert "unit" in errors(diagnosis(broken, ("energies",)), "energies.isolated_atoms")


@pytest.mark.parametrize("label", ["forces", "stress"])
def test_labels_that_are_all_zero_are_placeholders(label: str) -> None:
    frames = cut("mptrj-1k", "frames", 20)
    change: Callable[[Frame], Frame] = lambda frame: replace(frame, **{label: np.zeros_like(getattr(frame, label))})  # noqa: E731
    assert f"the {label} of all 20 frames are exactly zero" in errors(diagnosis(parted(frames, change), ("labels",)), "labels.zeros")


def test_forces_that_are_zero_by_symmetry_are_no_placeholders() -> None:
    """Strained perfect crystals, an honest set; the same zeros on structures without symmetry are placeholders."""
    elastic = [frame for frame in cut("cu-snap", "Elastic", 122) if not frame.forces.any()]
    (note,) = diagnosis(parted(elastic), ("labels.zeros",)).findings
    assert (note.level, "as the symmetry of these structures demands" in note.found) == ("note", True)
    moved = [frame for frame in cut("mptrj-1k", "frames", 40) if np.abs(frame.forces).max() > 0.05]
    some = [replace(frame, forces=np.zeros_like(frame.forces)) for frame in moved[:3]]
    (warning,) = diagnosis(parted([*some, *elastic, *moved[3:]]), ("labels.zeros",)).findings
    assert (warning.level, sorted(warning.frames)) == ("warning", sorted(frame.name for frame in some))


def test_an_adapter_that_does_not_start_at_the_base_is_found() -> None:
    potential = zoo.load("sevennet-0", adapter="elora")
    splits = acac(10)
    clean = diagnosis(splits, ("training.step_0",), potential)
    assert [finding.level for finding in clean.findings] == ["note"]
    potential.adapters.randomise("elora", 0, 0.1)
    assert "step 0 differs from the base" in errors(diagnosis(splits, ("training.step_0",), potential), "training.step_0")


def test_the_cost_of_a_run_is_estimated_and_nothing_is_trained() -> None:
    potential = zoo.load("sevennet-0", adapter={"name": "elora", "rank": 2})
    before = {name: tensor.detach().clone() for name, tensor in potential.adapters.named_parameters()}
    random_state = torch.random.get_rng_state()
    (finding,) = diagnosis(acac(10), ("training.cost",), potential).findings
    assert "200 steps of 2 frames take about" in finding.found
    assert torch.equal(torch.random.get_rng_state(), random_state)
    for name, tensor in potential.adapters.named_parameters():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None
    assert not potential.training
