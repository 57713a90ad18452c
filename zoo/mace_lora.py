"""LoRA that was trained with mace (``mace_run_train --lora``), as an adapter of the method ``lora-mace``.

mace writes no adapter file. Its checkpoints (``*_epoch-N.pt``) and pickled models with the wrappers still in place hold base and factors
together; they are read without running anything from them, the base in them is compared with the one that the adapter is for, and the
factors are put where `adapters.lora_mace` has them. What mace changes of the reference energies becomes the adapter's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters.adapter import Adapter
from adapters.blocks import WeightBlock
from adapters.method import create_method
from adapters.state import write_adapter
from zoo.adapter_files import manifest_of
from zoo.backbones.clebsch_gordan import is_coupling
from zoo.backbones.inert_objects import Inert, RefusedError
from zoo.backbones.inert_pickle import DAMAGED, read_module, readable_error, state_of
from zoo.backbones.torch_archive import check_archive, load_archive, searchable_pickle
from zoo.errors import ZooError
from zoo.potential import Potential

_ENERGIES = "atomic_energies_fn.atomic_energies"
_EPSILON = 1e-6  # of the base in float64 against the same in float32, relative


@dataclass(frozen=True)
class TrainedLora:
    """What a file of mace holds.

    Attributes:
        source: the file.
        state: every tensor by its name: base, factors and constants.
        scaling: alpha / r as the wrappers keep it; None in a checkpoint, which holds tensors alone.
    """

    source: Path
    state: dict[str, Tensor]
    scaling: float | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the wrapped layers."""
        return tuple(name.removesuffix(".base.weight") for name in self.state if name.endswith(".base.weight"))

    @property
    def rank(self) -> int:
        """r, read off a layer whose factors have it as a dimension, or found from the sizes of an ``o3.Linear``'s."""
        for name in self.layers:
            first, _ = self.factors_of(name)
            if first.ndim == 2:
                # a radial network's layer (in, r), or a torch.nn.Linear's (r, in)
                return int(first.shape[1] if f"{name}.lora_A" in self.state else first.shape[0])
        raise ZooError(
            f"{self.source}: holds no radial network with LoRA, off which the rank could be read; pass a MACE model's checkpoint"
        )

    def factors_of(self, name: str) -> tuple[Tensor, Tensor]:
        """The two factors of a wrapped layer, as mace stores them."""
        bare = f"{name}.lora_A" in self.state
        keys = [f"{name}.lora_{letter}{'' if bare else '.weight'}" for letter in "AB"]
        for key in keys:
            if key not in self.state:
                raise ZooError(
                    f"{self.source}: has {name}.base.weight and no {key}; pass a checkpoint (.pt) that mace_run_train --lora wrote"
                )
            if not (self.state[key].is_floating_point() and bool(torch.isfinite(self.state[key]).all())):
                raise ZooError(f"{self.source}: {key} holds what is no finite number: training diverged; train again at a lower rate")
        first, second = (self.state[key] for key in keys)
        return first, second


def read_lora(path: Path, trust_pickle: bool = False) -> TrainedLora:
    """Base and factors out of a checkpoint or a pickled model of mace.

    Raises:
        ZooError: a missing or damaged file, one that would run code, or one without LoRA.
    """
    if not path.is_file():
        raise ZooError(f"{path}: no such file; pass a checkpoint (.pt) or model that mace_run_train --lora wrote")
    check_archive(path, "a MACE checkpoint")
    if b"mace.modules" in searchable_pickle(path):
        module = read_module(path, trust_pickle)
        try:
            lora = TrainedLora(path, state_of(module, path.stat().st_size, trust_pickle), _scaling_in(module, path))
        except (RefusedError, *DAMAGED) as error:
            raise readable_error(path, error) from None
    else:
        content = load_archive(path, "a MACE checkpoint", trust_pickle)
        state = content.get("model") if isinstance(content, dict) else None
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ZooError(f"{path}: holds no model's state under 'model'; pass a checkpoint (.pt) that mace_run_train --lora wrote")
        lora = TrainedLora(path, dict(state), None)
    if not lora.layers:
        raise ZooError(
            f"{path}: holds no layer with LoRA; mace merges it into the final .model, so pass a checkpoint of the training (.pt)"
        )
    return lora


def attach_lora(potential: Potential, lora: TrainedLora, alpha: float | None = None) -> Adapter:
    """Put trained factors on a potential, as its active adapter ``lora-mace``, and their reference energies with them.

    Args:
        potential: of the base that mace trained on, with the same elements.
        lora: from `read_lora`.
        alpha: of the training; needed for a checkpoint, which does not hold it.

    Raises:
        ZooError: another base, or an alpha that is missing or contradicts the file.
    """
    rank = lora.rank
    if alpha is None and lora.scaling is None:
        raise ZooError(f"{lora.source}: a checkpoint does not hold LoRA's alpha; pass alpha=... (mace_run_train's default is 1.0)")
    found = None if lora.scaling is None else lora.scaling * rank
    if alpha is not None and found is not None and abs(alpha - found) > _EPSILON * found:
        raise ZooError(f"{lora.source}: was trained with alpha={found:g}, not {alpha:g}; leave alpha out")
    _check_base(potential, lora)
    method = create_method({"name": "lora-mace", "rank": rank, "alpha": found if alpha is None else alpha})
    shifts = _energy_shifts(potential, lora)
    adapter = potential.adapters.add(method.name, method)
    try:
        _fill(potential, lora, adapter, rank)
    except ZooError:
        potential.adapters.delete(method.name)
        raise
    potential.set_reference_shifts(shifts)
    return adapter


@torch.no_grad()
def _fill(potential: Potential, lora: TrainedLora, adapter: Adapter, rank: int) -> None:
    """Put every factor of the file where it belongs; refuse those that belong nowhere, and sizes that would be stretched to fit."""
    wrapped = {f"network.{name}.weight": name for name in lora.layers}
    unknown = sorted(wrapped.keys() - {block.parameter for block in adapter.blocks})
    if unknown:
        raise ZooError(
            f"{lora.source}: has LoRA on {wrapped[unknown[0]]}, which {potential.source} has not; pass the base it was trained on"
        )
    for position, block in enumerate(adapter.blocks):
        if block.parameter not in wrapped:
            continue  # a layer without LoRA keeps B = 0
        name, own = wrapped[block.parameter], adapter.own_factors(position)
        for factor, value in _factors_of_block(potential, lora, name, block, rank).items():
            if value.shape != own[factor].shape:
                raise _misfit(lora, name, rank, tuple(value.shape), tuple(own[factor].shape))
            own[factor].copy_(value)


def _misfit(lora: TrainedLora, name: str, rank: int, found: tuple[int, ...], wanted: tuple[int, ...]) -> ZooError:
    return ZooError(
        f"{lora.source}: a LoRA factor of {name} has shape {found}, wanted {wanted} for its base and rank {rank}; pass a checkpoint that "
        "mace wrote"
    )


def convert_lora(source: Path, potential: Potential, output: Path, alpha: float | None = None, trust_pickle: bool = False) -> Path:
    """Write mace's LoRA as an adapter file; the potential is left with the adapter active.

    Args:
        source: a checkpoint or pickled model of mace.
        potential: of the base.
        output: of the adapter file, ``*.safetensors``.
        alpha: as in `attach_lora`.
        trust_pickle: read a file that names packages no model needs; nothing of it is run all the same.

    Raises:
        ZooError: as `read_lora` and `attach_lora`.
        adapters.errors.AdapterError: a file that cannot be written.
    """
    adapter = attach_lora(potential, read_lora(source, trust_pickle), alpha)
    write_adapter(output, adapter, manifest_of(potential, adapter, potential.get_reference_shifts()))
    return output


def _scaling_in(module: Inert, path: Path) -> float | None:
    """The wrappers' alpha / r in a pickled model; None where there are none."""
    found: set[float] = set()

    def visit(node: Inert) -> None:
        modules = node.fields.get("_modules", {})
        if "base" in modules and "scaling" in node.fields:
            found.add(float(node.fields["scaling"]))
        for child in modules.values():
            if isinstance(child, Inert):
                visit(child)

    visit(module)
    if len(found) > 1:
        raise ZooError(f"{path}: its layers have LoRA of several scales ({', '.join(map(str, sorted(found)))}); wanted one")
    return found.pop() if found else None


def _check_base(potential: Potential, lora: TrainedLora) -> None:
    """Refuse factors on another base: all that LoRA leaves as it was must be the potential's, constants of the network too."""
    if potential.backbone.family != "mace":
        raise ZooError(
            f"{lora.source}: LoRA of a MACE model, and {potential.source} is a {potential.backbone.family} model; pass its own base"
        )
    network: Any = potential.backbone.network
    own, trained = dict(network.state_dict()), {name for name, _ in network.named_parameters()}
    for name, value in lora.state.items():
        if ".lora_" in name:
            continue
        here = name.replace(".base.", ".")
        compared = here in trained or is_coupling(here) or here.startswith("scale_shift.")
        if here not in own or not compared:
            trained.discard(here)
            continue
        if own[here].numel() != value.numel() or not _equal(own[here].reshape(-1), value.reshape(-1)):
            raise ZooError(
                f"{lora.source}: its base differs from {potential.source} in {here} {tuple(value.shape)}; pass the base that it was "
                "trained on, with its elements (elements=[...])"
            )
        trained.discard(here)
    if trained:
        raise ZooError(f"{lora.source}: has no {sorted(trained)[0]}, which {potential.source} has; pass the base that it was trained on")


def _equal(own: Tensor, found: Tensor) -> bool:
    return torch.allclose(own.double().cpu(), found.double().cpu(), rtol=_EPSILON, atol=_EPSILON * float(own.double().abs().max()))


def _factors_of_block(potential: Potential, lora: TrainedLora, name: str, block: WeightBlock, rank: int) -> dict[str, Tensor]:
    """The two factors of one of our blocks, in our orientation."""
    first, second = lora.factors_of(name)
    if f"{name}.lora_A" in lora.state:  # a radial network's layer: (in, r) and (r, out)
        return {"A_plain": first, "B_plain": second}
    if first.ndim == 2:  # a torch.nn.Linear: (r, in) and (out, r)
        return {"A_plain": first.T, "B_plain": second.T}
    network: Any = potential.backbone.network
    linear = network.get_submodule(name)
    shared = {mul_ir.ir for mul_ir in linear.irreps_in} & {mul_ir.ir for mul_ir in linear.irreps_out}
    for flat, irreps in ((first, linear.irreps_in), (second, linear.irreps_out)):
        count = rank * sum(multiplicity for multiplicity, irrep in irreps if irrep in shared)
        if flat.shape != (count,):
            raise _misfit(lora, name, rank, tuple(flat.shape), (count,))
    return _factors_of_path(linear, block, first, second, rank)


def _factors_of_path(linear: Any, block: WeightBlock, first: Tensor, second: Tensor, rank: int) -> dict[str, Tensor]:
    """The rows and columns of a block in the flat weights of upstream's two ``o3.Linear``.

    Both hold their paths in e3nn's order, by input and then by output: Linear_A one (multiplicity, r) for each input whose irrep comes out,
    Linear_B one (r, multiplicity) for each irrep, in the order of degree and parity, and each output that has it.
    """
    shared = sorted({mul_ir.ir for mul_ir in linear.irreps_in} & {mul_ir.ir for mul_ir in linear.irreps_out}, key=lambda ir: (ir.l, ir.p))
    a_of_input, start = {}, 0
    for index, (multiplicity, irrep) in enumerate(linear.irreps_in):
        if irrep in shared:
            a_of_input[index] = first[start : start + multiplicity * rank].reshape(multiplicity, rank)
            start += multiplicity * rank
    b_of_output, start = {}, 0
    for irrep in shared:
        for index, (multiplicity, out) in enumerate(linear.irreps_out):
            if out == irrep:
                b_of_output[index] = second[start : start + rank * multiplicity].reshape(rank, multiplicity)
                start += rank * multiplicity
    paths, offset = [], 0
    for instruction in linear.instructions:
        if instruction.i_in == -1:
            continue
        if block.offset <= offset < block.offset + block.numel:
            paths.append(instruction)
        offset += instruction.path_shape[0] * instruction.path_shape[1]
    return {"A": torch.cat([a_of_input[path.i_in] for path in paths]), "B": b_of_output[paths[0].i_out]}


def _energy_shifts(potential: Potential, lora: TrainedLora) -> dict[int, float]:
    """By how much mace's isolated atoms lie above the base's, eV, where they differ."""
    backbone: Any = potential.backbone
    own, found = backbone.network.get_buffer(_ENERGIES).double(), lora.state.get(_ENERGIES)
    if found is None or found.numel() != own.numel():
        raise ZooError(f"{lora.source}: has no energies of the {len(backbone.elements)} elements of {potential.source}; pass its own base")
    numbers = backbone.config.atomic_numbers
    shifts = (found.double().cpu().reshape(-1, len(numbers)) - own.cpu().reshape(-1, len(numbers)))[backbone.head_index]
    return {number: float(shift) for number, shift in zip(numbers, shifts, strict=True) if shift}
