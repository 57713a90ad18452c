"""What every adapter method promises on every backbone: how it starts, what it changes, and that it comes off without a trace.

Each claim is a function of a bare float64 potential and a method, which leaves the potential as it was, raises `ContractError` where the
claim does not hold, and returns what it measured.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from adapters.adapter import Adapter
from adapters.method import create_method
from adapters.state import load_into, read_adapter
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.graph import collate
from zoo.potential import Potential
from zoo.testing.claims import EXACT, Figure, hold, refusal
from zoo.testing.measures import assert_same_state, bits, changed_tensors, forces_of, relative_difference, state_of, unfrozen
from zoo.testing.trial import NAME, SEED, Spec, attached, frames_or_probes, method_of

SAME_TO_ROUNDING = 1e-12
"""Relative, float64: of results that are computed in another order."""

VISIBLE = 1e-2
"""How much random weights must change predictions, relative to the largest force, for an equality to show anything."""


def check_start(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """An untrained adapter is the base bit for bit, in evaluation, or says that it is not and is not."""
    frames = frames_or_probes(potential, frames)
    base = potential.predict(frames)
    with attached(potential, spec, None) as adapter:
        method, found = adapter.method, potential.predict(frames)
        said = potential.adapters.starts_at_base
        hold(said == method.starts_at_base, "the stack says how it starts", said, method.starts_at_base)
        if method.starts_at_base:
            wanted = "every bit of the base, or starts_at_base = False"
            hold(bits(found) == bits(base), "starts at the base", f"a difference of {relative_difference(found, base):.1e}", wanted)
            _hold_note(method.start_note, "starts at the base")
            return EXACT
        difference = relative_difference(found, base)
        moved = bool(np.abs(forces_of(found) - forces_of(base)).max() > 0)
        hold(moved, "does not start at the base", "the base's forces", "others, or starts_at_base = True")
        _hold_note(method.start_note, "does not start at the base")
        return Figure(difference, "own start")


def _hold_note(note: str, beginning: str) -> None:
    hold(note.startswith(beginning) and "\n" not in note, "start_note says how it starts", repr(note), f"one line from {beginning!r} on")


def check_start_in_training(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """In training mode, where adapted weights are part of the graph, an untrained adapter gives the base's numbers too, to rounding."""
    graph = collate([potential.graph(frame) for frame in frames_or_probes(potential, frames)])
    base = potential(graph)
    with attached(potential, spec, None) as adapter:
        potential.train()
        adapter_results = {name: value.detach() for name, value in potential(graph).items()}
        largest = 0.0
        for name, value in base.items():
            known = ~torch.isnan(value)
            scale = max(float(value[known].abs().max()) if bool(known.any()) else 0.0, 1.0)
            same_unknowns = torch.equal(known, ~torch.isnan(adapter_results[name]))
            hold(same_unknowns, f"{name} is known for the same structures", "others", "those of the base")
            if bool(known.any()):
                largest = max(largest, float((adapter_results[name] - value)[known].abs().max()) / scale)
        if not adapter.method.starts_at_base:
            hold(largest > 0, "does not start at the base while training", "the base's numbers", "others")
            return Figure(largest, "own start")
        hold(largest < 1e-13, "starts at the base while training", f"{largest:.1e}", "below 1e-13")
        return Figure(largest)


def check_merging(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """Merged equals attached, changes the parameters it declares alone, and unmerging restores every bit; or merging is refused."""
    frames = frames_or_probes(potential, frames)
    before, base = state_of(potential.backbone), potential.predict(frames)
    with attached(potential, spec) as adapter:
        adapted = potential.predict(frames)
        _hold_visible(relative_difference(adapted, base))
        if not adapter.method.mergeable:
            refusal(potential.adapters.merge, "cannot be merged; keep it attached")
            hold(not potential.adapters.is_merged, "a refused merge leaves nothing merged", "merged", "unmerged")
            assert_same_state(state_of(potential.backbone), before)
            return Figure(None, "refused")
        potential.adapters.merge()
        merged = potential.predict(frames)
        changed = changed_tensors(state_of(potential.backbone), before)
        wanted = sorted(adapter.parameter_names)
        hold(changed == wanted, "merging changes the adapted parameters alone", f"{len(changed)} changed", f"{len(wanted)}: {wanted[:3]}")
        difference = relative_difference(merged, adapted)
        hold(difference < SAME_TO_ROUNDING, "merged equals attached", f"{difference:.1e}", f"below {SAME_TO_ROUNDING:.0e}")
        potential.adapters.unmerge()
        assert_same_state(state_of(potential.backbone), before)
        hold(bits(potential.predict(frames)) == bits(adapted), "unmerged is attached again", "other bits", "every bit")
        return Figure(difference)


def check_detaching(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """Deactivated, and deleted after it was active (merged once, where it can be), it leaves the base bit for bit."""
    frames = frames_or_probes(potential, frames)
    before, base = state_of(potential.backbone), bits(potential.predict(frames))
    hooks = _hooks(potential.backbone)
    with attached(potential, spec) as adapter:
        adapted = bits(potential.predict(frames))
        hold(adapted != base, "random weights change the predictions", "the base's bits", "others")
        potential.adapters.deactivate()
        hold(bits(potential.predict(frames)) == base, "deactivated, it is the base", "other bits", "every bit")
        potential.adapters.activate([NAME])
        hold(bits(potential.predict(frames)) == adapted, "activated again, it is what it was", "other bits", "every bit")
        if adapter.method.mergeable:
            potential.adapters.merge()
            potential.adapters.unmerge()
        potential.adapters.delete(NAME)
        assert_same_state(state_of(potential.backbone), before)
        hold(bits(potential.predict(frames)) == base, "deleted, it leaves the base", "other bits", "every bit")
    hold(_hooks(potential.backbone) == hooks, "no hook stays on the model", f"{_hooks(potential.backbone)} hooks", f"{hooks}")
    return EXACT


def _hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def check_file(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """Through its file, which holds every tensor and setting, it predicts the same bits."""
    frames = frames_or_probes(potential, frames)
    base = potential.predict(frames)
    with attached(potential, spec) as adapter, tempfile.TemporaryDirectory() as folder:
        expected = potential.predict(frames)
        _hold_visible(relative_difference(base, expected))
        tensors = {key: tensor.detach().clone() for key, tensor in adapter.tensors.items()}
        path = potential.save_adapter(NAME, Path(folder) / "adapter.safetensors")
        potential.adapters.delete(NAME)
        again = load_into(potential.adapters, NAME, *read_adapter(path))
        lost = changed_tensors({key: tensor.detach() for key, tensor in again.tensors.items()}, tensors)
        hold(not lost, "a file holds every tensor, bit for bit", f"{len(lost)} others ({', '.join(lost[:3])})", "none")
        hold(again.method.config_dict == adapter.method.config_dict, "a file holds every setting", again.method.config_dict, "the same")
        found = potential.predict(frames)
        difference = f"a difference of {relative_difference(found, expected):.1e}"
        hold(bits(found) == bits(expected), "from its file it predicts the same", difference, "every bit")
    return EXACT


def check_config(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """Its settings are plain JSON, give the method back, and an unknown one is refused with the known ones."""
    method = method_of(spec)
    hold(bool(method.name) and bool((type(method).__doc__ or "").strip()), "a method has a name and a docstring", "none", "both")
    settings = json.loads(json.dumps(method.config_dict, allow_nan=False))
    again = create_method({**settings, "name": method.name})
    hold(type(again) is type(method), "its name is registered for it", type(again).__name__, type(method).__name__)
    hold(again.config_dict == method.config_dict, "its settings give it back", again.config_dict, method.config_dict)
    refusal(lambda: create_method({"name": method.name, "no_such_setting": 1}), f"{method.name} has no such setting")
    return EXACT


def check_counts(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """The count is what trains, on blocks that the coverage knows; the figure is the share of the weights that it reaches."""
    with attached(potential, spec) as adapter:
        trains = sum(p.numel() for p in potential.parameters() if p.requires_grad)
        hold(adapter.trainable_count == trains, "the count is what trains", f"{trains} numbers train", adapter.trainable_count)
        by_kind = sum(adapter.trainable_by_kind.values())
        hold(by_kind == adapter.trainable_count, "the kinds add up to the count", by_kind, adapter.trainable_count)
        known = {block.key for block in potential.coverage.blocks}
        unknown = [block.key for block in adapter.blocks if block.key not in known]
        hold(not unknown, "adapted blocks are in the coverage", unknown[:3], "none besides")
        foreign = sorted(set(adapter.parameter_names) - set(potential.coverage.sizes))
        hold(not foreign, "adapted parameters are the model's", foreign[:3], "none besides")
        return Figure(potential.coverage.share(adapter.blocks))


def check_precisions(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """A copy in float64 predicts the same bits, one in float32 the same numbers to its rounding, and the original is left alone."""
    frames = frames_or_probes(potential, frames)
    with attached(potential, spec):
        potential.set_reference_shifts({int(frames[0].atomic_numbers[0]): -3.0})  # the adapter's own: they go with it
        expected = potential.predict(frames)
        copied = Potential.to_dtype(potential, torch.float64)
        hold(bits(copied.predict(frames)) == bits(expected), "a copy predicts the same", "other bits", "every bit")
        single = Potential.to_dtype(potential, torch.float32)
        hold(single.dtype == torch.float32, "a copy computes in float32", single.dtype, torch.float32)
        hold(single.adapters.active == (NAME,), "a copy has the adapter", single.adapters.active, (NAME,))
        difference = relative_difference(single.predict(frames), expected)
        hold(0 < difference < 1e-3, "a copy in float32 agrees to its rounding", f"{difference:.1e}", "between 0 and 1e-3")
        hold(bits(potential.predict(frames)) == bits(expected), "copying leaves the original", "other bits", "every bit")
        return Figure(difference)


def check_shared_tensors(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """A tensor that is registered at two places has one delta, which both places see.

    One of the adapted parameters is registered at a second place for the while; the figure is the difference that it makes.
    """
    frames = frames_or_probes(potential, frames)
    backbone = potential.backbone
    with attached(potential, spec) as adapter:
        expected, count, keys = potential.predict(frames), adapter.trainable_count, list(adapter.tensors)
        shared = (adapter.parameter_names or tuple(block.parameter for block in adapter.blocks))[0]
    if _SECOND_PLACE in dict(backbone.named_children()):
        raise ZooError(f"{potential.source}: {_SECOND_PLACE!r} is a name of the kit; call that part of the network something else")
    second = nn.Module()
    second.register_parameter("weight", backbone.get_parameter(shared))
    with unfrozen(potential):
        try:
            backbone.add_module(_SECOND_PLACE, second)
            tied = Potential(backbone, source=potential.source, forces=potential.forces)
            with attached(tied, spec) as adapter:
                same = (list(adapter.tensors), adapter.trainable_count) == (keys, count)
                hold(same, "a shared tensor is adapted once", f"{adapter.trainable_count} numbers", f"the same {count}")
                layer, base = backbone.get_submodule(shared.rpartition(".")[0]), backbone.get_parameter(shared).detach()
                seen: list[bool] = []

                def look(*_: object) -> None:
                    weight: Any = second.weight  # no parameter while the model is called with adapted weights
                    adapted = not adapter.method.mergeable or not torch.equal(weight, base)
                    seen.append(adapted and weight is getattr(layer, shared.rpartition(".")[2]))

                handle = backbone.register_forward_pre_hook(look)
                try:
                    found = tied.predict(frames)
                finally:
                    handle.remove()
                hold(bool(seen) and all(seen), "both places see the adapted tensor", "not so", "one adapted tensor")
                difference = relative_difference(found, expected)
                hold(bits(found) == bits(expected), "sharing changes no prediction", f"{difference:.1e}", "every bit")
        finally:
            backbone._modules.pop(_SECOND_PLACE, None)
    return EXACT


_SECOND_PLACE = "second_place_of_a_shared_tensor"


def check_combination(potential: Potential, spec: Spec, frames: Sequence[Frame] | None = None) -> Figure:
    """The exact combination of two of its adapters is the two together, each scaled; or combining is refused.

    Where the method gives its delta as a product, the product is the delta.
    """
    frames = frames_or_probes(potential, frames)
    with attached(potential, spec) as adapter:
        stack = potential.adapters
        other = stack.add("other", adapter.method, seed=1)
        if not adapter.method.mergeable:
            refusal(lambda: stack.combine({NAME: 0.5, "other": 0.5}, into="both"), "keep it attached")
            return Figure(None, "refused")
        _hold_products(adapter)
        stack.randomise("other", SEED + 1)
        stack.activate([NAME])
        one = potential.predict(frames)
        stack.activate([NAME, "other"])
        stack.scale(NAME, 0.7)
        stack.scale("other", -0.4)
        expected = potential.predict(frames)
        _hold_visible(relative_difference(one, expected))
        stack.combine({NAME: 0.7, "other": -0.4}, into="both")
        stack.activate(["both"])
        difference = relative_difference(potential.predict(frames), expected)
        hold(
            difference < SAME_TO_ROUNDING,
            f"a combination of {len(other.blocks)} blocks is the sum",
            f"{difference:.1e}",
            f"below {SAME_TO_ROUNDING:.0e}",
        )
        return Figure(difference)


@torch.no_grad()
def _hold_products(adapter: Adapter) -> None:
    for position, delta in enumerate(adapter.block_deltas()):
        product = adapter.method.as_product(adapter.own_factors(position))
        if product is not None:
            whole = (product[0] @ product[1]).reshape(-1)
            difference = float((whole - delta).abs().max() / delta.abs().max())
            claim = f"as_product is the delta of {adapter.blocks[position].key}"
            hold(difference < SAME_TO_ROUNDING, claim, f"a difference of {difference:.1e}", f"below {SAME_TO_ROUNDING:.0e}")


def _hold_visible(difference: float) -> None:
    hold(difference > VISIBLE, "random weights change the predictions visibly", f"{difference:.1e}", f"more than {VISIBLE:.0e}")
