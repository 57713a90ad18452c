"""What every registered backbone family promises by itself, on each of its toys."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import zoo
from adapters.blocks import find_blocks
from adapters.state import AdapterManifest, base_fingerprint, write_adapter
from tests.contracts.checks import is_idle
from tests.contracts.toys import Uncopied
from zoo.backbones import family_of_checkpoint, load_family
from zoo.backbones.base import DropoutRates
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.evaluation.equivariance import check_equivariance
from zoo.evaluation.probes import probe_frames
from zoo.graph import collate
from zoo.potential import Potential


def test_the_toy_is_small_and_in_float64_and_its_seed_alone_decides_the_weights(toy, backbone):
    assert backbone.family == toy.family == load_family(toy.family).name
    assert backbone.dtype == torch.float64
    assert sum(p.numel() for p in backbone.parameters()) < 20_000
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    same, other = toy.build(0), toy.build(1)
    assert torch.equal(torch.rand(1), expected)  # the caller's stream of random numbers was left alone
    assert torch.get_default_dtype() == torch.float32
    for (name, one), two, three in zip(backbone.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one.dim() < 2 or not torch.equal(one, three), name
    flat = [torch.cat([p.detach().reshape(-1) for p in model.parameters()]) for model in (backbone, other)]
    assert float((flat[0] != flat[1]).double().mean()) > 0.9  # Bessel frequencies and statistics are the same, weights are not
    assert backbone.cutoff > 0
    assert backbone.elements == tuple(sorted(set(backbone.elements)))
    assert backbone.symmetry in ("SO(3)", "O(3)")


def test_every_parameter_is_in_one_block_or_has_a_reason(backbone):
    coverage = find_blocks(backbone, backbone.adapter_roles)
    parameters = dict(backbone.named_parameters())
    in_blocks = {block.parameter for block in coverage.blocks}
    assert in_blocks | set(coverage.not_adaptable) == set(parameters)
    assert not in_blocks & set(coverage.not_adaptable)
    assert all(coverage.not_adaptable.values())
    for name, parameter in parameters.items():
        hits = torch.zeros(parameter.numel(), dtype=torch.int64)
        for block in coverage.blocks:
            if block.parameter == name:
                hits.index_add_(0, block.flat_index(), torch.ones(block.numel, dtype=torch.int64))
        assert torch.equal(hits, torch.full_like(hits, name in in_blocks))
    assert coverage.trainable_count == sum(p.numel() for p in parameters.values() if p.requires_grad)
    assert {"readout", "radial"} <= set(coverage.roles)  # a family says which layers read out: the readout method needs it
    assert "other" not in coverage.roles  # each layer type has a rule


def test_every_symmetry_claimed_and_the_derivatives_hold(potential, frames):
    report = check_equivariance(potential, frames)
    assert report.passed, report.text()
    assert (report.stress_scale_ev_per_angstrom3 is not None) == potential.has_stress
    assert report.symmetry == potential.backbone.symmetry
    derivatives = {row.required for row in report.rows if row.test == "finite differences"}
    assert derivatives == {report.conservative} == {potential.backbone.conservative}
    assert ("energy: not conserved" in report.text()) != potential.conservative


def test_the_outputs_are_those_that_the_backbone_declares(backbone, potential, frames):
    graph = collate([potential.graph(frame) for frame in frames])
    outputs = backbone(graph)
    shapes = {name: tuple(value.shape) for name, value in outputs.items()}
    atoms, graphs = len(graph.atomic_numbers), len(frames)
    energy, forces, stress = {"energy": (graphs,)}, {"forces": (atoms, 3)}, {"stress": (graphs, 3, 3)}
    assert shapes == (energy if backbone.conservative else energy | forces | (stress if backbone.direct_stress else {}))
    assert all(bool(torch.isfinite(value).all()) for value in outputs.values())
    if backbone.conservative:
        return
    results = potential(graph)
    assert torch.equal(results["forces"], outputs["forces"].to(torch.float64))
    periodic = graph.pbc.all(dim=1)
    assert torch.equal(torch.isfinite(results["stress"]).all(dim=(1, 2)), periodic & backbone.direct_stress)


def test_forces_are_had_in_the_ways_that_the_backbone_declares_and_in_no_other(backbone, potential, frames):
    assert potential.forces == backbone.force_modes[0] == ("gradient" if backbone.conservative else "direct")
    for forces in ("gradient", "direct"):
        if forces not in backbone.force_modes:
            with pytest.raises(ZooError, match=rf"force output.*pass forces=None or '{backbone.force_modes[0]}'"):
                Potential(backbone, forces=forces)
    if backbone.force_modes == ("direct", "gradient"):
        derived = Uncopied(backbone, forces="gradient")
        report = check_equivariance(derived, frames)
        assert report.passed, report.text()
        assert {row.required for row in report.rows if row.test == "finite differences"} == {True}
        assert derived.predict(frames)[0].energy == pytest.approx(potential.predict(frames)[0].energy, abs=1e-12)
        assert derived.predict(frames)[-1].stress is not None


def test_what_is_left_out_at_random_is_declared_and_can_be_set_and_only_while_training(backbone, potential, frames):
    graph = collate([potential.graph(frame) for frame in frames])

    def energies(training: bool) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return backbone.train(training)(graph)["energy"].detach()

    before = backbone.dropout_rates
    off = DropoutRates(**dict.fromkeys(before.given, 0.0))
    try:
        backbone.set_dropout(off)
        assert torch.equal(energies(True), energies(False))
        expected = energies(False)
        for name in ("dropout", "stochastic_depth"):
            if name not in before.given:
                with pytest.raises(ZooError, match=rf"have no .*set training\.{name}=null"):
                    backbone.set_dropout(DropoutRates(**{name: 0.5}))
                continue
            backbone.set_dropout(off)
            backbone.set_dropout(DropoutRates(**{name: 0.5}))
            assert backbone.dropout_rates.given == {**off.given, name: 0.5}
            assert backbone.rebuilt(backbone.dtype).dropout_rates == backbone.dropout_rates
            assert not torch.equal(energies(True), expected)
            assert torch.equal(energies(False), expected)
    finally:
        backbone.eval().set_dropout(before)


def test_a_structure_is_predicted_the_same_alone_and_in_any_batch(potential, frames):
    alone = [potential.predict([frame])[0] for frame in frames]
    together = potential.predict([*frames[::-1], replace(frames[0], positions=frames[0].positions + 1.0)], batch_size=5)[:4][::-1]
    for one, other in zip(alone, together, strict=True):
        assert other.energy == pytest.approx(one.energy, abs=1e-12)
        np.testing.assert_allclose(other.forces, one.forces, atol=1e-13)
        assert (one.stress is None) == (other.stress is None)


def test_every_known_element_has_an_energy_of_its_own(potential):
    energies = [potential.predict([_dimer(number)])[0].energy for number in potential.backbone.elements]
    assert np.isfinite(energies).all()
    assert len({round(energy, 9) for energy in energies}) == len(energies)


def _dimer(atomic_number: int) -> Frame:
    from ase import Atoms

    return Frame.unlabelled(Atoms([atomic_number] * 2, [[0, 0, 0], [0, 0.3, 1.9]]))


def test_the_energy_is_smooth_where_a_neighbour_crosses_the_cutoff_or_the_backbone_says_that_it_jumps(potential):
    cutoff = potential.backbone.cutoff
    dimer = _dimer(potential.backbone.elements[0])
    direction = np.array([0.6, 0.0, 0.8])

    def at(distance: float) -> float:
        return potential.predict([replace(dimer, positions=np.stack([np.zeros(3), distance * direction]))])[0].energy

    assert (abs(at(cutoff - 1e-4) - at(cutoff + 1e-4)) < 1e-9) == potential.backbone.smooth_cutoff
    assert abs(at(cutoff - 1.0) - at(cutoff + 1e-4)) > 1e-9  # there is an interaction to switch off


def test_the_weights_reach_the_outputs_one_and_all(potential, frames):
    potential.backbone.requires_grad_(True)
    graph = collate([potential.graph(frame) for frame in frames])
    outputs = potential.backbone(graph)
    sum((value * torch.linspace(0.5, 1.5, value.numel()).reshape(value.shape)).sum() for value in outputs.values()).backward()
    dead = {name for name, p in potential.backbone.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    keys: dict[str, list[bool]] = {}
    for block in potential.coverage.blocks:
        keys.setdefault(block.parameter, []).append(is_idle(potential.backbone, block.key))
    assert dead == {name for name, idle in keys.items() if all(idle)}


def test_the_familys_own_checkpoint_is_recognised_and_read_back(toy, potential, frames, checkpoint):
    assert load_family(toy.family).recognises(checkpoint)
    assert family_of_checkpoint(checkpoint).name == toy.family
    found = zoo.load(checkpoint, head=potential.backbone.head)
    assert found.dtype in (torch.float32, torch.float64)  # the file's: one for all, or the model's own
    assert found.source == str(checkpoint)
    assert found.coverage.table() == potential.coverage.table()
    assert found.base_sha256 == potential.base_sha256  # of values as float32: the same for the float64 original
    for one, other in zip(found.predict(frames), potential.predict(frames), strict=True):
        assert one.energy == pytest.approx(other.energy, abs=1e-5)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-6)


def test_a_merged_adapter_and_reference_energies_go_into_the_familys_checkpoint(potential, frames, tmp_path):
    potential.adapters.add("elora", "elora")
    potential.adapters.randomise("elora", seed=1)
    potential.set_reference_shifts({number: 0.1 * k - 0.2 for k, number in enumerate(potential.backbone.elements)})
    expected = potential.predict(frames)
    path = tmp_path / "merged.pth"
    potential.save_upstream_checkpoint(path)
    assert not potential.adapters.is_merged
    assert list(tmp_path.iterdir()) == [path]
    found = zoo.load(path, dtype="float64", head=potential.backbone.head).predict(frames)
    for one, other in zip(found, expected, strict=True):
        assert one.energy == pytest.approx(other.energy, abs=2e-6)  # the file holds float32
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-6)


def test_an_adapter_file_applied_by_zoo_load_predicts_the_same_bits(toy, twin, frames, checkpoint, tmp_path):
    adapted = Potential(twin)
    adapted.adapters.add("elora", "elora")
    adapted.adapters.randomise("elora", seed=1)
    path = tmp_path / "adapter.safetensors"
    manifest = AdapterManifest(
        method="elora",
        config=adapted.adapters.get("elora").method.config_dict,
        base_card=str(checkpoint),
        base_family=toy.family,
        base_sha256=adapted.base_sha256,
        head=twin.head,
    )
    write_adapter(path, adapted.adapters.get("elora"), manifest)
    again = zoo.load(checkpoint, adapter=path, dtype="float64")  # the head comes with the adapter
    for one, other in zip(again.predict(frames), adapted.predict(frames), strict=True):
        assert one.energy == other.energy
        assert np.array_equal(one.forces, other.forces)


def test_constants_of_a_float64_twin_are_computed_in_float64(single, twin):
    """The rotation error after float32 -> float64 stays at float64's rounding, where a cast would leave 1e-8."""
    assert {tensor.dtype for tensor in single.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in [*twin.parameters(), *twin.buffers()] if tensor.is_floating_point()} == {torch.float64}
    assert check_equivariance(Uncopied(twin), probe_frames(twin.elements, seed=2)).passed


def test_weights_none_draws_every_trainable_weight_and_keeps_the_statistics(toy, single, checkpoint):
    torch.manual_seed(11)
    one = zoo.load(checkpoint, weights=None, head=single.head)
    torch.manual_seed(11)
    same = load_family(toy.family).randomise(one.backbone)
    adaptable = {block.parameter for block in one.coverage.blocks if block.structure == "matrix"}
    before, again = dict(single.named_parameters()), dict(same.named_parameters())
    for name, parameter in one.backbone.named_parameters():
        assert torch.equal(parameter, again[name])
        assert torch.equal(parameter, before[name]) == (name in one.coverage.not_adaptable) or name not in adaptable
    assert one.base_sha256 != base_fingerprint(single)
