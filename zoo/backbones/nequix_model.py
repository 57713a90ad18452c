"""The network of Nequix (Koker, Kotak, Smidt, arXiv:2508.16067), in torch with e3nn.

NequIP's interaction with a plain radial network, one skip connection shared by all elements and an equivariant RMS norm. The published
weights were trained in JAX with e3nn-jax; its conventions are kept (component normalisation, 1/sqrt(fan in) on every linear path, none
between the paths of a tensor product, activations of unit second moment), so that upstream's numbers are entered as they are.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from e3nn import o3
from e3nn.o3 import Irrep, Irreps
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn

from zoo.backbones.convolution import PathConvolution

# sqrt of the mean of silu(x)^2 over a standard normal x, as upstream's calculator has it on a CPU: a float32 sum over 1,000,001 quantiles,
# 2e-5 below the exact integral. Its torch twin sums in float64 and gets 0.5964587, which is 3e-5 eV/Å away from the golden numbers.
_SILU_MOMENT = 0.5964577907
_NORM_EPSILON = 1e-12


class NequixConfig(BaseModel):
    """What of upstream's settings decides the network; the rest of a file's settings belongs to its training run.

    Attributes:
        atomic_numbers: the elements; a species is its place among them in ascending order.
        cutoff: Å.
        hidden_irreps: of the layers but the last, which keeps the scalars alone.
        lmax: highest degree of the edge harmonics.
        scale, shift: of the readout, eV; per atom, and the same for all elements.
        avg_n_neighbors: messages are divided by its square root.
        mlp_init_scale: variance of the radial network's random hidden weights, times their number of inputs.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    atomic_numbers: tuple[int, ...] = Field(min_length=1)
    cutoff: float = Field(gt=0)
    hidden_irreps: str
    lmax: int = Field(ge=0, le=11)
    n_layers: int = Field(ge=1)
    radial_basis_size: int = Field(ge=1)
    radial_mlp_size: int = Field(ge=1)
    radial_mlp_layers: int = Field(ge=0)
    radial_polynomial_p: float = Field(ge=2)
    mlp_init_scale: float = 4.0
    layer_norm: bool
    index_weights: bool
    scale: float
    shift: float
    avg_n_neighbors: float = Field(gt=0)

    @field_validator("index_weights")
    @classmethod
    def _shared_skip(cls, value: bool) -> bool:
        if value:
            raise ValueError("skip connections with weights of their own for each element are not known here, wanted false")
        return value

    @field_validator("hidden_irreps")
    @classmethod
    def _sorted_irreps(cls, value: str) -> str:
        irreps = Irreps(value)
        if irreps != irreps.regroup() or "0e" not in irreps or "0o" in irreps:
            raise ValueError(f"found {value!r}, wanted sorted irreps with 0e and without 0o")
        return value

    @field_validator("atomic_numbers")
    @classmethod
    def _known_elements(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value) or not all(1 <= number <= 118 for number in value):
            raise ValueError("wanted atomic numbers between 1 and 118, each once")
        return value


class NequixNetwork(nn.Module):
    """Energies of atoms from species and edges.

    Args:
        config: of the network.
        dtype: its constants are computed in it.
    """

    def __init__(self, config: NequixConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        species_count = len(config.atomic_numbers)
        hidden = Irreps(config.hidden_irreps)
        scalars = hidden.filter(["0e"])
        self._harmonics = [Irrep(degree, (-1) ** degree) for degree in range(config.lmax + 1)]
        # fitted to isolated atoms or to the training set by its authors, and not trained
        self.atom_energies = nn.Parameter(torch.zeros(species_count), requires_grad=False)
        self.layers = nn.ModuleList()
        inputs = Irreps([(species_count, "0e")])
        for index in range(config.n_layers):
            outputs = hidden if index < config.n_layers - 1 else scalars
            self.layers.append(NequixLayer(config, inputs, outputs, self._harmonics, dtype))
            inputs = outputs
        self.readout = o3.Linear(scalars, "0e")
        self.to(dtype)

    def forward(self, species: Tensor, edge_vectors: Tensor, neighbour: Tensor, centre: Tensor) -> Tensor:
        """Energy of each atom.

        Args:
            species: (N,) index of each atom's element.
            edge_vectors: (E, 3) Å, from the centre to the neighbour.
            neighbour: (E,) index of the atom each edge brings features from.
            centre: (E,) index of the atom each edge brings them to.

        Returns:
            (N,) eV, float64: in float32, totals of thousands of eV would lose tenths of meV.
        """
        lengths = edge_vectors.norm(dim=1)  # (E,)
        radial = bessel_basis(lengths, self.config.radial_basis_size, self.config.cutoff)  # (E, basis)
        radial = radial * polynomial_cutoff(lengths / self.config.cutoff, self.config.radial_polynomial_p)[:, None]
        harmonics = o3.spherical_harmonics(Irreps(self._harmonics), edge_vectors, normalize=True, normalization="component")
        features = nn.functional.one_hot(species, len(self.config.atomic_numbers)).to(edge_vectors.dtype)  # (N, species)
        for layer in self.layers:
            features = layer(features, harmonics, radial, neighbour, centre)
        energies: Tensor = self.readout(features)[:, 0]  # (N,)
        return (energies * self.config.scale + self.config.shift).to(torch.float64) + self.atom_energies[species].to(torch.float64)

    @torch.no_grad()
    def randomise(self) -> None:
        """Draw every weight as upstream does, from torch's global generator; atom energies are statistics and stay."""
        for layer in self.layers:
            assert isinstance(layer, NequixLayer)
            layer.randomise(self.config.mlp_init_scale)
        self.readout.weight.normal_()


class NequixLayer(nn.Module):
    """One interaction: messages over edges, a skip connection, the norm and the gate."""

    def __init__(self, config: NequixConfig, inputs: Irreps, outputs: Irreps, harmonics: list[Irrep], dtype: torch.dtype) -> None:
        super().__init__()
        paths = [
            (i, j, multiplicity, irrep)
            for i, (multiplicity, irrep_in) in enumerate(inputs)
            for j, harmonic in enumerate(harmonics)
            for irrep in irrep_in * harmonic
            if irrep in outputs
        ]
        paths.sort(key=lambda path: path[3])  # stable: as e3nn-jax joins equal irreps, and orders the radial weights
        message_irreps = Irreps([(multiplicity, irrep) for _, _, multiplicity, irrep in paths])
        product = o3.TensorProduct(
            inputs,
            Irreps(harmonics),
            message_irreps,
            [(i, j, slot, "uvu", True) for slot, (i, j, _, _) in enumerate(paths)],
            shared_weights=False,
            internal_weights=False,
            compile_left_right=False,
        )
        gate_count = outputs.num_irreps - outputs.count("0e")
        before_gate = (outputs + Irreps([(gate_count, "0e")])).regroup()
        widths = [config.radial_basis_size, *[config.radial_mlp_size] * config.radial_mlp_layers, message_irreps.num_irreps]
        self.radial_mlp = nn.ModuleList(nn.Linear(rows, columns, bias=False) for rows, columns in pairwise(widths))
        self.linear_1 = o3.Linear(inputs, inputs)
        self.linear_2 = o3.Linear(message_irreps.simplify(), before_gate)
        self.skip = o3.Linear(inputs, before_gate)
        self.norm = IrrepsRMSNorm(before_gate) if config.layer_norm else None
        self.convolution = PathConvolution(product, dtype)
        self._denominator = math.sqrt(config.avg_n_neighbors)
        self._scalar_count = outputs.count("0e")
        self._gated = [(multiplicity, irrep.dim) for multiplicity, irrep in outputs if irrep.l > 0]

    def forward(self, features: Tensor, harmonics: Tensor, radial: Tensor, neighbour: Tensor, centre: Tensor) -> Tensor:
        """(N, inputs.dim) -> (N, outputs.dim)."""
        weights = radial
        for index, linear in enumerate(self.radial_mlp):
            weights = linear(nn.functional.silu(weights) if index else weights)  # (E, paths) at last
        messages = self.convolution(self.linear_1(features), harmonics, weights, neighbour, centre)  # (N, message_irreps.dim)
        updated = self.linear_2(messages / self._denominator) + self.skip(features)
        if self.norm is not None:
            updated = self.norm(updated)
        return self._gate(updated)

    def _gate(self, features: Tensor) -> Tensor:
        """The first scalars and, behind them, one gate for each of the other irreps, through a silu of unit second moment."""
        gate_count = sum(multiplicity for multiplicity, _ in self._gated)
        sizes = [self._scalar_count, gate_count, *[multiplicity * dim for multiplicity, dim in self._gated]]
        scalars, gates, *blocks = torch.split(features, sizes, dim=1)
        outputs = [nn.functional.silu(scalars) / _SILU_MOMENT]
        opened = torch.split(nn.functional.silu(gates) / _SILU_MOMENT, [multiplicity for multiplicity, _ in self._gated], dim=1)
        for block, gate, (multiplicity, dim) in zip(blocks, opened, self._gated, strict=True):
            outputs.append((block.view(-1, multiplicity, dim) * gate[:, :, None]).flatten(1))
        return torch.cat(outputs, dim=1)

    def randomise(self, hidden_scale: float) -> None:
        """Draw the weights anew; ``hidden_scale`` is the variance of the radial network's hidden ones, times their number of inputs."""
        for index, linear in enumerate(self.radial_mlp):
            assert isinstance(linear, nn.Linear)
            scale = hidden_scale if index < len(self.radial_mlp) - 1 else 1.0  # no activation follows the last
            linear.weight.normal_(std=math.sqrt(scale / linear.in_features))
        for mixing in (self.linear_1, self.linear_2, self.skip):
            mixing.weight.normal_()
        if self.norm is not None:
            self.norm.weight.fill_(1.0)


class IrrepsRMSNorm(nn.Module):
    """Each atom's features over the root of a weighted sum of their squares, times a weight for each copy of an irrep.

    Args:
        irreps: of the features; E of them, after joining equal ones.

    The square is (1/E) sum over irreps of |x|^2 / (2l+1)^2: after EquiformerV2's norm, but summed over the copies of an irrep and not
    averaged, and so divided by its number of components twice. Published weights were trained with it.
    """

    def __init__(self, irreps: Irreps) -> None:
        super().__init__()
        self.shapes = [(multiplicity, irrep.dim) for multiplicity, irrep in irreps]
        self.weight = nn.Parameter(torch.ones(irreps.num_irreps))

    def forward(self, features: Tensor) -> Tensor:
        """(N, irreps.dim) -> the same."""
        blocks = torch.split(features, [multiplicity * dim for multiplicity, dim in self.shapes], dim=1)
        squares = [block.square().sum(dim=1) / dim**2 for block, (_, dim) in zip(blocks, self.shapes, strict=True)]  # each (N,)
        inverse = (torch.stack(squares).mean(dim=0) + _NORM_EPSILON).rsqrt()[:, None]  # (N, 1)
        weights = torch.split(self.weight, [multiplicity for multiplicity, _ in self.shapes])
        scaled = [
            (block.view(-1, multiplicity, dim) * weight[:, None]).flatten(1)
            for block, weight, (multiplicity, dim) in zip(blocks, weights, self.shapes, strict=True)
        ]
        return torch.cat(scaled, dim=1) * inverse


def bessel_basis(lengths: Tensor, count: int, cutoff: float) -> Tensor:
    """(2 / r_c) sin(n π r / r_c) / r for n = 1 ... count: (E,) Å -> (E, count). Without the square root that NequIP has."""
    frequencies = torch.arange(1, count + 1, dtype=lengths.dtype, device=lengths.device) * (math.pi / cutoff)
    return (2 / cutoff) * torch.sin(frequencies * lengths[:, None]) / lengths[:, None]


def polynomial_cutoff(ratio: Tensor, power: float) -> Tensor:
    """The polynomial envelope of DimeNet (Gasteiger et al., arXiv:2003.03123, Eq. 8) of r / r_c: (E,) -> (E,), 0 from 1 on."""
    a, b, c = (power + 1) * (power + 2) / 2, power * (power + 2), power * (power + 1) / 2
    envelope = 1 - a * ratio**power + b * ratio ** (power + 1) - c * ratio ** (power + 2)
    return envelope * (ratio < 1)
