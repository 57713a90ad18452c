"""Slow, plain references of the layers of MACE, EquiformerV2, fairchem-core, NequIP, Allegro and Nequix with an adapter.

As in `slow_references`, from the layers' own definitions and one number at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from e3nn.o3 import Irreps, wigner_3j
from torch import Tensor, nn

from tests.unit_adapters.slow_references import Base, Changes, Rows, channels_of


def contraction(layer: Any, base: Base, changes: Changes, features: Tensor, elements: Sequence[int]) -> Tensor:
    """MACE's ``Contraction`` (Batatia et al., NeurIPS 2022, Eqs. 10, 11), by its own generalised Clebsch-Gordan coefficients U.

    For the atom n of element z, channel c: the sum over orders, their paths k and components of W_zkc U_k x_nc ... x_nc.
    """
    results = []
    for atom, element in enumerate(elements):
        for channel in range(features.shape[1]):
            total = torch.zeros(())
            for order in range(1, layer.correlation + 1):
                name = "weights_max" if order == layer.correlation else f"weights.{layer.correlation - 1 - order}"
                coefficients = getattr(layer, f"U_matrix_{order}")  # ([2L + 1,] components, ..., components, paths)
                _, path_count, channel_count = base[name].shape
                change = changes.matrix(f"{name}/weight", len(base[name]) * path_count, channel_count)
                product = coefficients.movedim(-1, 0)
                for _ in range(order):
                    product = product @ features[atom, channel]
                for path in range(path_count):
                    weight = base[name][element, path, channel] + change[element * path_count + path][channel]
                    total = total + weight * product[path]
            results.append(total.reshape(-1))
    return torch.stack(results).reshape(len(elements), -1)


def weighted_sums(weights: Rows, features: Tensor) -> Tensor:
    """(..., columns): the sum over rows of weight times feature; a weight is one number, or one for each of the features' first axis."""
    columns = []
    for column in range(len(weights[0])):
        total = torch.zeros(())
        for row in range(len(weights)):
            weight = weights[row][column]
            total = total + weight.reshape(-1, *(1,) * (features.ndim - 2)) * features[..., row]
        columns.append(total)
    return torch.stack(columns, dim=-1)


def stored_transposed(name: str, base: Base, changes: Changes) -> Rows:
    """``[input][output]`` of a ``torch.nn.Linear``, which stores (out, in)."""
    outputs, inputs = base[name].shape
    change = changes.matrix(f"{name}/weight", inputs, outputs)
    return [[base[name][o, i] + change[i][o] for o in range(outputs)] for i in range(inputs)]


def stored_plainly(name: str, base: Base, changes: Changes) -> Rows:
    """``[row][column]`` of a weight (rows, columns): a layer of e3nn's radial network, NequIP's linear layer, an embedding."""
    rows, columns = base[name].shape
    change = changes.matrix(f"{name}/weight", rows, columns)
    return [[base[name][i, j] + change[i][j] for j in range(columns)] for i in range(rows)]


def vector(name: str, base: Base, changes: Changes, label: str = "all") -> Tensor:
    """A vector with its change."""
    return torch.stack(
        [value + change for value, change in zip(base[name], changes.vector(f"{name}/{label}", len(base[name])), strict=True)]
    )


def linear(name: str, base: Base, changes: Changes, features: Tensor) -> Tensor:
    """``torch.nn.Linear`` of this name."""
    result = weighted_sums(stored_transposed(f"{name}weight", base, changes), features)
    return result + vector(f"{name}bias", base, changes) if f"{name}bias" in base else result


def perceptron(network: nn.Module, name: str, base: Base, changes: Changes, features: Tensor) -> Tensor:
    """A ``Sequential`` of linear layers, norms and activations; layer norms by their formula."""
    for number, layer in network.named_children():
        prefix = f"{name}{number}."
        if isinstance(layer, nn.Linear):
            features = linear(prefix, base, changes, features)
        elif isinstance(layer, nn.LayerNorm):
            centred = features - features.mean(-1, keepdim=True)
            features = centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt()
            features = features * vector(f"{prefix}weight", base, changes) + vector(f"{prefix}bias", base, changes)
        else:
            features = layer(features)
    return features


def so3_linear(name: str, base: Base, changes: Changes, features: Tensor, *, as_one_stack: bool = False) -> Tensor:
    """One matrix a degree l, on each of its 2l + 1 coefficients (N, (lmax + 1)^2, C_in); the bias is added to degree 0."""
    degrees, outputs, inputs = base[f"{name}weight"].shape
    results = []
    for degree in range(degrees):
        if as_one_stack:
            change = changes.of_member(degree).matrix(f"{name}weight/weight", inputs, outputs)
        else:
            change = changes.matrix(f"{name}weight/l{degree}", inputs, outputs)
        matrix = [[base[f"{name}weight"][degree, o, i] + change[i][o] for o in range(outputs)] for i in range(inputs)]
        for component in range(degree**2, (degree + 1) ** 2):
            result = weighted_sums(matrix, features[:, component])
            results.append(result + vector(f"{name}bias", base, changes) if component == 0 else result)
    return torch.stack(results, dim=1)


def mixed_experts(name: str, base: Base, changes: Changes, shares: Tensor) -> Rows:
    """``[input][output]`` of a mixture of linear experts, each (systems,): the sum over experts of share times weight.

    Args:
        name: of the layer, with a dot behind it.
        base: its weights (experts, out, in).
        changes: of them.
        shares: (systems, experts).
    """
    experts, outputs, inputs = base[f"{name}weights"].shape
    change = [changes.of_member(expert).matrix(f"{name}weights/weight", inputs, outputs) for expert in range(experts)]
    rows = []
    for i in range(inputs):
        row = []
        for o in range(outputs):
            mixed = torch.zeros(len(shares))
            for expert in range(experts):
                mixed = mixed + shares[:, expert] * (base[f"{name}weights"][expert, o, i] + change[expert][i][o])
            row.append(mixed)
        rows.append(row)
    return rows


class SO2:
    """A convolution in the edges' frames (Passaro and Zitnick, ICML 2023): for m > 0 the complex product with W_r + i W_i.

    Args:
        lmax: the highest degree.
        mmax: the highest order.
        channels: in and out.
        extra: scalars that the map of m = 0 gives before all else.
    """

    def __init__(self, lmax: int, mmax: int, channels: tuple[int, int], extra: int) -> None:
        self.lmax, self.mmax, self.channels, self.extra = lmax, mmax, channels, extra
        # by |m|: for each order first all +m, then all -m, the degrees in turn
        self.places = [(degree, 0) for degree in range(lmax + 1)]
        for order in range(1, mmax + 1):
            self.places += [(degree, order) for degree in range(order, lmax + 1)]
            self.places += [(degree, -order) for degree in range(order, lmax + 1)]

    def __call__(self, matrices: Sequence[Rows], bias: Tensor, features: Tensor, radial: Tensor | None = None) -> Tensor:
        """The extra scalars and, behind them, the coefficients in the order they came in: (E, extra + R C_out).

        Args:
            matrices: ``[input][output]`` of each order; inputs and outputs are channels within degrees.
            bias: of m = 0.
            features: (E, R, C_in).
            radial: (E, numbers): what multiplies the input of each order, the same for +m and -m.
        """
        inputs, outputs = self.channels
        of_place = {place: features[:, number] for number, place in enumerate(self.places)}
        made: dict[tuple[int, int], Tensor] = {}
        begin, scalars = 0, torch.zeros(len(features), 0)
        for order, matrix in enumerate(matrices):
            degrees = range(order, self.lmax + 1)
            size = len(degrees) * inputs
            scale = torch.ones(len(features), size) if radial is None else radial[:, begin : begin + size]
            begin += size
            plus = torch.cat([of_place[degree, order] for degree in degrees], dim=1) * scale
            half = len(degrees) * outputs
            if order == 0:
                result = weighted_sums(matrix, plus) + bias
                scalars, result = result[:, : self.extra], result[:, self.extra :]
                parts = {0: result}
            else:
                minus = torch.cat([of_place[degree, -order] for degree in degrees], dim=1) * scale
                real, imaginary = [row[:half] for row in matrix], [row[half:] for row in matrix]
                parts = {
                    order: weighted_sums(real, plus) - weighted_sums(imaginary, minus),
                    -order: weighted_sums(real, minus) + weighted_sums(imaginary, plus),
                }
            for signed, part in parts.items():
                for number, degree in enumerate(degrees):
                    made[degree, signed] = part[:, number * outputs : (number + 1) * outputs]
        return torch.cat([scalars, *(made[place] for place in self.places)], dim=1)


def scalar_linear(layer: Any, base: Base, changes: Changes, features: Tensor) -> Tensor:
    """NequIP's linear layer: a weight (in, out) times a constant of the layer."""
    result = weighted_sums(stored_plainly("weight", base, changes), features) * layer.alpha
    return result + vector("bias", base, changes) if "bias" in base else result


def allegro_product(
    irreps: tuple[Irreps, Irreps, Irreps], base: Base, changes: Changes, inputs: tuple[Tensor, Tensor], centres: Sequence[int]
) -> Tensor:
    """Allegro's tensor product (Musaelian et al., Nat. Commun. 2023): each channel by itself, a weight for each channel and path.

    ``inputs`` are (edges, channels, components) and (atoms, channels, components), ``centres`` the atom of each edge. Paths go by output,
    then by first and second input. Weights (channels, paths); uncoupled (paths,), for all channels; without an axis of paths where there is
    one.
    """
    first, second, outputs = irreps
    weights, channels = base["weights"], inputs[0].shape[1]
    paths = [
        (i, j, o)
        for o, (_, out) in enumerate(outputs)
        for i, (_, one) in enumerate(first)
        for j, (_, other) in enumerate(second)
        if out in one * other
    ]
    if weights.ndim == 2:
        change = changes.matrix("weights/paths", len(paths), channels)
        chosen = [[weights[channel, path] + change[path][channel] for path in range(len(paths))] for channel in range(channels)]
    else:
        flat = weights.reshape(-1)
        numbers = torch.stack([value + one for value, one in zip(flat, changes.vector("weights/all", len(flat)), strict=True)])
        coupled = len(flat) == channels and len(paths) == 1
        chosen = [[numbers[channel if coupled else path] for path in range(len(paths))] for channel in range(channels)]
    results = []
    for channel in range(channels):
        x = [irrep[0] for irrep in channels_of(inputs[0][:, channel], first)]
        y = [irrep[0] for irrep in channels_of(inputs[1][list(centres), channel], second)]
        made = [torch.zeros(len(centres), irrep.dim) for _, irrep in outputs]
        for weight, (i, j, o) in zip(chosen[channel], paths, strict=True):
            coupling = wigner_3j(first[i].ir.l, second[j].ir.l, outputs[o].ir.l, dtype=torch.float64) * outputs[o].ir.dim ** 0.5
            made[o] = made[o] + weight * torch.einsum("ijk,ni,nj->nk", coupling, x[i], y[j])
        results.append(torch.cat(made, dim=1))
    return torch.stack(results, dim=1)


def irreps_rms_norm(irreps: Irreps, base: Base, changes: Changes, features: Tensor) -> Tensor:
    """Nequix's norm: each irrep's channels times weights of theirs, over the root of the mean over irreps of |x|^2 / (2l + 1)^2."""
    blocks = channels_of(features, irreps)
    squares = torch.stack(
        [sum((channel.square().sum(1) for channel in block), torch.zeros(len(features))) / block[0].shape[1] ** 2 for block in blocks]
    )
    weights = vector("weight", base, changes)
    channels = [channel for block in blocks for channel in block]
    scaled = [weight * channel for weight, channel in zip(weights, channels, strict=True)]
    return torch.cat(scaled, dim=1) / (squares.mean(0) + 1e-12).sqrt()[:, None]
