"""The path-wise convolution gives e3nn's numbers, derivatives included."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irreps, TensorProduct

from zoo.backbones.convolution import PathConvolution
from zoo.errors import ZooError

ATOMS, EDGES = 5, 23


def uvu(inputs: str, harmonics: str, outputs: str) -> TensorProduct:
    """Every allowed path with a slot of its own, slots sorted by irrep as SevenNet has them, weights in another order than slots."""
    first, second, wanted = Irreps(inputs), Irreps(harmonics), Irreps(outputs)
    slots, instructions = [], []
    for i, (mul, one) in enumerate(first):
        for j, (_, two) in enumerate(second):
            for irrep in one * two:
                if irrep in wanted:
                    instructions.append((i, j, len(slots), "uvu", True))
                    slots.append((mul, irrep))
    sorted_slots = Irreps(slots).sort()
    instructions = [(i, j, sorted_slots.p[k], mode, train) for i, j, k, mode, train in instructions]
    return TensorProduct(first, second, sorted_slots.irreps, instructions, shared_weights=False, internal_weights=False)


@pytest.mark.parametrize(
    ("inputs", "harmonics", "outputs"),
    [
        ("8x0e", "0e+1e+2e", "8x0e+8x1e+8x2e"),
        ("6x0e+4x1e+2x2e", "0e+1e+2e", "0e+1e+2e"),
        ("4x0e+3x1o+2x1e+5x2e", "0e+1o+2e+3o", "0e+0o+1o+1e+2e+3o"),
        ("3x1e+2x0e+3x1e", "0e+1e", "0e+1e"),  # unsorted and repeated
    ],
)
def test_equals_e3nns_tensor_product_summed_over_neighbours(inputs, harmonics, outputs):
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # e3nn's own constants in float64
    try:
        product = uvu(inputs, harmonics, outputs)
    finally:
        torch.set_default_dtype(previous)
    ours = PathConvolution(product, torch.float64)
    generator = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_(True)

    arguments = (draw(ATOMS, Irreps(inputs).dim), draw(EDGES, Irreps(harmonics).dim), draw(EDGES, product.weight_numel))
    neighbour, centre = torch.randint(ATOMS, (2, EDGES), generator=generator)
    features, edge_harmonics, weights = arguments
    messages = product(features[neighbour], edge_harmonics, weights)
    expected = torch.zeros(ATOMS, product.irreps_out.dim, dtype=torch.float64).index_add(0, centre, messages)
    found = ours(*arguments, neighbour, centre)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad((out * cotangent).sum().square(), arguments, create_graph=True) for out in (found, expected)]
    second = [torch.autograd.grad(sum(g.square().sum() for g in first), arguments) for first in gradients]
    for one, other in zip((*gradients[0], *second[0]), (*gradients[1], *second[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-9)


def test_an_atom_without_neighbours_and_no_edge_at_all_give_zeros():
    product = uvu("4x0e+2x1e", "0e+1e", "0e+1e")
    ours = PathConvolution(product, torch.float64)
    none = torch.zeros(0, dtype=torch.long)
    empty = torch.zeros(0, product.weight_numel, dtype=torch.float64)
    features = torch.ones(3, 10, dtype=torch.float64)
    out = ours(features, torch.zeros(0, 4, dtype=torch.float64), empty, none, none)
    assert torch.equal(out, torch.zeros(3, product.irreps_out.dim, dtype=torch.float64))


@pytest.mark.parametrize(
    "product",
    [
        TensorProduct("4x0e", "0e", "4x0e", [(0, 0, 0, "uvu", False)]),
        TensorProduct("4x0e", "2x0e", "4x0e", [(0, 0, 0, "uvu", True)], shared_weights=False),
        TensorProduct("4x0e", "0e", "3x0e", [(0, 0, 0, "uvw", True)], shared_weights=False),
        # two paths into one slot, and a slot that no path fills
        TensorProduct("4x0e+4x1e", "0e+1e", "4x0e", [(0, 0, 0, "uvu", True), (1, 1, 0, "uvu", True)], shared_weights=False),
        TensorProduct("4x0e", "0e", "4x0e+4x1e", [(0, 0, 0, "uvu", True)], shared_weights=False),
    ],
    ids=["no weight", "multiplicity two", "uvw", "shared slot", "unfilled slot"],
)
def test_products_of_another_kind_are_refused(product):
    with pytest.raises(ZooError, match="keep e3nn's TensorProduct"):
        PathConvolution(product, torch.float64)
