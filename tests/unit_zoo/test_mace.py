"""MACE: the package's numbers under our graphs, every block, heads, elements, and torch's protection left on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

import zoo
from adapters.blocks import find_blocks
from tests.refusals import refusal_of
from zoo.backbones.mace import Mace, from_state, random_toy
from zoo.backbones.mace_checkpoint import read_checkpoint
from zoo.backbones.mace_network import MaceConfig
from zoo.backbones.mace_toys import MORE_TOYS, TOY, toy_config
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.probes import probe_frames
from zoo.potential import Potential

# ways through the network that the contract tests do not take
OTHERS: dict[str, MaceConfig] = {
    "three layers, scalars": toy_config(num_interactions=3, hidden_irreps="6x0e", correlation=(2, 2, 2)),
    "unnatural parity": toy_config(hidden_irreps="4x0e+4x0o+4x1o+4x1e"),  # paths that cannot be: weights that reach nothing
    "rotations only": toy_config(use_so3=True, hidden_irreps="4x0e+4x1e"),
    "attention": toy_config(interaction_cls="RealAgnosticAttResidualInteractionBlock"),
}
VARIANTS: dict[str, MaceConfig] = {"density": TOY, **MORE_TOYS, **OTHERS}
STRUCTURES = [
    Atoms("CuAuC", [[0.1, 0, 0], [1.8, 1.9, 1.7], [0.3, 1.7, 0.2]], cell=[[3.6, 0.2, 0], [0, 3.5, 0.3], [0.1, 0, 3.7]], pbc=True),
    Atoms("HCO", [[0, 0, 0], [1.0, 0.3, 0], [1.9, -0.2, 0.6]]),
]


def toy(variant: str, seed: int = 0) -> Mace:
    return random_toy(VARIANTS[variant], seed)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def default_dtype_restored():
    yield
    torch.set_default_dtype(torch.float32)


def test_every_block_gives_the_numbers_of_maces_own_calculator(variant, default_dtype_restored):
    from mace.calculators import MACECalculator

    backbone = toy(variant)
    predictions = Potential(backbone).predict(STRUCTURES)
    assert torch.get_default_dtype() == torch.float32
    torch.set_default_dtype(torch.float64)  # without it mace's pair repulsion computes in float32, whatever the model is in
    head = {"head": backbone.head} if backbone.head else {}
    calculator = MACECalculator(models=[backbone.network], device="cpu", default_dtype="float64", **head)
    for atoms, prediction in zip(STRUCTURES, predictions, strict=True):
        atoms = atoms.copy()
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(prediction.energy, abs=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), prediction.forces, atol=1e-12)
        assert np.abs(prediction.forces).max() > 1e-4
        if prediction.stress is not None:
            np.testing.assert_allclose(atoms.get_stress(voigt=False), prediction.stress, atol=1e-14)


@pytest.mark.parametrize("other", OTHERS)
def test_the_blocks_without_contract_tests_are_equivariant_and_wholly_covered_by_rules(other):
    backbone = toy(other)
    coverage = find_blocks(backbone, backbone.adapter_roles)
    assert "other" not in coverage.roles
    assert {"readout", "radial", "contraction", "linear", "embedding"} <= set(coverage.roles)
    report = check_equivariance(Potential(backbone), probe_frames(backbone.elements)[::3])
    assert report.passed, report.text()
    assert report.symmetry == ("SO(3)" if other == "rotations only" else "O(3)")


def test_every_block_goes_through_a_file_and_to_float32_and_back(variant, tmp_path: Path):
    backbone = toy(variant)
    torch.save(backbone.upstream_checkpoint({}), tmp_path / "toy.model")
    config, state = read_checkpoint(tmp_path / "toy.model")
    assert config == backbone.config
    own = backbone.network.state_dict()
    assert own.keys() == state.keys()
    assert [name for name, value in own.items() if not torch.equal(state[name], value)] == []
    loaded = zoo.load(tmp_path / "toy.model", head=backbone.head)
    assert loaded.backbone.convention == backbone.convention == "e3nn-0.6"
    expected = Potential(backbone).predict(STRUCTURES)
    twin = Potential(backbone.rebuilt(torch.float32).rebuilt(torch.float64)).predict(STRUCTURES)
    for found, rounded, wanted in zip(loaded.predict(STRUCTURES), twin, expected, strict=True):
        assert found.energy == wanted.energy
        assert np.array_equal(found.forces, wanted.forces)
        assert 0 < np.abs(rounded.forces - wanted.forces).max() < 1e-5


def test_a_model_saved_by_mace_itself_under_this_e3nn_is_read(tmp_path: Path):
    backbone = toy("density")
    torch.save(backbone.network, tmp_path / "own.model")  # e3nn's generated code as fx graphs, not TorchScript
    loaded = zoo.load(tmp_path / "own.model")
    assert loaded.predict(STRUCTURES)[0].energy == Potential(backbone).predict(STRUCTURES)[0].energy


def test_an_edge_vector_of_the_wrong_sign_is_caught_by_the_forces(monkeypatch):
    from zoo.graph import AtomGraph

    potential = Potential(toy("rotations only"))  # an O(3) model is the same function of the mirrored edges
    honest = AtomGraph.edge_vectors
    expected = potential.predict(STRUCTURES)
    monkeypatch.setattr(AtomGraph, "edge_vectors", lambda graph: -honest(graph))
    mirrored = potential.predict(STRUCTURES)
    assert np.abs(mirrored[0].forces - expected[0].forces).max() > 1e-6


def test_a_head_is_chosen_by_name_and_the_heads_differ(tmp_path: Path):
    torch.save(toy("two heads").upstream_checkpoint({}), tmp_path / "heads.model")
    with pytest.raises(ZooError, match=r"several heads and none was chosen; pass head= one of: mp, omol"):
        zoo.load(tmp_path / "heads.model")
    with pytest.raises(ZooError, match=r"unknown head 'pbe'; known: mp, omol"):
        zoo.load(tmp_path / "heads.model", head="pbe")
    energies = [zoo.load(tmp_path / "heads.model", head=head).predict(STRUCTURES[:1])[0].energy for head in ("mp", "OMOL")]
    assert abs(energies[0] - energies[1]) > 0.1


def test_reference_energies_are_written_into_the_head_in_use(tmp_path: Path):
    backbone = toy("two heads")
    chosen = Potential(Mace(backbone.network, backbone.config, "omol", backbone.convention))
    chosen.set_reference_shifts({6: 0.25})
    chosen.save_upstream_checkpoint(tmp_path / "shifted.model")
    expected = chosen.predict(STRUCTURES)[0].energy
    assert zoo.load(tmp_path / "shifted.model", head="omol").predict(STRUCTURES)[0].energy == pytest.approx(expected, abs=1e-12)
    bare = Potential(backbone).predict(STRUCTURES)[0].energy
    assert zoo.load(tmp_path / "shifted.model", head="mp").predict(STRUCTURES)[0].energy == pytest.approx(bare, abs=1e-12)


def reduced(backbone: Mace) -> Mace:
    """The model in a basis of contractions with fewer paths, as cuequivariance has it; here the last paths are left out."""
    state = dict(backbone.network.state_dict())
    for name in [name for name in state if name.endswith("U_matrix_2") and state[name].shape[-1] > 1]:
        weights = name.replace("U_matrix_2", "weights_max")
        state[name], state[weights] = state[name][..., :-1].contiguous(), state[weights][:, :-1].contiguous()
    return from_state(backbone.config, state, None, "reduced")


@pytest.mark.parametrize("elements", [[29], [79, 6, 29]])
def test_a_model_in_another_basis_of_contractions_is_cut_to_elements(elements):
    whole = reduced(toy("density"))
    assert whole.convention.startswith("signs-")
    atoms = Atoms("Cu2", [[0, 0, 0], [2.2, 0.3, 0.1]])
    one, other = (Potential(backbone).predict([atoms])[0] for backbone in (whole, whole.restricted_to(elements)))
    assert other.energy == pytest.approx(one.energy, abs=1e-12)
    np.testing.assert_allclose(other.forces, one.forces, atol=1e-13)
    assert np.abs(one.forces - Potential(toy("density")).predict([atoms])[0].forces).max() > 1e-6  # the paths left out did count


@pytest.mark.parametrize("name", ["residual", "plain", "density with ZBL", "nonlinear", "two heads"])
def test_a_model_cut_to_some_elements_is_the_same_on_them(name):
    backbone = toy(name)
    smaller = backbone.restricted_to([29, 6, 79])
    assert smaller.elements == (6, 29, 79)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in backbone.parameters())
    frame = Frame.unlabelled(STRUCTURES[0])
    one, other = Potential(backbone).predict([frame])[0], Potential(smaller).predict([frame])[0]
    assert other.energy == pytest.approx(one.energy, abs=1e-12)
    np.testing.assert_allclose(other.forces, one.forces, atol=1e-13)
    with pytest.raises(ZooError, match="does not know"):
        Potential(smaller).predict([STRUCTURES[1]])
    with pytest.raises(ZooError, match=r"cannot restrict the model to \[2\]"):
        backbone.restricted_to([2])


_HOSTILE = """
import os, torch
from pathlib import Path
assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
from zoo.backbones import load_family
load_family("mace").toy(0)
import mace, sys
assert "mace.modules" in sys.modules
class Payload:
    def __reduce__(self):
        return os.mkdir, ({target!r},)
torch.save(Payload(), {file!r})
try:
    torch.load({file!r})
except Exception as error:
    print(type(error).__name__)
torch.load({file!r}, weights_only=False)
"""


def test_torchs_protection_is_on_after_mace_was_imported_through_us(tmp_path: Path):
    """The last line of the script is the positive control: the file would have run."""
    target = tmp_path / "executed"
    script = _HOSTILE.format(target=str(target), file=str(tmp_path / "hostile.pt"))
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["UnpicklingError"]
    assert target.is_dir()


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("trust_pickle", [False, True])
def test_a_model_that_would_run_code_is_refused_or_read_without_running_it(tmp_path: Path, trust_pickle: bool):
    network = toy("density").upstream_checkpoint({})
    network.payload = _Payload(tmp_path / "executed")
    torch.save(network, tmp_path / "hostile.model")
    if trust_pickle:
        assert zoo.load(tmp_path / "hostile.model", trust_pickle=True).backbone.family == "mace"
    else:
        with pytest.raises(ZooError, match=r"hostile\.model: the file would run code .*mkdir.*trust_pickle=True"):
            zoo.load(tmp_path / "hostile.model")
    assert not (tmp_path / "executed").exists()


def test_a_damaged_or_truncated_model_is_one_line(tmp_path: Path):
    path = tmp_path / "toy.model"
    torch.save(toy("density").upstream_checkpoint({}), path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], content[:1000] + bytes([content[1000] ^ 0x41]) + content[1001:]):
        path.write_bytes(damaged)
        assert "toy.model: " in refusal_of(zoo.load, path)


def test_a_model_of_another_kind_is_named(tmp_path: Path):
    network = toy("density").upstream_checkpoint({})
    import mace.modules

    network.__class__ = mace.modules.EnergyDipolesMACE
    torch.save(network, tmp_path / "dipoles.model")
    with pytest.raises(ZooError, match=r"EnergyDipolesMACE, wanted MACE or ScaleShiftMACE"):
        zoo.load(tmp_path / "dipoles.model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda network: setattr(network.interactions[1], "avg_num_neighbors", 7.0), r"layers differ in avg_num_neighbors \(3\.0, 7\.0\)"),
        (lambda network: delattr(network, "heads"), "reference energies of shape .* for 1 heads"),
        (lambda network: setattr(network, "heads", ["mp", "MP"]), "two heads have the same name"),
    ],
    ids=["layers", "no heads", "same heads"],
)
def test_a_model_whose_parts_contradict_one_another_is_refused(tmp_path: Path, change, message: str):
    network = toy("two heads").upstream_checkpoint({})
    change(network)
    torch.save(network, tmp_path / "changed.model")
    with pytest.raises(ZooError, match=rf"changed\.model: .*{message}"):
        zoo.load(tmp_path / "changed.model", head="mp")
