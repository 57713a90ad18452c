"""LoRA trained with mace itself, against mace's own forward pass, and what is refused."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import zoo
from tests.contracts.checks import small_frames
from tests.families import skip_without
from tests.refusals import refusal_of
from zoo.backbones import load_family
from zoo.cli import main
from zoo.commands import convert
from zoo.data.frame import Frame
from zoo.mace_lora import attach_lora, convert_lora, read_lora
from zoo.potential import Potential

pytestmark = skip_without("mace")
VARIANTS = ("", "residual", "plain", "density with ZBL", "nonlinear", "two heads")


def toy(variant: str = "", seed: int = 0) -> Any:
    family = load_family("mace")
    return family.more_toys[variant](seed) if variant else family.toy(seed)


def with_upstreams_lora(backbone: Any, rank: int = 3, alpha: float = 5.0) -> Potential:
    """The same model with mace's wrappers in it, and random factors."""
    from mace.modules.lora import inject_lora

    twin = backbone.rebuilt(torch.float64)
    inject_lora(twin.network, rank=rank, alpha=alpha)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in twin.network.named_parameters():
        if ".lora_" in name:
            with torch.no_grad():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return Potential(twin)


def frames() -> list[Frame]:
    from ase.build import bulk

    return small_frames(bulk("CuAu", "rocksalt", a=4.2, cubic=True), bulk("Cu", cubic=True))


def differences(found: list[Any], expected: list[Any]) -> float:
    scale = max(np.abs(prediction.forces).max() for prediction in expected)
    pairs = zip(found, expected, strict=True)
    return float(max(max(abs(a.energy - b.energy) / len(b.forces), np.abs(a.forces - b.forces).max()) for a, b in pairs)) / scale


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant or "density")
def test_the_same_factors_give_upstreams_own_forward_to_1e_12(variant, tmp_path):
    backbone = toy(variant)
    upstream = with_upstreams_lora(backbone)
    file = tmp_path / "run_epoch-1.pt"
    torch.save({"model": upstream.backbone.network.state_dict(), "optimizer": {}, "lr_scheduler": {}}, file)
    ours = Potential(backbone)
    base = ours.predict(frames())
    adapter = attach_lora(ours, read_lora(file), alpha=5.0)
    expected = upstream.predict(frames())
    assert differences(base, expected) > 1e-2
    assert differences(ours.predict(frames()), expected) < 1e-12
    wrapped = sum(p.numel() for name, p in upstream.backbone.network.named_parameters() if name.endswith(".base.weight"))
    assert sum(block.numel for block in adapter.blocks) == wrapped
    trained = sum(p.numel() for name, p in upstream.backbone.network.named_parameters() if ".lora_" in name)
    assert adapter.trainable_count == trained
    ours.adapters.merge()
    assert differences(ours.predict(frames()), expected) < 1e-12


def test_training_moves_the_same_factors_as_upstream_does(tmp_path):
    """One step of gradient descent from the same factors: upstream's activation path and our delta agree in the gradient."""
    backbone = toy()
    upstream = with_upstreams_lora(backbone)
    file = tmp_path / "run_epoch-1.pt"
    torch.save({"model": upstream.backbone.network.state_dict()}, file)
    ours = Potential(backbone)
    attach_lora(ours, read_lora(file), alpha=5.0)
    parameters = [parameter for name, parameter in upstream.backbone.network.named_parameters() if ".lora_" in name]
    for parameter in parameters:
        parameter.requires_grad_(True)
    for potential in (upstream, ours):
        graph = potential.graph(frames()[0])
        potential.train()
        potential(graph)["energy"].sum().backward()
    with torch.no_grad():
        for parameter in parameters:
            parameter -= 1e-3 * parameter.grad
        for tensor in ours.adapters.get("lora-mace").tensors.values():
            tensor -= 1e-3 * tensor.grad
    assert differences(ours.eval().predict(frames()), upstream.eval().predict(frames())) < 1e-11


@pytest.mark.parametrize("kind", ["checkpoint", "pickled model"])
def test_what_mace_wrote_becomes_an_adapter_file_that_zoo_load_takes(kind, tmp_path):
    backbone = toy()
    base_file = tmp_path / "base.model"
    backbone.write_upstream_checkpoint(base_file, {})
    base = zoo.load(base_file)
    upstream = with_upstreams_lora(base.backbone)
    energies = upstream.backbone.network.atomic_energies_fn.atomic_energies
    energies += torch.arange(5, dtype=torch.float64)  # as mace sets those of the new data
    file = tmp_path / "trained.pt"
    torch.save(upstream.backbone.network if kind == "pickled model" else {"model": upstream.backbone.network.state_dict()}, file)
    output = convert_lora(file, base, tmp_path / "from_python.safetensors", alpha=None if kind == "pickled model" else 5.0)
    command = ["convert", str(file), f"backbone={base_file}", *([] if kind == "pickled model" else ["alpha=5.0"])]
    main(command)
    assert (tmp_path / "trained.adapter.safetensors").read_bytes() == output.read_bytes()
    loaded = zoo.load(base_file, adapter=output)
    method = loaded.adapters.get("lora-mace").method
    assert (method.config_dict["rank"], method.config_dict["alpha"]) == (3, pytest.approx(5.0))
    assert loaded.get_reference_shifts() == {6: 1.0, 8: 2.0, 29: 3.0, 79: 4.0}
    assert differences(loaded.predict(frames()), upstream.predict(frames())) < 1e-12


def test_what_is_no_lora_of_this_base_is_refused_in_one_line(tmp_path):
    backbone = toy()
    upstream = with_upstreams_lora(backbone).backbone.network
    file = tmp_path / "trained.pt"
    torch.save({"model": upstream.state_dict()}, file)
    lora = read_lora(file)
    assert "a checkpoint does not hold LoRA's alpha" in refusal_of(attach_lora, Potential(toy()), lora)
    assert "its base differs from mace in" in refusal_of(attach_lora, Potential(toy(seed=1)), lora, 5.0)
    assert "LoRA of a MACE model, and sevennet is a sevennet model" in refusal_of(
        attach_lora, Potential(load_family("sevennet").toy(0)), lora, 5.0
    )
    pickled = tmp_path / "trained.model"
    torch.save(upstream, pickled)
    assert "was trained with alpha=5, not 2; leave alpha out" in refusal_of(attach_lora, Potential(toy()), read_lora(pickled), 2.0)
    merged = tmp_path / "merged.model"
    torch.save(backbone.network, merged)
    assert "holds no layer with LoRA; mace merges it into the final .model" in refusal_of(read_lora, merged)
    other = tmp_path / "other.pt"
    torch.save({"weights": torch.zeros(2)}, other)
    assert "holds no model's state under 'model'" in refusal_of(read_lora, other)
    assert "no such file" in refusal_of(read_lora, tmp_path / "absent.pt")
    assert "name its base too: backbone=" in refusal_of(convert, [str(file), "alpha=1.0"])
    assert "alpha=one: wanted a number" in refusal_of(convert, [str(file), "backbone=mace-mp-0-medium", "alpha=one"])
    hostile = tmp_path / "hostile.pt"
    torch.save({"model": {"x": print}}, hostile)
    assert "would run code" in refusal_of(read_lora, hostile)


def test_a_layer_that_was_not_wrapped_keeps_a_delta_of_zero(tmp_path):
    from mace.modules.lora import inject_lora

    backbone = toy()
    twin = backbone.rebuilt(torch.float64)
    inject_lora(twin.network, rank=2, alpha=2.0, wrap_equivariant=False)
    with torch.no_grad():
        for name, parameter in twin.network.named_parameters():
            if ".lora_B" in name:
                parameter.fill_(0.2)
    file = tmp_path / "dense.pt"
    torch.save({"model": copy.deepcopy(twin.network.state_dict())}, file)
    ours = Potential(backbone)
    adapter = attach_lora(ours, read_lora(file), alpha=2.0)
    assert {block.role for block, delta in zip(adapter.blocks, adapter.block_deltas(), strict=True) if delta.any()} == {"radial"}
    assert differences(ours.predict(frames()), Potential(twin).predict(frames())) < 1e-12
    assert Path(file).exists()


def _first(state: dict[str, Any], dimensions: int) -> str:
    return next(name for name in state if ".lora_A" in name and state[name].ndim == dimensions)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {_first(state, 1): None}, "has .*base.weight and no .*lora_A"),
        (lambda state: {_first(state, 1): state[_first(state, 1)][:-1]}, "has shape .* wanted"),
        (lambda state: {_first(state, 1): torch.cat([state[_first(state, 1)]] * 2)}, "has shape .* wanted"),
        # of another rank than the first layer's: a copy would spread one column over all
        (lambda state: {name: state[name][:, :1] for name in [n for n in state if n.endswith(".lora_A")][1:2]}, "has shape .* wanted"),
        (lambda state: {_first(state, 1): state[_first(state, 1)] * float("nan")}, "no finite number"),
        (lambda state: {f"ghost.{end}": torch.ones(9) for end in ("base.weight", "lora_A.weight", "lora_B.weight")}, "LoRA on ghost"),
    ],
)
def test_factors_that_fit_no_layer_are_refused_and_leave_nothing_behind(change, message, tmp_path):
    state = dict(with_upstreams_lora(toy()).backbone.network.state_dict())
    changed = {name: value for name, value in {**state, **change(state)}.items() if value is not None}
    file = tmp_path / "broken.pt"
    torch.save({"model": changed}, file)
    ours = Potential(toy())
    assert re.search(message, refusal_of(attach_lora, ours, read_lora(file), 5.0))
    assert ours.adapters.names == ()
