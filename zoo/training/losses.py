"""The loss: a weighted sum over energy, forces and stress, with unknown labels (NaN) left out and never counted as zero."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from zoo.data.label_counts import LabelCounts
from zoo.graph import AtomGraph
from zoo.training.config import LossConfig, LossTerm


def loss_terms(results: dict[str, Tensor], graph: AtomGraph, config: LossConfig, per_batch: LabelCounts | None = None) -> dict[str, Tensor]:
    """Unweighted loss of every label with a nonzero weight that the batch has at least once.

    Args:
        results: of `zoo.potential.Potential.forward`.
        graph: the batch with its labels.
        config: kinds and weights.
        per_batch: how many labels a batch has on average, where batches differ in size: each term is then the sum over the batch's labels
            divided by that mean, so that over a pass every label has the same weight whatever batch it came in. Means over the batch's own
            labels without.

    Returns:
        Scalars by label: ``energy`` in eV (per atom by default) to the power of the kind, ``forces`` in eV/Å, ``stress`` in eV/Å^3; without
        unit where a term has a scale.
    """
    terms: dict[str, Tensor] = {}
    labelled: dict[str, Tensor] = {}
    if config.energy.weight > 0:
        scale = graph.atom_counts.to(torch.float64) if config.energy_per_atom else torch.ones_like(graph.energy)  # (G,)
        # in float64: total energies of -1e4 eV leave float32 a resolution of 1 meV
        error = (results["energy"] - graph.energy) / scale  # (G,)
        labelled["energy"] = torch.isfinite(graph.energy)
        _add(terms, "energy", error[:, None], labelled["energy"], config.energy)
    if config.forces.weight > 0:
        labelled["forces"] = torch.isfinite(graph.forces).all(dim=1)  # (N,)
        _add(terms, "forces", results["forces"] - graph.forces, labelled["forces"], config.forces)  # (N, 3)
    if config.stress.weight > 0:
        # a stress exists for structures periodic in three directions only, whatever the label says
        labelled["stress"] = torch.isfinite(graph.stress).flatten(1).all(dim=1) & graph.pbc.all(dim=1)  # (G,)
        _add(terms, "stress", (results["stress"] - graph.stress).flatten(1), labelled["stress"], config.stress)  # (G, 9)
    if per_batch is None:
        return terms
    return {name: term * (labelled[name].sum(dtype=torch.float64) / getattr(per_batch, name)) for name, term in terms.items()}


def weighted_sum(terms: dict[str, Tensor], config: LossConfig) -> Tensor:
    """The scalar that is minimised."""
    weights = {"energy": config.energy.weight, "forces": config.forces.weight, "stress": config.stress.weight}
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def _add(terms: dict[str, Tensor], name: str, error: Tensor, labelled: Tensor, term: LossTerm) -> None:
    # by the label and not by the error: a prediction that is not a number must not pass for an unknown label
    if bool(labelled.any()):
        terms[name] = _reduce(error[labelled], term)


def _reduce(error: Tensor, term: LossTerm) -> Tensor:
    error = error / term.scale
    if term.kind == "mse":
        return error.square().mean()
    if term.kind == "mae":
        return error.abs().mean()
    if term.kind == "huber":
        return functional.huber_loss(error, torch.zeros_like(error), delta=term.huber_delta)
    norms: Tensor = torch.linalg.vector_norm(error, dim=1)
    return norms.mean()
