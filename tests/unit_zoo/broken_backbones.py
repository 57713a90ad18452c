"""Networks and families that each break one promise, for the conformance kit to find; and a sound conservative one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tests import direct_family
from tests.direct_family import DirectToy, Settings
from zoo.backbones.base import Family


class Conservative(DirectToy):
    """The direct toy's energy alone, with forces as its gradient; ``broken`` may change the energy or the graph."""

    idle_weights = ("read_forces.*",)

    def __init__(self, settings: Settings, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(replace(settings, stress=False), dtype)
        self.conservative, self.direct_stress, self.aliasing_floor = True, False, 0.0

    def forward(self, graph: Any) -> dict[str, Tensor]:  # type: ignore[override]
        return {"energy": self.energy(graph)}

    def energy(self, graph: Any) -> Tensor:
        return super().forward(graph, forces="gradient")["energy"]

    def rebuilt(self, dtype: torch.dtype) -> Conservative:
        with torch.random.fork_rng(devices=[]):
            twin = type(self)(self.settings, dtype)
        twin.load_state_dict(self.state_dict())
        return twin


class WrongSign(Conservative):
    """The right energy with the gradient of its negative."""

    def energy(self, graph):
        energy = super().energy(graph)
        return 2 * energy.detach() - energy


class WrongStress(Conservative):
    """Cells are taken as constants, so that forces are right and the stress is not."""

    def energy(self, graph):
        still = graph.clone()
        still.cell = graph.cell.detach()
        return super().energy(still)


class CountsAtoms(Conservative):
    """The first atom of a structure counts for more."""

    def energy(self, graph):
        first = torch.cat([torch.ones(1), (graph.graph_of_atom[1:] != graph.graph_of_atom[:-1]).double()]).bool()
        sender, _ = graph.edge_index
        return super().energy(graph).index_add(0, graph.graph_of_atom[sender], 1e-4 * first[sender] * graph.edge_vectors().norm(dim=1))


class Leaks(Conservative):
    """Each structure's energy holds a little of the batch's mean."""

    def energy(self, graph):
        energy = super().energy(graph)
        return energy + 1e-6 * energy.mean()


class ReadsAnAxis(Conservative):
    """A millionth of the messages depends on the x axis."""

    def __init__(self, settings, dtype=torch.float64):
        super().__init__(replace(settings, aliasing=1e-6), dtype)


class NotExtensive(Conservative):
    """An energy per atom."""

    def energy(self, graph):
        return super().energy(graph) / graph.atom_counts


class Jumps(Conservative):
    """The energy jumps at the cutoff, and is declared smooth."""

    def energy(self, graph):
        self.smooth_cutoff = False
        try:
            return super().energy(graph)
        finally:
            self.smooth_cutoff = True


class ReadsTheFirstEdge(Conservative):
    """The edge that comes first counts."""

    def energy(self, graph):
        return super().energy(graph) + 1e-3 * graph.edge_vectors()[0].norm()


class WritesIntoTheGraph(Conservative):
    """Its forward pass moves the atoms' tags."""

    def energy(self, graph):
        graph.tags += 1
        return super().energy(graph)


class TwoElementsAlike(Conservative):
    """Hydrogen is taken for carbon."""

    def __init__(self, settings, dtype=torch.float64):
        super().__init__(settings, dtype)
        self.species[1] = self.species[6]


class SilentWeights(Conservative):
    """Weights that no output depends on, and that are not declared."""

    idle_weights = ()


class ForgetsAWeight(Conservative):
    """What is rebuilt lacks a weight."""

    def rebuilt(self, dtype):
        twin = super().rebuilt(dtype)
        with torch.no_grad():
            twin.read_energy.weight.zero_()
        return twin


class WrongShape(Conservative):
    """Energies as a column."""

    def forward(self, graph):
        return {"energy": self.energy(graph)[:, None]}


class NoRoles(Conservative):
    """It does not say which layers read out."""

    adapter_roles: ClassVar[dict[str, str]] = {"radial.*": "radial"}


class DropsSilently(Conservative):
    """Dropout that it does not declare."""

    def energy(self, graph):
        return super().energy(graph) * nn.functional.dropout(torch.ones(1, dtype=self.dtype), 0.5, self.training)


def _direct(fault: str) -> Callable[[int], DirectToy]:
    return lambda seed: direct_family.toy(seed, Settings(fault=fault))


def built(kind: type[Conservative]) -> Callable[[int], DirectToy]:
    """The builder of a toy of this kind."""

    def build(seed: int) -> DirectToy:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return direct_family._randomised(kind(Settings()))

    return build


BROKEN_BACKBONES: dict[str, tuple[Callable[[int], DirectToy], str, str]] = {
    "forces of the wrong sign": (built(WrongSign), "symmetries", "finite differences of forces"),
    "a wrong stress": (built(WrongStress), "symmetries", "finite differences of stress"),
    "the first atom counts for more": (built(CountsAtoms), "symmetries", "permutation"),
    "a structure knows its batch": (built(Leaks), "batching", "does not know its batch"),
    "an axis is read": (built(ReadsAnAxis), "symmetries", "rotation"),
    "an energy per atom": (built(NotExtensive), "symmetries", "extensivity"),
    "a jump at the cutoff": (built(Jumps), "smoothness", "as declared"),
    "the first edge is read": (built(ReadsTheFirstEdge), "graph recipe", "order of edges"),
    "the graph is written into": (built(WritesIntoTheGraph), "outputs", "the graph is left"),
    "two elements alike": (built(TwoElementsAlike), "elements", "each element has its energy"),
    "silent weights": (built(SilentWeights), "weights matter", "declared idle"),
    "a weight forgotten": (built(ForgetsAWeight), "rebuilt", "it agrees"),
    "energies as a column": (built(WrongShape), "outputs", "outputs are those that are declared"),
    "no roles": (built(NoRoles), "coverage", "which layers read out"),
    "silent dropout": (built(DropsSilently), "dropout", "training is evaluation"),
    "direct forces that do not turn": (_direct("fixed"), "symmetries", "rotation of forces"),
    "a stress declared and not returned": (_direct("no stress"), "outputs", "outputs are those that are declared"),
    "a gradient declared and detached": (_direct("detached"), "force modes", "finite differences"),
}
"""What is wrong -> the toy's builder, the claim that finds it, and words of what is said."""


def _forgetful(path: Any, head: Any, trust_pickle: bool) -> Any:
    backbone = direct_family._load(path, head, trust_pickle)
    with torch.no_grad():
        backbone.radial.weight[0, 0] += 0.5
    return backbone


class ForgetsShifts(DirectToy):
    """Its file leaves reference energies out."""

    def upstream_checkpoint(self, element_shifts_ev):
        return super().upstream_checkpoint({})


def _seeded(seed: int) -> DirectToy:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return direct_family._randomised(ForgetsShifts(Settings()))


BROKEN_FAMILIES: dict[str, tuple[Family, str, str]] = {
    "a file that lacks a weight": (replace(direct_family.FAMILY, load=_forgetful), "checkpoint", "a file holds the weights"),
    "every file is its own": (replace(direct_family.FAMILY, recognises=lambda path: True), "checkpoint", "recognises its files alone"),
    "random weights that are not": (replace(direct_family.FAMILY, randomise=lambda b: b.rebuilt(b.dtype)), "random weights", "drawn anew"),
    "reference energies left out": (replace(direct_family.FAMILY, toy=_seeded), "merged checkpoint", "holds the merged model"),
}
"""What is wrong -> the family, the claim that finds it, and words of what is said."""
