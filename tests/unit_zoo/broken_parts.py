"""Methods and networks that each break one promise, for the conformance kit to find; and a sound one of either kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapters.bottleneck import Bottleneck
from adapters.method import AdapterMethod, MethodConfig
from tests import direct_family
from tests.direct_family import DirectToy, Settings
from zoo.backbones.base import Family


class Sound(AdapterMethod):
    """delta = D, dense, zero at the start."""

    name = "sound"

    def initial_factors(self, block, generator, dtype):
        return {"D": torch.zeros(block.compact_shape, dtype=dtype)}

    def delta(self, factors):
        return factors["D"]


class StartsElsewhere(Sound):
    """A start of a millionth, which it does not declare."""

    name = "starts-elsewhere"

    def initial_factors(self, block, generator, dtype):
        return {"D": torch.full(block.compact_shape, 1e-6, dtype=dtype)}


class StartsAtTheBaseAfterAll(Sound):
    """It declares a start of its own and has none."""

    name = "starts-at-the-base-after-all"
    starts_at_base = False


class StartsElsewhereInTraining(Sound):
    """Where gradients are taken it adds a millionth."""

    name = "starts-elsewhere-in-training"

    def delta(self, factors):
        return factors["D"] + 1e-6 * torch.is_grad_enabled()


class NotEquivariant(Bottleneck):
    """Components of vectors are mixed, and nothing is said of it."""

    name = "not-equivariant"
    equivariant: ClassVar[bool] = True


class EquivariantAfterAll(Sound):
    """It declares to break the symmetry, and does not."""

    name = "equivariant-after-all"
    equivariant: ClassVar[bool] = False


class MovesTheBase(Sound):
    """Its step hook writes into the base."""

    name = "moves-the-base"

    def before_step(self, adapter, base, learning_rate, weight_decay):
        next(base.parameters()).mul_(1 + 1e-12)


class ForgetsANumber(Sound):
    """A gain of each object of the method, which no file holds."""

    name = "forgets-a-number"
    made = 0

    def __init__(self, config):
        super().__init__(config)
        ForgetsANumber.made += 1
        self.gain = 1 + 0.01 * ForgetsANumber.made

    def delta(self, factors):
        return self.gain * factors["D"]


class MergesOtherwise(Sound):
    """Each time that it is asked for, the delta is larger by a millionth."""

    name = "merges-otherwise"

    def __init__(self, config):
        super().__init__(config)
        self.calls = 0

    def delta(self, factors):
        self.calls += 1
        return factors["D"] * (1 + 1e-6 * self.calls)


class DeadTensor(Sound):
    """A tensor that no delta depends on."""

    name = "dead-tensor"

    def initial_factors(self, block, generator, dtype):
        return {**super().initial_factors(block, generator, dtype), "unused": torch.ones(1, dtype=dtype)}


class NotOptimised(Sound):
    """Its groups leave a tensor out."""

    name = "not-optimised"

    def param_groups(self, adapter, learning_rate, weight_decay):
        return [{"params": list(adapter.tensors.values())[1:], "lr": learning_rate, "weight_decay": weight_decay}]


class DeadStart(Sound):
    """delta = a b with both zero at the start, from where no gradient leads away."""

    name = "dead-start"

    def initial_factors(self, block, generator, dtype):
        return {name: torch.zeros(block.compact_shape, dtype=dtype) for name in "ab"}

    def delta(self, factors):
        return factors["a"] * factors["b"]


class WrongGradient(Sound):
    """Twice the gradient, as a scale that is applied in the wrong pass."""

    name = "wrong-gradient"

    def delta(self, factors):
        return 2 * factors["D"] - factors["D"].detach()


class DerivativeAfterAll(Sound):
    """It declares a surrogate gradient, and has the derivative."""

    name = "derivative-after-all"
    surrogate_gradient = True


class ForgetsItsSettings(Sound):
    """Its settings leave out which roles it is for."""

    name = "forgets-its-settings"

    @property
    def config_dict(self):
        return {key: value for key, value in super().config_dict.items() if key != "roles"}


class AnotherInFloat32(Sound):
    """In float32 it does nothing."""

    name = "another-in-float32"

    def delta(self, factors):
        return factors["D"] * (factors["D"].dtype == torch.float64)


class WrongProduct(Sound):
    """delta = u v, of which it says that it is 2 u v."""

    name = "wrong-product"
    Config = MethodConfig

    def selects(self, block):
        return block.structure == "matrix" and self.is_chosen(block)

    def initial_factors(self, block, generator, dtype):
        *stack, rows, cols = block.compact_shape
        return {"u": torch.ones((*stack, rows, 2), dtype=dtype), "v": torch.zeros((*stack, 2, cols), dtype=dtype)}

    def delta(self, factors):
        return factors["u"] @ factors["v"]

    def as_product(self, factors):
        return 2 * factors["u"], factors["v"]


BROKEN_METHODS: dict[type[AdapterMethod], tuple[str, str]] = {
    StartsElsewhere: ("start", "starts at the base"),
    StartsAtTheBaseAfterAll: ("start", "start_note says how it starts|does not start at the base"),
    StartsElsewhereInTraining: ("start in training", "starts at the base while training"),
    NotEquivariant: ("symmetry", "turn with the structure"),
    EquivariantAfterAll: ("symmetry", "by orders of magnitude"),
    MovesTheBase: ("training step", "bit for bit"),
    ForgetsANumber: ("file", "from its file it predicts the same"),
    MergesOtherwise: ("merged", "merged equals attached"),
    DeadTensor: ("training step", "a gradient reaches each tensor"),
    NotOptimised: ("training step", "each tensor is in one optimizer group"),
    DeadStart: ("learning", "lowers the loss"),
    WrongGradient: ("gradients", "gradients are derivatives"),
    DerivativeAfterAll: ("gradients", "no derivative"),
    ForgetsItsSettings: ("file", "7 tensors missing"),
    AnotherInFloat32: ("precisions", "agrees to its rounding"),
    WrongProduct: ("combination", "as_product is the delta"),
}
"""Method -> the claim that finds it, and words of what is said."""


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
