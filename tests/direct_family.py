"""A tiny family with a force output of its own, for tests alone: what a direct backbone promises, without a network of millions of weights.

Its forces turn with the structure and are not the gradient of its energy, whose directions it detaches unless it is asked for a gradient.
The variant ``aliased`` has what EquiformerV2 has besides: an error under rotations from outside its weights, a limit of neighbours that
makes the energy jump, and no stress.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from e3nn import o3
from torch import Tensor, nn

import zoo.backbones
from zoo.backbones.base import Backbone, Family, ForceMode, UpstreamFormat, choose_head
from zoo.graph import AtomGraph

CHANNELS, RADIAL = 6, 8
ELEMENTS = (1, 6, 8, 29, 79)


@dataclass(frozen=True)
class Settings:
    """What makes one direct model from another.

    ``aliasing`` is the share of a message that depends on the x axis; ``fault`` plants what a test must find: "fixed" forces that do not
    turn, "no stress" although one is declared, "detached" directions whatever is asked for.
    """

    aliasing: float = 0.0
    max_neighbours: int | None = None
    strict: bool = True
    stress: bool = True
    differentiable: bool = True
    fault: str = ""


class DirectToy(Backbone):
    """Energy from scalars and lengths of vectors; forces and stress from pairs, by weights of their own."""

    family = "direct_toy"
    adapter_roles: ClassVar[dict[str, str]] = {"radial.*": "radial", "read_*": "readout"}

    def __init__(self, settings: Settings, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.settings = settings
        self.cutoff, self.elements, self.symmetry, self.conservative = 4.0, ELEMENTS, "O(3)", False
        self.max_neighbours, self.strict_neighbours = settings.max_neighbours, settings.strict
        self.smooth_cutoff = settings.max_neighbours is None
        self.differentiable, self.direct_stress = settings.differentiable, settings.stress
        self.aliasing_floor = 10 * settings.aliasing
        self.embedding = nn.Embedding(len(ELEMENTS), CHANNELS, dtype=dtype)
        self.radial = nn.Linear(RADIAL, 3 * CHANNELS, dtype=dtype)
        # a layer that every adapter method knows, with vectors, so that a method that mixes their components shows
        self.mix = o3.Linear(f"{2 * CHANNELS}x0e+{CHANNELS}x1o", f"{CHANNELS}x0e+{CHANNELS}x1o").to(dtype)
        self.read_energy = nn.Linear(CHANNELS, 1, dtype=dtype)
        self.read_forces = nn.Linear(CHANNELS, 1, bias=False, dtype=dtype)
        self.read_stress = nn.Linear(CHANNELS, 1, bias=False, dtype=dtype) if settings.stress else None
        species = torch.full((119,), -1, dtype=torch.long)
        species[list(ELEMENTS)] = torch.arange(len(ELEMENTS))
        self.register_buffer("species", species, persistent=False)
        self.register_buffer("centres", torch.linspace(0.5, self.cutoff, RADIAL, dtype=dtype), persistent=False)
        self.register_buffer("atom_energies", torch.zeros(len(ELEMENTS), dtype=dtype))

    def forward(self, graph: AtomGraph, *, forces: ForceMode = "direct") -> dict[str, Tensor]:
        """As `Backbone.forward` says of a direct backbone."""
        sender, receiver = graph.edge_index
        vectors = graph.edge_vectors().to(self.dtype)  # (E, 3)
        lengths = vectors.norm(dim=1, keepdim=True)  # (E, 1)
        units = vectors / lengths
        if forces == "direct" or self.settings.fault == "detached":
            units = units.detach()
        envelope = (1 - (lengths / self.cutoff).square()).clamp(min=0) ** 3 if self.smooth_cutoff else torch.ones_like(lengths)
        aliased = 1 + self.settings.aliasing * units[:, :1].square()
        gaussians = torch.exp(-2 * (lengths - self.centres).square())  # (E, RADIAL)
        to_scalars, to_vectors, to_pairs = (nn.functional.silu(self.radial(gaussians)) * envelope * aliased).chunk(3, dim=1)
        species = self.species[graph.atomic_numbers]
        atoms = self.embedding(species)  # (N, CHANNELS)
        scalars = torch.zeros_like(atoms).index_add(0, receiver, to_scalars * atoms[sender])
        vector_messages = (to_vectors * atoms[sender])[:, :, None] * units[:, None, :]  # (E, CHANNELS, 3)
        vectors = torch.zeros_like(atoms)[:, :, None].repeat(1, 1, 3).index_add(0, receiver, vector_messages)  # (N, CHANNELS, 3)
        mixed = self.mix(torch.cat([scalars, vectors.square().sum(2), vectors.flatten(1)], dim=1))  # (N, 4 CHANNELS)
        mixed_vectors = mixed[:, CHANNELS:].reshape(vectors.shape)
        hidden = nn.functional.silu(mixed[:, :CHANNELS]) + (mixed_vectors * vectors).sum(2) + atoms  # (N, CHANNELS)
        atom_energies = self.read_energy(hidden)[:, 0] + self.atom_energies[species]
        results = {"energy": atoms.new_zeros(graph.graph_count).index_add(0, graph.graph_of_atom, atom_energies)}
        if forces == "gradient":
            return results
        pairs = to_pairs * hidden[sender] * hidden[receiver]  # (E, CHANNELS)
        directions = torch.ones_like(units) if self.settings.fault == "fixed" else units
        pair_forces = self.read_forces(pairs) * directions  # (E, 3)
        results["forces"] = atoms.new_zeros(len(atoms), 3).index_add(0, receiver, pair_forces)
        if self.read_stress is not None and self.settings.fault != "no stress":
            pair_stress = self.read_stress(pairs)[:, :, None] * units[:, :, None] * units[:, None, :]  # (E, 3, 3)
            total = atoms.new_zeros(graph.graph_count, 3, 3).index_add(0, graph.graph_of_atom[receiver], pair_stress)
            results["stress"] = 0.01 * total / graph.atom_counts[:, None, None]
        return results

    def on_finer_grid(self) -> DirectToy:
        """With a hundredth of the aliasing."""
        twin = DirectToy(replace(self.settings, aliasing=self.settings.aliasing / 100), self.dtype)
        twin.load_state_dict(self.state_dict())
        return twin

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> dict[str, Any]:
        """A dict of settings and tensors, the shifts in the atom energies."""
        state = {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.state_dict().items()}
        for number, shift in element_shifts_ev.items():
            state["atom_energies"][ELEMENTS.index(number)] += shift
        return {"direct_toy": asdict(self.settings), "state": state}

    def rebuilt(self, dtype: torch.dtype) -> DirectToy:
        """The same model in ``dtype``."""
        with torch.random.fork_rng(devices=[]):
            twin = DirectToy(self.settings, dtype)
        twin.load_state_dict(self.state_dict())
        return twin


def toy(seed: int, settings: Settings = Settings()) -> DirectToy:
    """Random weights in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _randomised(DirectToy(settings))


def _randomised(backbone: Backbone) -> Backbone:
    """Every weight drawn anew from torch's global generator."""
    with torch.no_grad():
        for parameter in backbone.parameters():
            # e3nn's flat weights are normalised where they are used
            parameter.copy_(torch.randn_like(parameter) / (parameter.shape[1] ** 0.5 if parameter.dim() == 2 else 1.0))
    return backbone


def _load(path: Path, head: str | None, trust_pickle: bool) -> Backbone:
    choose_head((), head, str(path))
    payload = torch.load(path, weights_only=True)
    with torch.random.fork_rng(devices=[]):
        backbone = DirectToy(Settings(**payload["direct_toy"]), payload["state"]["radial.weight"].dtype)
    backbone.load_state_dict(payload["state"])
    return backbone


def _recognises(path: Path) -> bool:
    try:
        return "direct_toy" in torch.load(path, weights_only=True)
    except Exception:  # whatever another family's file is
        return False


ALIASED = Settings(aliasing=1e-3, max_neighbours=6, stress=False)
FAMILY = Family(
    name="direct_toy",
    load=_load,
    randomise=lambda backbone: _randomised(backbone.rebuilt(backbone.dtype)),
    toy=toy,
    recognises=_recognises,
    formats={"native": UpstreamFormat(".pth", lambda path, head: f"nothing but these tests: {path}")},
    more_toys={"aliased": lambda seed: toy(seed, ALIASED)},
)


@contextmanager
def registered() -> Iterator[None]:
    """The family beside the real ones, for as long as the context lasts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.backbones._MODULES, FAMILY.name, __name__)
        patch.setitem(zoo.backbones._PACKAGES, FAMILY.name, ("torch", "pip install torch"))
        yield
