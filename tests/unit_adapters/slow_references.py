"""Slow, plain references of e3nn's layers with an adapter, and of what an adapter changes: one number at a time, from their definitions.

Nothing of `adapters.blocks`, `adapters.layout` or `adapters.rules` is used. What is compared with them is written down here a second time:
which weights of a layer a path has, in the layer's own order of storage, and how the tensors of an adapter file make a change of each. The
layers of single packages are in `slow_layers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from e3nn.o3 import Irreps, wigner_3j
from torch import Tensor

Base = Mapping[str, Tensor]  # parameter name -> its values
Rows = list[list[Tensor]]  # a matrix, number by number


class Changes:
    """The change of each weight that the tensors of an adapter file make.

    Args:
        spec: the adapter's settings: of ``elora`` with an ``alpha``, ``sparse`` or ``full``.
        tensors: file key -> tensor.
        member: which of a stack of matrices, for weights that are stacks.
    """

    def __init__(self, spec: Mapping[str, Any], tensors: Mapping[str, Tensor], member: int | None = None) -> None:
        self._spec = spec
        self._tensors = tensors
        self._member = member

    def of_member(self, member: int) -> Changes:
        """The same for one of a stack of matrices."""
        return Changes(self._spec, self._tensors, member)

    def matrix(self, key: str, rows: int, columns: int) -> Rows:
        """The change of the path of this key, as ``[row][column]``.

        Args:
            key: ``<parameter>/<label>``.
            rows: inputs of the path.
            columns: its outputs.
        """
        of_member = {name: self._tensors[f"{key}/{name}"] for name in "ABD" if f"{key}/{name}" in self._tensors}
        if self._member is not None:  # files leave out stacks of one
            of_member = {name: tensor[self._member] if tensor.ndim == 3 else tensor for name, tensor in of_member.items()}
        if "D" in of_member:
            return [[self._dense(key, of_member["D"].reshape(rows, columns)[i, j]) for j in range(columns)] for i in range(rows)]
        if not of_member:
            return [[torch.zeros(()) for _ in range(columns)] for _ in range(rows)]
        rank = self._spec["rank"]
        left, right = of_member["A"], of_member["B"]
        assert (tuple(left.shape), tuple(right.shape)) == ((rows, rank), (rank, columns)), key
        return [
            [self._spec["alpha"] / rank * _total(left[i, k] * right[k, j] for k in range(rank)) for j in range(columns)]
            for i in range(rows)
        ]

    def vector(self, key: str, size: int) -> list[Tensor]:
        """The change of each number of a vector."""
        return self.matrix(key, 1, size)[0] if f"{key}/D" in self._tensors else [torch.zeros(()) for _ in range(size)]

    def _dense(self, key: str, value: Tensor) -> Tensor:
        if self._spec["name"] != "sparse":
            return value
        threshold = 1 / (1 + torch.exp(-self._tensors[f"{key.split('/')[0]}/*/tau"]))
        if value > threshold:
            return value - threshold
        return value + threshold if value < -threshold else 0 * value


def _total(values: Iterator[Tensor] | Sequence[Tensor]) -> Tensor:
    result = torch.zeros(())
    for value in values:
        result = result + value
    return result


@dataclass
class Path:
    """Some weights of a flat parameter: ``rows`` times ``columns`` of them, row by row, behind those of the path before.

    Attributes:
        label: what the adapter's tensors are called by.
        rows, columns: of its matrix.
        same: paths one behind the other are one path of simplified irreps where this agrees and ``first`` goes on by one.
        first: number of the input irrep.
        is_vector: without an index that a sum runs over.
    """

    label: str
    rows: int
    columns: int
    same: tuple[object, ...]
    first: int
    is_vector: bool = False


def weights_of_paths(name: str, paths: Sequence[Path], base: Base, changes: Changes) -> list[Rows]:
    """Base value plus change of each weight of each path, ``[path][row][column]``."""
    runs: list[list[int]] = []
    for number, path in enumerate(paths):
        if path.rows * path.columns == 0:
            continue
        before = paths[runs[-1][-1]] if runs else None
        goes_on = before is not None and not path.is_vector and (before.same, before.first + 1) == (path.same, path.first)
        if goes_on:
            runs[-1].append(number)
        else:
            runs.append([number])
    values: list[Rows] = [[] for _ in paths]
    flat, place, seen = base[name].reshape(-1), 0, dict[str, int]()
    for run in runs:
        label, columns = paths[run[0]].label, paths[run[0]].columns
        ordinal = seen.get(label, 0)
        seen[label] = ordinal + 1
        key = f"{name}/{label}.{ordinal}" if ordinal else f"{name}/{label}"
        rows = sum(paths[number].rows for number in run)
        is_vector = paths[run[0]].is_vector
        change = _in_rows(changes.vector(key, rows * columns), columns) if is_vector else changes.matrix(key, rows, columns)
        for number in run:
            for _ in range(paths[number].rows):
                row = change.pop(0)
                values[number].append([flat[place + j] + row[j] for j in range(columns)])
                place += columns
    assert place == flat.numel()
    return values


def _in_rows(values: Sequence[Tensor], columns: int) -> Rows:
    return [list(values[start : start + columns]) for start in range(0, len(values), columns)]


def channels_of(features: Tensor, irreps: Irreps) -> list[list[Tensor]]:
    """``[irrep][channel]`` -> (N, 2l + 1), out of features (N, irreps.dim)."""
    result, place = [], 0
    for multiplicity, irrep in irreps:
        result.append([features[:, place + channel * irrep.dim : place + (channel + 1) * irrep.dim] for channel in range(multiplicity)])
        place += multiplicity * irrep.dim
    return result


def _joined(outputs: list[list[Tensor]], count: int) -> Tensor:
    return torch.cat([torch.zeros(count, 0), *(channel for irrep in outputs for channel in irrep)], dim=1)


def _zeros(irreps: Irreps, count: int) -> list[list[Tensor]]:
    return [[torch.zeros(count, irrep.dim) for _ in range(multiplicity)] for multiplicity, irrep in irreps]


def e3nn_linear(irreps: tuple[Irreps, Irreps], base: Base, changes: Changes, features: Tensor, normalisation: str = "element") -> Tensor:
    """e3nn's ``Linear``: each output channel is the sum of the channels of equal irreps, over the root of their number, plus a bias."""
    inputs, outputs = irreps
    pairs = [(i, o) for i, (_, one) in enumerate(inputs) for o, (_, other) in enumerate(outputs) if one == other]
    fan_in = {(i, o): sum(inputs[k if normalisation == "element" else i].mul for k, other in pairs if other == o) or 1 for i, o in pairs}
    paths = [Path(str(outputs[o].ir), inputs[i].mul, outputs[o].mul, (inputs[i].ir, o, fan_in[i, o] ** -0.5), i) for i, o in pairs]
    weights = weights_of_paths("weight", paths, base, changes) if "weight" in base else [[] for _ in paths]
    given, made = channels_of(features, inputs), _zeros(outputs, len(features))
    for (i, o), matrix in zip(pairs, weights, strict=True):
        for u, row in enumerate(matrix):
            for w, weight in enumerate(row):
                made[o][w] = made[o][w] + weight * given[i][u] / fan_in[i, o] ** 0.5
    if "bias" in base:
        scalars = [o for o, biased in enumerate(biases_of(irreps)) if biased]
        slots = [Path("0e", 1, outputs[o].mul, (o,), 0, is_vector=True) for o in scalars]
        for o, matrix in zip(scalars, weights_of_paths("bias", slots, base, changes), strict=True):
            for w in range(outputs[o].mul):
                made[o][w] = made[o][w] + matrix[0][w]
    return _joined(made, len(features))


def biases_of(irreps: tuple[Irreps, Irreps]) -> list[bool]:
    """The outputs that get a bias here: scalars with an input (e3nn 0.6 fails at a bias alone, on some irreps)."""
    return [irrep.is_scalar() and any(multiplicity and irrep == one for multiplicity, one in irreps[0]) for _, irrep in irreps[1]]


def e3nn_channelled_linear(irreps: tuple[Irreps, Irreps], base: Base, changes: Changes, features: Tensor) -> Tensor:
    """e3nn's ``Linear`` with ``f_in`` and ``f_out``, a layer from each channel to each: (N, f_in, ...) -> (N, f_out, ...); no biases."""
    inputs, outputs = base["weight"].shape[:2]
    results = []
    for out in range(outputs):
        of_pairs = (
            e3nn_linear(irreps, {"weight": base["weight"][one, out]}, changes.of_member(one * outputs + out), features[:, one])
            for one in range(inputs)
        )
        results.append(_total(of_pairs) / inputs**0.5)
    return torch.stack(results, dim=1)


Instruction = tuple[int, int, int, str, float]  # first input, second input, output, mode, weight of the path
_ELEMENTWISE = {"uuu", "uvuv", "uvu<v"}


def _terms(mode: str, u_count: int, v_count: int, w_count: int) -> Iterator[tuple[int, int, int]]:
    """(u, v, output channel) of each weight of a mode, in the order of storage, by e3nn's documentation of ``TensorProduct``."""
    pairs = [(u, v) for u in range(u_count) for v in range(v_count)]
    if mode in {"uvu<v", "u<vw"}:
        pairs = [(u, v) for u, v in pairs if u < v]
    if mode in {"uuw", "uuu"}:
        pairs = [(u, v) for u, v in pairs if u == v]
    for number, (u, v) in enumerate(pairs):
        if mode.endswith("w"):
            yield from ((u, v, w) for w in range(w_count))
        else:
            yield u, v, {"uvu": u, "uvv": v, "uuu": u, "uvuv": number, "uvu<v": number}[mode]


def _sum_size(mode: str, u_count: int, v_count: int) -> int:
    """How many products an output channel sums."""
    pairs = u_count * (v_count - 1) // 2
    return {"uvw": u_count * v_count, "uvu": v_count, "uvv": u_count, "uuw": u_count, "uuu": 1, "uvuv": 1, "uvu<v": 1, "u<vw": pairs}[mode]


def fully_connected(first: Irreps, second: Irreps, outputs: Irreps) -> list[Instruction]:
    """All paths from two inputs to an output, each mixing all channels."""
    return [
        (i, j, o, "uvw", 1.0)
        for i, (_, one) in enumerate(first)
        for j, (_, other) in enumerate(second)
        for o, (_, out) in enumerate(outputs)
        if out in one * other
    ]


def tensor_product(
    irreps: tuple[Irreps, Irreps, Irreps], instructions: Sequence[Instruction], base: Base, changes: Changes, inputs: tuple[Tensor, Tensor]
) -> Tensor:
    """e3nn's ``TensorProduct``, all paths weighted, normalised by component and element: w_uvw sum over m1, m2 of C x_u y_v."""
    first, second, outputs = irreps
    terms, paths, scales = [], [], []
    for i, j, o, mode, path_weight in instructions:
        members = list(_terms(mode, first[i].mul, second[j].mul, outputs[o].mul))
        columns = {"uvw": outputs[o].mul, "uuw": outputs[o].mul, "u<vw": outputs[o].mul}.get(mode, second[j].mul)
        elementwise = mode in _ELEMENTWISE
        shape = (1, len(members)) if elementwise else (len(members) // max(columns, 1), columns)
        summed = sum(_sum_size(kind, first[a].mul, second[b].mul) for a, b, c, kind, _ in instructions if c == o)
        scale = (outputs[o].ir.dim * path_weight / (summed or 1)) ** 0.5
        label = f"{first[i].ir}x{second[j].ir}->{outputs[o].ir}"
        alone: object = None if mode == "uvw" else len(paths)
        paths.append(Path(label, *shape, (first[i].ir, j, o, scale, alone), i, is_vector=elementwise))
        terms.append(members)
        scales.append(scale)
    weights = weights_of_paths("weight", paths, base, changes) if "weight" in base else [[] for _ in paths]
    x, y, made = channels_of(inputs[0], first), channels_of(inputs[1], second), _zeros(outputs, len(inputs[0]))
    for (i, j, o, _, _), members, scale, matrix in zip(instructions, terms, scales, weights, strict=True):
        coupling = wigner_3j(first[i].ir.l, second[j].ir.l, outputs[o].ir.l, dtype=torch.float64)
        flat = [weight for row in matrix for weight in row]
        for weight, (u, v, w) in zip(flat, members, strict=True):
            made[o][w] = made[o][w] + scale * weight * torch.einsum("ijk,ni,nj->nk", coupling, x[i][u], y[j][v])
    return _joined(made, len(inputs[0]))
