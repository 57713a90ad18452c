"""Both ways between this environment and one with e3nn 0.4.4, which published models come from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import zoo
from adapters.method import create_method
from tests.unit_zoo import round_trip
from tests.unit_zoo.round_trip import TOLERANCE

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
_CALCULATE = """
import sys, numpy as np, torch
from ase.io import read
from mace.calculators import MACECalculator
torch.set_default_dtype(torch.float64)
calculator = MACECalculator(model_paths=sys.argv[1], device="cpu", default_dtype="float64")
energies, forces = [], []
for atoms in read(sys.argv[2], ":"):
    atoms.calc = calculator
    energies.append(atoms.get_potential_energy())
    forces.append(atoms.get_forces())
np.savez(sys.argv[3], energy=energies, forces=np.concatenate(forces))
"""
STRUCTURES = [
    Atoms("CuOH", [[0.1, 0, 0], [1.8, 1.9, 1.7], [0.3, 1.7, 0.2]], cell=[[3.6, 0.2, 0], [0, 3.5, 0.3], [0.1, 0, 3.7]], pbc=True),
    Atoms("HOH", [[0, 0, 0], [0.9, 0.3, 0], [1.3, -0.5, 0.4]]),
]


def run(script: str, *words: object, e3nn: Path | None = None) -> None:
    environment = {**os.environ, **({"PYTHONPATH": str(e3nn)} if e3nn else {})}
    done = subprocess.run([sys.executable, "-c", script, *map(str, words)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_comes_from_e3nn_04_and_goes_back_with_an_adapter_with_the_same_numbers(shape, old_e3nn, tmp_path):
    original, structures = tmp_path / "original.model", tmp_path / "structures.traj"
    write(structures, STRUCTURES)
    run(_MAKE, json.dumps(SHAPES[shape]), original, e3nn=old_e3nn)
    run(_CALCULATE, original, structures, tmp_path / "original.npz", e3nn=old_e3nn)
    potential = zoo.load(original)
    agree(potential, tmp_path / "original.npz")
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 4}))
    potential.adapters.randomise("elora", seed=3)
    potential.save_upstream_checkpoint(tmp_path / "merged.model")
    for name, version in (("old", old_e3nn), ("installed", None)):
        run(_CALCULATE, tmp_path / "merged.model", structures, tmp_path / f"{name}.npz", e3nn=version)
        agree(potential, tmp_path / f"{name}.npz")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_model_that_e3nn_04_wrote_is_trained_here_and_goes_back_to_it(dtype, old_e3nn, tmp_path):
    """In the signs that it came with: those of the installed e3nn would give other energies."""
    run(_MAKE, json.dumps(SHAPES["MP-0 medium"]), tmp_path / "original.model", e3nn=old_e3nn)
    folder = round_trip.train(tmp_path / "original.model", dtype, tmp_path / "run")
    loaded = zoo.load(round_trip.exported(folder))
    assert loaded.backbone.convention.startswith("signs-")
    for version, e3nn in (("0.6", None), ("0.4.4", old_e3nn)):
        found = round_trip.upstream("mace", {dtype: round_trip.exported(folder)}, e3nn=e3nn)
        round_trip.assert_agree(found[dtype], folder, TOLERANCE[dtype], f"MACECalculator, e3nn {version}, {dtype}")


def agree(potential: Any, reference: Path) -> None:
    predictions = potential.predict(STRUCTURES)
    with np.load(reference) as upstream:
        np.testing.assert_allclose([p.energy for p in predictions], upstream["energy"], rtol=1e-13)
        np.testing.assert_allclose(np.concatenate([p.forces for p in predictions]), upstream["forces"], atol=1e-12)
        assert np.abs(upstream["forces"]).max() > 1e-3
