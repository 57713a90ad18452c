"""Upstream's own calculators on exported files, in a process without equizoo.

``python -P upstream_calculators.py WHICH STRUCTURES [DTYPE FILE] ...``: for each FILE, in DTYPE, ``upstream-WHICH.npz``
beside it gets ``energy`` (S,), ``forces`` (atoms of all structures, 3) and ``stress`` (periodic structures, 6).
Nothing of zoo or adapters is imported, which is checked at the end; ASE, NumPy and the family's package are.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io import read


def mace(path: str, dtype: str) -> Calculator:
    """mace computes its pair repulsion in torch's default dtype, whatever the model is in."""
    import torch
    from mace.calculators import MACECalculator

    torch.set_default_dtype(getattr(torch, dtype))
    return MACECalculator(model_paths=path)  # in the precision of the file


def sevennet(path: str, dtype: str) -> Calculator:
    """sevenn builds in torch's default dtype, but rounds structures, one-hot elements, scale and shift to float32; not so here."""
    import sevenn.util
    import torch
    from sevenn.calculator import SevenNetCalculator

    torch.set_default_dtype(getattr(torch, dtype))
    if dtype == "float64":
        sevenn.util.dtype_correct = functools.partial(sevenn.util.dtype_correct, float_dtype=torch.float64)
    calculator = SevenNetCalculator(path, device="cpu")
    if dtype == "float64":
        calculator.model.double().load_state_dict(sevenn.util.load_checkpoint(path).model_state_dict)
        one_hot = calculator.model.get_submodule("onehot_idx_to_onehot")
        one_hot.register_forward_hook(_to_float64)
    return calculator


def _to_float64(one_hot: Any, arguments: Any, data: Any) -> None:
    for key in (one_hot.key_output, one_hot.key_additional_output):
        data[key] = data[key].double()


def nequip(path: str, dtype: str) -> Calculator:
    from nequip.integrations.ase import NequIPCalculator

    if path.endswith(".pt2"):
        return NequIPCalculator.from_compiled_model(path, device="cpu")
    return NequIPCalculator._from_saved_model(path, device="cpu")


def uma(path: str, dtype: str) -> Calculator:
    """fairchem-core on its general path; ``UMA_TASK`` says which task of several, and the rolls about edges, drawn at random, are 0."""
    import logging

    from fairchem.core import FAIRChemCalculator
    from fairchem.core.models.uma import escn_md
    from fairchem.core.models.uma.common.quaternion.wigner_d_hybrid import axis_angle_wigner_hybrid
    from fairchem.core.units.mlip_unit import InferenceSettings, load_predict_unit

    logging.disable(logging.WARNING)
    escn_md.axis_angle_wigner_hybrid = functools.partial(_without_roll, axis_angle_wigner_hybrid)
    settings = InferenceSettings(base_precision_dtype=dtype, activation_checkpointing=False, execution_mode="general")
    unit = load_predict_unit(path, inference_settings=settings, device="cpu")
    several = len(unit.dataset_to_tasks) > 1
    return FAIRChemCalculator(unit, task_name=os.environ["UMA_TASK"] if several else None)


def _without_roll(wigner: Any, vectors: Any, lmax: int, **given: Any) -> Any:
    return wigner(vectors, lmax, vectors.new_zeros(len(vectors)), **given)


class SevenNetLammps(Calculator):
    """The TorchScript of ``sevenn get_model``, given what LAMMPS's ``pair_e3gnn`` gives it; forces are its derivatives by edge vectors."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's own form

    def __init__(self, path: str) -> None:
        super().__init__()
        import torch

        metadata = dict.fromkeys(("chemical_symbols_to_index", "cutoff"), "")
        self.model = torch.jit.load(path, map_location="cpu", _extra_files=metadata)
        self.symbols = metadata["chemical_symbols_to_index"].decode().split()
        self.cutoff = float(metadata["cutoff"])

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        import torch
        from ase.neighborlist import neighbor_list

        centre, neighbour, vectors = neighbor_list("ijD", atoms, self.cutoff)
        edges = torch.tensor(vectors, dtype=torch.float32, requires_grad=True)  # (E, 3)
        species = torch.tensor([self.symbols.index(symbol) for symbol in atoms.symbols])
        rows = torch.tensor(np.stack([centre, neighbour]))
        energy = self.model({"x": species, "edge_index": rows, "edge_vec": edges, "num_atoms": torch.tensor(len(atoms))})[
            "inferred_total_energy"
        ]
        (gradient,) = torch.autograd.grad(energy.sum(), edges)
        forces = torch.zeros(len(atoms), 3).index_add(0, rows[0], gradient).index_add(0, rows[1], -gradient)
        self.results = {"energy": float(energy.detach()), "forces": forces.numpy()}


class MaceLammps(Calculator):
    """The TorchScript of ``mace_create_lammps_model``, given what LAMMPS's ``pair_mace`` gives it."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, path: str) -> None:
        super().__init__()
        import torch

        self.model = torch.jit.load(path, map_location="cpu")

    def calculate(self, atoms: Atoms, *arguments: object) -> None:
        import torch
        from ase.neighborlist import neighbor_list

        centre, neighbour, shifts = neighbor_list("ijS", atoms, float(self.model.r_max))
        numbers = self.model.atomic_numbers.tolist()
        dtype = torch.float64
        species = torch.tensor([numbers.index(number) for number in atoms.numbers])
        data = {
            "edge_index": torch.tensor(np.stack([centre, neighbour])),
            "node_attrs": torch.nn.functional.one_hot(species, len(numbers)).to(dtype),
            "positions": torch.tensor(atoms.positions, dtype=dtype, requires_grad=True),
            "shifts": torch.tensor(shifts @ atoms.cell.array, dtype=dtype),
            "unit_shifts": torch.tensor(shifts, dtype=dtype),
            "cell": torch.tensor(atoms.cell.array, dtype=dtype),
            "batch": torch.zeros(len(atoms), dtype=torch.long),
            "ptr": torch.tensor([0, len(atoms)]),
            "energy": torch.zeros(1, dtype=dtype),
            "forces": torch.zeros(len(atoms), 3, dtype=dtype),
            "stress": torch.zeros(1, 3, 3, dtype=dtype),
            "virials": torch.zeros(1, 3, 3, dtype=dtype),
            "weight": torch.ones(1, dtype=dtype),
        }
        result = self.model(data, torch.ones(len(atoms), dtype=torch.bool), False)
        self.results = {"energy": float(result["total_energy_local"]), "forces": result["forces"].detach().numpy()}


CALCULATORS: dict[str, Any] = {
    "mace": mace,
    "sevennet": sevennet,
    "nequip": nequip,
    "allegro": nequip,
    "uma": uma,
    "sevennet-lammps": lambda path, dtype: SevenNetLammps(path),
    "mace-lammps": lambda path, dtype: MaceLammps(path),
}


def main(which: str, structures: str, *files: str) -> None:
    for dtype, path in zip(files[::2], files[1::2], strict=True):
        energies, forces, stresses = [], [], []
        calculator = CALCULATORS[which](path, dtype)
        for atoms in read(structures, ":"):
            atoms.calc = calculator
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
            if atoms.pbc.all() and "stress" in calculator.implemented_properties:
                stresses.append(atoms.get_stress())
        np.savez(Path(path).with_name(f"upstream-{which}.npz"), energy=energies, forces=np.concatenate(forces), stress=stresses)
    ours = sorted(name for name in sys.modules if name.split(".")[0] in ("zoo", "adapters"))
    assert not ours, ours
    wanted = os.environ.get("EXPECTED_E3NN")
    if wanted:
        import e3nn

        assert e3nn.__version__ == wanted, e3nn.__version__


if __name__ == "__main__":
    main(*sys.argv[1:])
