"""Both ways between this environment and one with e3nn 0.4.4, which published models come from."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import zoo
from adapters.method import create_method
from tests.unit_zoo import round_trip
from tests.unit_zoo.round_trip import TOLERANCE
from zoo.potential import Potential

pytestmark = pytest.mark.slow
_RESIDUAL, _FIRST = "RealAgnosticResidualInteractionBlock", "RealAgnosticInteractionBlock"
_DENSITY, _FIRST_DENSITY = "RealAgnosticDensityResidualInteractionBlock", "RealAgnosticDensityInteractionBlock"
_NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"
SHAPES: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {  # class, first and other interactions, hidden irreps, the rest
    "MP-0 medium": ("ScaleShiftMACE", _RESIDUAL, _RESIDUAL, "16x0e+16x1o", {}),
    "MP-0 large": ("ScaleShiftMACE", _RESIDUAL, _RESIDUAL, "8x0e+8x1o+8x2e", {}),
    "OFF23": ("MACE", _FIRST, _RESIDUAL, "16x0e+16x1o", {}),
    "Agnesi and ZBL": ("ScaleShiftMACE", _FIRST_DENSITY, _DENSITY, "16x0e", {"distance_transform": "Agnesi", "pair_repulsion": True}),
    "nonlinear": ("ScaleShiftMACE", _NONLINEAR, _NONLINEAR, "8x0e+8x1o", {"apply_cutoff": False, "radial_MLP": [16, 16]}),
    "unnatural parity": ("ScaleShiftMACE", _RESIDUAL, _RESIDUAL, "8x0e+8x0o+8x1o+8x1e", {"max_ell": 2, "correlation": 2}),
}
_MAKE = """
import sys, json, numpy as np, torch, e3nn
assert e3nn.__version__ == "0.4.4", e3nn.__version__
import mace.modules as modules
from e3nn.o3 import Irreps
name, first, other, hidden, rest = json.loads(sys.argv[1])
torch.set_default_dtype(torch.float64)
torch.manual_seed(1)
common = dict(r_max=5.0, num_bessel=8, num_polynomial_cutoff=5, max_ell=3, num_interactions=2, num_elements=5, correlation=3,
    MLP_irreps=Irreps("16x0e"), atomic_energies=np.array([-1.0, -1.5, -2.0, -3.0, -4.0]), avg_num_neighbors=10.0,
    atomic_numbers=[1, 6, 8, 29, 79], gate=torch.nn.functional.silu, hidden_irreps=Irreps(hidden),
    interaction_cls_first=modules.interaction_classes[first],
    interaction_cls=modules.interaction_classes[other])
scale = {"atomic_inter_scale": 1.2, "atomic_inter_shift": 0.1} if name == "ScaleShiftMACE" else {}
torch.save(getattr(modules, name)(**{**common, **scale, **rest}), sys.argv[2])
"""
STRUCTURES = [
    Atoms("CuOH", [[0.1, 0, 0], [1.8, 1.9, 1.7], [0.3, 1.7, 0.2]], cell=[[3.6, 0.2, 0], [0, 3.5, 0.3], [0.1, 0, 3.7]], pbc=True),
    Atoms("HOH", [[0, 0, 0], [0.9, 0.3, 0], [1.3, -0.5, 0.4]]),
]


def make(file: Path, shape: str, e3nn: Path) -> None:
    """A random model of that shape, as mace saves it under e3nn 0.4.4."""
    round_trip.run(sys.executable, "-c", _MAKE, json.dumps(SHAPES[shape]), file, e3nn=e3nn)


def deviation(potential: Potential, file: Path, e3nn: Path | None) -> float:
    """Of the potential from what MACE's calculator gives for the file under that e3nn: the largest of energies, forces and stress."""
    found = round_trip.upstream("mace", {"float64": file}, e3nn=e3nn, structures=STRUCTURES)["float64"]
    assert np.abs(found["forces"]).max() > 1e-3
    return max(round_trip.difference(found, round_trip.numbers(potential, STRUCTURES)).values())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_comes_from_e3nn_04_and_goes_back_with_an_adapter_with_the_same_numbers(shape, old_e3nn, tmp_path):
    original, merged = tmp_path / "original.model", tmp_path / "merged.model"
    make(original, shape, old_e3nn)
    potential = zoo.load(original)
    assert deviation(potential, original, old_e3nn) <= 1e-12
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 4}))
    potential.adapters.randomise("elora", seed=3)
    potential.save_upstream_checkpoint(merged)
    assert deviation(potential, merged, old_e3nn) <= 1e-12
    assert deviation(potential, merged, None) <= 1e-12


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_model_that_e3nn_04_wrote_is_trained_here_and_goes_back_to_it(dtype, old_e3nn, tmp_path):
    """In the signs that it came with: those of the installed e3nn would give other energies."""
    make(tmp_path / "original.model", "MP-0 medium", old_e3nn)
    folder = round_trip.train(tmp_path / "original.model", dtype, tmp_path / "run")
    loaded = zoo.load(round_trip.exported(folder))
    assert loaded.backbone.convention.startswith("signs-")
    for version, e3nn in (("0.6", None), ("0.4.4", old_e3nn)):
        found = round_trip.upstream("mace", {dtype: round_trip.exported(folder)}, e3nn=e3nn)
        round_trip.assert_agree(found[dtype], folder, TOLERANCE[dtype], f"MACECalculator, e3nn {version}, {dtype}")
