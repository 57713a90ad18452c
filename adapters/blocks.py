"""What an adaptable weight is: every parameter of a model as stacks of matrices, or with the reason why not.

A `WeightBlock` is a strided view of one parameter's flat storage as ``(stack, in, out)``, the orientation of e3nn (``mul_in`` rows,
``mul_out`` columns). `find_blocks` applies the rules of `adapters.rules` to a model and accounts for every parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn

from adapters.errors import AdapterError
from adapters.features import LayerFeatures

Structure = Literal["matrix", "vector"]


@dataclass(frozen=True)
class WeightBlock:
    """One path's weights: a view of a parameter as ``(stack, rows, cols)``.

    Attributes:
        parameter: canonical name in the model's ``named_parameters()``.
        label: unique within the parameter, without ``/`` (``"0e"``, ``"0e.1"``, ``"weight"``); part of the keys of an adapter file.
        role: what the layer does (linear, tensor_product, radial, embedding, readout, bias, radial_basis, other).
        path: the path in the field's notation (``"0e -> 0e"``, ``"1o x 0e -> 1o"``).
        stack: number of independent matrices.
        rows: inputs of each matrix.
        cols: outputs of each matrix.
        offset: first element in the parameter's flat (contiguous) storage.
        strides: steps along stack, rows and cols in that storage.
        structure: ``"matrix"``, or ``"vector"`` where a low-rank form has no meaning (biases, norms, Bessel frequencies): shape (1, 1, n).
        layer_type: qualified name of the layer type whose rule made the block, empty where no rule applied.
        degree: l of what the weights make (a linear map within one degree, a product's output); None where the layer mixes degrees or has
            none.
        order: |m| of the coefficients in an edge's frame that the weights act on; None where the layer has no orders.
        layer_role: `role` as the layer's type alone gives it, before names in the model (readout) have a say: a bias stays a bias.
        coupling_paths: ways of coupling whose weights the rows hold for each element, in a symmetric contraction; the layer starts with
            weights that are smaller by this number.
        layer: 0 before the first interaction layer, 1 to L in them, L + 1 in the readout (`adapters.depth`).
        features: what goes into the block's layer and comes out of it, where that is known.
    """

    parameter: str
    label: str
    role: str
    path: str
    stack: int
    rows: int
    cols: int
    offset: int
    strides: tuple[int, int, int]
    structure: Structure = "matrix"
    layer_type: str = ""
    coupling_paths: int = 1
    degree: int | None = None
    order: int | None = None
    layer_role: str = ""
    layer: int = 0
    features: LayerFeatures | None = None

    @property
    def key(self) -> str:
        """``<parameter>/<label>``: the beginning of the block's keys in an adapter file."""
        return f"{self.parameter}/{self.label}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(stack, rows, cols)``."""
        return (self.stack, self.rows, self.cols)

    @property
    def numel(self) -> int:
        """Number of weights."""
        return self.stack * self.rows * self.cols

    @property
    def compact_shape(self) -> tuple[int, ...]:
        """Shape of a dense factor in memory and in files: ``(n,)`` for a vector, ``(rows, cols)`` for a single matrix, else `shape`."""
        if self.structure == "vector":
            return (self.numel,)
        return (self.rows, self.cols) if self.stack == 1 else self.shape

    @property
    def axes_in_storage(self) -> tuple[int, int, int] | None:
        """Axes (0 stack, 1 rows, 2 cols) from the widest step to the narrowest, for a block that is one contiguous run; else None."""
        first, second, third = sorted(range(3), key=lambda axis: (self.shape[axis] > 1, -self.strides[axis]))  # a single step is no step
        wanted = (self.shape[second] * self.shape[third], self.shape[third], 1)
        axes = (first, second, third)
        return axes if all(self.shape[axis] == 1 or self.strides[axis] == step for axis, step in zip(axes, wanted, strict=True)) else None

    def view(self, parameter: Tensor) -> Tensor:
        """The block's weights ``(stack, rows, cols)``: a view where ``parameter`` is contiguous, else a copy.

        Args:
            parameter: the tensor named by `parameter`, or one of its shape (a gradient, a delta).
        """
        flat = parameter.reshape(-1)
        return flat.as_strided(self.shape, self.strides, flat.storage_offset() + self.offset)  # (stack, rows, cols)

    def flat_index(self) -> Tensor:
        """Positions in the flat parameter, in the order (stack, rows, cols): ``(numel,)`` int64."""
        axes = [torch.arange(size) * step for size, step in zip(self.shape, self.strides, strict=True)]
        return (self.offset + axes[0][:, None, None] + axes[1][None, :, None] + axes[2]).reshape(-1)


def vector_block(parameter: str, numel: int, role: str, *, label: str = "all", path: str = "", offset: int = 0) -> WeightBlock:
    """A block without low-rank form: ``numel`` neighbouring weights of a parameter, shape (1, 1, numel)."""
    return WeightBlock(parameter, label, role, path or "elementwise", 1, 1, numel, offset, (numel, numel, 1), "vector")


@dataclass(frozen=True)
class Coverage:
    """The account of a model's parameters: each is in blocks or not adaptable for a stated reason.

    Attributes:
        blocks: in the order of the model's parameters.
        not_adaptable: parameter name -> reason.
        sizes: parameter name -> number of elements, for every parameter of the model.
    """

    blocks: tuple[WeightBlock, ...]
    not_adaptable: Mapping[str, str]
    sizes: Mapping[str, int]

    @property
    def parameter_count(self) -> int:
        """Number of elements in all parameters, frozen ones too."""
        return sum(self.sizes.values())

    @property
    def trainable_count(self) -> int:
        """Number of elements in blocks: what full fine-tuning trains."""
        return sum(block.numel for block in self.blocks)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that occur, sorted."""
        return tuple(sorted({block.role for block in self.blocks}))

    @property
    def last_layer(self) -> int:
        """The number of the readout's layer, L + 1."""
        return max(block.layer for block in self.blocks)

    def share(self, blocks: Iterable[WeightBlock]) -> float:
        """Share of the adaptable weights that ``blocks`` reach, 0 to 1."""
        return sum(block.numel for block in blocks) / max(self.trainable_count, 1)

    def table(self) -> str:
        """Weights and blocks by role, then what cannot be adapted by reason: aligned plain text."""
        lines = [f"{'role':<16} {'parameters':>12} {'blocks':>7} {'share':>8}"]
        for role in sorted(self.roles, key=lambda role: -self._count(role)):
            chosen = [block for block in self.blocks if block.role == role]
            lines.append(f"{role:<16} {self._count(role):>12,} {len(chosen):>7} {self.share(chosen):>8.1%}")
        lines.append(f"{'adaptable':<16} {self.trainable_count:>12,} {len(self.blocks):>7} {'100.0%':>8}")
        for reason in sorted(set(self.not_adaptable.values())):
            names = [name for name, why in self.not_adaptable.items() if why == reason]
            lines.append(f"not adaptable: {sum(self.sizes[name] for name in names):,} parameters in {len(names)} tensors, {reason}")
        return "\n".join(lines)

    def _count(self, role: str) -> int:
        return sum(block.numel for block in self.blocks if block.role == role)


def find_blocks(model: nn.Module, roles: Mapping[str, str] | None = None, layers: str | None = None) -> Coverage:
    """Account for every parameter of ``model``.

    Call it before the base is frozen for adapter training: a parameter with ``requires_grad`` False counts as frozen by its authors.
    A parameter or module that is shared is found once, under its first name.

    Args:
        model: any module; the rules know layer types by qualified name and import nothing.
        roles: fnmatch patterns of parameter names -> role, overriding the rule's role (``{"*reduce_*": "readout"}``); the first match wins.
        layers: a regular expression that finds the number of a parameter's interaction layer in its name (`adapters.depth.numbered`).

    Returns:
        The blocks, and the reason for each parameter that has none.

    Raises:
        AdapterError: where a rule's blocks do not cover a parameter exactly once (a layer stores its weights as no rule expects).
    """
    from adapters.depth import numbered  # both build WeightBlocks, so they import this module
    from adapters.rules import RulesOfModel

    rules = RulesOfModel(model)
    blocks: list[WeightBlock] = []
    not_adaptable: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        sizes[name] = parameter.numel()
        reason = _reason_not_adaptable(parameter) or rules.reason_not_adaptable(name)
        if reason:
            not_adaptable[name] = reason
            continue
        local = rules.blocks_of(name) or [vector_block(name, parameter.numel(), "other")]
        role = next((role for pattern, role in (roles or {}).items() if fnmatchcase(name, pattern)), None)
        named = [replace(block, parameter=name, role=role or block.role, layer_role=block.role) for block in local]
        _check_partition(named, parameter)
        blocks.extend(named)
    return Coverage(tuple(numbered(blocks, layers)), not_adaptable, sizes)


def _reason_not_adaptable(parameter: Tensor) -> str:
    if not parameter.is_floating_point():
        return "not real floating-point numbers"
    if parameter.numel() == 0:
        return "empty"
    return "" if parameter.requires_grad else "frozen by the base (requires_grad=False)"


def _check_partition(blocks: list[WeightBlock], parameter: Tensor) -> None:
    """Refuse blocks that miss or repeat a weight: a delta would land in the wrong place."""
    name = blocks[0].parameter
    labels = [block.label for block in blocks]
    if len(set(labels)) < len(labels) or any("/" in label for label in labels):
        raise AdapterError(f"{name}: found block labels {labels}, wanted unique ones without '/'; mend the rule of {blocks[0].layer_type}")
    if _is_tiled(blocks, parameter.numel()):
        return
    counts = torch.zeros(parameter.numel(), dtype=torch.int32, device="cpu")
    for block in blocks:
        inside = block.offset + sum((size - 1) * step for size, step in zip(block.shape, block.strides, strict=True)) < parameter.numel()
        if inside:
            block.view(counts).add_(1)
    if not bool((counts == 1).all()):
        raise AdapterError(
            f"{name}: its {len(blocks)} blocks cover {int((counts > 0).sum())} of {parameter.numel()} weights, wanted each exactly once; "
            f"mend the rule of {blocks[0].layer_type}"
        )


def _is_tiled(blocks: list[WeightBlock], numel: int) -> bool:
    """Whether the blocks are contiguous runs, one behind the other: the usual case, told without counting every weight."""
    end = 0
    for block in sorted(blocks, key=lambda block: block.offset):
        if block.axes_in_storage is None or block.offset != end:
            return False
        end += block.numel
    return end == numel
