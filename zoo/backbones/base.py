"""The backbone contract: what a model family provides, and nothing else.

A backbone translates an `AtomGraph` to its package's input and returns energies. It does no training, knows no adapters, writes no files;
forces and stress of a conservative backbone are derived in `zoo.forces`, in one place for all families. A direct one, whose network
predicts forces, says so (``conservative = False``) and returns them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.graph import AtomGraph, GraphRecipe

Symmetry = Literal["SO(3)", "O(3)"]
ForceMode = Literal["gradient", "direct"]
SpeciesRows = Literal["inner", "outer"]


@dataclass(frozen=True)
class DropoutRates:
    """What a network leaves out at random in ``train()`` mode, as rates in [0, 1); None where it has no such part.

    Attributes:
        dropout: of single numbers (EquiformerV2: attention weights).
        stochastic_depth: of whole branches beside a skip connection, one draw a structure.
    """

    dropout: float | None = None
    stochastic_depth: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """Those that are not None, by name."""
        return {name: rate for name, rate in asdict(self).items() if rate is not None}


class Backbone(nn.Module):
    """An interatomic potential's network behind one interface.

    Attributes:
        family: the registered family's name.
        cutoff: Å; edges of the graph reach this far.
        max_neighbours: nearest neighbours kept per atom, None for all.
        strict_neighbours: whether no atom keeps more, also where several are equally far (`zoo.neighbours.nearest`).
        smooth_cutoff: whether the energy is smooth where a neighbour enters or leaves; else it jumps there.
        elements: atomic numbers the model knows, ascending.
        symmetry: the group under which the energy is claimed invariant.
        extensive: whether twice the structure has twice the energy; not where a constant is added to that of each structure.
        conservative: its own forces are the gradient of its energy; False for a direct backbone, which predicts them.
        differentiable: whether the energy's gradient can be had: always, of a conservative backbone; of a direct one where
            ``forward(graph, forces="gradient")`` attaches what its own way detaches.
        direct_stress: whether a direct backbone predicts a stress too.
        aliasing_floor: the largest force error under a rotation in float64, relative to the largest force, that the construction costs
            (products on a finite grid on the sphere); 0 for a network that is equivariant to rounding. Energy and stress are held to it.
        equivariant_stress: False for a direct stress that does not turn with the structure by construction.
        reads_charge: whether total charge and spin multiplicity of a structure enter the energy; charged structures are refused otherwise.
        heads: names of the output heads (levels of theory), empty for a single-head model.
        head: the head in use, None for a single-head model.
        idle_weights: fnmatch patterns of adaptable blocks (``parameter/label``) that published files have and no output of this model
            depends on, so that nothing trains there.
        has_weights: False for a network built from a configuration alone, whose weights are random.
        vectorises: whether its network runs under ``torch.vmap`` over weights and structures (`zoo.vectorised`), so that structures with
            different adapters are one pass.
        convention: a name for what makes the model besides its weights, where the same weights can mean another one: the signs of its
            Clebsch-Gordan coefficients, or units and graph; else empty.
        adapter_roles: fnmatch patterns of parameter names whose role an adapter cannot tell from the layer type (readout, embedding).
        adapter_layers: regular expression that finds the number of the interaction layer, from 0, in a parameter's name; None for a
            network that is one layer between embedding and readout.
        species_weights: fnmatch patterns of names of parameters that hold weights of their own for each element -> how the rows of their
            blocks count elements: ``"inner"`` for rows (..., element), ``"outer"`` for (element, ...).
    """

    family: str
    cutoff: float
    max_neighbours: int | None = None
    strict_neighbours: bool = True
    smooth_cutoff: bool = True
    elements: tuple[int, ...]
    symmetry: Symmetry
    extensive: bool = True
    conservative: bool = True
    differentiable: bool = True
    direct_stress: bool = False
    aliasing_floor: float = 0.0
    equivariant_stress: bool = True
    reads_charge: bool = False
    heads: tuple[str, ...] = ()
    head: str | None = None
    idle_weights: tuple[str, ...] = ()
    has_weights: bool = True
    vectorises: bool = True
    convention: str = ""
    adapter_roles: ClassVar[dict[str, str]]
    adapter_layers: ClassVar[str | None] = None
    species_weights: ClassVar[dict[str, SpeciesRows]] = {}

    @abstractmethod
    def forward(self, graph: AtomGraph) -> dict[str, Tensor]:
        """``{"energy": (G,)}`` in eV, differentiable in the graph's positions and cell.

        A direct backbone has ``forward(graph, *, forces="direct")``, which returns ``energy`` (G,) eV, ``forces`` (N, 3) eV/Å and, where
        ``direct_stress``, ``stress`` (G, 3, 3) eV/Å^3 in ASE's sign, its normalisers applied. Where ``differentiable``,
        ``forces="gradient"`` asks it for the energy alone, differentiable as that of a conservative one.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Backbone:
        """Behind ``.to()`` and ``.float()``: a family's own energies of elements stay in the precision they were given in."""
        references = self._buffers.get("element_references")
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        moved = self._buffers.get("element_references")
        if references is not None and moved is not None:
            self._buffers["element_references"] = references.to(moved.device)
        return self

    @property
    def force_modes(self) -> tuple[ForceMode, ...]:
        """The ways in which forces can be had, the backbone's own first."""
        if self.conservative:
            return ("gradient",)
        return ("direct", "gradient") if self.differentiable else ("direct",)

    @property
    def graph_recipe(self) -> GraphRecipe:
        """Which pairs of atoms are edges: for training, evaluation and prediction alike."""
        return GraphRecipe(self.cutoff, self.max_neighbours, self.strict_neighbours)

    @property
    def species_order(self) -> tuple[int, ...]:
        """Atomic numbers in the order in which `species_weights` count elements; 0 for a place that no element has."""
        return self.elements

    def on_finer_grid(self) -> Backbone:
        """The same weights on a finer grid, of a backbone with an `aliasing_floor`: there its error under rotations is smaller.

        Raises:
            ZooError: where it has no grid.
        """
        raise ZooError(f"{self.family} models compute on no grid")

    @abstractmethod
    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> Any:
        """The content of the family's own checkpoint of this model; `write_upstream_checkpoint` writes it.

        Args:
            element_shifts_ev: atomic number to eV, to be folded into the model's own per-element energies.
        """

    def write_upstream_checkpoint(self, path: Path, element_shifts_ev: Mapping[int, float]) -> None:
        """Write `upstream_checkpoint` in the family's own file format: with ``torch.save``, where a family has no other.

        Args:
            path: of a new file.
            element_shifts_ev: as in `upstream_checkpoint`.
        """
        torch.save(self.upstream_checkpoint(element_shifts_ev), path)

    @property
    def dropout_rates(self) -> DropoutRates:
        """What the network leaves out at random while it trains; nothing, unless a family says otherwise."""
        return DropoutRates()

    def set_dropout(self, rates: DropoutRates) -> None:
        """Change those rates of `dropout_rates` that are not None here.

        Raises:
            ZooError: where the network has no such part.
        """
        for name in rates.given:
            raise ZooError(f"{self.family} models have no {name.replace('_', ' ')}; set training.{name}=null")

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type the network computes in."""
        return next(self.parameters()).dtype

    def restricted_to(self, elements: Sequence[int]) -> Backbone:
        """The same model for fewer elements, equal on them to rounding, with the weights of the others left out.

        Args:
            elements: atomic numbers to keep.

        Raises:
            ZooError: for an element the model does not know, or a family without per-element weights worth leaving out.
        """
        raise ZooError(f"{self.family} models have hardly any weights of single elements and keep them all; leave elements out")

    @abstractmethod
    def rebuilt(self, dtype: torch.dtype) -> Backbone:
        """The same model built anew in ``dtype``, with its constants (Clebsch-Gordan coefficients) computed in it.

        A cast to float64 would keep float32's rounding of the constants: rotation errors of 2e-8 relative instead of 1e-14. And
        ``copy.deepcopy`` of e3nn's generated code changes its list of buffers.
        """


@dataclass(frozen=True)
class UpstreamFormat:
    """A form in which the family's own package takes a model.

    Attributes:
        suffix: of the file's name.
        loaded_by: ``(path, head) -> text``: the calls and commands of upstream that take the file; no head for a single-head model.
        build: ``(native, target)`` makes it from the native file; None where `Backbone.write_upstream_checkpoint` writes it.
    """

    suffix: str
    loaded_by: Callable[[Path, str | None], str]
    build: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True)
class Family:
    """A registered model family: how its checkpoints are recognised, read and written, and a toy for the contract tests.

    Attributes:
        name: as in the cards.
        load: ``(path, head, trust_pickle) -> Backbone`` with the file's weights.
        randomise: re-draws every weight as the package's own initialisation does (``weights=None``), from torch's global generator.
        build: ``(architecture, source) -> Backbone`` with random weights from a card's ``architecture``, so that ``weights=None`` needs no
            file; None where the cards have none.
        toy: ``(seed) -> Backbone``, small and random, float64, built from a configuration.
        recognises: whether a file looks like this family's checkpoint, without unpickling it.
        formats: what ``zoo export`` writes, by name; ``native`` is the checkpoint that `Backbone.write_upstream_checkpoint` writes.
        more_toys: further toys by name, one for each way through the network that ``toy`` does not take; the contract tests meet them all.
    """

    name: str
    load: Callable[[Path, str | None, bool], Backbone]
    randomise: Callable[[Backbone], Backbone]
    toy: Callable[[int], Backbone]
    recognises: Callable[[Path], bool]
    formats: Mapping[str, UpstreamFormat]
    more_toys: Mapping[str, Callable[[int], Backbone]] = field(default_factory=dict)
    build: Callable[[Mapping[str, Any], str], Backbone] | None = None


def choose_head(heads: tuple[str, ...], head: str | None, source: str) -> str | None:
    """The head to use; never silently the first.

    Raises:
        ZooError: where a choice is needed and none was made, or the name is unknown.
    """
    if not heads:
        if head is not None:
            raise ZooError(f"{source}: has no heads to choose from, found head={head!r}; leave head out")
        return None
    if head is None:
        raise ZooError(f"{source}: has several heads and none was chosen; pass head= (backbone.head=) one of: {', '.join(heads)}")
    matches = [name for name in heads if name == head] or [name for name in heads if name.lower() == head.lower()]
    if not matches:
        raise ZooError(f"{source}: unknown head {head!r}; known: {', '.join(heads)}")
    if len(matches) > 1:
        raise ZooError(f"{source}: {len(matches)} of its heads ({', '.join(heads)}) are called {head!r}; spell one as it is written there")
    return matches[0]
