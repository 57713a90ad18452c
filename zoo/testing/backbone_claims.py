"""What every backbone promises by itself: its claims of symmetry and derivatives, its graph, its outputs, its batches.

Each claim is a function of a bare float64 potential of a toy, which leaves it as it was, raises `ContractError` where the claim does not
hold, and returns what it measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from adapters.blocks import find_blocks
from zoo.backbones.base import Backbone, DropoutRates
from zoo.data.frame import Frame
from zoo.evaluation.equivariance import EquivarianceReport
from zoo.evaluation.probes import probe_frames
from zoo.graph import AtomGraph, collate
from zoo.potential import Potential
from zoo.testing.claims import EXACT, Figure, hold, refusal
from zoo.testing.measures import is_idle, symmetries, unfrozen

MOST_WEIGHTS_OF_A_TOY = 20_000


def backbone_frames(potential: Potential) -> list[Frame]:
    """A molecule, a wire, a slab and a sheared crystal of elements that the potential knows."""
    return probe_frames(potential.backbone.elements)


def _batch(potential: Potential, frames: Sequence[Frame]) -> AtomGraph:
    return collate([potential.graph(frame) for frame in frames])


def check_toy(build: Callable[[int], Backbone]) -> Figure:
    """The toy is small and in float64, its seed alone decides the weights, and the process is left as it was; counts its weights."""
    torch.manual_seed(5)
    expected, default = torch.rand(1), torch.get_default_dtype()
    torch.manual_seed(5)
    one, same, other = build(0), build(0), build(1)
    hold(torch.equal(torch.rand(1), expected), "a toy leaves the caller's random numbers alone", "it drew some", "a generator of its own")
    hold(torch.get_default_dtype() == default, "a toy leaves the default dtype alone", torch.get_default_dtype(), default)
    hold(one.dtype == torch.float64, "a toy is in float64", one.dtype, torch.float64)
    count = sum(parameter.numel() for parameter in one.parameters())
    hold(0 < count < MOST_WEIGHTS_OF_A_TOY, "a toy is small", f"{count} weights", f"fewer than {MOST_WEIGHTS_OF_A_TOY}")
    for (name, first), second, third in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        hold(torch.equal(first, second), "a seed decides the weights", f"two of {name}", "one")
        hold(first.dim() < 2 or not torch.equal(first, third), "another seed gives other weights", f"the same {name}", "others")
    flat = [torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]) for model in (one, other)]
    drawn = float((flat[0] != flat[1]).double().mean())
    hold(drawn > 0.9, "weights are random", f"{drawn:.0%} drawn", "more than 90 %")  # frequencies of a basis and statistics may be the same
    hold(one.cutoff > 0, "a cutoff is positive", one.cutoff, "more than 0")
    ascending = tuple(sorted(set(one.elements)))
    hold(bool(ascending) and one.elements == ascending, "elements are ascending atomic numbers", one.elements, ascending)
    hold(one.symmetry in ("SO(3)", "O(3)"), "a symmetry is claimed", repr(one.symmetry), "'SO(3)' or 'O(3)'")
    return Figure(None, f"{count:,} weights")


def check_coverage(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Every weight is in exactly one adaptable block, or its parameter has a reason why not; the figure is the adaptable share."""
    with unfrozen(potential) as backbone:
        coverage = find_blocks(backbone, backbone.adapter_roles)
    parameters = dict(backbone.named_parameters())
    in_blocks, without = {block.parameter for block in coverage.blocks}, coverage.not_adaptable
    accounted = in_blocks | set(without)
    lost = sorted(set(parameters) ^ accounted)
    hold(not lost and not in_blocks & set(without), "each parameter is accounted for once", lost[:3], "none that is not")
    hold(all(without.values()), "what is not adaptable has a reason", "none", "one")
    for name, parameter in parameters.items():
        hits = torch.zeros(parameter.numel(), dtype=torch.int64)
        for block in coverage.blocks:
            if block.parameter == name:
                hits.index_add_(0, block.flat_index(), torch.ones(block.numel, dtype=torch.int64))
        wanted = int(name in in_blocks)
        hold(bool((hits == wanted).all()), f"each weight of {name} is in one block", f"{sorted(set(hits.tolist()))} blocks", wanted)
    total = sum(parameter.numel() for name, parameter in parameters.items() if name in in_blocks)
    hold(coverage.trainable_count == total, "blocks hold every weight of their parameters", coverage.trainable_count, total)
    missing = sorted({"readout", "radial"} - set(coverage.roles))
    hold(not missing, "adapter_roles say which layers read out and which are radial", f"no {missing}", "both roles")
    unknown = sorted({block.parameter for block in coverage.blocks if block.role == "other"})
    hold(not unknown, "each layer type has a rule (adapters.rules)", unknown[:3], "none in the role 'other'")
    return Figure(coverage.trainable_count / coverage.parameter_count)


def check_symmetries(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Forces and stress are derivatives where that is claimed; energies, forces and stress keep every symmetry; the rotation residual."""
    frames = frames or backbone_frames(potential)
    report = symmetries(potential, frames)
    _hold_report(report)
    stress = report.stress_scale_ev_per_angstrom3 is not None
    hold(stress == potential.has_stress, "a stress is there where it is declared", stress, potential.has_stress)
    derivatives = {row.required for row in report.rows if row.test == "finite differences"}
    hold(derivatives == {potential.conservative}, "forces are derivatives where that is claimed", derivatives, {potential.conservative})
    said = "energy: not conserved" not in report.text()
    hold(said == potential.conservative, "the report says whether energy is conserved", said, potential.conservative)
    return Figure(max(row.residual for row in report.rows if row.test == "rotation" and row.required))


def _hold_report(report: EquivarianceReport) -> None:
    worst = [f"{row.test} of {row.quantity} {row.residual:.1e}" for row in report.rows if not row.passed]
    hold(report.passed, "each symmetry and derivative that is claimed holds", ", ".join(worst[:4]), "none that fails")


def check_outputs(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """The backbone returns what it declares, in the declared shapes, and leaves the graph that it is given alone."""
    frames = frames or backbone_frames(potential)
    backbone, graph = potential.backbone, _batch(potential, frames)
    before = {key: value.clone() for key, value in graph.to_dict().items() if isinstance(value, Tensor)}
    outputs = backbone(graph)
    after = {key: value for key, value in graph.to_dict().items() if isinstance(value, Tensor)}
    kept = {key for key, value in before.items() if key in after and _same(value, after[key])}
    written = sorted((before.keys() | after.keys()) - kept)
    hold(not written, "the graph is left as it was", f"{written[:3]} changed", "none changed")
    atoms, graphs = len(graph.atomic_numbers), len(frames)
    wanted: dict[str, tuple[int, ...]] = {"energy": (graphs,)}
    if not backbone.conservative:
        wanted |= {"forces": (atoms, 3)} | ({"stress": (graphs, 3, 3)} if backbone.direct_stress else {})
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    hold(shapes == wanted, "outputs are those that are declared", shapes, wanted)
    hold(all(bool(torch.isfinite(value).all()) for value in outputs.values()), "outputs are finite", "others", "finite ones")
    if not backbone.conservative:
        results = potential(graph)
        if potential.forces == "direct":
            hold(torch.equal(results["forces"], outputs["forces"].to(torch.float64)), "direct forces are handed on", "others", "its own")
            known = torch.isfinite(results["stress"]).all(dim=(1, 2))
            periodic = graph.pbc.all(dim=1) & backbone.direct_stress
            hold(torch.equal(known, periodic), "crystals have a stress where one is predicted", known.tolist(), periodic.tolist())
    return Figure(None, ", ".join(wanted))


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool(torch.allclose(one, other, rtol=0, atol=0, equal_nan=True))


def check_force_modes(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Forces are had in the ways that the backbone declares, its own first, and others are refused; derived ones are derivatives."""
    frames = frames or backbone_frames(potential)
    backbone, own = potential.backbone, potential.forces
    first = "gradient" if backbone.conservative else "direct"
    hold(backbone.force_modes[0] == first, "its own way to forces is the default", backbone.force_modes, f"{first!r} first")
    for forces in ("gradient", "direct"):
        if forces not in backbone.force_modes:
            refusal(lambda forces=forces: Potential(backbone, forces=forces), f"pass forces=None or {first!r}")  # type: ignore[misc]
    if backbone.force_modes == ("direct", "gradient"):
        energy = potential.predict(frames)[0].energy
        potential.forces = "gradient"
        try:
            report = symmetries(potential, frames)
            predictions = potential.predict(frames)
        finally:
            potential.forces = own
        _hold_report(report)
        required = {row.required for row in report.rows if row.test == "finite differences"}
        hold(required == {True}, "derived forces are derivatives", required, {True})
        difference = abs(predictions[0].energy - energy)
        hold(difference < 1e-12, "both ways to forces have one energy", f"{difference:.1e} eV apart", "1e-12")
        crystal = [prediction.stress is not None for frame, prediction in zip(frames, predictions, strict=True) if frame.pbc.all()]
        hold(all(crystal), "derived forces come with a stress", "none", "one of each crystal")
    return Figure(None, " and ".join(backbone.force_modes))


def check_graph_recipe(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Its graphs are made by one fixed recipe, which a rebuilt network has too, and the order of edges means nothing."""
    frames = frames or backbone_frames(potential)
    backbone = potential.backbone
    twin = backbone.rebuilt(torch.float32)
    hold(twin.graph_recipe == backbone.graph_recipe, "a rebuilt network has the same graphs", twin.graph_recipe, backbone.graph_recipe)
    same = (twin.elements, twin.symmetry, twin.family, twin.head, twin.conservative)
    wanted = (backbone.elements, backbone.symmetry, backbone.family, backbone.head, backbone.conservative)
    hold(same == wanted, "a rebuilt network makes the same claims", same, wanted)
    graph = _batch(potential, frames)
    reach = float(graph.edge_vectors().norm(dim=1).max())
    hold(reach <= backbone.cutoff, "edges end at the cutoff", f"{reach:.3f} Å", f"{backbone.cutoff} Å")
    expected = backbone(graph)["energy"].detach()
    order = torch.randperm(graph.edge_index.shape[1], generator=torch.Generator().manual_seed(0))
    shuffled = graph.clone()
    shuffled.edge_index, shuffled.edge_shift = graph.edge_index[:, order], graph.edge_shift[order]
    difference = float((backbone(shuffled)["energy"].detach() - expected).abs().max() / expected.abs().max().clamp(min=1.0))
    hold(difference < 1e-11, "the order of edges means nothing", f"energies {difference:.1e} apart", "below 1e-11")
    return Figure(difference)


def check_batching(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """A structure is predicted the same alone and in any batch; the largest difference in eV or eV/Å."""
    frames = list(frames or backbone_frames(potential))
    alone = [potential.predict([frame])[0] for frame in frames]
    moved = replace(frames[0], positions=frames[0].positions + 1.0)
    together = potential.predict([*frames[::-1], moved], batch_size=len(frames) + 1)[: len(frames)][::-1]
    largest = 0.0
    for frame, one, other in zip(frames, alone, together, strict=True):
        difference = max(abs(other.energy - one.energy), float(np.abs(other.forces - one.forces).max()))
        hold(difference < 1e-12, f"a structure does not know its batch ({frame.source})", f"{difference:.1e} apart", "below 1e-12 eV, eV/Å")
        hold((one.stress is None) == (other.stress is None), "a stress does not depend on the batch", "one", "both or none")
        largest = max(largest, difference)
    return Figure(largest)


def _dimer(atomic_number: int) -> Frame:
    return Frame.unlabelled(Atoms([atomic_number] * 2, [[0, 0, 0], [0, 0.3, 1.9]]))


def check_elements(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Every element that it knows has an energy of its own; counts them."""
    numbers = potential.backbone.elements
    energies = [potential.predict([_dimer(number)])[0].energy for number in numbers]
    different = len({round(energy, 9) for energy in energies})
    hold(bool(np.isfinite(energies).all()) and different == len(numbers), "each element has its energy", f"{different}", len(numbers))
    return Figure(None, f"{len(numbers)} elements")


def check_smoothness(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """The energy is smooth where a neighbour crosses the cutoff, or the backbone says that it jumps; the step in eV."""
    backbone = potential.backbone
    dimer, direction = _dimer(backbone.elements[0]), np.array([0.6, 0.0, 0.8])

    def at(distance: float) -> float:
        return potential.predict([replace(dimer, positions=np.stack([np.zeros(3), distance * direction]))])[0].energy

    step = abs(at(backbone.cutoff - 1e-4) - at(backbone.cutoff + 1e-4))
    interaction = abs(at(backbone.cutoff - 1.0) - at(backbone.cutoff + 1e-4))
    hold(interaction > 1e-9, "two atoms within the cutoff interact", f"{interaction:.1e} eV", "more than 1e-9")
    smooth = step < 1e-9
    wanted = f"smooth_cutoff = {smooth}"
    hold(smooth == backbone.smooth_cutoff, "the energy at the cutoff is as declared", f"a step of {step:.1e} eV", wanted)
    return Figure(step, "" if smooth else "jumps")


def check_weights_matter(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """Each weight reaches an output, but for those that the backbone declares idle; counts the tensors that do."""
    frames = frames or backbone_frames(potential)
    with unfrozen(potential) as backbone:
        backbone.requires_grad_(True)
        outputs = backbone(_batch(potential, frames))
        terms = [(value * torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape)).sum() for value in outputs.values()]
        torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
        names = [name for name, _ in backbone.named_parameters()]
        dead = sorted(name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0)
    keys: dict[str, list[bool]] = {}
    for block in potential.coverage.blocks:
        keys.setdefault(block.parameter, []).append(is_idle(backbone, block.key))
    idle = sorted(name for name, whether in keys.items() if all(whether))
    hold(dead == idle, "each weight reaches an output, or is declared idle", f"without gradient: {dead[:3]}", f"idle: {idle[:3]}")
    return Figure(None, f"{len(names) - len(dead)} of {len(names)}")


def check_dropout(potential: Potential, frames: Sequence[Frame] | None = None) -> Figure:
    """What is left out at random is declared, can be set, and is left out only while training."""
    backbone, graph = potential.backbone, _batch(potential, frames or backbone_frames(potential))

    def energies(training: bool) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found: Tensor = backbone.train(training)(graph)["energy"].detach()
            return found

    before = backbone.dropout_rates
    off = DropoutRates(**dict.fromkeys(before.given, 0.0))
    try:
        backbone.set_dropout(off)
        expected = energies(False)
        hold(torch.equal(energies(True), expected), "without dropout training is evaluation", "other energies", "the same bits")
        for name in ("dropout", "stochastic_depth"):
            half = DropoutRates(**{name: 0.5})
            if name not in before.given:
                refusal(lambda half=half: backbone.set_dropout(half), f"set training.{name}=null")  # type: ignore[misc]
                continue
            backbone.set_dropout(off)
            backbone.set_dropout(half)
            hold(backbone.dropout_rates.given == {**off.given, name: 0.5}, f"{name} can be set", backbone.dropout_rates, half)
            kept = backbone.rebuilt(backbone.dtype).dropout_rates
            hold(kept == backbone.dropout_rates, f"a rebuilt network has the same {name}", kept, backbone.dropout_rates)
            hold(not torch.equal(energies(True), expected), f"{name} acts while training", "the same energies", "others")
            hold(torch.equal(energies(False), expected), f"{name} rests in evaluation", "other energies", "the same bits")
    finally:
        backbone.eval().set_dropout(before)
    return Figure(None, ", ".join(before.given) or "none") if before.given else EXACT
