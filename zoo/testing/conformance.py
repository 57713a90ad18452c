"""The whole of what a backbone or an adapter method has to prove, in one call.

>>> from zoo.testing import check_adapter_method, check_backbone
>>> def test_my_method():
...     check_adapter_method("my-method")
>>> def test_my_backbone():
...     check_backbone(FAMILY)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from adapters.method import method_names
from zoo.backbones import load_family
from zoo.backbones.base import Backbone, Family
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.potential import Potential
from zoo.testing import backbone_claims, backbone_files, method_claims, method_symmetry, method_training
from zoo.testing.claims import Figure, Finding, ask, hold, raise_faults
from zoo.testing.claims import refusal as refused
from zoo.testing.toys import activations_integrated_once, registered_toys, toys_of
from zoo.testing.trial import Spec, has_weights_for, method_of, spec_label

MethodClaim = Callable[[Potential, Spec, Sequence[Frame] | None], Figure]
BackboneClaim = Callable[[Potential, Sequence[Frame] | None], Figure]
FamilyClaim = Callable[[Family, Potential, Sequence[Frame] | None], Figure]

METHOD_CLAIMS: Mapping[str, MethodClaim] = {
    "settings": method_claims.check_config,
    "start": method_claims.check_start,
    "start in training": method_claims.check_start_in_training,
    "symmetry": method_symmetry.check_symmetry,
    "planted fault": method_symmetry.check_planted_fault,
    "merged": method_claims.check_merging,
    "detached": method_claims.check_detaching,
    "file": method_claims.check_file,
    "training step": method_training.check_training_step,
    "learning": method_training.check_learning,
    "gradients": method_training.check_gradients,
    "precisions": method_claims.check_precisions,
    "counts": method_claims.check_counts,
    "shared tensors": method_claims.check_shared_tensors,
    "combination": method_claims.check_combination,
}
"""What is asked of each adapter method on each backbone."""

BACKBONE_CLAIMS: Mapping[str, BackboneClaim] = {
    "coverage": backbone_claims.check_coverage,
    "symmetries": backbone_claims.check_symmetries,
    "outputs": backbone_claims.check_outputs,
    "force modes": backbone_claims.check_force_modes,
    "graph recipe": backbone_claims.check_graph_recipe,
    "batching": backbone_claims.check_batching,
    "elements": backbone_claims.check_elements,
    "smoothness": backbone_claims.check_smoothness,
    "weights matter": backbone_claims.check_weights_matter,
    "dropout": backbone_claims.check_dropout,
    "rebuilt": backbone_files.check_rebuilt,
}
"""What is asked of each toy of a backbone."""

FAMILY_CLAIMS: Mapping[str, FamilyClaim] = {
    "checkpoint": backbone_files.check_checkpoint,
    "merged checkpoint": backbone_files.check_merged_checkpoint,
    "random weights": backbone_files.check_random_weights,
}
"""What is asked besides of each toy of a family, which has files."""


def method_findings(
    spec: Spec, potentials: Mapping[str, Potential] | None = None, claims: Iterable[str] = tuple(METHOD_CLAIMS)
) -> tuple[Finding, ...]:
    """Every claim of one method on every potential that has weights for it; on the others the one finding is that it says so.

    Args:
        spec: the method's name, its name and settings, or the method.
        potentials: bare float64 potentials by what to call them; every registered toy where they are left out.
        claims: names of `METHOD_CLAIMS`.
    """
    findings: list[Finding] = []
    builders: dict[str, Callable[[], Potential]]
    if potentials is None:
        builders = {str(toy): partial(_potential_of, toy.build) for toy in registered_toys()}
    else:
        builders = {name: partial(_itself, potential) for name, potential in potentials.items()}
    for name, build in builders.items():
        potential, subject = build(), f"{spec_label(spec)} on {name}"
        if not has_weights_for(method_of(spec), potential.coverage):
            findings.append(ask("selects weights", subject, partial(_refused_without_weights, potential, spec)))
            continue
        findings += [ask(claim, subject, partial(METHOD_CLAIMS[claim], potential, spec, None)) for claim in claims]
    return tuple(findings)


def _potential_of(build: Callable[[int], Backbone]) -> Potential:
    return Potential(build(0))


def _itself(potential: Potential) -> Potential:
    return potential


def _refused_without_weights(potential: Potential, spec: Spec) -> Figure:
    refused(lambda: potential.adapters.add("tested", method_of(spec)), "select none of the model's")
    return Figure(None, NO_WEIGHTS)


NO_WEIGHTS = "no weights"
"""What the finding of a method says that selects nothing of a model."""


def backbone_findings(family: Family | str | Callable[[int], Backbone], methods: Iterable[Spec] | None = None) -> tuple[Finding, ...]:
    """Every claim of each toy of a backbone, and of adapter methods on its main one.

    Args:
        family: a `Family`, the name of a registered one, or a toy's builder ``(seed) -> Backbone``, of which no files are asked.
        methods: that are tried on it; every registered one where they are left out.
    """
    family = load_family(family) if isinstance(family, str) else family
    toys = toys_of(family) if isinstance(family, Family) else {"": family}
    label = family.name if isinstance(family, Family) else getattr(family, "__name__", "toy")
    findings: list[Finding] = []
    for variant, build in toys.items():
        subject = f"{label} {variant}".strip()
        findings.append(ask("toy", subject, partial(backbone_claims.check_toy, build)))
        if isinstance(family, Family):
            findings.append(ask("family", subject, partial(backbone_files.check_family, family, build)))
        if not all(finding.holds for finding in findings):
            continue  # of a toy that cannot be built, or is no float64, nothing else can be asked
        potential = _potential_of(build)
        findings += [ask(name, subject, partial(claim, potential, None)) for name, claim in BACKBONE_CLAIMS.items()]
        if isinstance(family, Family):
            findings += [ask(name, subject, partial(claim, family, potential, None)) for name, claim in FAMILY_CLAIMS.items()]
    if all(finding.holds for finding in findings):
        potential = _potential_of(toys[""])
        for spec in method_names() if methods is None else methods:
            findings += method_findings(spec, {label: potential})
    return tuple(findings)


def check_adapter_method(spec: Spec, potentials: Mapping[str, Potential] | None = None) -> tuple[Finding, ...]:
    """Ask every claim of an adapter method; the findings, with what was measured, where all hold.

    Args:
        spec: the method's name, its name and settings, or the method.
        potentials: bare float64 potentials by what to call them; every registered toy where they are left out (a minute or two).

    Raises:
        ContractError: with a line for each claim that does not hold, or where no potential has weights for the method.
        AdapterError: an unknown method or setting.
    """
    with activations_integrated_once():
        findings = method_findings(method_of(spec), potentials)
    raise_faults(findings)
    without = [finding.subject for finding in findings if finding.figure is not None and finding.figure.note == NO_WEIGHTS]
    hold(len(without) < len(findings), "a method has weights to adapt", f"none {', '.join(without[:3])}", "some of a backbone")
    return findings


def check_backbone(family: Family | str | Callable[[int], Backbone], methods: Iterable[Spec] | None = None) -> tuple[Finding, ...]:
    """Ask every claim of a backbone, and of adapter methods on it; the findings, with what was measured, where all hold.

    Args:
        family: a `Family`, the name of a registered one, or a toy's builder ``(seed) -> Backbone``, of which no files are asked.
        methods: that are tried on it; every registered one where they are left out, ``()`` for none.

    Raises:
        ContractError: with a line for each claim that does not hold.
        ZooError: an unknown family, or one whose package is not installed.
    """
    with activations_integrated_once():
        findings = backbone_findings(family, methods)
    if not findings:
        raise ZooError("check_backbone: a family without toys; give it Family.toy")
    raise_faults(findings)
    return findings
