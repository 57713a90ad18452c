"""Potential: a backbone, its adapters and its reference energies, as one function of structures.

How forces and stress are had is in `zoo.forces`, reference energies are in `zoo.reference_shifts`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ase import Atoms
from torch import Tensor

from adapters.adapter import Adapter
from adapters.blocks import Coverage, find_blocks
from adapters.stack import AdapterStack
from zoo.backbones.base import Backbone, ForceMode
from zoo.data.checks import check_charges, check_elements
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.forces import derived, direct, force_mode
from zoo.graph import AtomGraph
from zoo.prediction import Prediction
from zoo.reference_shifts import WithReferenceEnergies
from zoo.registry import Card
from zoo.routing import predict_in_batches

if TYPE_CHECKING:
    from zoo.calculator import ZooCalculator
    from zoo.torchsim import TorchSimModel

__all__ = ["Potential", "Prediction"]


class Potential(WithReferenceEnergies):
    """A pretrained backbone with adapters, as one function from structures to energy, forces and stress.

    Built by `zoo.load`. The base weights are frozen; what trains is the adapters (full fine-tuning is the dense adapter).

    Threads may share it: one computes or changes the adapters at a time, and the others wait (``potential.adapters.exclusive()`` keeps it
    for several steps). For work in parallel give each thread its own: ``potential.to_dtype(potential.dtype)`` is an independent copy.

    Attributes:
        backbone: the network.
        adapters: the named adapters and which of them are active.
        coverage: every parameter of the backbone, in adaptable blocks or with the reason why not.
        reference_shifts: (119,) float64, eV per atom of each element, added to the backbone's energy whatever is active; active adapters
            add their own (`shifts_with`).
        card: the model card, None for a local checkpoint.
        source: the card's name or the checkpoint's path.
        forces: ``gradient`` or ``direct``, how forces and stress are had; of `Backbone.force_modes`, whose first is the default.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        card: Card | None = None,
        source: str = "",
        level_of_theory: str = "",
        forces: ForceMode | None = None,
    ) -> None:
        super().__init__(level_of_theory)
        self.forces: ForceMode = force_mode(backbone, forces, source or backbone.family)
        self.coverage: Coverage = find_blocks(backbone, backbone.adapter_roles, backbone.adapter_layers)
        backbone.requires_grad_(False)
        self.backbone = backbone
        self.adapters = AdapterStack(backbone, self.coverage)
        self.card = card
        self.source = source or (card.name if card else backbone.family)
        self.base_sha256 = self.adapters.fingerprint()
        self.eval()

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the network; energies, forces and stress are returned in float64 whatever it is."""
        return self.backbone.dtype

    @property
    def conservative(self) -> bool:
        """Whether the forces are the gradient of the energy, so that dynamics conserves it."""
        return self.forces == "gradient"

    @property
    def has_stress(self) -> bool:
        """Whether structures periodic in all three directions get a stress."""
        return self.conservative or self.backbone.direct_stress

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return self.reference_shifts.device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Potential:
        """Behind ``.to()``, ``.cuda()``, ``.double()``: devices may change here, the dtype only through `to_dtype`.

        Raises:
            ZooError: for another dtype; a cast would keep float32's rounding of the constants, and round the reference energies.
        """
        cast = fn(torch.zeros(1, dtype=self.dtype)).dtype
        if cast != self.dtype:
            raise ZooError(f"a cast to {cast} would leave constants at the precision of {self.dtype}; use potential.to_dtype({cast})")
        shifts = self.reference_shifts
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.reference_shifts = shifts.to(self.reference_shifts.device)  # float64, also after .float() on a float32 model
        return self

    def forward(self, graph: AtomGraph, *, stress: bool = True) -> dict[str, Tensor]:
        """Energy, forces and stress of a batch of structures.

        Works under ``no_grad`` and inside a training step alike; in ``train()`` mode forces and stress keep their graph, so that a loss on
        them reaches the adapters. Forces are derivatives, so ``torch.inference_mode`` is left for as long as it takes. Direct forces are
        not: a loss on them costs one backward pass, and a loss on derivatives two.

        Args:
            graph: N atoms in G structures, on the potential's device.
            stress: whether to return the stress.

        Returns:
            ``energy`` (G,) eV, ``forces`` (N, 3) eV/Å and, if asked for, ``stress`` (G, 3, 3) eV/Å^3 with NaN for structures that are not
            periodic in all three directions, and for all where the model has none (`has_stress`); all float64.
        """
        if graph.positions.is_inference():
            raise ZooError(
                "the graph was built under torch.inference_mode(), which forbids derivatives; build it under torch.no_grad() instead"
            )
        with self.adapters.exclusive():  # also while gradients are taken: another thread might write into the weights they need
            results = derived(self, graph, stress) if self.conservative else direct(self, graph, stress)
            shift = self.shifts_with(self.adapters.active)[graph.atomic_numbers]  # (N,)
        energy = results["energy"]
        results["energy"] = energy + torch.zeros_like(energy).index_add(0, graph.graph_of_atom, shift)
        return results if self.training else {name: value.detach() for name, value in results.items()}

    def graph(self, structure: Frame | Atoms | AtomGraph) -> AtomGraph:
        """The structure's `AtomGraph` by this backbone's recipe; raises `ZooError` for elements the model does not know (and charges).

        What is a graph already is taken to have been made by that recipe, from a frame that was checked.
        """
        if isinstance(structure, AtomGraph):
            return structure
        frame = structure if isinstance(structure, Frame) else Frame.unlabelled(structure)
        self.check_elements(frame)
        check_charges([frame], self.backbone.reads_charge, self.source)
        return AtomGraph.from_frame(frame, self.backbone.graph_recipe)

    def check_elements(self, frame: Frame) -> None:
        """Raise `ZooError` where ``frame`` holds an element the model does not know."""
        check_elements([frame], self.backbone.elements, self.source)

    def predict(
        self, structures: Sequence[Frame | Atoms | AtomGraph], batch_size: int = 8, *, adapters: Sequence[str | None] | None = None
    ) -> list[Prediction]:
        """Energy, forces and stress of each structure, computed in batches, in the order given.

        Args:
            structures: any number; of graphs see `graph`.
            batch_size: structures computed at once.
            adapters: for each structure the adapter to compute it with, None for the base; left out, all are computed with the active ones.

        Raises:
            ZooError: for an element the model does not know, two atoms at one place, or an energy or force that is not a number.
            adapters.errors.AdapterError: an adapter that is not there, or adapters chosen while some are merged.
        """
        return predict_in_batches(self, structures, batch_size, adapters)

    def load_adapter(self, source: str | Path, name: str) -> Adapter:
        """Attach a trained adapter beside those that are there; not active until ``adapters.activate([name])``.

        Its reference energies and its level of theory come with it: they count where it is active.

        Args:
            source: path or address of an adapter file, or ``hf://owner/name[@revision][/file]`` (`zoo.adapter_sources`).
            name: to call it by.

        Raises:
            ZooError: a file that cannot be fetched, or of another family, head or way to forces.
            adapters.errors.AdapterError: a file that is damaged, of another format or of another base, or a name in use.
        """
        from zoo.adapter_files import load_adapter

        return load_adapter(self, source, name)

    def save_adapter(self, name: str, path: str | Path) -> Path:
        """Write one adapter as a file that `zoo.load` and `load_adapter` take, with its reference energies.

        Raises:
            ZooError: for an adapter that is scaled, which a file does not hold.
            adapters.errors.AdapterError: an adapter that is not there, numbers that are not finite, or a folder that cannot be written.
        """
        from zoo.adapter_files import save_adapter

        return save_adapter(self, name, Path(path))

    def calculator(self) -> ZooCalculator:
        """An ASE calculator on this potential; adapters changed later are seen by its next calculation."""
        from zoo.calculator import ZooCalculator

        return ZooCalculator(self)

    def torchsim(self, *, compute_forces: bool = True, compute_stress: bool | None = None) -> TorchSimModel:
        """A TorchSim model on this potential, for batched dynamics, with a stress where the potential has one (None).

        Raises:
            ZooError: where TorchSim is not installed, or for ``compute_stress=True`` of a potential without.
        """
        from zoo.torchsim import TorchSimModel

        return TorchSimModel(self, compute_forces=compute_forces, compute_stress=compute_stress)

    def to_dtype(self, dtype: torch.dtype) -> Potential:
        """An independent copy that computes in ``dtype``, its constants computed anew in it; the same adapters, active as here.

        Raises:
            ZooError: while adapters are merged into the weights: the copy would have them twice.
        """
        from zoo.copies import copied

        return copied(self, dtype)

    def on_finer_grid(self) -> Potential:
        """The bare base with its weights on a finer grid of the sphere: another model, whose error under rotations is smaller.

        Raises:
            ZooError: of a backbone without a grid.
        """
        return Potential(self.backbone.on_finer_grid(), source=self.source, forces=self.forces).to(self.device)

    def save_upstream_checkpoint(self, path: Path) -> None:
        """Write base + active adapters + reference energies as a checkpoint of the family's own package.

        Raises:
            ZooError: where the file cannot be written; nothing is left half-written.
        """
        from zoo.files import write_atomically

        with self.adapters.exclusive():
            shifts = self.get_reference_shifts()
            self.adapters.merge()
            try:
                write_atomically(path, lambda partial: self.backbone.write_upstream_checkpoint(partial, shifts))
            finally:
                self.adapters.unmerge()
