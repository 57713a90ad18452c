"""The conformance kit finds what is broken, by the claim that is about it, and lets what is sound pass."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from adapters import method
from adapters.adapter import Adapter
from adapters.method import method_names, register
from tests import direct_family
from tests.refusals import refusal_of
from tests.unit_zoo.broken_backbones import BROKEN_BACKBONES, BROKEN_FAMILIES, Conservative, built
from tests.unit_zoo.broken_methods import BROKEN_METHODS, Sound
from zoo.potential import Potential
from zoo.testing import (
    BACKBONE_CLAIMS,
    FAMILY_CLAIMS,
    METHOD_CLAIMS,
    ContractError,
    Figure,
    attached,
    backbone_findings,
    check_adapter_method,
    check_backbone,
    method_findings,
)
from zoo.testing.backbone_claims import check_toy
from zoo.testing.claims import ask, hold, refusal
from zoo.testing.measures import bits, state_of
from zoo.testing.trial import NAME, method_frames


@pytest.fixture
def potential() -> Potential:
    return Potential(direct_family.toy(0))


@pytest.fixture(autouse=True)
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    method_names()
    monkeypatch.setattr(method, "_METHODS", dict(method._METHODS))
    for kind in (Sound, *BROKEN_METHODS):
        register(kind)


def test_a_sound_method_holds_every_claim_and_leaves_the_potential_as_it_was(potential):
    before = state_of(potential.backbone)
    findings = check_adapter_method("sound", {"direct": potential})
    assert [finding.claim for finding in findings] == list(METHOD_CLAIMS)
    assert {finding.subject for finding in findings} == {"sound on direct"}
    assert potential.adapters.names == ()
    assert all(torch.equal(value, before[name]) for name, value in state_of(potential.backbone).items())


@pytest.mark.parametrize("kind", BROKEN_METHODS, ids=lambda kind: kind.name)
def test_a_broken_method_is_found_by_the_claim_that_is_about_it(kind, potential):
    claim, words = BROKEN_METHODS[kind]
    spec = {"name": kind.name, "roles": ["linear"]} if kind.name == "forgets-its-settings" else kind.name
    METHOD_CLAIMS[claim](potential, "sound", None)
    (finding,) = method_findings(spec, {"direct": potential}, [claim])
    assert not finding.holds
    assert any(word in finding.fault for word in words.split("|")), finding.fault
    assert "\n" not in finding.fault


def test_a_broken_method_raises_one_error_with_a_line_for_each_claim_and_the_others_are_asked(potential):
    with pytest.raises(ContractError) as caught:
        check_adapter_method("forgets-a-number", {"direct": potential})
    first, *lines = str(caught.value).splitlines()
    assert first == f"{len(lines)} of {len(METHOD_CLAIMS)} claims do not hold"
    assert any(line.startswith("forgets-a-number on direct: file: from its file it predicts the same: found") for line in lines)
    assert not any(": start: " in line for line in lines)


def test_a_stack_that_unmerges_by_subtraction_is_found(potential, monkeypatch):
    stack = potential.adapters

    def subtract() -> None:
        with torch.no_grad():
            for name, delta in stack.get(NAME).deltas().items() if stack.is_merged else ():
                stack.model.get_parameter(name).sub_(delta)
        stack._base_values = None

    monkeypatch.setattr(stack, "unmerge", subtract)
    with pytest.raises(ContractError, match="the base's tensors are what they were, bit for bit: found"):
        METHOD_CLAIMS["detached"](potential, "sound", None)


def test_a_hook_that_stays_is_found(potential, monkeypatch):
    honest = potential.adapters.delete

    def delete(name: str) -> None:
        honest(name)
        potential.backbone.mix.register_forward_hook(lambda *_: None)

    monkeypatch.setattr(potential.adapters, "delete", delete)
    with pytest.raises(ContractError, match="no hook stays on the model: found 1 hooks, wanted 0"):
        METHOD_CLAIMS["detached"](potential, "sound", None)


def test_a_second_place_that_does_not_see_the_delta_is_found(potential, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("adapters.stack._places_of_parameters", lambda model: {name: (name,) for name, _ in model.named_parameters()})
        with pytest.raises(ContractError, match="both places see the adapted tensor"):
            METHOD_CLAIMS["shared tensors"](potential, "sound", None)
    assert METHOD_CLAIMS["shared tensors"](potential, "sound", None).value == 0  # the toy itself was left as it was
    assert "second_place_of_a_shared_tensor" not in dict(potential.backbone.named_children())


def test_a_wrong_count_is_found(potential, monkeypatch):
    monkeypatch.setattr(Adapter, "trainable_count", property(lambda adapter: 1))
    with pytest.raises(ContractError, match="the count is what trains"):
        METHOD_CLAIMS["counts"](potential, "sound", None)


def test_a_check_that_does_not_see_a_planted_fault_is_found(potential, monkeypatch):
    monkeypatch.setattr("zoo.testing.method_symmetry._reading_an_axis", lambda potential, fault: nullcontext())
    with pytest.raises(ContractError, match="a planted fault shows under rotation: found"):
        METHOD_CLAIMS["planted fault"](potential, "sound", None)


def test_a_delta_too_small_to_show_anything_is_found(potential, monkeypatch):
    monkeypatch.setattr("zoo.testing.trial.RELATIVE", 1e-9)
    monkeypatch.setattr(type(potential.adapters), "randomise", lambda *given, **named: None)
    for claim in ("merged", "file"):
        with pytest.raises(ContractError, match="random weights change the predictions visibly"):
            METHOD_CLAIMS[claim](potential, "sound", None)
    with pytest.raises(ContractError, match=r"random weights are a tenth|random weights move"):
        METHOD_CLAIMS["symmetry"](potential, "sound", None)


def test_a_method_that_is_not_registered_is_told_so(potential):
    class Nowhere(Sound):
        """Not registered."""

        name = "nowhere"

    (finding,) = method_findings(Nowhere(Nowhere.Config()), {"direct": potential}, ["settings"])
    assert "unknown adapter method 'nowhere'" in finding.fault


def test_a_method_without_weights_on_any_toy_proves_nothing(potential):
    spec = {"name": "sound", "roles": ["linear"], "exclude_roles": ["linear"]}
    (finding,) = method_findings(spec, {"direct": potential})
    assert finding.holds
    assert str(finding.figure) == "no weights"
    with pytest.raises(ContractError, match="a method has weights to adapt: found none sound on direct"):
        check_adapter_method(spec, {"direct": potential})


def test_a_potential_that_is_not_bare_or_in_float32_is_refused(potential):
    potential.adapters.add("own", "elora")
    assert "found a potential in torch.float64 with adapters ['own']" in refusal_of(METHOD_CLAIMS["start"], potential, "sound", None)
    potential.adapters.delete("own")
    single = potential.to_dtype(torch.float32)
    assert "wanted one in float64" in refusal_of(METHOD_CLAIMS["start"], single, "sound", None)
    expected = potential.predict(probes := method_frames(potential))
    with attached(potential, "sound"):
        assert bits(potential.predict(probes)) != bits(expected)
    assert bits(potential.predict(probes)) == bits(expected)


def test_a_sound_conservative_backbone_and_a_sound_family_hold_every_claim():
    findings = check_backbone(built(Conservative), methods=["elora"])
    assert {finding.claim for finding in findings} >= {"toy", *BACKBONE_CLAIMS, *METHOD_CLAIMS}
    findings = check_backbone(direct_family.FAMILY, methods=[])
    assert {finding.claim for finding in findings} == {"toy", "family", *BACKBONE_CLAIMS, *FAMILY_CLAIMS}
    assert {finding.subject for finding in findings} == {"direct_toy", "direct_toy aliased"}


@pytest.mark.parametrize("fault", BROKEN_BACKBONES)
def test_a_broken_backbone_is_found_by_the_claim_that_is_about_it(fault):
    build, claim, words = BROKEN_BACKBONES[fault]
    with pytest.raises(ContractError, match=words):
        BACKBONE_CLAIMS[claim](Potential(build(0)), None)


@pytest.mark.parametrize("fault", BROKEN_FAMILIES)
def test_a_broken_family_is_found_by_the_claim_that_is_about_it(fault):
    family, claim, words = BROKEN_FAMILIES[fault]
    with pytest.raises(ContractError, match=words):
        FAMILY_CLAIMS[claim](family, Potential(family.toy(0)), None)


def test_a_toy_whose_weights_no_seed_decides_is_found_and_nothing_else_is_asked_of_it():
    def unseeded(seed: int) -> direct_family.DirectToy:
        return direct_family._randomised(direct_family.DirectToy(direct_family.Settings()))

    with pytest.raises(ContractError, match="leaves the caller's random numbers alone"):
        check_toy(unseeded)
    assert [finding.claim for finding in backbone_findings(unseeded, methods=["elora"])] == ["toy"]
    with pytest.raises(ContractError, match="a toy is in float64: found"):
        check_toy(lambda seed: direct_family.toy(seed).rebuilt(torch.float32))


def test_what_a_check_raises_by_itself_is_a_finding_of_one_line():
    def crash() -> Figure:
        raise RuntimeError("shapes differ\nand more")

    finding = ask("start", "x on y", crash)
    assert finding.fault == "RuntimeError: shapes differ"
    assert not finding.holds
    with pytest.raises(ContractError, match="a claim: found 1, wanted 2"):
        hold(False, "a claim", 1, 2)
    with pytest.raises(ContractError, match="found no error"):
        refusal(lambda: None, "anything")


def test_the_kit_is_imported_without_pytest_or_our_tests():
    code = "import sys, zoo.testing; print(sorted({name.split('.')[0] for name in sys.modules} & {'pytest', '_pytest', 'tests'}))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
