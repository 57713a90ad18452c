"""Rules of networks that work in the edges' frames: EquiformerV2, here and in fairchem-core, and fairchem's eSCN-MD and UMA.

An SO(2) convolution has one linear map for each order |m|. That of m = 0 is any matrix; that of |m| > 0 is a matrix [W_r; W_i] on the
coefficients of +m and those of -m alike, which the layer then combines as the product with W_r + i W_i. So any change of either matrix
commutes with turns about the edge, and a low-rank one of [W_r; W_i] shares A between the two parts. A linear map of atoms' features has one
matrix for each degree l, and any change of each commutes with all rotations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from adapters.blocks import WeightBlock, vector_block
from adapters.features import LayerFeatures
from adapters.rules import blocks_of_module, not_adaptable, rule

_HERE = "zoo.backbones.equiformer_v2"
_FAIRCHEM = "fairchem.core.models.uma"

SO2_CONVOLUTIONS = (
    f"{_HERE}.so2.SO2Convolution",
    f"{_FAIRCHEM}.nn.so2_layers.SO2_Convolution",
    f"{_FAIRCHEM}.nn.so2_layers.SO2_Conv1_WithRadialBlock",
    f"{_FAIRCHEM}.nn.so2_layers.SO2_Conv2_InternalBlock",
)
ORDER_CONVOLUTIONS = (f"{_HERE}.so2.OrderConvolution", f"{_FAIRCHEM}.nn.so2_layers.SO2_m_Conv")
SO3_LINEARS = (f"{_HERE}.so3.SO3Linear", f"{_FAIRCHEM}.nn.so3_layers.SO3_Linear")
RADIAL_FUNCTIONS = (f"{_HERE}.radial.RadialFunction", f"{_FAIRCHEM}.nn.radial.RadialMLP")
FEED_FORWARDS = (f"{_HERE}.blocks.FeedForward", f"{_FAIRCHEM}.escn_md_block.GridAtomwise", f"{_FAIRCHEM}.escn_md_block.SpectralAtomwise")

not_adaptable(f"{_FAIRCHEM}.nn.so2_layers.SO2_m_Conv_Block", "the layer computes with a copy of its weights, which no adapter reaches")


def _blocks_of_part(
    module: Any, name: str, role: str, *, degree: int | None = None, order: int | None = None, path: str = ""
) -> list[WeightBlock]:
    """The blocks of a part and what is in it by their own rules, but with this role for its matrices, and these numbers."""
    blocks = []
    for place, layer in module.get_submodule(name).named_modules(prefix=name):
        for parameter, own in blocks_of_module(layer).items():
            for block in own:
                block = replace(block, parameter=f"{place}.{parameter}", degree=degree, order=order)
                if block.structure == "matrix":
                    block = replace(block, role=role, path=f"{path}{block.path}")
                blocks.append(block)
    return blocks


@rule(*SO2_CONVOLUTIONS)
def _so2_convolution(module: Any) -> list[WeightBlock]:
    """``fc_m0``, whose outputs begin with extra scalars where there are any, and ``fc`` of each order."""
    blocks = _blocks_of_part(module, "fc_m0", "so2", order=0, path="m = 0: ")
    for order in range(1, len(module.so2_m_conv) + 1):
        blocks += _blocks_of_part(module, f"so2_m_conv.{order - 1}.fc", "so2", order=order, path=f"|m| = {order}, [W_r; W_i]: ")
    return blocks


@rule(*ORDER_CONVOLUTIONS)
def _order_convolution(module: Any) -> list[WeightBlock]:
    """The map of one order outside of a convolution; fairchem's layer knows its order."""
    return _blocks_of_part(module, "fc", "so2", order=getattr(module, "m", None), path="[W_r; W_i]: ")


@rule(*SO3_LINEARS)
def _so3_linear(module: Any) -> list[WeightBlock]:
    """Weight (degrees, out, in): a transposed matrix a degree, so that degrees can be chosen; the bias is added to degree 0."""
    degrees, cols, rows = module.weight.shape
    strides = (rows * cols, 1, rows)
    inputs, outputs = (tuple((channels, degree, (-1) ** degree) for degree in range(degrees)) for channels in (rows, cols))
    features = LayerFeatures(inputs, outputs, "degrees")
    matrices = []
    for degree in range(degrees):
        path, offset = f"l = {degree}: {rows} -> {cols}", degree * rows * cols
        block = WeightBlock("weight", f"l{degree}", "so3", path, 1, rows, cols, offset, strides, degree=degree)
        matrices.append(replace(block, features=features))
    has_bias = module._parameters.get("bias") is not None
    return [*matrices, *([replace(vector_block("bias", cols, "bias"), degree=0)] if has_bias else [])]


@rule(f"{_FAIRCHEM}.escn_md.Linear_Force_Head", f"{_FAIRCHEM}.escn_md.MLP_Stress_Head")
def _head_of_one_degree(module: Any) -> list[WeightBlock]:
    """An SO(3) linear of whose outputs one degree is used: one stack, so that no factor is of an unused degree alone."""
    name = "linear" if "linear" in dict(module.named_children()) else "l2_linear"
    degrees, cols, rows = module.get_submodule(name).weight.shape
    path = f"{degrees} degrees x {rows} -> {cols}, the highest used"
    return [WeightBlock(f"{name}.weight", "weight", "so3", path, degrees, rows, cols, 0, (rows * cols, 1, rows))]


@rule(*RADIAL_FUNCTIONS)
def _radial_function(module: Any) -> list[WeightBlock]:
    """Linear maps with norms between them."""
    return _blocks_of_part(module, "net", "radial")


@rule(*FEED_FORWARDS)
def _feed_forward(module: Any) -> list[WeightBlock]:
    """The MLP of values on the sphere, point by point, and those of the scalars or of the gates that scalars make."""
    children = {name for name, _ in module.named_children()}
    blocks = _blocks_of_part(module, "grid_mlp", "grid") if "grid_mlp" in children else []
    for name in ("scalar_mlp", "gating_linear"):
        if name in children:
            blocks += _blocks_of_part(module, name, "scalar", degree=0)
    return blocks


@rule(f"{_HERE}.attention.GraphAttention")
def _attention(module: Any) -> list[WeightBlock]:
    """What the logits' channels are multiplied with, (heads, channels): a vector a head."""
    heads, channels = module.alpha_dot.shape
    return [vector_block("alpha_dot", heads * channels, "attention", path=f"{heads} heads x {channels} -> 1")]


@rule(f"{_HERE}.norms.SeparableLayerNorm", f"{_HERE}.norms.RootMeanSquareNorm", f"{_HERE}.norms.DegreewiseLayerNorm")
def _degree_norm(module: Any) -> list[WeightBlock]:
    """Scales (degrees, channels), a vector a degree; the scalars have a shift too, or a norm of their own."""
    blocks = []
    own_norm = "norm_l0" in dict(module.named_children())
    if own_norm:
        blocks += _blocks_of_part(module, "norm_l0", "norm", degree=0)
    scales = module._parameters.get("affine_weight")
    if scales is not None:
        for row in range(scales.shape[0]):
            degree, channels = row + own_norm, scales.shape[1]
            block = vector_block("affine_weight", channels, "norm", label=f"l{degree}", path=f"l = {degree}", offset=row * channels)
            blocks.append(replace(block, degree=degree))
    shifts = module._parameters.get("affine_bias")
    if shifts is not None:
        blocks.append(replace(vector_block("affine_bias", shifts.numel(), "norm"), degree=0))
    return blocks


@rule(
    f"{_FAIRCHEM}.nn.layer_norm.EquivariantLayerNormArray",
    f"{_FAIRCHEM}.nn.layer_norm.EquivariantLayerNormArraySphericalHarmonics",
    f"{_FAIRCHEM}.nn.layer_norm.EquivariantRMSNormArraySphericalHarmonics",
    f"{_FAIRCHEM}.nn.layer_norm.EquivariantRMSNormArraySphericalHarmonicsV2",
)
def _norm_of_atoms(module: Any) -> list[WeightBlock]:
    """As `_degree_norm`, with features: where UMA's feed-forwards are on the grid, no other layer turns features of atoms into such."""
    blocks = _degree_norm(module)
    scales = [block for block in blocks if block.parameter == "affine_weight"]
    if not scales:
        return blocks
    groups = tuple((scales[0].numel, degree, (-1) ** degree) for degree in range(1 + max(block.degree or 0 for block in scales)))
    features = LayerFeatures(groups, groups, "degrees")
    return [replace(block, features=features) if block.parameter == "affine_weight" else block for block in blocks]


@rule(f"{_FAIRCHEM}.escn_md.eSCNMDBackbone")
def _backbone(module: Any) -> list[WeightBlock]:
    """The scales of the last norm in one block: an energy reads its scalars alone, and a block of another degree would train nothing."""
    scales = module.norm._parameters.get("affine_weight")
    if scales is None or "norm_l0" in dict(module.norm.named_children()):
        return []
    degrees, channels = scales.shape
    return [vector_block("norm.affine_weight", degrees * channels, "norm", path=f"l = 0 to {degrees - 1}")]


@rule(f"{_FAIRCHEM}.nn.mole.MOLE", f"{_FAIRCHEM}.nn.mole.MOLEDGL")
def _mixture_of_experts(module: Any) -> list[WeightBlock]:
    """Weights (experts, out, in), mixed before they are used: a transposed matrix an expert; one bias."""
    experts, cols, rows = module.weights.shape
    path = f"{experts} experts x {rows} -> {cols}"
    weights = WeightBlock("weights", "weight", "linear", path, experts, rows, cols, 0, (rows * cols, 1, rows))
    return [weights, vector_block("bias", cols, "bias")]


@rule(f"{_FAIRCHEM}.nn.embedding.ChgSpinEmbedding", f"{_FAIRCHEM}.nn.embedding_dev.ChgSpinEmbedding")
def _charge_embedding(module: Any) -> list[WeightBlock]:
    """Embeddings of charge or spin, of which there are three forms: frequencies, a linear map, rows of a table."""
    frequencies = module._parameters.get("W")
    if frequencies is not None:
        return [vector_block("W", frequencies.numel(), "embedding")]
    return [block for name, _ in module.named_children() for block in _blocks_of_part(module, name, "embedding")]


@rule(f"{_FAIRCHEM}.nn.radial.SphericalBesselBasis")
def _spherical_bessel_basis(module: Any) -> list[WeightBlock]:
    """Frequencies of the radial basis."""
    return [vector_block("frequencies", module.frequencies.numel(), "radial_basis")]
