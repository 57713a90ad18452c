"""MACE checkpoints: the ``.model`` that mace writes, and what it is converted into.

A ``.model`` is a pickle of the whole module, in the form of the e3nn that wrote it. It is read as data (`zoo.backbones.inert_pickle`) into
a `MaceConfig` and a state, which are kept in another form (`zoo.backbones.mace_converted`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from zoo.backbones.inert_objects import Inert, RefusedError
from zoo.backbones.inert_pickle import DAMAGED, read_module, readable_error, state_of
from zoo.backbones.mace_converted import is_converted, read_converted
from zoo.backbones.mace_network import MaceConfig
from zoo.backbones.torch_archive import searchable_pickle
from zoo.errors import ZooError, first_problem

_RADIAL_TYPES = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
_TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}


def recognises(path: Path) -> bool:
    """Whether ``path`` is a pickled MACE model or a converted one, by its first bytes and its pickle's names; nothing is unpickled."""
    try:
        return is_converted(path) or b"mace.modules" in searchable_pickle(path)
    except OSError:
        return False


def read_checkpoint(path: Path, trust_pickle: bool = False) -> tuple[MaceConfig, dict[str, Tensor]]:
    """Configuration and state of a ``.model`` or a converted file.

    Raises:
        ZooError: a damaged or hostile file, or a model of a kind that is not supported.
    """
    if is_converted(path):
        return read_converted(path)
    module = read_module(path, trust_pickle)
    try:
        state = state_of(module, path.stat().st_size, trust_pickle)
        return config_of(module, state, str(path)), state
    except ZooError:
        raise
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{path}: {first.key or 'settings'}: {first.message}; this kind of MACE model is not supported") from None
    except (RefusedError, *DAMAGED) as error:
        raise readable_error(path, error) from None


def config_of(module: Inert, state: dict[str, Tensor], source: str) -> MaceConfig:
    """What the network in the file was built from, read off its parts.

    Raises:
        ZooError: for a model that is no plain energy model (dipoles, charges, long range, extra embeddings).
    """
    if module.class_name not in ("MACE", "ScaleShiftMACE"):
        raise ZooError(f"{source}: holds {module.qualified_name}, wanted MACE or ScaleShiftMACE; this kind of model is not supported")
    if module.get("joint_embedding") is not None:
        raise ZooError(f"{source}: embeds more than elements (total charge, spin or the like), which is not supported; pass a plain model")
    layers, products, readouts = (_children(module, name) for name in ("interactions", "products", "readouts"))
    heads = tuple(module.get("heads") or ("Default",))
    hidden, last = irreps_text(products[0].at("linear.irreps_out")), irreps_text(products[-1].at("linear.irreps_out"))
    radial = module.get("radial_embedding")
    transform = radial.get("distance_transform")
    nonlinear = readouts[-1].get("hidden_irreps")
    for setting, values in _settings_of_layers(layers).items():
        if len(set(values)) > 1:
            raise ZooError(f"{source}: its layers differ in {setting} ({', '.join(map(str, values))}); wanted one for all")
    edge_irreps = module.get("edge_irreps")
    fields = {
        "model": module.class_name,
        "r_max": float(state["r_max"]),
        "num_bessel": int(radial.get("out_dim")),
        "num_polynomial_cutoff": int(state["radial_embedding.cutoff_fn.p"]),
        "max_ell": max(degree for _, degree, _ in _irreps(layers[0].get("edge_attrs_irreps"))),
        "interaction_cls": layers[-1].class_name,
        "interaction_cls_first": layers[0].class_name,
        "num_interactions": len(layers),
        "hidden_irreps": hidden,
        "mlp_irreps": "16x0e" if nonlinear is None else _per_head(nonlinear, len(heads)),
        "avg_num_neighbors": float(layers[0].get("avg_num_neighbors")),
        "atomic_numbers": tuple(state["atomic_numbers"].tolist()),
        "correlation": tuple(len(_children(product, "symmetric_contractions.contractions.0.weights")) + 1 for product in products),
        "gate": _gate(readouts[-1]),
        "pair_repulsion": module.get("pair_repulsion_fn") is not None,
        "apply_cutoff": bool(module.get("apply_cutoff", True)),
        "use_reduced_cg": bool(module.get("use_reduced_cg", False)),
        "use_so3": bool(module.get("use_so3", False)),
        "use_agnostic_product": bool(module.get("use_agnostic_product", False)),
        "use_last_readout_only": len(readouts) < len(layers),
        "use_edge_irreps_first": bool(module.get("use_edge_irreps_first", False)),
        "keep_last_layer_irreps": len(layers) > 1 and last == hidden and hidden != irreps_text(_irreps(hidden)[:1]),
        "distance_transform": "None" if transform is None else _TRANSFORMS.get(transform.class_name, transform.class_name),
        "edge_irreps": None if edge_irreps is None else irreps_text(edge_irreps),
        "radial_mlp": _radial_mlp(layers[0]),
        "radial_type": _RADIAL_TYPES.get(radial.get("bessel_fn").class_name, radial.get("bessel_fn").class_name),
        "readout_cls": "NonLinearReadoutBlock" if nonlinear is None else readouts[-1].class_name,
        "heads": heads,
        "atomic_energies_shape": tuple(state["atomic_energies_fn.atomic_energies"].shape),
        "scale_shape": tuple(state["scale_shift.scale"].shape) if "scale_shift.scale" in state else (),
        "trained_buffers": _trained_buffers(module),
    }
    return MaceConfig.model_validate(fields)


def _children(module: Inert, path: str) -> list[Any]:
    """The items of a ModuleList or ParameterList, in order."""
    node = module.at(path)
    named: dict[str, Any] = {**node.fields.get("_modules", {}), **node.fields.get("_parameters", {})}
    return [named[key] for key in sorted((key for key in named if key.isdigit()), key=int)]


def _irreps(value: Any) -> list[tuple[int, int, int]]:
    """(multiplicity, degree, parity) of irreps, whether text or e3nn's nested tuples as they were pickled."""
    if isinstance(value, str):
        from e3nn.o3 import Irreps

        return [(int(mul), int(irrep.l), int(irrep.p)) for mul, irrep in Irreps(value)]
    found = []
    for item in _items(value):
        multiplicity, irrep = _items(item)
        degree, parity = _items(irrep)
        found.append((int(multiplicity), int(degree), int(parity)))
    return found


def _items(value: Any) -> tuple[Any, ...]:
    arguments = value.arguments if isinstance(value, Inert) else value
    return tuple(arguments[0]) if len(arguments) == 1 else tuple(arguments)


def irreps_text(value: Any) -> str:
    """``"128x0e+128x1o"``."""
    parts = value if isinstance(value, list) else _irreps(value)
    return "+".join(f"{multiplicity}x{degree}{'e' if parity == 1 else 'o'}" for multiplicity, degree, parity in parts)


def _per_head(hidden_irreps: Any, heads: int) -> str:
    return irreps_text([(multiplicity // heads, degree, parity) for multiplicity, degree, parity in _irreps(hidden_irreps)])


def _gate(readout: Inert) -> str | None:
    gate = readout.at("non_linearity.acts.0.f")
    if gate is None:
        gate = readout.at("equivariant_nonlin.acts.0.f")
    if gate is None:
        return None
    if isinstance(gate, Inert):  # getattr(torch._C._VariableFunctions, "tanh")
        return gate.arguments[-1] if isinstance(gate.arguments[-1], str) else "unknown"
    return str(gate.qualified_name).rpartition(".")[2]


def _settings_of_layers(layers: list[Inert]) -> dict[str, list[Any]]:
    """What mace has one setting for: no tensor tells of it, and a script may have changed it in a single layer."""
    return {
        "avg_num_neighbors": [float(layer.get("avg_num_neighbors")) for layer in layers],
        "their class": [layer.class_name for layer in layers[1:]],
        "edge_attrs_irreps": [irreps_text(layer.get("edge_attrs_irreps")) for layer in layers],
    }


def _radial_mlp(interaction: Inert) -> tuple[int, ...]:
    network = interaction.get("conv_tp_weights")
    return tuple(int(width) for width in network.get("hs")[1:-1])


def _trained_buffers(module: Inert) -> tuple[str, ...]:
    """Parameters of the radial embedding: this version of mace makes buffers of them."""
    found: list[str] = []

    def visit(node: Inert, prefix: str) -> None:
        found.extend(prefix + name for name, value in node.fields.get("_parameters", {}).items() if isinstance(value, nn.Parameter))
        for name, child in node.fields.get("_modules", {}).items():
            visit(child, f"{prefix}{name}.")

    for part in ("radial_embedding", "pair_repulsion_fn"):
        child = module.get(part)
        if isinstance(child, Inert):
            visit(child, f"{part}.")
    return tuple(found)
