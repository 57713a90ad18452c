"""The equivariant convolution of NequIP-type networks, arranged for energies that are differentiated twice.

Messages m_ij = sum over paths of w_ij (x_j (x) Y_ij), summed over neighbours j (Batzner et al., Nat. Commun. 2022, 13, 2453, Eq. 5).
e3nn's ``TensorProduct`` builds one (E, all paths) message and slices its inputs a path at a time; every slice costs a zero-filled tensor of
the whole size in the backward pass, and a training step has two of those. Here the edge's harmonics are contracted with the Clebsch-Gordan
coefficients first, paths with the same input and output degree share one ``bmm``, and each is summed over neighbours before anything is
joined, at N atoms instead of E edges. Same numbers to rounding; the ratio of costs is in docs/benchmarks.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from e3nn.o3 import Irreps, TensorProduct, wigner_3j
from torch import Tensor, nn

from zoo.errors import ZooError


@dataclass(frozen=True)
class _PathGroup:
    """Paths from one input irrep to one output degree: which weights they take and which output slots they fill."""

    input_index: int
    multiplicity: int
    input_dim: int
    output_dim: int
    weight_indices: tuple[int, ...]
    output_indices: tuple[int, ...]


class PathConvolution(nn.Module):
    """What ``tensor_product(x[neighbour], harmonics, weights)`` summed over neighbours gives.

    Args:
        tensor_product: of e3nn, every path ``uvu`` with external weights, a second input of multiplicity one and an output slot of its
            own; its order of weights and outputs is kept.
        dtype: of the Clebsch-Gordan coefficients, which are computed in it.

    Raises:
        ZooError: for a tensor product of another kind.
    """

    def __init__(self, tensor_product: TensorProduct, dtype: torch.dtype) -> None:
        super().__init__()
        self._inputs = Irreps(tensor_product.irreps_in1)
        self._outputs = Irreps(tensor_product.irreps_out)
        harmonics = Irreps(tensor_product.irreps_in2)
        instructions = list(tensor_product.instructions)
        fits = all(path.connection_mode == "uvu" and path.has_weight for path in instructions) and all(mul == 1 for mul, _ in harmonics)
        if not fits or sorted(path.i_out for path in instructions) != list(range(len(self._outputs))):
            raise ZooError(
                "PathConvolution wants weighted uvu paths, each with an output slot of its own, and harmonics of multiplicity one; "
                "keep e3nn's TensorProduct here"
            )
        self._weight_sizes = [self._inputs[path.i_in1].mul for path in instructions]
        grouped: dict[tuple[int, int], list[int]] = {}
        for index, path in enumerate(instructions):
            grouped.setdefault((path.i_in1, self._outputs[path.i_out].ir.l), []).append(index)
        self._groups: list[_PathGroup] = []
        for (input_index, degree), members in grouped.items():
            mul, irrep = self._inputs[input_index]
            outputs = tuple(instructions[index].i_out for index in members)
            self._groups.append(_PathGroup(input_index, mul, irrep.dim, 2 * degree + 1, tuple(members), outputs))
            coefficients = torch.zeros(harmonics.dim, irrep.dim, len(members), 2 * degree + 1, dtype=torch.float64)
            for column, index in enumerate(members):
                path = instructions[index]
                symbol = wigner_3j(irrep.l, harmonics[path.i_in2].ir.l, degree, dtype=torch.float64)  # (d1, d2, d3)
                coefficients[harmonics.slices()[path.i_in2], :, column] = path.path_weight * symbol.permute(1, 0, 2)
            self.register_buffer(f"_coefficients_{len(self._groups) - 1}", coefficients.flatten(1).to(dtype), persistent=False)

    def forward(self, features: Tensor, harmonics: Tensor, weights: Tensor, neighbour: Tensor, centre: Tensor) -> Tensor:
        """Messages summed over neighbours.

        Args:
            features: (N, inputs.dim) of the atoms.
            harmonics: (E, harmonics.dim) of the edges.
            weights: (E, sum of path multiplicities), in the tensor product's order.
            neighbour: (E,) index of the atom each edge brings features from.
            centre: (E,) index of the atom each edge brings them to.

        Returns:
            (N, outputs.dim).
        """
        blocks = torch.split(features, [mul * irrep.dim for mul, irrep in self._inputs], dim=1)
        gathered = [
            block.index_select(0, neighbour).view(-1, mul, irrep.dim) for block, (mul, irrep) in zip(blocks, self._inputs, strict=True)
        ]
        path_weights = torch.split(weights, self._weight_sizes, dim=1)  # each (E, u)
        outputs: dict[int, Tensor] = {}
        for index, group in enumerate(self._groups):
            coefficients = self.get_buffer(f"_coefficients_{index}")
            paths = len(group.weight_indices)
            coupling = (harmonics @ coefficients).view(-1, group.input_dim, paths * group.output_dim)  # (E, d1, P d3)
            source = gathered[group.input_index]  # (E, u, d1)
            coupled = source * coupling if group.input_dim == 1 else torch.bmm(source, coupling)  # (E, u, P d3)
            scale = torch.stack([path_weights[k] for k in group.weight_indices], dim=-1)  # (E, u, P)
            message = coupled.view(-1, group.multiplicity, paths, group.output_dim) * scale[..., None]  # (E, u, P, d3)
            summed = message.new_zeros(features.shape[0], *message.shape[1:]).index_add(0, centre, message)  # (N, u, P, d3)
            for slot, part in zip(group.output_indices, summed.unbind(2), strict=True):
                outputs[slot] = part.flatten(1)
        return torch.cat([outputs[slot] for slot in range(len(self._outputs))], dim=1)
