"""fairchem-core's own classes by their qualified names, imitated: the package need not be installed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapters.blocks import find_blocks
from adapters.method import create_method
from adapters.stack import AdapterStack

UMA = "fairchem.core.models.uma"


def imitation(module: str, name: str, base: type[nn.Module] = nn.Module) -> type[nn.Module]:
    """A class of that qualified name."""
    return type(name, (base,), {"__module__": module})


def with_parts(layer: nn.Module, **parts: object) -> nn.Module:
    for name, part in parts.items():
        setattr(layer, name, part)
    return layer


def order_convolution(name: str, order: int, fc: nn.Module) -> nn.Module:
    return with_parts(imitation(f"{UMA}.nn.so2_layers", name)(), m=order, fc=fc)


def convolution(name: str, of_order: str, experts: int | None = None) -> nn.Module:
    """lmax 2, mmax 2, from 4 channels to 3, with 5 extra scalars and a radial function."""
    orders = []
    for order in (1, 2):
        rows, cols = (3 - order) * 4, 2 * (3 - order) * 3
        fc: nn.Module = nn.Linear(rows, cols, bias=False)
        if experts is not None:
            fc = mixture(experts, rows, cols, bias=False)
        orders.append(order_convolution(of_order, order, fc))
    fc_m0 = nn.Linear(12, 14) if experts is None else mixture(experts, 12, 14, bias=True)
    radial = with_parts(imitation(f"{UMA}.nn.radial", "RadialMLP")(), net=nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7), nn.Linear(7, 24)))
    return with_parts(imitation(f"{UMA}.nn.so2_layers", name)(), fc_m0=fc_m0, so2_m_conv=nn.ModuleList(orders), rad_func=radial)


def mixture(experts: int, rows: int, cols: int, *, bias: bool) -> nn.Module:
    weights = nn.Parameter(torch.randn(experts, cols, rows))
    return with_parts(imitation(f"{UMA}.nn.mole", "MOLE")(), weights=weights, bias=nn.Parameter(torch.zeros(cols)) if bias else None)


def test_the_so2_layers_have_their_orders_and_their_radial_function_its_role():
    blocks = find_blocks(convolution("SO2_Convolution", "SO2_m_Conv")).blocks
    assert [(b.parameter, b.role, b.order, b.shape) for b in blocks if b.role in {"so2", "radial"}] == [
        ("fc_m0.weight", "so2", 0, (1, 12, 14)),
        ("so2_m_conv.0.fc.weight", "so2", 1, (1, 8, 12)),
        ("so2_m_conv.1.fc.weight", "so2", 2, (1, 4, 6)),
        ("rad_func.net.0.weight", "radial", None, (1, 6, 7)),
        ("rad_func.net.2.weight", "radial", None, (1, 7, 24)),
    ]
    assert {block.role for block in blocks} == {"so2", "radial", "bias", "norm"}


def test_a_layer_of_one_order_knows_it_by_itself():
    (block,) = find_blocks(order_convolution("SO2_m_Conv", 2, nn.Linear(4, 6, bias=False))).blocks
    assert (block.role, block.order, block.key) == ("so2", 2, "fc.weight/weight")


@pytest.mark.parametrize("name", ["SO2_Conv1_WithRadialBlock", "SO2_Conv2_InternalBlock"])
def test_layers_that_compute_with_a_copy_of_their_weights_are_not_adapted(name):
    coverage = find_blocks(convolution(name, "SO2_m_Conv_Block"))
    reason = "the layer computes with a copy of its weights, which no adapter reaches"
    assert coverage.not_adaptable == {f"so2_m_conv.{index}.fc.weight": reason for index in (0, 1)}
    assert {block.order for block in coverage.blocks if block.role == "so2"} == {0}
    assert reason in coverage.table()


def test_mixtures_of_experts_are_stacks_of_transposed_matrices():
    model = convolution("SO2_Convolution", "SO2_m_Conv", experts=3)
    blocks = [block for block in find_blocks(model).blocks if block.role == "so2"]
    assert [(b.parameter, b.order, b.shape) for b in blocks] == [
        ("fc_m0.weights", 0, (3, 12, 14)),
        ("so2_m_conv.0.fc.weights", 1, (3, 8, 12)),
        ("so2_m_conv.1.fc.weights", 2, (3, 4, 6)),
    ]
    weights = model.get_parameter("so2_m_conv.0.fc.weights")
    assert torch.equal(blocks[1].view(weights), weights.transpose(1, 2))
    stack = AdapterStack(model, find_blocks(model))
    stack.add("a", create_method({"name": "elora", "rank": 1, "roles": ["so2"], "select": ["m==1"]}))
    stack.randomise("a", 0)
    factors = stack.get("a").tensors
    low_rank = factors["so2_m_conv.0.fc.weights/weight/A"] @ factors["so2_m_conv.0.fc.weights/weight/B"]
    assert torch.allclose(stack.get("a").deltas()["so2_m_conv.0.fc.weights"], low_rank.transpose(1, 2))


def test_an_so3_linear_and_the_norms_have_their_degrees():
    linear = imitation(f"{UMA}.nn.so3_layers", "SO3_Linear")()
    with_parts(linear, weight=nn.Parameter(torch.randn(3, 5, 4)), bias=nn.Parameter(torch.zeros(5)))
    assert [(b.key, b.role, b.degree, b.shape) for b in find_blocks(linear).blocks] == [
        *[(f"weight/l{degree}", "so3", degree, (1, 4, 5)) for degree in range(3)],
        ("bias/all", "bias", 0, (1, 1, 5)),
    ]
    separable = imitation(f"{UMA}.nn.layer_norm", "EquivariantLayerNormArraySphericalHarmonics")()
    with_parts(separable, affine_weight=nn.Parameter(torch.ones(2, 4)), norm_l0=nn.LayerNorm(4))
    assert [(b.label, b.degree) for b in find_blocks(separable).blocks] == [("l1", 1), ("l2", 2), ("all", 0), ("all", 0)]
    for name in ("EquivariantLayerNormArray", "EquivariantRMSNormArraySphericalHarmonics", "EquivariantRMSNormArraySphericalHarmonicsV2"):
        norm = imitation(f"{UMA}.nn.layer_norm", name)()
        with_parts(norm, affine_weight=nn.Parameter(torch.ones(3, 4)), affine_bias=nn.Parameter(torch.zeros(4)))
        assert [(b.role, b.degree) for b in find_blocks(norm).blocks] == [("norm", degree) for degree in (0, 1, 2, 0)]
    plain = imitation(f"{UMA}.nn.layer_norm", "EquivariantRMSNormArraySphericalHarmonicsV2")()
    plain.register_parameter("affine_weight", None)
    assert find_blocks(plain).blocks == ()


def test_mlps_on_the_sphere_and_of_scalars_and_embeddings_have_their_roles():
    grid = with_parts(imitation(f"{UMA}.escn_md_block", "GridAtomwise")(), grid_mlp=nn.Sequential(nn.Linear(4, 5, bias=False), nn.SiLU()))
    assert [(b.parameter, b.role, b.degree) for b in find_blocks(grid).blocks] == [("grid_mlp.0.weight", "grid", None)]
    spectral = with_parts(imitation(f"{UMA}.escn_md_block", "SpectralAtomwise")(), scalar_mlp=nn.Sequential(nn.Linear(4, 10), nn.SiLU()))
    assert [(b.role, b.degree) for b in find_blocks(spectral).blocks] == [("scalar", 0), ("bias", 0)]
    charge = imitation(f"{UMA}.nn.embedding", "ChgSpinEmbedding")
    for parts in ({"W": nn.Parameter(torch.randn(4))}, {"lin_emb": nn.Linear(1, 4, bias=False)}, {"rand_emb": nn.Embedding(201, 4)}):
        assert [block.role for block in find_blocks(with_parts(charge(), **parts)).blocks] == ["embedding"]
    basis = with_parts(imitation(f"{UMA}.nn.radial", "SphericalBesselBasis")(), frequencies=nn.Parameter(torch.ones(6)))
    assert [block.role for block in find_blocks(basis).blocks] == ["radial_basis"]


def test_a_class_of_the_same_name_from_elsewhere_has_no_rule():
    linear = imitation("somewhere.else.so3_layers", "SO3_Linear")()
    with_parts(linear, weight=nn.Parameter(torch.randn(3, 5, 4)), bias=nn.Parameter(torch.zeros(5)))
    assert {block.role for block in find_blocks(linear).blocks} == {"other"}
