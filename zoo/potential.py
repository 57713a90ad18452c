"""Potential: a backbone, its adapters and its reference energies, turned into energy, forces and stress.

Forces and stress of every conservative backbone are derived here and nowhere else: F = -dE/dr, and stress = (1/V) dE/d(strain), the strain
applied to positions and cell together (Knuth et al., Comput. Phys. Commun. 2015, 190, 33), in ASE's sign (negative under compression). The
same for a direct backbone with ``forces="gradient"``; else its own outputs are handed on, and no derivative is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor, nn

from adapters.adapter import Adapter, Provenance
from adapters.blocks import Coverage, find_blocks
from adapters.stack import AdapterStack
from zoo.backbones.base import Backbone, ForceMode
from zoo.data.checks import check_charges, check_elements
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.graph import AtomGraph, collate, fully_periodic
from zoo.prediction import Prediction, predictions_of, refuse_what_is_no_number
from zoo.registry import Card
from zoo.routing import checked_names, grouped, predict_routed
from zoo.strain import apply_strain, stress_of

if TYPE_CHECKING:
    from zoo.calculator import ZooCalculator
    from zoo.torchsim import TorchSimModel

__all__ = ["Potential", "Prediction"]

_HIGHEST_ATOMIC_NUMBER = 118


class Potential(nn.Module):
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

    reference_shifts: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        card: Card | None = None,
        source: str = "",
        level_of_theory: str = "",
        forces: ForceMode | None = None,
    ) -> None:
        super().__init__()
        self.forces: ForceMode = _force_mode(backbone, forces, source or backbone.family)
        self.coverage: Coverage = find_blocks(backbone, backbone.adapter_roles, backbone.adapter_layers)
        backbone.requires_grad_(False)
        self.backbone = backbone
        self.adapters = AdapterStack(backbone, self.coverage)
        self.register_buffer("reference_shifts", torch.zeros(_HIGHEST_ATOMIC_NUMBER + 1, dtype=torch.float64))
        self.card = card
        self.source = source or (card.name if card else backbone.family)
        self._level_of_theory = level_of_theory
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
    def level_of_theory(self) -> str:
        """Of the energies: that of the active adapters where they bring one, else the card's, or what a fine-tuning set."""
        known = [adapter.provenance.level_of_theory for adapter in self.adapters.active_adapters if adapter.provenance is not None]
        return " + ".join(filter(None, dict.fromkeys(known))) if known else self._level_of_theory

    @level_of_theory.setter
    def level_of_theory(self, level_of_theory: str) -> None:
        brought = [adapter for adapter in self.adapters.active_adapters if adapter.provenance is not None]
        for adapter in brought:
            assert adapter.provenance is not None
            adapter.provenance = replace(adapter.provenance, level_of_theory=level_of_theory)
        if not brought:
            self._level_of_theory = level_of_theory

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
            results = self._derived(graph, stress) if self.conservative else self._direct(graph, stress)
            shift = self.shifts_with(self.adapters.active)[graph.atomic_numbers]  # (N,)
        energy = results["energy"]
        results["energy"] = energy + torch.zeros_like(energy).index_add(0, graph.graph_of_atom, shift)
        return results if self.training else {name: value.detach() for name, value in results.items()}

    def _derived(self, graph: AtomGraph, stress: bool) -> dict[str, Tensor]:
        """The backbone's energy, and forces and stress as its derivatives."""
        # a direct backbone detaches what its own forces do not need, unless it is asked not to
        settings = {} if self.backbone.conservative else {"forces": "gradient"}
        with torch.inference_mode(False), torch.enable_grad():
            strained, positions, strain = apply_strain(graph)
            energy = self.adapters.call(strained, **settings)["energy"].to(torch.float64)  # (G,)
            if not graph.edge_index.shape[1]:  # isolated atoms only: nothing depends on where they are
                gradients: tuple[Tensor, ...] = (torch.zeros_like(positions), torch.zeros_like(strain))
            else:
                gradients = torch.autograd.grad(energy.sum(), (positions, strain), create_graph=self.training)
        results = {"energy": energy, "forces": -gradients[0]}
        if stress:
            results["stress"] = stress_of(gradients[1], graph)
        return results

    def _direct(self, graph: AtomGraph, stress: bool) -> dict[str, Tensor]:
        """The backbone's own energy, forces and stress; in ``train()`` mode differentiable in the adapters, never in the positions."""
        with torch.inference_mode(False), torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            outputs = self.adapters.call(graph, forces="direct")
            results = {name: outputs[name].to(torch.float64) for name in ("energy", "forces")}
            if stress:
                unknown = torch.full_like(graph.cell, torch.nan, dtype=torch.float64)  # (G, 3, 3)
                own = outputs["stress"].to(torch.float64) if self.backbone.direct_stress else unknown
                results["stress"] = torch.where(fully_periodic(graph)[:, None, None], own, unknown)
        return results

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
        found: dict[int, Prediction] = {}
        with self.adapters.exclusive(), _evaluating(self), torch.inference_mode(False):
            names = None if adapters is None else checked_names(self, adapters, len(structures))
            order = range(len(structures)) if names is None else grouped(names)
            for start in range(0, len(structures), batch_size):
                chosen = order[start : start + batch_size]
                graphs = [self.graph(structures[position]) for position in chosen]
                if names is None:
                    batch = collate(graphs).to(str(self.device))
                    predictions = predictions_of(self(batch, stress=self.has_stress), batch)
                else:
                    predictions = predict_routed(self, graphs, [names[position] for position in chosen])
                found.update(zip(chosen, predictions, strict=True))
        in_order = [found[position] for position in range(len(structures))]
        refuse_what_is_no_number(structures, in_order)
        return in_order

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
        with self.adapters.exclusive():
            if self.adapters.is_merged:
                raise ZooError(
                    f"cannot copy while the adapters {list(self.adapters.active)} are merged; call potential.adapters.unmerge() first"
                )
            rebuilt = self.backbone.rebuilt(dtype)
            twin = Potential(rebuilt, card=self.card, source=self.source, level_of_theory=self._level_of_theory, forces=self.forces)
            for name in self.adapters.names:
                own = self.adapters.get(name)
                fresh = twin.adapters.add(name, own.method)
                fresh.provenance = own.provenance
                if (scale := self.adapters.scale_of(name)) != 1:
                    twin.adapters.scale(name, scale)
                with torch.no_grad():
                    for key, tensor in fresh.tensors.items():
                        tensor.copy_(own.tensors[key])
            twin.adapters.activate(self.adapters.active)
            twin.reference_shifts.copy_(self.reference_shifts)
            return twin.to(self.device)

    def on_finer_grid(self) -> Potential:
        """The bare base with its weights on a finer grid of the sphere: another model, whose error under rotations is smaller.

        Raises:
            ZooError: of a backbone without a grid.
        """
        return Potential(self.backbone.on_finer_grid(), source=self.source, forces=self.forces).to(self.device)

    def set_reference_shifts(self, shifts_ev: Mapping[int, float]) -> None:
        """Replace the per-element energies (atomic number to eV) added to the backbone's; elements left out get 0.

        With one adapter active, unscaled, they become its own: they are saved with it and count where it is active. Otherwise they are
        added whatever is active, and active adapters lose their own.
        """
        unknown = sorted(set(shifts_ev) - set(self.backbone.elements))
        if unknown:
            raise ZooError(f"reference energies for {unknown}, which {self.source} does not know; leave them out")
        active = self.adapters.active
        alone = len(active) == 1 and self.adapters.scale_of(active[0]) == 1
        self.reference_shifts.zero_()
        if alone:
            own = {chemical_symbols[number]: float(value) for number, value in shifts_ev.items() if value != 0}
            adapter = self.adapters.get(active[0])
            adapter.provenance = replace(adapter.provenance or Provenance({}, self.level_of_theory), reference_energies=own)
            return
        for atomic_number, value in shifts_ev.items():
            self.reference_shifts[atomic_number] = value
        for adapter in self.adapters.active_adapters:
            if adapter.provenance is not None:
                adapter.provenance = replace(adapter.provenance, reference_energies={})

    def get_reference_shifts(self) -> dict[int, float]:
        """The nonzero per-element energies in effect, those of the active adapters included; atomic number to eV."""
        shifts = self.shifts_with(self.adapters.active)
        return {number: float(value) for number, value in enumerate(shifts) if value != 0}

    def shifts_with(self, names: Sequence[str]) -> Tensor:
        """(119,) float64 eV per atom: `reference_shifts`, and what these adapters bring, scaled as they are."""
        shifts = self.reference_shifts
        for name in names:
            provenance = self.adapters.get(name).provenance
            if provenance is not None and provenance.reference_energies:
                own = [0.0] * len(shifts)
                for symbol, value in provenance.reference_energies.items():
                    own[atomic_numbers[symbol]] = self.adapters.scale_of(name) * value
                shifts = shifts + torch.tensor(own, dtype=shifts.dtype, device=shifts.device)
        return shifts

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


@contextmanager
def _evaluating(potential: Potential) -> Iterator[None]:
    was_training = potential.training
    potential.eval()
    try:
        yield
    finally:
        potential.train(was_training)


def _force_mode(backbone: Backbone, forces: ForceMode | None, source: str) -> ForceMode:
    """The way to forces that was asked for, or the backbone's own."""
    if forces not in (None, "gradient", "direct"):
        raise ZooError(f"forces={forces!r} is not a choice; pass 'gradient', 'direct' or None for the model's own way")
    if forces == "direct" and backbone.conservative:
        raise ZooError(f"{source} has no direct force output: its forces are the gradient of its energy; pass forces=None or 'gradient'")
    if forces == "gradient" and "gradient" not in backbone.force_modes:
        raise ZooError(f"{source} cannot derive forces from its energy: it has a force output alone; pass forces=None or 'direct'")
    return backbone.force_modes[0] if forces is None else forces
