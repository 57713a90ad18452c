"""Layer type -> its blocks. A rule is found by the qualified name of the type, so no backbone package is imported here.

A rule gets the module and returns blocks whose ``parameter`` is the module's own name of it: ``"weight"``, or ``"fc.weight"`` for what it
knows better of its parts than their own rules do. `adapters.blocks.find_blocks` fills in the full name. Layers without a rule, and
TorchScript modules, which hide their instructions, fall to one vector block of role "other". Rules of layers in edges' frames are in
`adapters.rules_so2_so3`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from adapters.blocks import Structure, WeightBlock, vector_block
from adapters.features import LayerFeatures, groups_of

Rule = Callable[[Any], list[WeightBlock]]

E3NN_LINEAR = "e3nn.o3._linear.Linear"
FULLY_CONNECTED_TENSOR_PRODUCT = "e3nn.o3._tensor_product._sub.FullyConnectedTensorProduct"
ALLEGRO_TENSOR_PRODUCT = "allegro.nn._strided._contract.Contracter"
MACE_CONTRACTION = "mace.modules.symmetric_contraction.Contraction"
MACE_LOWER_ORDERS = "torch.nn.modules.container.ParameterList"  # of that contraction
_TENSOR_PRODUCT = "e3nn.o3._tensor_product._tensor_product.TensorProduct"

_RULE_MODULES = ("adapters.rules_so2_so3",)
_RULES: dict[str, Rule] = {}
_REASONS: dict[str, str] = {}


def rule(*qualified_names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of the layer types of these qualified names and of their subclasses without an own rule."""

    def decorate(function: Rule) -> Rule:
        for name in qualified_names:
            _RULES[name] = function
        return function

    return decorate


def not_adaptable(qualified_name: str, reason: str) -> None:
    """Declare a layer type whose weights no adapter may change, its parts' neither; the reason stands in the coverage."""
    _REASONS[qualified_name] = reason


class RulesOfModel:
    """What the rules say of each parameter of a model; of nested layers the outer one has the first word."""

    def __init__(self, model: nn.Module) -> None:
        for name in _RULE_MODULES:
            importlib.import_module(name)
        self._modules = dict(model.named_modules())
        self._found: dict[str, dict[str, list[WeightBlock]]] = {}

    def blocks_of(self, parameter: str) -> list[WeightBlock]:
        """The blocks of the parameter of this name, under local names; empty where no rule knows it."""
        for prefix in self._layers_around(parameter):
            if prefix not in self._found:
                self._found[prefix] = blocks_of_module(self._modules[prefix])
            blocks = self._found[prefix].get(parameter[len(prefix) + 1 :] if prefix else parameter)
            if blocks:
                return blocks
        return []

    def reason_not_adaptable(self, parameter: str) -> str:
        """Why a layer around the parameter lets no adapter change it; empty where none says so."""
        types = (layer for prefix in self._layers_around(parameter) for layer in type(self._modules[prefix]).__mro__)
        return next((_REASONS[name] for name in map(_qualified_name, types) if name in _REASONS), "")

    def _layers_around(self, parameter: str) -> Iterator[str]:
        """Names of the modules that hold the parameter, from the model itself to its owner."""
        parts = parameter.split(".")
        return (".".join(parts[:depth]) for depth in range(len(parts)))


def _qualified_name(layer: type) -> str:
    return f"{layer.__module__}.{layer.__qualname__}"


def blocks_of_module(module: nn.Module) -> dict[str, list[WeightBlock]]:
    """Blocks by short parameter name, perhaps of buffers too; empty where no type in the module's ``__mro__`` has a rule."""
    for layer in type(module).__mro__:
        name = _qualified_name(layer)
        if name not in _RULES:
            continue
        found: dict[str, list[WeightBlock]] = {}
        for block in _RULES[name](module):
            found.setdefault(block.parameter, []).append(replace(block, layer_type=name))
        return found
    return {}


@dataclass(frozen=True)
class _Path:
    """One instruction's ``rows x cols`` of a flat weight; ``group`` and ``input_index`` say what it may be joined with."""

    label: str
    text: str
    rows: int
    cols: int
    offset: int
    group: tuple[object, ...]
    input_index: int
    degree: int
    structure: Structure = "matrix"

    def continued_by(self, other: _Path) -> bool:
        """Whether ``other`` is the same path from the next irrep, stored right behind: simplified irreps would make them one matrix."""
        return self.structure == other.structure == "matrix" and self.group == other.group and other.input_index == self.input_index + 1


def _joined(paths: Iterable[_Path]) -> list[_Path]:
    """Join adjacent equal irreps: published counts are on simplified ones, MACE 0.3.16 builds Linears on 128x0e+128x0e+..."""
    result: list[_Path] = []
    for path in paths:
        if result and result[-1].continued_by(path):
            last = result.pop()
            path = replace(last, rows=last.rows + path.rows, input_index=path.input_index)
        result.append(path)
    return result


def _unique_labels(paths: list[_Path]) -> list[_Path]:
    """``0e``, ``0e.1``, ``0e.2``: repeated labels get their ordinal."""
    seen: dict[str, int] = {}
    result = []
    for path in paths:
        ordinal = seen.get(path.label, 0)
        seen[path.label] = ordinal + 1
        result.append(replace(path, label=f"{path.label}.{ordinal}") if ordinal else path)
    return result


def _to_blocks(paths: list[_Path], role: str, stack: int, stack_stride: int) -> list[WeightBlock]:
    """Blocks of a weight ``(stack, stack_stride)`` whose rows hold ``paths`` one after the other."""
    blocks = []
    for path in _unique_labels(_joined(paths)):
        if path.structure == "vector":
            block = vector_block("weight", path.rows * path.cols, role, label=path.label, path=path.text, offset=path.offset)
        else:
            strides = (stack_stride, path.cols, 1)
            block = WeightBlock("weight", path.label, role, path.text, stack, path.rows, path.cols, path.offset, strides)
        blocks.append(replace(block, degree=path.degree))
    return blocks


def _matrix_block(weight: Tensor, role: str) -> WeightBlock:
    """A weight (in, out) that is one matrix."""
    rows, cols = weight.shape
    return WeightBlock("weight", "weight", role, f"{rows} -> {cols}", 1, rows, cols, 0, (rows * cols, cols, 1))


@rule(E3NN_LINEAR)
def _e3nn_linear(module: Any) -> list[WeightBlock]:
    """Per path a matrix (mul_in, mul_out), row-major, in the order of the instructions; biases of scalars as vectors.

    A channelled Linear (``f_in``, ``f_out``) has a weight (f_in, f_out, numel): f_in * f_out stacked matrices a path.
    """
    weight = module._parameters.get("weight")
    stack = math.prod(weight.shape[:-1]) if weight is not None else 1
    weight_paths, bias_paths = [], []
    weight_offset = bias_offset = 0
    for instruction in module.instructions:
        size = math.prod(instruction.path_shape)
        if not size:
            continue
        degree, irrep_out = module.irreps_out[instruction.i_out].ir.l, str(module.irreps_out[instruction.i_out].ir)
        if instruction.i_in == -1:
            bias_paths.append(_Path(irrep_out, irrep_out, 1, size, bias_offset, (), 0, degree, "vector"))
            bias_offset += size
        else:
            irrep_in = str(module.irreps_in[instruction.i_in].ir)
            group = (irrep_in, instruction.i_out, instruction.path_weight)
            rows, cols = instruction.path_shape
            text = f"{irrep_in} -> {irrep_out}"
            weight_paths.append(_Path(irrep_out, text, rows, cols, weight_offset, group, instruction.i_in, degree))
            weight_offset += size
    features = LayerFeatures(groups_of(module.irreps_in), groups_of(module.irreps_out), "irreps") if stack == 1 else None
    blocks = [replace(block, features=features) for block in _to_blocks(weight_paths, "linear", stack, weight_offset)]
    bias = module._parameters.get("bias")
    if bias is not None and bias.ndim > 1:  # channelled: (f_out, numel) is no run per irrep
        return [*blocks, vector_block("bias", bias.numel(), "bias")]
    biases = [replace(block, parameter="bias") for block in _to_blocks(bias_paths, "bias", 1, 1)]
    return blocks + biases


@rule(FULLY_CONNECTED_TENSOR_PRODUCT, _TENSOR_PRODUCT)
def _e3nn_tensor_product(module: Any) -> list[WeightBlock]:
    """Per weighted path a matrix: uvw is (mul_1 * mul_2, mul_out) as in ELoRA's reference code; element-wise modes are vectors."""
    paths: list[_Path] = []
    offset = 0
    for instruction in module.instructions:
        size = math.prod(instruction.path_shape) if instruction.has_weight else 0
        if not size:
            continue
        first, second = str(module.irreps_in1[instruction.i_in1].ir), str(module.irreps_in2[instruction.i_in2].ir)
        degree, out = module.irreps_out[instruction.i_out].ir.l, str(module.irreps_out[instruction.i_out].ir)
        mode, shape = instruction.connection_mode, instruction.path_shape
        elementwise = mode in {"uuu", "uvuv", "uvu<v"}  # one weight for each product, no sum over an index of the weight
        rows, cols = (1, size) if elementwise else (math.prod(shape[:-1]), shape[-1])
        # uvw alone has the input's index first and the output's last, so that two inputs' weights stack into one matrix
        alone = 0 if mode == "uvw" else len(paths) + 1
        group = (first, instruction.i_in2, instruction.i_out, instruction.path_weight, alone)
        structure: Structure = "vector" if elementwise else "matrix"
        label, text = f"{first}x{second}->{out}", f"{first} x {second} -> {out}"
        paths.append(_Path(label, text, rows, cols, offset, group, instruction.i_in1, degree, structure))
        offset += size
    return _to_blocks(paths, "tensor_product", 1, offset)


@rule("e3nn.nn._fc._Layer")
def _e3nn_radial_layer(module: Any) -> list[WeightBlock]:
    """A layer of ``FullyConnectedNet``, the radial network: weight (in, out)."""
    return [_matrix_block(module.weight, "radial")]


@rule("torch.nn.modules.linear.Linear")
def _torch_linear(module: Any) -> list[WeightBlock]:
    """Weight (out, in), viewed transposed; bias as a vector."""
    rows, cols = module.in_features, module.out_features
    weight = WeightBlock("weight", "weight", "linear", f"{rows} -> {cols}", 1, rows, cols, 0, (rows * cols, 1, rows))
    return [weight, vector_block("bias", cols, "bias")]


@rule("torch.nn.modules.sparse.Embedding")
def _torch_embedding(module: Any) -> list[WeightBlock]:
    """Weight (elements, channels)."""
    return [_matrix_block(module.weight, "embedding")]


@rule("torch.nn.modules.normalization.LayerNorm")
def _torch_layer_norm(module: Any) -> list[WeightBlock]:
    """Scale and shift of each number."""
    parameters = module._parameters.items()
    return [vector_block(name, parameter.numel(), "norm") for name, parameter in parameters if parameter is not None]


@rule("sevenn.nn.edge_embedding.BesselBasis")
def _sevenn_bessel_basis(module: Any) -> list[WeightBlock]:
    """Frequencies of the radial basis."""
    return [vector_block("coeffs", module.coeffs.numel(), "radial_basis")]


@rule("zoo.backbones.nequix_model.IrrepsRMSNorm")
def _nequix_norm(module: Any) -> list[WeightBlock]:
    """A weight for each copy of an irrep."""
    return [vector_block("weight", module.weight.numel(), "norm")]


@rule("nequip.nn.mlp.ScalarLinearLayer")
def _nequip_scalar_linear(module: Any) -> list[WeightBlock]:
    """Weight (in, out), scaled by a constant in the forward; bias, where there is one, as a vector."""
    return [_matrix_block(module.weight, "linear"), vector_block("bias", module.weight.shape[1], "bias")]


@rule("nequip.nn.embedding._edge.BesselEdgeLengthEncoding")
def _nequip_bessel_encoding(module: Any) -> list[WeightBlock]:
    """Frequencies of the radial basis, where they train."""
    return [vector_block("bessel_weights", module.bessel_weights.numel(), "radial_basis")]


@rule("nequip.nn.atomwise.PerTypeScaleShift")
def _nequip_scale_shift(module: Any) -> list[WeightBlock]:
    """Energy scale and shift of each element, where they train."""
    return [vector_block(name, getattr(module, name).numel(), "scale_shift") for name in ("scales", "shifts")]


@rule(ALLEGRO_TENSOR_PRODUCT)
def _allegro_tensor_product(module: Any) -> list[WeightBlock]:
    """Weights (channels, paths), from paths to channels; a vector where paths and channels are not coupled or there is one path.

    Every path couples whole irreps with its Clebsch-Gordan coefficients, so that any value of a weight keeps the symmetry.
    """
    weights = module.weights
    if weights.ndim < 2:
        return [vector_block("weights", weights.numel(), "tensor_product", path=f"{module.num_paths} paths")]
    channels, paths = weights.shape
    text = f"{module.irreps_in1} x {module.irreps_in2} -> {module.irreps_out}"
    block = WeightBlock("weights", "paths", "tensor_product", text, 1, paths, channels, 0, (channels * paths, 1, paths))
    inputs, outputs = (tuple((module.mul, *group[1:]) for group in groups_of(irreps)) for irreps in (module.irreps_in1, module.irreps_out))
    return [replace(block, features=LayerFeatures(inputs, outputs, "strided", on_edges=True))]


@rule(MACE_CONTRACTION)
def _mace_contraction(module: Any) -> list[WeightBlock]:
    """The highest order, (elements, paths, channels): one matrix (elements * paths, channels), for ELoRA shares B among the elements."""
    return _contraction_weights("weights_max", module.weights_max)


@rule(MACE_LOWER_ORDERS)
def _parameter_list(module: Any) -> list[WeightBlock]:
    """MACE keeps a contraction's lower orders, (elements, paths, channels), in a list; other shapes have no rule."""
    return [block for name, weight in module._parameters.items() if weight.ndim == 3 for block in _contraction_weights(name, weight)]


def _contraction_weights(name: str, weight: Any) -> list[WeightBlock]:
    elements, paths, channels = weight.shape
    rows = elements * paths
    path = f"{elements} elements x {paths} paths -> {channels}"
    strides = (rows * channels, channels, 1)
    return [WeightBlock(name, "weight", "contraction", path, 1, rows, channels, 0, strides, coupling_paths=paths)]
