"""One method's trainable tensors on one model, and the deltas they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adapters.blocks import Coverage
from adapters.errors import AdapterError
from adapters.layout import ParameterLayout
from adapters.method import AdapterMethod

_DOT = "|"  # torch refuses "." in a parameter's name


@dataclass(frozen=True)
class Provenance:
    """What belongs to an adapter besides its factors, as its file says.

    Attributes:
        reference_energies: element symbol -> eV per atom that its energies want added; they scale and add up as its deltas do.
        level_of_theory: of the labels that it was trained on.
        data: data set's name and split hashes.
        training: summary of the run, or of the combination, that made it.
    """

    reference_energies: Mapping[str, float]
    level_of_theory: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Batch:
    """Same-shaped blocks whose deltas are computed in one operation: positions of the blocks, and per factor the keys in their order."""

    positions: tuple[int, ...]
    keys: Mapping[str, tuple[str, ...]]


class Adapter(nn.Module):
    """The factors of one method over the blocks that it selects.

    Attributes:
        method: what makes deltas of the factors.
        coverage: of the model that the adapter is for.
        blocks: the adapted blocks.
        factors: file key with ``.`` written ``|`` -> trainable tensor; `tensors` has the file keys.
        provenance: where it came from; None for one that was made here and has nothing of its own.
    """

    provenance: Provenance | None = None

    def __init__(self, method: AdapterMethod, coverage: Coverage, base: Mapping[str, Tensor], seed: int) -> None:
        """Fresh factors.

        Args:
            method: the method.
            coverage: the model's blocks.
            base: parameter name -> base weights, for shape, dtype and device.
            seed: of the initial factors, drawn from a generator of its own.

        Raises:
            AdapterError: a role or pattern that the model does not have, or settings that select no weights.
        """
        super().__init__()
        method.check(coverage)
        self.method = method
        self.coverage = coverage
        self.blocks = tuple(block for block in coverage.blocks if method.selects(block))
        if not self.blocks:
            settings = {key: value for key, value in method.config_dict.items() if value not in (None, [], ())}
            raise AdapterError(
                f"adapter {method.name}: its settings {settings} select none of the model's {len(coverage.blocks)} weight blocks "
                f"(roles: {', '.join(coverage.roles)}); choose other roles or another setting"
            )
        self.factors = nn.ParameterDict()
        self._layer_factors: dict[str, tuple[str, ...]] = {}
        self._initialise(base, torch.Generator().manual_seed(seed))
        self._base = {block.parameter: base[block.parameter] for block in self.blocks} if method.needs_base else {}
        self._batches = self._plan_batches()
        self._positions: dict[str, list[int]] = {}
        for position, block in enumerate(self.blocks):
            if self.changes_weights(position):
                self._positions.setdefault(block.parameter, []).append(position)
        self._layouts = {
            name: ParameterLayout([self.blocks[position] for position in positions], base[name].shape)
            for name, positions in self._positions.items()
        }

    @staticmethod
    def factor_shapes(method: AdapterMethod, coverage: Coverage, base: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        """File key -> shape of each factor that an adapter of this method has, without memory for any, however large its settings make it.

        Raises:
            AdapterError: a role or pattern that the model does not have.
        """
        method.check(coverage)
        generator, shapes = torch.Generator(), {}
        with torch.device("meta"):
            for block in coverage.blocks:
                if not method.selects(block):
                    continue
                dtype = base[block.parameter].dtype
                shared = method.layer_factors(block, generator, dtype)
                shapes.update({f"{block.parameter}/*/{factor}": tensor.shape for factor, tensor in shared.items()})
                own = method.initial_factors(block, generator, dtype)
                shapes.update({f"{block.key}/{factor}": tensor.shape for factor, tensor in own.items()})
        return shapes

    def _initialise(self, base: Mapping[str, Tensor], generator: torch.Generator) -> None:
        self._block_factors: list[tuple[str, ...]] = []
        for block in self.blocks:
            weight = base[block.parameter]
            if block.parameter not in self._layer_factors:
                shared = self.method.layer_factors(block, generator, weight.dtype)
                self._layer_factors[block.parameter] = tuple(shared)
                for factor, tensor in shared.items():
                    self._add(f"{block.parameter}/*/{factor}", tensor.to(weight.device))
            own = self.method.initial_factors(block, generator, weight.dtype)
            self._block_factors.append(tuple(own))
            for factor, tensor in own.items():
                self._add(f"{block.key}/{factor}", tensor.to(weight.device))

    def _add(self, key: str, tensor: Tensor) -> None:
        if _DOT in key:
            raise AdapterError(f"{key}: {_DOT!r} is reserved in adapter keys; rename that part of the model")
        self.factors[key.replace(".", _DOT)] = nn.Parameter(tensor)

    def _plan_batches(self) -> tuple[_Batch, ...]:
        groups: dict[tuple[object, ...], list[int]] = {}
        for position in filter(self.changes_weights, range(len(self.blocks))):
            factors = self._keys_of(position)
            tensors = [self.factors[key] for key in factors.values()]
            same = tuple((name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in zip(factors, tensors, strict=True))
            # factors need not tell the block's shape: of a scale for each column they do not say how many rows there are
            groups.setdefault((self.blocks[position].compact_shape, *same), []).append(position)
        batches = []
        for positions in groups.values():
            keys = [self._keys_of(position) for position in positions]
            batches.append(_Batch(tuple(positions), {factor: tuple(own[factor] for own in keys) for factor in keys[0]}))
        return tuple(batches)

    def _keys_of(self, position: int) -> dict[str, str]:
        """Factor name -> key in `factors`, the layer's factors included."""
        block = self.blocks[position]
        own = {factor: f"{block.key}/{factor}" for factor in self._block_factors[position]}
        shared = {factor: f"{block.parameter}/*/{factor}" for factor in self._layer_factors[block.parameter]}
        return {factor: key.replace(".", _DOT) for factor, key in {**own, **shared}.items()}

    def changes_weights(self, position: int) -> bool:
        """Whether the block at ``position`` of `blocks` has a delta; else an activation method changes what its layer returns."""
        return self.method.mergeable or bool(self._block_factors[position])

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """File key (``<parameter>/<label>/<factor>``, ``<parameter>/*/<factor>`` for a layer's own) -> trainable tensor."""
        return {key.replace(_DOT, "."): tensor for key, tensor in self.factors.items()}

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """The model's parameters that the adapter changes."""
        return tuple(self._positions)

    @property
    def trainable_count(self) -> int:
        """Number of trainable numbers, every kind."""
        return sum(tensor.numel() for tensor in self.factors.values())

    @property
    def trainable_by_kind(self) -> dict[str, int]:
        """Trainable numbers by the form of their delta (`AdapterMethod.kind`), and ``layer`` for those that blocks share."""
        counts: Counter[str] = Counter()
        for position, block in enumerate(self.blocks):
            counts[self.method.kind(block)] += sum(tensor.numel() for tensor in self.own_factors(position).values())
        counts["layer"] = self.trainable_count - sum(counts.values())
        return {kind: count for kind, count in counts.items() if count}

    def own_factors(self, position: int) -> dict[str, nn.Parameter]:
        """Factor name -> tensor of the block at ``position`` of `blocks`."""
        keys = self._keys_of(position)
        return {factor: self.factors[keys[factor]] for factor in self._block_factors[position]}

    def layer_factors(self, position: int) -> dict[str, nn.Parameter]:
        """Factor name -> tensor that the block at ``position`` of `blocks` shares with the others of its parameter."""
        keys = self._keys_of(position)
        return {factor: self.factors[keys[factor]] for factor in self._layer_factors[self.blocks[position].parameter]}

    def block_deltas(self) -> list[Tensor]:
        """The delta of each block of `blocks`, flat ``(numel,)`` in the order (stack, rows, cols); empty where activations are changed."""
        deltas: list[Tensor] = [torch.empty(0)] * len(self.blocks)
        for batch in self._batches:
            stacked = {factor: torch.stack([self.factors[key] for key in keys]) for factor, keys in batch.keys.items()}  # (B, ...)
            if self._base:
                stacked["W"] = torch.stack([self._base_weights(position) for position in batch.positions])
            flat = self.method.delta(stacked).reshape(len(batch.positions), -1)  # (B, numel)
            for position, delta in zip(batch.positions, flat.unbind(0), strict=True):
                deltas[position] = delta
        return deltas

    def _base_weights(self, position: int) -> Tensor:
        block = self.blocks[position]
        return block.view(self._base[block.parameter].detach()).reshape(block.compact_shape)

    def param_groups(self, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
        """The method's optimizer groups, each parted by the rate factors of its blocks, those with the run's rate first.

        A tensor that blocks share has the rate of the first of them.
        """
        factors: dict[int, float] = {}
        for position, block in enumerate(self.blocks):
            for key in self._keys_of(position).values():
                factors.setdefault(id(self.factors[key]), self.method.rate_factor(block, self.coverage))
        groups = []
        for group in self.method.param_groups(self, learning_rate, weight_decay):
            for factor in sorted({factors[id(tensor)] for tensor in group["params"]}, key=lambda factor: (factor != 1, -factor)):
                params = [tensor for tensor in group["params"] if factors[id(tensor)] == factor]
                groups.append({**group, "params": params, "lr": group["lr"] * factor})
        return groups

    def deltas(self) -> dict[str, Tensor]:
        """Parameter name -> change of the parameter, of its shape; differentiable in the factors."""
        flat = self.block_deltas()
        return {name: layout.assemble([flat[i] for i in self._positions[name]]) for name, layout in self._layouts.items()}
