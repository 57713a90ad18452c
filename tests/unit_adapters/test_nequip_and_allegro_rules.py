"""The layers of the NequIP framework: their blocks are the matrices the layers multiply with."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irreps

from adapters.blocks import find_blocks
from tests.families import skip_without

needs_allegro = skip_without("allegro")


def test_a_scalar_linear_layer_is_one_matrix_and_its_bias_a_vector():
    from nequip.nn.mlp import ScalarLinearLayer

    layer = ScalarLinearLayer(3, 5, alpha=0.7, bias=True)
    weight, bias = find_blocks(layer).blocks
    inputs = torch.randn(4, 3)
    assert torch.allclose(layer(inputs), 0.7 * inputs @ weight.view(layer.weight)[0] + layer.bias, atol=1e-6)
    assert (weight.structure, weight.role, weight.path) == ("matrix", "linear", "3 -> 5")
    assert (bias.structure, bias.role, bias.numel) == ("vector", "bias", 5)
    assert len(find_blocks(ScalarLinearLayer(3, 5)).blocks) == 1


def test_each_layer_of_a_perceptron_and_the_type_embedding_are_found():
    from nequip.nn import ScalarMLPFunction
    from nequip.nn.embedding import NodeTypeEmbed

    perceptron = ScalarMLPFunction(input_dim=4, output_dim=3, hidden_layers_depth=2, hidden_layers_width=6)
    assert [block.path for block in find_blocks(perceptron).blocks] == ["4 -> 6", "6 -> 6", "6 -> 3"]
    embedding = find_blocks(NodeTypeEmbed(type_names=["H", "C"], num_features=7)).blocks
    assert [(block.role, block.rows, block.cols) for block in embedding] == [("embedding", 2, 7)]


def test_radial_frequencies_and_the_scales_of_elements_are_vectors_where_they_train():
    from nequip.data import AtomicDataDict
    from nequip.nn import PerTypeScaleShift
    from nequip.nn.embedding import BesselEdgeLengthEncoding, PolynomialCutoff

    basis = BesselEdgeLengthEncoding(cutoff=PolynomialCutoff(6), num_bessels=5, trainable=True)
    assert [(block.role, block.structure, block.numel) for block in find_blocks(basis).blocks] == [("radial_basis", "vector", 5)]
    energy = {AtomicDataDict.PER_ATOM_ENERGY_KEY: "0e"}
    for trainable, count in ((True, 2), (False, 0)):
        scales = PerTypeScaleShift(
            ["H", "C", "O"],
            AtomicDataDict.PER_ATOM_ENERGY_KEY,
            scales=2.0,
            shifts=1.0,
            scales_trainable=trainable,
            shifts_trainable=trainable,
            irreps_in=energy,
        )
        assert [(block.role, block.numel) for block in find_blocks(scales).blocks] == [("scale_shift", 3)] * count


@needs_allegro
@pytest.mark.parametrize(
    ("out", "coupled", "expected"),
    [
        ("1x0e+1x1o", True, ("matrix", (1, 4, 5))),
        ("1x0e+1x1o", False, ("vector", (1, 1, 4))),
        ("1x1e", True, ("vector", (1, 1, 5))),
        ("1x1e", False, ("vector", (1, 1, 1))),
    ],
)
def test_allegros_path_weights_lead_from_paths_to_channels(out, coupled, expected):
    from allegro.nn._strided import Contracter

    harmonics = Irreps("1x0e+1x1o")
    layer = Contracter(harmonics, harmonics, Irreps(out), mul=5, path_channel_coupling=coupled)
    (block,) = find_blocks(layer).blocks
    assert (block.structure, block.shape) == expected
    assert block.role == "tensor_product"
    if block.structure == "matrix":
        assert torch.equal(block.view(layer.weights)[0], layer.weights.T)


@needs_allegro
def test_a_delta_on_one_path_and_channel_moves_that_channel_alone():
    from allegro.nn._strided import Contracter

    harmonics = Irreps("1x0e+1x1o")
    layer = Contracter(harmonics, harmonics, harmonics, mul=5)
    (block,) = find_blocks(layer).blocks
    features, nodes, centre = torch.randn(6, 5, 4), torch.randn(2, 5, 4), torch.tensor([0, 0, 0, 1, 1, 1])
    before = layer(features, nodes, centre)
    with torch.no_grad():
        block.view(layer.weights)[0, 2, 3] += 1.0
    changed = (layer(features, nodes, centre) - before).abs().amax(dim=(0, 2)) > 0  # (channels,)
    assert changed.tolist() == [False, False, False, True, False]
