"""The equivariance check passes a correct potential and catches each fault planted in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from torch import Tensor

from zoo.data.frame import FloatArray, Frame
from zoo.errors import ZooError
from zoo.evaluation import finite_differences
from zoo.evaluation.equivariance import DERIVATIVE_TOLERANCE, EquivarianceReport, check_equivariance
from zoo.evaluation.finite_differences import stress_residual
from zoo.evaluation.transformations import random_rotation
from zoo.graph import AtomGraph, collate

CUTOFF = 4.0


@dataclass
class Answer:
    energy: float
    forces: FloatArray
    stress: FloatArray | None


class PairPotential:
    """Lennard-Jones with a smooth cutoff and a large constant per atom, plus one planted fault.

    Faults: "axis" (the energy knows the x axis), "chiral" (changes sign under inversion), "order" (atoms early in the list are special),
    "batch" (depends on the batch), "origin" (knows where the origin is), "mirrored" (offsets subtracted), "forces" and "stress" (1e-5 too
    large), "square" (not extensive), "nan". ``kink``, which is no fault, is where, in Å, the pair energy's second derivative jumps.
    """

    def __init__(self, fault: str = "", symmetry: str = "O(3)", dtype: torch.dtype = torch.float32, *, kink: float | None = None) -> None:
        self.fault, self.dtype, self.kink = fault, dtype, kink
        self.conservative = True
        self.backbone = SimpleNamespace(
            symmetry=symmetry,
            extensive=True,
            reads_charge=False,
            smooth_cutoff=True,
            max_neighbours=None,
            aliasing_floor=0.0,
            equivariant_stress=True,
        )

    def to_dtype(self, dtype: torch.dtype, /) -> PairPotential:
        return PairPotential(self.fault, self.backbone.symmetry, dtype, kink=self.kink)

    def predict(self, frames: Sequence[Frame], /, batch_size: int = 8) -> list[Answer]:
        return [answer for i in range(0, len(frames), batch_size) for answer in self._batch(frames[i : i + batch_size])]

    def _batch(self, frames: Sequence[Frame]) -> list[Answer]:
        graph = collate([AtomGraph.from_frame(frame, CUTOFF) for frame in frames])
        positions = graph.positions.to(self.dtype).requires_grad_()
        strain = torch.zeros((len(frames), 3, 3), dtype=self.dtype, requires_grad=True)
        graph.positions = positions + torch.einsum("ni,nij->nj", positions, strain[graph.graph_of_atom])
        graph.cell = graph.cell.to(self.dtype) @ (torch.eye(3, dtype=self.dtype) + strain)
        energies = self._energies(graph)
        gradient, strain_gradient = torch.autograd.grad(energies.sum(), (positions, strain))
        counts = [len(frame) for frame in frames]
        answers = []
        for frame, energy, force, d_strain in zip(frames, energies, gradient.split(counts), strain_gradient, strict=True):
            stress = None
            if frame.pbc.all():
                d_strain = (d_strain + d_strain.T) / 2
                stress = d_strain.detach().numpy() / abs(np.linalg.det(frame.cell)) * (1 + 1e-5 * (self.fault == "stress"))
            forces = -force.detach().numpy() * (1 + 1e-5 * (self.fault == "forces"))
            answers.append(Answer(float("nan") if self.fault == "nan" else energy.item(), forces, stress))
        return answers

    def _energies(self, graph: AtomGraph) -> Tensor:
        if self.fault == "mirrored":
            graph.edge_shift = -graph.edge_shift
        vectors = graph.edge_vectors()  # (E, 3)
        centre = graph.edge_index[1]
        r = vectors.norm(dim=1)
        strength = 0.2 + 0.01 * graph.atomic_numbers[graph.edge_index].sum(0).to(self.dtype) / 10
        envelope = (1 - (r / CUTOFF).clamp(max=1) ** 2) ** 4
        pair = 0.5 * envelope * strength * ((1.8 / r) ** 8 - (1.8 / r) ** 4)
        if self.fault == "axis":
            pair = pair * (1 + 1e-6 * vectors[:, 0] ** 2)
        if self.kink is not None:
            pair = pair + 0.5 * (r - self.kink).clamp(min=0) ** 2 * envelope
        atom = torch.full((graph.num_nodes,), -600.0, dtype=self.dtype).index_add(0, centre, pair)
        if self.fault == "origin":
            atom = atom + 1e-6 * graph.positions.norm(dim=1)
        if self.fault == "chiral":
            weights = [envelope * torch.exp(-((r - at) ** 2)) for at in (1.0, 2.0, 3.0)]
            a, b, c = (torch.zeros_like(graph.positions).index_add(0, centre, w[:, None] * vectors) for w in weights)
            atom = atom + 0.1 * (a * torch.linalg.cross(b, c)).sum(1)
        if self.fault == "order":
            atom = atom.index_add(0, centre, 1e-5 * pair * (centre < graph.graph_of_atom.bincount()[0] // 2))
        energies = torch.zeros(graph.graph_count, dtype=self.dtype).index_add(0, graph.graph_of_atom, atom)
        if self.fault == "batch":
            energies = energies + 1e-5 * graph.graph_count
        return energies + 1e-6 * graph.atom_counts**2 if self.fault == "square" else energies


def frames() -> list[Frame]:
    copper = bulk("Cu", cubic=True)
    copper.set_cell(copper.cell.array @ [[1, 0.1, 0], [0, 1.02, 0.05], [0, 0, 0.97]], scale_atoms=True)
    atoms = [molecule("CH3CH2OH"), fcc111("Cu", (1, 1, 2), vacuum=5), copper]
    return [Frame.unlabelled(structure, "test", index) for index, structure in enumerate(atoms)]


def failed(report: EquivarianceReport) -> set[str]:
    return {row.test for row in report.rows if row.status == "FAILED"}


def test_a_correct_potential_passes_every_row() -> None:
    report = check_equivariance(PairPotential(), frames())
    assert report.passed, report.text()
    assert {row.test for row in report.rows} == {
        "rotation", "translation", "periodic image", "permutation", "extensivity", "batching", "inversion", "finite differences"
    }  # fmt: skip
    assert {row.quantity for row in report.rows if row.test == "finite differences"} == {"forces", "stress"}
    assert report.force_scale_ev_per_angstrom > 0.01


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("axis", "rotation"),
        ("origin", "translation"),
        ("mirrored", "periodic image"),
        ("order", "permutation"),
        ("square", "extensivity"),
        ("batch", "batching"),
        ("chiral", "inversion"),
        ("forces", "finite differences"),
        ("stress", "finite differences"),
        ("nan", "rotation"),
    ],
)
def test_each_planted_fault_fails_its_own_test(fault: str, test: str) -> None:
    report = check_equivariance(PairPotential(fault), frames())
    assert not report.passed
    assert test in failed(report), report.text()


def test_inversion_is_measured_but_not_required_of_a_potential_that_claims_so3_only() -> None:
    report = check_equivariance(PairPotential("chiral", symmetry="SO(3)"), frames())
    rows = [row for row in report.rows if row.test == "inversion"]
    assert report.passed, report.text()
    assert max(row.residual for row in rows) > 1e-6
    assert {row.status for row in rows} == {"not claimed"}
    assert not [name for name in report.residuals() if name.startswith("inversion")]


def test_an_error_of_a_millionth_is_not_hidden_by_energies_of_thousands_of_ev() -> None:
    rows = check_equivariance(PairPotential("axis"), frames()).rows
    energy = next(row for row in rows if (row.test, row.quantity) == ("rotation", "energy"))
    assert energy.residual > 10 * energy.tolerance


def test_a_perfect_crystal_is_rattled_so_that_its_forces_are_compared() -> None:
    crystal = [Frame.unlabelled(bulk("Cu", cubic=True))]
    assert np.abs(PairPotential(dtype=torch.float64).predict(crystal)[0].forces).max() < 1e-12
    assert check_equivariance(PairPotential(), crystal).force_scale_ev_per_angstrom > 1e-3
    assert not check_equivariance(PairPotential("forces"), crystal).passed


def test_frames_without_any_force_are_refused_since_zeros_pass_everything() -> None:
    with pytest.raises(ZooError, match="zero forces pass every test"):
        check_equivariance(PairPotential(), [Frame.unlabelled(Atoms("Cu"))])
    with pytest.raises(ZooError, match="no frames given"):
        check_equivariance(PairPotential(), [])


def test_molecules_alone_are_checked_without_stress_and_the_report_says_so() -> None:
    report = check_equivariance(PairPotential(), frames()[:1])
    assert report.passed
    assert "stress" not in {row.quantity for row in report.rows}
    assert "stress: not tested" in report.text()


def test_the_check_is_reproducible_and_leaves_potential_and_frames_alone() -> None:
    potential, structures = PairPotential(), frames()
    before = [replace(frame, positions=frame.positions.copy()) for frame in structures]
    assert check_equivariance(potential, structures, seed=3) == check_equivariance(potential, structures, seed=3)
    assert potential.dtype == torch.float32
    for old, new in zip(before, structures, strict=True):
        np.testing.assert_array_equal(old.positions, new.positions)


def test_given_rotations_are_used() -> None:
    quarter_turn_about_x = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    report = check_equivariance(PairPotential("axis"), frames(), rotations=[quarter_turn_about_x])
    assert "rotation" not in failed(report), "the planted fault knows the x axis only, which this rotation keeps"


def next_kink(crystal: Frame) -> float:
    """Å: just above a pair's distance, so that strains and displacements of 1e-3 pass it and smaller ones do not."""
    lengths = AtomGraph.from_frame(crystal, CUTOFF).edge_vectors().norm(dim=1)
    return float(lengths.sort().values[0]) + 1.2e-3


def test_a_cutoff_function_whose_second_derivative_jumps_is_no_wrong_force_or_stress(monkeypatch: pytest.MonkeyPatch) -> None:
    crystal = frames()[2]
    crystal = replace(crystal, positions=crystal.positions + 0.05 * np.random.default_rng(0).standard_normal(crystal.positions.shape))
    kink = next_kink(crystal)

    def report(fault: str) -> EquivarianceReport:
        return check_equivariance(PairPotential(fault, kink=kink), [crystal], rattle_angstrom=0.0)

    assert report("").passed, report("").text()
    for fault in ("forces", "stress"):
        wrong = {(row.test, row.quantity) for row in report(fault).rows if row.status == "FAILED"}
        assert wrong == {("finite differences", fault)}
    monkeypatch.setattr(finite_differences, "STEPS", finite_differences.STEPS[:1])
    assert failed(report("")) == {"finite differences"}, "the kink is passed by the first step, or this test shows nothing"


def test_the_stress_of_sevennet_0_passes_where_a_pair_is_at_the_onset_of_its_cutoff_function(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoo

    exact = zoo.load("sevennet-0", dtype="float64")
    copper = bulk("Cu", a=3.61, cubic=True)
    copper.positions += 0.05 * np.random.default_rng(2).standard_normal((4, 3))  # a pair at 4.4989 Å, and the onset at 4.5 Å
    frame = Frame.unlabelled(copper)
    stress = exact.predict([frame])[0].stress
    accepted = DERIVATIVE_TOLERANCE * np.abs(stress).max()
    assert stress_residual(exact, frame, stress, accepted=accepted) <= accepted
    monkeypatch.setattr(finite_differences, "STEPS", finite_differences.STEPS[:1])
    assert stress_residual(exact, frame, stress, accepted=accepted) > 5 * accepted


def test_random_rotations_are_proper_and_orthogonal() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        rotation = random_rotation(generator)
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
