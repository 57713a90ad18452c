"""One pass of a network over K groups of structures, each with weights of its own: ``torch.vmap``, and what networks do that it forbids.

Networks write sums over neighbours into zeros in place, which vmap refuses where the zeros are shared by the groups and the sums are not;
its rules for sums and look-ups by index go group by group. Inside `_Groups` zeros are a group's own, and sums and look-ups by index along
the first dimension are those of one large system, in which the groups lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.graph import AtomGraph, cell_volumes

if TYPE_CHECKING:
    from zoo.potential import Potential

_FACTORIES = (torch.zeros, torch.zeros_like, Tensor.new_zeros, torch.full, Tensor.new_full)


class AlikeGraph:
    """K groups of structures of one size.

    Attributes:
        tensors: positions (K, N, 3), cell (K, G, 3, 3), and the other fields of `AtomGraph` that a network reads, each with K in front.
        graph_count: G.
    """

    def __init__(self, tensors: Mapping[str, Tensor], graph_count: int) -> None:
        self.tensors = dict(tensors)
        self.graph_count = graph_count


class _GroupGraph(AtomGraph):
    """One group under vmap; what `AtomGraph` counts is given, because counting depends on values."""

    @property
    def graph_count(self) -> int:
        return int(self["count_of_graphs"])

    @property
    def graph_of_atom(self) -> Tensor:
        return self["structure_of_atom"]  # type: ignore[no-any-return]

    @property
    def atom_counts(self) -> Tensor:
        return self["counts_of_atoms"]  # type: ignore[no-any-return]


def vectorised(potential: Potential, weights: Mapping[str, Tensor], groups: AlikeGraph) -> dict[str, Tensor]:
    """Energies, forces and stresses of all groups.

    Args:
        potential: in ``eval()`` mode.
        weights: parameter name -> (K, ...).
        groups: K groups of N atoms in G structures.

    Returns:
        ``energy`` (K, G) eV without reference energies, ``forces`` (K, N, 3) eV/Å and, where the potential has one, ``stress`` (K, G, 3, 3)
        eV/Å^3, which has no meaning for what is not periodic; float64, without a graph.
    """
    tensors = groups.tensors
    derived = potential.conservative
    with torch.inference_mode(False), torch.set_grad_enabled(derived):
        positions = tensors["positions"].detach().requires_grad_(derived)  # (K, N, 3)
        strain = torch.zeros_like(tensors["cell"]).requires_grad_(derived)  # (K, G, 3, 3)

        def one(own: dict[str, Tensor], fields: dict[str, Tensor], places: Tensor, strained: Tensor) -> dict[str, Tensor]:
            graph = _strained(fields, places, strained, groups.graph_count)
            with _Groups(places, graph.graph_of_atom, groups.graph_count):
                settings = {} if potential.backbone.conservative else {"forces": potential.forces}
                outputs: dict[str, Tensor] = potential.adapters.call_with(own, graph, **settings)
            return {name: outputs[name].to(torch.float64) for name in ("energy", "forces", "stress") if name in outputs}

        results: dict[str, Tensor] = torch.vmap(one)(dict(weights), tensors, positions, strain)
        if derived:
            gradients = torch.autograd.grad(results["energy"].sum(), (positions, strain))
            volumes = cell_volumes(tensors["cell"])[..., None, None]  # (K, G, 1, 1)
            safe = torch.where(volumes > 0, volumes, 1.0)
            results = {"energy": results["energy"], "forces": -gradients[0], "stress": gradients[1] / safe}
    return {name: value.detach() for name, value in results.items()}


def _strained(fields: Mapping[str, Tensor], positions: Tensor, strain: Tensor, graph_count: int) -> _GroupGraph:
    """The graph of one group under a symmetric strain, as `zoo.strain` applies it to a batch."""
    symmetric = (strain + strain.transpose(1, 2)) / 2  # (G, 3, 3)
    graph = _GroupGraph(
        atomic_numbers=fields["atomic_numbers"],
        positions=positions + torch.einsum("ni,nij->nj", positions, symmetric[fields["graph_of_atom"]]),
        cell=fields["cell"] + fields["cell"] @ symmetric,
        edge_index=fields["edge_index"],
        edge_shift=fields["edge_shift"],
        structure_of_atom=fields["graph_of_atom"],
        counts_of_atoms=fields["atom_counts"],
        count_of_graphs=graph_count,
    )
    graph.num_nodes = positions.shape[0]
    return graph


class _Groups(TorchFunctionMode):
    """Torch's functions as a network under vmap needs them (see the module)."""

    def __init__(self, positions: Tensor, graph_of_atom: Tensor, graph_count: int) -> None:
        super().__init__()
        self._zero = positions.detach().sum() * 0
        self._graph_of_atom = graph_of_atom
        self._last_graph = graph_count - 1

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        settings = dict(kwargs or {})
        if func is Tensor.max and len(args) == 1 and args[0] is self._graph_of_atom:
            return torch.tensor(self._last_graph)  # sevenn counts the structures so; the last one holds ghosts and is never empty
        if func is Tensor.index_add and args[1] == 0 and not settings:
            return args[0] + _RowsAdded.apply(args[3], args[2], args[0].shape[0])  # type: ignore[no-untyped-call]
        if func is Tensor.index_select and args[1] == 0 and not settings:
            return _RowsTaken.apply(args[0], args[2])  # type: ignore[no-untyped-call]
        result = func(*args, **settings)
        if func in _FACTORIES and result.is_floating_point():
            return result + self._zero.to(result.dtype)
        return result


class _RowsAdded(torch.autograd.Function):
    """Rows of ``source`` (E, ...) added up by ``index`` (E,) into (size, ...)."""

    @staticmethod
    def forward(source: Tensor, index: Tensor, size: int) -> Tensor:
        return source.new_zeros(size, *source.shape[1:]).index_add_(0, index, source)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _RowsTaken.apply(gradient, *ctx.saved_tensors), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], source: Tensor, index: Tensor, size: int) -> tuple[Tensor, int]:
        groups: int = info.batch_size
        source = _in_front(source, in_dims[0], groups)  # (K, E, ...)
        rows = _rows_of_all(_in_front(index, in_dims[1], groups), size)  # (K E,)
        summed = _RowsAdded.apply(source.flatten(0, 1), rows, groups * size)  # type: ignore[no-untyped-call]
        return summed.unflatten(0, (groups, size)), 0


class _RowsTaken(torch.autograd.Function):
    """Rows of ``values`` (N, ...) by ``index`` (E,)."""

    @staticmethod
    def forward(values: Tensor, index: Tensor) -> Tensor:
        return values.index_select(0, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.size = inputs[0].shape[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _RowsAdded.apply(gradient, *ctx.saved_tensors, ctx.size), None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], values: Tensor, index: Tensor) -> tuple[Tensor, int]:
        groups: int = info.batch_size
        values = _in_front(values, in_dims[0], groups)  # (K, N, ...)
        index = _in_front(index, in_dims[1], groups)  # (K, E)
        rows = _rows_of_all(index, values.shape[1])
        taken = _RowsTaken.apply(values.flatten(0, 1), rows)  # type: ignore[no-untyped-call]
        return taken.unflatten(0, tuple(index.shape)), 0


def _in_front(tensor: Tensor, dimension: int | None, groups: int) -> Tensor:
    """With the groups as the first dimension, also where all share the tensor."""
    return tensor.expand(groups, *tensor.shape) if dimension is None else tensor.movedim(dimension, 0)


def _rows_of_all(index: Tensor, size: int) -> Tensor:
    """(K, E) rows of each group's ``size`` -> (K E,) rows of all of them."""
    return (index + size * torch.arange(len(index), device=index.device)[:, None]).flatten()
