"""UMA and eSEN (Wood et al., arXiv:2506.23971; Fu et al., arXiv:2502.12147): eSCN-MD networks of the ``fairchem-core`` package.

Edges have our rows and our vector. A model's heads are its tasks: data sets at a level of theory of their own, some of which depend on the
structure's total charge and spin multiplicity.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from fairchem.core.models.uma.escn_md import Linear_Force_Head, MLP_Stress_Head
from torch import Tensor, nn

from zoo.backbones.base import Backbone, DropoutRates, ForceMode, SpeciesRows, choose_head
from zoo.backbones.uma.checkpoint import checkpoint_record
from zoo.backbones.uma.config import UmaConfig
from zoo.backbones.uma.network import Structures, aliasing_floor, build, check_is_not_merged, mixes_extensively, outputs
from zoo.backbones.uma.tasks import Task, Tasks
from zoo.errors import ZooError
from zoo.graph import AtomGraph

_NEUTRAL_TASKS = frozenset({"oc20", "oc22", "oc25", "odac", "omat", "omc"})
"""Upstream's tasks without charges: trained with charge 0, and 0 for the multiplicity that is not stated."""
CHARGES, SPINS = (-100, 100), (0, 100)
"""What upstream has embeddings for."""
_MOLECULES = "omol"
"""The task whose structures have a spin multiplicity, 1 where it is not stated; the others were trained with 0, not stated."""


class Uma(Backbone):
    """An eSCN-MD network that reads an `AtomGraph`, conservative or with outputs for forces and stress of its own.

    Args:
        config: of the network.
        tasks: of the checkpoint.
        dataset: the task to predict.
        dtype: of weights and constants.
    """

    family = "uma"
    reads_charge = True
    vectorises = False  # what it refuses (a charge it does not know) depends on values, which torch.vmap hides
    strict_neighbours = False
    symmetry = "SO(3)"
    adapter_layers = r"\bblocks\.(\d+)\."
    adapter_roles: ClassVar[dict[str, str]] = {
        "network.output_heads.*": "readout",
        "*.routing_mlp.*": "routing",
        "*.mix_csd.*": "embedding",
    }
    species_weights: ClassVar[dict[str, SpeciesRows]] = {
        "*sphere_embedding.weight": "inner",
        "*source_embedding.weight": "inner",
        "*target_embedding.weight": "inner",
    }

    def __init__(self, config: UmaConfig, tasks: Tasks, dataset: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.tasks = config, tasks
        self.heads = tasks.datasets if len(tasks.datasets) > 1 else ()
        self.head = dataset if self.heads else None
        self.predicted = tasks.of(dataset)
        self.network: Any = build(config, dtype)
        settings = config.settings
        self.cutoff = float(settings["cutoff"])
        self.max_neighbours = int(settings["max_neighbors"]) if settings["max_neighbors"] > 0 else None
        self.conservative = not settings["direct_forces"]
        self.direct_stress = not self.conservative and self.predicted.stress is not None
        self.aliasing_floor = aliasing_floor(settings)
        self.extensive = self.predicted.energy.mean == 0 and mixes_extensively(self.network.backbone, dataset == _MOLECULES)
        references = self.predicted.energy.element_references
        known = int(settings["max_num_elements"]) if references is None else min(int(settings["max_num_elements"]), len(references))
        self.elements = tuple(range(1, min(known, 119)))
        self._check_tasks()
        self._set_unused_aside()
        energies = torch.tensor([0.0] * known if references is None else references[:known], dtype=torch.float64)
        self.register_buffer("element_references", energies, persistent=False)  # eV; float64 whatever the network's precision

    @property
    def species_order(self) -> tuple[int, ...]:
        """The row of an element is its atomic number."""
        return tuple(range(int(self.config.settings["max_num_elements"])))

    def forward(self, graph: AtomGraph, *, forces: ForceMode = "direct") -> dict[str, Tensor]:
        """``{"energy": (G,)}`` in eV, float64; of a direct model ``forces`` and ``stress`` too, unless the gradient is asked for."""
        direct = not self.conservative and forces == "direct"
        vectors = graph.edge_vectors()  # (E, 3) Å, float64
        vectors = (vectors.detach() if direct else vectors).to(self.dtype)
        check_is_not_merged(self.network, self.config.backbone[0])
        found = outputs(self.network, self._structures(graph, vectors), graph.edge_index, vectors)
        energy = self._denormalised(found, self.predicted.energy).to(torch.float64).reshape(-1)  # (G,)
        per_atom = self.get_buffer("element_references")[graph.atomic_numbers].to(torch.float64)  # (N,)
        results = {"energy": energy + torch.zeros_like(energy).index_add(0, graph.graph_of_atom, per_atom)}
        if direct:
            assert self.predicted.forces is not None
            results["forces"] = self._denormalised(found, self.predicted.forces).reshape(-1, 3)
            if self.predicted.stress is not None:
                results["stress"] = self._denormalised(found, self.predicted.stress).reshape(-1, 3, 3)
        return results

    @property
    def dropout_rates(self) -> DropoutRates:
        """Of the experts' shares, or of the atoms that enter a composition where that is more; of nothing without experts."""
        backbone = self.network.backbone
        return (
            DropoutRates(dropout=max(backbone.mole_dropout.p, backbone.composition_dropout))
            if hasattr(backbone, "mole_dropout")
            else DropoutRates()
        )

    def set_dropout(self, rates: DropoutRates) -> None:
        """Change both rates of a mixture of experts to one."""
        backbone = self.network.backbone
        has_experts = hasattr(backbone, "mole_dropout")
        super().set_dropout(DropoutRates(None if has_experts else rates.dropout, rates.stochastic_depth))
        if rates.dropout is not None:
            backbone.mole_dropout.p = backbone.composition_dropout = rates.dropout

    def _denormalised(self, found: Mapping[str, Any], task: Task) -> Tensor:
        output = found.get(task.name)
        values = output.get(task.quantity) if isinstance(output, Mapping) else None
        if values is None:
            raise ZooError(
                f"{self.config.source}: no head gives {task.name!r} with {task.quantity!r} in it, which its task asks for (heads give: "
                f"{', '.join(found)}); mend heads and tasks: a head's name is its task's, or pass_through_head_outputs is true"
            )
        denormalised: Tensor = values * task.rmsd + task.mean
        return denormalised

    def _structures(self, graph: AtomGraph, vectors: Tensor) -> Structures:
        charge, spin = graph.charge, graph.spin  # (G,)
        for values, (lowest, highest), name in ((charge, CHARGES, "charge"), (spin, SPINS, "spin")):
            if bool(((values < lowest) | (values > highest)).any()):
                raise ZooError(f"a structure has {name}={int(values[values.abs().argmax()])}; the model knows {lowest} to {highest}")
        if not self.config.raw.get("supports_single_atoms") and bool(((graph.atom_counts == 1) & ~graph.pbc.any(dim=1)).any()):
            raise ZooError(
                f"{self.config.source}: a structure of one isolated atom, which this model was not trained on: upstream takes its energy "
                "from a table apart from the model; leave the atom out, or take a later model (uma-s-1p2)"
            )
        dataset = self.predicted.dataset
        if dataset in _NEUTRAL_TASKS and bool(((charge != 0) | (spin != 0)).any()):
            raise ZooError(
                f"a structure has a charge or a spin multiplicity, and the task {dataset!r} was trained without; remove info['charge'] and "
                f"info['spin'], or pass head={_MOLECULES!r} for molecules"
            )
        if dataset == _MOLECULES:
            spin = torch.where(spin == 0, torch.ones_like(spin), spin)
        batch = graph.graph_of_atom
        return Structures(
            atomic_numbers=graph.atomic_numbers,
            batch=batch,
            batch_full=batch,
            natoms=graph.atom_counts,
            pos=graph.positions.detach().to(vectors.dtype),  # of which only type and device are read
            charge=charge,
            spin=spin,
            dataset=[dataset] * graph.graph_count,
        )

    def _check_tasks(self) -> None:
        """Refuse models whose outputs are not what this class makes of them."""
        source, dataset, energy = self.config.source, self.predicted.dataset, self.predicted.energy
        if not self.conservative and self.predicted.forces is None:
            raise ZooError(f"{source}: a model of direct forces whose tasks have none for {dataset!r}; pass head= another of its tasks")
        for task in (self.predicted.forces, self.predicted.stress) if self.conservative else ():
            if task is not None and (task.rmsd != energy.rmsd or task.mean != 0):
                raise ZooError(
                    f"{source}: its {task.quantity} of {dataset!r} have another normaliser than its energies (rmsd {task.rmsd:g} and "
                    f"{energy.rmsd:g}), so that they are no gradient of them; such a model cannot be used as a conservative one"
                )
        settings = self.config.settings
        mapping = settings["dataset_mapping"] if settings["use_dataset_embedding"] else None
        if mapping is not None and dataset not in mapping:
            raise ZooError(f"{source}: its task {dataset!r} has no embedding (it has: {', '.join(mapping)}); mend the configuration")

    def _set_unused_aside(self) -> None:
        """What enters no output is kept as it is, for the way back, and is no weight of this model: an adapter could not train it."""
        embeddings = getattr(self.network.backbone, "dataset_embedding", None)
        if embeddings is not None:
            own = embeddings.dataset_mapping[self.predicted.dataset]
            for name, embedding in embeddings.dataset_emb_dict.items():
                if name != own:
                    _set_aside(embedding, "weight")
        if self.conservative and hasattr(self.network.backbone.norm, "norm_l0"):  # its other scales are of degrees that no energy reads
            _set_aside(self.network.backbone.norm, "affine_weight")
        for module in self.network.output_heads.modules():
            if isinstance(module, Linear_Force_Head | MLP_Stress_Head):  # a bias is added to degree 0, which they leave out
                _set_aside(module.linear if isinstance(module, Linear_Force_Head) else module.l2_linear, "bias")

    def upstream_checkpoint(self, element_shifts_ev: Mapping[int, float]) -> Any:
        """An inference checkpoint, once ``torch.save`` wrote it; the shifts go into the element references of the task in use."""
        state = {name: value.detach().to("cpu", copy=True) for name, value in self.network.state_dict().items()}
        tasks = copy.deepcopy(self.tasks.raw)
        if element_shifts_ev:
            values = self.get_buffer("element_references").tolist()
            for number, shift in element_shifts_ev.items():
                values[number] += shift
            tasks = self.tasks.with_references(self.predicted.energy, values)
        return checkpoint_record(copy.deepcopy(self.config.raw), tasks, state)

    def rebuilt(self, dtype: torch.dtype) -> Uma:
        """The same model built anew in ``dtype``."""
        with torch.random.fork_rng(devices=[]):  # its random weights are replaced: they must not use up the caller's stream
            twin = Uma(self.config, self.tasks, self.predicted.dataset, dtype)
        twin.network.load_state_dict(self.network.state_dict())
        twin.has_weights = self.has_weights
        if hasattr(self.network.backbone, "mole_dropout"):
            twin.network.backbone.mole_dropout.p = self.network.backbone.mole_dropout.p
            twin.network.backbone.composition_dropout = self.network.backbone.composition_dropout
        return twin.to(next(self.parameters()).device)


def _set_aside(module: nn.Module, name: str) -> None:
    """A parameter made a buffer of the same name."""
    value = module.get_parameter(name).detach()
    delattr(module, name)
    module.register_buffer(name, value)


def chosen_dataset(tasks: Tasks, head: str | None) -> str:
    """The data set to predict: ``head``, or the only one; raises `ZooError` as `choose_head`."""
    return choose_head(tasks.datasets if len(tasks.datasets) > 1 else (), head, tasks.source) or tasks.datasets[0]


def randomised(backbone: Backbone) -> Uma:
    """The architecture with weights drawn anew from torch's global generator; element references and normalisers are kept."""
    assert isinstance(backbone, Uma)
    fresh = Uma(backbone.config, backbone.tasks, backbone.predicted.dataset, backbone.dtype)
    return fresh.to(next(backbone.parameters()).device)
