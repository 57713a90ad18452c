"""What TorchSim's batched state says, as frames in the house's conventions; TorchSim itself is not needed to read it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.frame import Frame
from zoo.data.raw import RawFrame
from zoo.errors import ZooError
from zoo.graph import as_float_array

_SOURCE = "TorchSim state"


class SystemState(Protocol):
    """What is read of ``torch_sim.SimState``: N atoms in S systems.

    Attributes:
        positions: (N, 3) Å, not wrapped into the cell.
        cell: (S, 3, 3) Å, the lattice vectors are *columns*.
        pbc: True for systems periodic in all directions, False for systems periodic in none; one value for the whole state.
        atomic_numbers: (N,) integers.
        system_idx: (N,) the system of each atom, from 0, ascending.
    """

    positions: Tensor
    cell: Tensor
    pbc: bool
    atomic_numbers: Tensor
    system_idx: Tensor


def frames_of_state(state: SystemState) -> list[Frame]:
    """One unlabelled frame a system, in the state's order, its atoms in the state's order.

    Raises:
        ZooError: for atoms that are not grouped by system, a system without atoms, a number of cells that is not that of the systems,
            periodicity by direction, an impossible cell, or a position or cell entry that is not a number.
    """
    cells = as_float_array(state.cell).transpose(0, 2, 1)  # (S, 3, 3), rows are lattice vectors
    pbc = np.full(3, _periodic(state.pbc))
    system_of_atom = state.system_idx.detach().cpu().numpy()  # (N,)
    if np.any(np.diff(system_of_atom) < 0):
        raise ZooError(f"{_SOURCE}: the atoms of a system do not stand together; sort the state by system_idx")
    counts = np.bincount(system_of_atom, minlength=len(cells))  # (S,)
    if len(counts) != len(cells):
        raise ZooError(f"{_SOURCE}: {len(cells)} cells for {len(counts)} systems; give one cell a system")
    ends = np.cumsum(counts)[:-1]
    positions = np.split(as_float_array(state.positions), ends)
    numbers = np.split(state.atomic_numbers.detach().cpu().numpy().astype(np.int64), ends)
    return [_frame(*parts, pbc, index) for index, parts in enumerate(zip(numbers, positions, cells, strict=True))]


def _frame(
    numbers: NDArray[np.int64], positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], index: int
) -> Frame:
    return Frame.of_structure(RawFrame(numbers=numbers, positions=positions, cell=cell, pbc=pbc, found={}), _SOURCE, index)


def _periodic(pbc: object) -> bool:
    """The one truth value of ``pbc``, which TorchSim also hands out as an array of one element when it reads a trajectory."""
    values = np.asarray(pbc.detach().cpu() if isinstance(pbc, Tensor) else pbc)
    if values.dtype != bool or values.size != 1:
        raise ZooError(
            f"{_SOURCE}: pbc is {values.tolist()}; TorchSim knows systems periodic in all directions (True) or in none (False), "
            "so simulate a slab or a wire with potential.calculator() and ASE"
        )
    return bool(values.item())
