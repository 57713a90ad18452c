"""A Potential as a model of TorchSim, which propagates many systems at once in batches.

Importing this module needs TorchSim; `Potential.torchsim` imports it when asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo.graph import collate
from zoo.torchsim_state import frames_of_state

try:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ModuleNotFoundError as error:
    missing = str(error.name).partition(".")[0]  # TorchSim, or a package that it needs
    raise ZooError(
        f"TorchSim needs the package {missing!r}, which is not installed; run: pip install -c constraints.txt torch-sim-atomistic"
    ) from error

if TYPE_CHECKING:
    from zoo.potential import Potential


class TorchSimModel(ModelInterface):
    """Energy (eV), forces (eV/Å) and stress (eV/Å^3, ASE's sign) of every system of a TorchSim state.

    State and results are float64 whatever the network's precision, as with ASE: positions in float32 would be rounded before any
    neighbour is found, and a total energy of thousands of eV to about 1 meV. The neighbour list is the house's own. Adapters, weights and
    reference energies changed later are seen by the next call.

    Direct forces (``potential.conservative`` is False) are not the gradient of the energy: dynamics without a thermostat then drifts.

    Attributes:
        potential: what computes; moving the model moves it.
    """

    def __init__(self, potential: Potential, *, compute_forces: bool = True, compute_stress: bool | None = None) -> None:
        super().__init__()
        self.potential = potential
        self._dtype = torch.float64
        self._compute_forces = compute_forces
        self.compute_stress = potential.has_stress if compute_stress is None else compute_stress
        # edges, and with them memory, grow with the density unless the backbone limits an atom's neighbours
        self._memory_scales_with = "n_atoms_x_density" if potential.backbone.max_neighbours is None else "n_atoms"

    @property
    def device(self) -> torch.device:
        """The potential's device; states on another one are brought there."""
        return self.potential.device

    @property
    def compute_forces(self) -> bool:
        """Whether results have ``forces``."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, compute_forces: bool) -> None:
        self._compute_forces = compute_forces

    @property
    def compute_stress(self) -> bool:
        """Whether results have ``stress``."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, compute_stress: bool) -> None:
        if compute_stress and not self.potential.has_stress:
            raise ZooError(f"{self.potential.source} predicts no stress; leave compute_stress out, or load it with forces='gradient'")
        self._compute_stress = compute_stress

    def forward(self, state: SimState | dict[str, Any]) -> dict[str, Tensor]:
        """Energy, forces and stress of S systems of N atoms in all; the state is not changed.

        Args:
            state: a ``SimState`` or the arguments of one (``masses`` may be missing).

        Returns:
            ``energy`` (S,), ``forces`` (N, 3) and ``stress`` (S, 3, 3), the last two as the flags say, float64 on the potential's device.
            The stress of systems that are not periodic is NaN: without a volume it means nothing.

        Raises:
            ZooError: for an element the model does not know, two atoms at one place, what `frames_of_state` refuses, and an energy or
                force that is not a number.
        """
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        graph = collate([self.potential.graph(frame) for frame in frames_of_state(state)]).to(str(self.device))
        was_training = self.potential.training
        self.potential.eval()
        try:
            results: dict[str, Tensor] = self.potential(graph, stress=self._compute_stress)
        finally:
            self.potential.train(was_training)
        _refuse_what_is_no_number(results, graph.graph_of_atom)
        if not self._compute_forces:
            del results["forces"]
        return results


def _refuse_what_is_no_number(results: dict[str, Tensor], system_of_atom: Tensor) -> None:
    systems = torch.arange(len(results["energy"]), device=system_of_atom.device)
    for quantity, system_of_row in (("energy", systems), ("forces", system_of_atom)):
        finite = torch.isfinite(results[quantity]).reshape(len(system_of_row), -1).all(dim=1)
        if not finite.all():
            first = int(system_of_row[~finite][0])
            raise ZooError(
                f"TorchSim state: frame {first}: the predicted {quantity} is not a number; check the structure and the time step, "
                "or the adapter has diverged"
            )
