"""NequIP and Allegro give upstream's own numbers, leave the process as it was, and come back out as upstream's files."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import e3nn
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

import zoo
from tests.families import needs
from tests.unit_zoo.round_trip import TOLERANCE, difference, numbers, upstream
from zoo.backbones import load_family
from zoo.backbones.nequip import NequIPFramework, toy_config
from zoo.backbones.nequip_build import build_graph_model, contained_global_state
from zoo.graph import AtomGraph
from zoo.potential import Potential

SPECIES = ["H", "C", "O", "Cu", "Au"]
ZBL = {"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": SPECIES}
NEQUIP = {"_target_": "nequip.model.NequIPGNNModel", "num_layers": 3, "num_features": [8, 4], "radial_mlp_width": 8, "num_bessels": 4}
ALLEGRO = {
    "_target_": "allegro.model.AllegroModel",
    "l_max": 2,
    "radial_chemical_embed": {"_target_": "allegro.nn.TwoBodyBesselScalarEmbed", "num_bessels": 4, "bessel_trainable": True},
    "num_layers": 2,
    "num_scalar_features": 8,
    "num_tensor_features": 4,
}
SPLINE = {"_target_": "allegro.nn.TwoBodySplineScalarEmbed", "num_splines": 8, "spline_span": 6}
VARIANTS: dict[str, dict[str, Any]] = {
    "with pseudo-tensors": NEQUIP,
    "without, l = 2, with ZBL": {**NEQUIP, "parity": False, "l_max": 2, "num_features": [8, 4, 2], "pair_potential": ZBL},
    "preset with trainable frequencies and scales": {
        **{"_target_": "nequip.model.PresetNequIPGNNModel", "preset": "S", "num_features": [8, 4]},
        **{"bessel_trainable": True, "per_type_energy_scales_trainable": True, "per_type_energy_shifts_trainable": True},
    },
    "cutoffs by pair of elements": {**NEQUIP, "per_edge_type_cutoff": {"H": 2.5, "C": {"H": 2.5, "O": 3.5}}, "parity": True},
    "neighbours by element, deep readout": {
        **NEQUIP,
        **{"avg_num_neighbors": dict(zip(SPECIES, (2.0, 3.0, 4.0, 12.0, 12.0), strict=True)), "readout_mlp_hidden_layers_depth": 1},
    },
    "harmonics of even parity": {
        **{
            "_target_": "nequip.model.FullNequIPGNNModel",
            "radial_mlp_depth": [1, 1, 1],
            "radial_mlp_width": [8, 8, 8],
            "type_embed_num_features": 4,
        },
        **{"irreps_edge_sh": "0e+1e+2e", "feature_irreps_hidden": ["4x0e+4x1e+2x2e", "4x0e+4x1e+2x2e", "4x0e"]},
    },
    "allegro": ALLEGRO,
    "allegro, splines, ZBL, uncoupled": {
        **ALLEGRO,
        "radial_chemical_embed": SPLINE,
        "pair_potential": ZBL,
        "tp_path_channel_coupling": False,
    },
}


IN_FLOAT32 = ("without, l = 2, with ZBL", "preset with trainable frequencies and scales", "allegro")


def config_of(variant: str, seed: int = 3) -> dict[str, Any]:
    needs("allegro" if "allegro" in variant else "nequip")
    full = VARIANTS[variant]["_target_"].endswith("FullNequIPGNNModel")  # states irreps itself, so it takes no l_max and no parity
    common = {key: value for key, value in toy_config(seed).items() if not (full and key in ("l_max", "parity"))}
    return {**common, **VARIANTS[variant]}


def structures() -> dict[str, Atoms]:
    generator = np.random.default_rng(4)
    crystal = Atoms("Cu3Au", 1.9 * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 0]]), cell=[3.8] * 3, pbc=True)
    crystal.set_cell(crystal.cell.array @ np.array([[1.02, 0.07, 0.0], [0.0, 0.98, -0.09], [0.05, 0.0, 1.01]]), scale_atoms=True)
    found = {"molecule": molecule("CH3OH"), "crystal": crystal, "slab": fcc111("Cu", (1, 1, 3), vacuum=6.0)}
    for atoms in found.values():
        atoms.positions += 0.07 * generator.standard_normal(atoms.positions.shape)
    return found


def upstream_results(config: dict[str, Any], dtype: torch.dtype, atoms: Atoms) -> tuple[float, Any, Any]:
    """Energy, forces and stress (None for a molecule) of upstream's own network, drawn from the same seed, in upstream's own calculator."""
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator

    transforms = [ChemicalSpeciesToAtomTypeMapper(config["type_names"]), NeighborListTransform(config["r_max"])]
    computed = atoms.copy()
    computed.calc = NequIPCalculator(build_graph_model(config, dtype), "cpu", transforms=transforms)
    with contained_global_state():  # upstream's calculator reads structures in the default dtype, which is float64 in its own processes
        stress = computed.get_stress(voigt=False) if atoms.pbc.all() else None
        return computed.get_potential_energy(), computed.get_forces(), stress


@pytest.mark.parametrize(
    ("variant", "dtype", "tolerance"),
    [(variant, torch.float64, 1e-12) for variant in VARIANTS] + [(variant, torch.float32, 1e-5) for variant in IN_FLOAT32],
)
def test_energy_forces_and_stress_are_upstreams(variant, dtype, tolerance):
    config = config_of(variant)
    potential = Potential(NequIPFramework(config, dtype))
    for atoms in structures().values():
        energy, forces, stress = upstream_results(config, dtype, atoms)
        found = potential.predict([atoms])[0]
        scale = max(1.0, float(np.abs(forces).max()))  # ZBL repels a rattled hydrogen with tens of eV/Å
        assert np.abs(forces).max() > 1e-4
        assert abs(found.energy - energy) / len(atoms) < tolerance * scale
        assert np.abs(found.forces - forces).max() < tolerance * scale
        if stress is not None and found.stress is not None:
            assert np.abs(stress).max() > 1e-5
            assert np.abs(found.stress - stress).max() < tolerance


def test_edges_of_the_wrong_sign_are_caught_where_they_matter(monkeypatch):
    """In an O(3) model they don't: the mirrored structure has the same energy, and the forces that belong to it."""
    config = config_of("harmonics of even parity")
    atoms = structures()["crystal"]
    forces = upstream_results(config, torch.float64, atoms)[1]
    honest = AtomGraph.edge_vectors
    monkeypatch.setattr(AtomGraph, "edge_vectors", lambda graph: -honest(graph))
    mirrored = Potential(NequIPFramework(config, torch.float64)).predict([atoms])[0]
    assert np.abs(mirrored.forces - forces).max() > 1e-5


def test_the_pair_term_of_the_configuration_is_kept():
    variant = "without, l = 2, with ZBL"
    bare = {key: value for key, value in config_of(variant).items() if key != "pair_potential"}
    close = Atoms("CuAu", [[0, 0, 0], [0, 0, 1.0]])
    energies = [Potential(NequIPFramework(config, torch.float64)).predict([close])[0].energy for config in (config_of(variant), bare)]
    assert energies[0] - energies[1] > 10


def test_the_group_is_read_from_the_harmonics_and_not_from_the_parity_setting():
    assert load_family("nequip").toy(0).symmetry == "O(3)"
    assert NequIPFramework(config_of("without, l = 2, with ZBL"), torch.float64).symmetry == "O(3)"
    assert NequIPFramework(config_of("harmonics of even parity"), torch.float64).symmetry == "SO(3)"


def process_state() -> dict[str, Any]:
    from nequip.utils import global_state

    return {
        "default dtype": torch.get_default_dtype(),
        "e3nn": e3nn.get_optimization_defaults(),
        "environment": {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"},
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(np.random.get_state()),
        "python generator": random.getstate(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "threads": torch.get_num_threads(),
        "nequip": (global_state._GLOBAL_STATE_INITIALIZED, dict(global_state._latest_global_config)),
    }


def test_building_leaves_the_process_as_it_was_also_when_it_fails():
    load_family("nequip").toy(0)  # whatever the first import changes is done
    before = process_state()
    Potential(load_family("nequip").toy(1)).to_dtype(torch.float32).predict([Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]])])
    assert process_state() == before
    with pytest.raises(AssertionError):
        NequIPFramework({**config_of("with pseudo-tensors"), "num_layers": 0}, torch.float64)
    assert process_state() == before


def test_another_family_before_and_after_gives_the_same_bits():
    """In a process of its own, in which nequip was not imported before."""
    code = """
import torch
from ase.build import molecule
from zoo.backbones import load_family
from zoo.potential import Potential

def sevennet():
    torch.manual_seed(4)
    potential = Potential(load_family("sevennet").toy(0)).to_dtype(torch.float32)
    prediction = potential.predict([molecule("CH3OH")])[0]
    return prediction.energy, prediction.forces.tobytes(), torch.rand(1).item()

before = sevennet()
Potential(load_family("nequip").toy(0)).predict([molecule("CH3OH")])
assert torch.get_default_dtype() == torch.float32
assert sevennet() == before
"""
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=Path(zoo.__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("family", ["nequip", "allegro"])
def test_a_merged_adapter_and_reference_energies_reach_upstreams_calculator_in_a_fresh_process(family, tmp_path):
    needs(family)
    frames, files, wanted = list(structures().values()), {}, {}
    for dtype, tolerance in TOLERANCE.items():
        potential = Potential(load_family(family).toy(0)).to_dtype(getattr(torch, dtype))
        potential.adapters.add("elora", "elora")
        potential.adapters.randomise("elora", seed=4)
        potential.set_reference_shifts({29: -1.25, 79: 0.5})
        files[dtype] = tmp_path / dtype / "toy.ckpt"
        potential.save_upstream_checkpoint(files[dtype])
        wanted[dtype] = numbers(potential, frames)
        reloaded = zoo.load(files[dtype])
        assert reloaded.dtype == getattr(torch, dtype)
        assert max(difference(numbers(reloaded, frames), wanted[dtype]).values()) <= tolerance
    found = upstream(family, files, structures=frames)
    for dtype, tolerance in TOLERANCE.items():
        assert max(difference(found[dtype], wanted[dtype]).values()) <= tolerance


def test_a_network_drawn_anew_keeps_the_scales_and_shifts_of_the_elements():
    trained = NequIPFramework(config_of("preset with trainable frequencies and scales"), torch.float64)
    with torch.no_grad():
        trained.network.per_type_energy_scale_shift.shifts += 0.5
    fresh = load_family("nequip").randomise(trained)
    own, other = dict(trained.named_parameters()), dict(fresh.named_parameters())
    assert {name for name in own if torch.equal(own[name], other[name])} == {
        "network.bessel_encode.bessel_weights",
        "network.per_type_energy_scale_shift.scales",
        "network.per_type_energy_scale_shift.shifts",
    }


def test_a_crystal_of_one_atom_and_an_isolated_atom_have_energies():
    potential = Potential(load_family("nequip").toy(0))
    alone, crystal = potential.predict([Atoms("Cu"), bulk("Cu")])
    assert alone.energy == pytest.approx(-2.0, abs=1e-12)  # its shift: upstream's networks keep the limit of isolated atoms
    assert abs(crystal.energy - alone.energy) > 1e-6
