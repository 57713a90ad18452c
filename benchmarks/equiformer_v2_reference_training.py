"""EquiformerV2's recipe through ``zoo train`` beside the reference implementation's parts: network, loss, groups, schedule, average.

Run in an environment that has fairchem-core 1.10.0 as well (see `benchmarks.equiformer_v2_reference`):

    python -m benchmarks.equiformer_v2_reference_training

From the same random weights both take the same batches in float64. Dropout is off: the two draw in another order. What is left is the
turn of the edges' frames, which upstream draws at random and whose effect is the grid's aliasing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from benchmarks.equiformer_v2_reference import SMALL, call_on, import_reference, reference_network
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from zoo import load
from zoo.backbones.equiformer_v2.backbone import structures_of
from zoo.compose import compose
from zoo.data.loader import BatchStream, GraphDataset
from zoo.data.source import load_splits
from zoo.graph import AtomGraph
from zoo.training.config import RunConfig, parse_config
from zoo.training.plan import Plan
from zoo.training.run import fine_tune

SETTINGS = SMALL | {"grid_resolution": 18, "lmax_list": [3], "mmax_list": [2], "max_num_elements": 90}
WORDS = (
    "strategy=scratch", "adapter=full_scratch", "training=equiformer_v2_oc20_2M", "training.batch_size=4",
    "training.schedule.warmup_epochs=1", "training.dropout=0", "training.stochastic_depth=0", "training.ema_decay=0.9",
    "training.optimizer.learning_rate=4e-3", "training.gradient_clip_norm=40", "backbone.dtype=float64",
    "strategy.reference_energies_before=base", "strategy.refit_reference_energies=false", "data.n_train=16", "data.n_valid=2",
    "data.test=[]", "training.progress_bar=false", "training.loggers.tensorboard=false", "evaluation.plots=false", "run.name=run",
)  # fmt: skip


def ours(config: RunConfig) -> dict[str, Tensor]:
    """The averaged weights that the trainer leaves, by upstream's names."""
    trained = fine_tune(config, say=lambda _: None).potential
    return {name.removeprefix("network."): value.detach() for name, value in trained.adapters.weights().items()}


def reference(config: RunConfig, plan: Plan, start: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[float]]:
    """The averaged weights after the same steps of upstream's parts, by name, and the norm of the gradients at each step."""
    from fairchem.core.models.equiformer_v2.trainers.lr_scheduler import LRScheduler
    from fairchem.core.modules.exponential_moving_average import ExponentialMovingAverage
    from fairchem.core.modules.loss import DDPLoss
    from fairchem.core.modules.normalization.normalizer import Normalizer

    training = config.training
    graphs = GraphDataset(load_splits(config.data).train, load(config.backbone.name, weights=None).backbone.graph_recipe)
    batches = list(BatchStream(graphs, training.batch_size, plan.steps, training.seed))
    torch.set_default_dtype(torch.float64)
    network, _ = reference_network(SETTINGS, structures_of(batches[0], torch.float64))
    network.load_state_dict(start, strict=False)
    undecayed = network.no_weight_decay()
    groups = [[value for name, value in network.named_parameters() if (name in undecayed) == free] for free in (True, False)]
    optimizer = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0}, {"params": groups[1], "weight_decay": training.optimizer.weight_decay}],
        lr=training.optimizer.learning_rate,
    )
    scheduler = LRScheduler(optimizer, {
        "scheduler": "LambdaLR",
        "scheduler_params": {
            "lambda_type": "cosine", "warmup_factor": 0.2, "lr_min_factor": 0.01, "warmup_epochs": plan.warmup_steps, "epochs": plan.steps,
        },
    })  # fmt: skip
    average = ExponentialMovingAverage(network.parameters(), training.ema_decay)
    scales = {name: Normalizer(0.0, getattr(training.loss, name).scale) for name in ("energy", "forces")}
    losses = {"energy": DDPLoss("mae", "mean"), "forces": DDPLoss("l2mae", "mean")}
    norms = []
    for batch in batches:
        outputs = call_on(network.train(), structures_of(batch, torch.float64))()
        loss = sum(_term(name, outputs[name], batch, scales, losses) * getattr(training.loss, name).weight for name in losses)
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), max_norm=training.gradient_clip_norm)))
        optimizer.step()
        average.update()
        scheduler.step()
    average.copy_to()
    torch.set_default_dtype(torch.float32)
    return {name: value.detach() for name, value in network.named_parameters()}, norms


def _term(name: str, output: Tensor, batch: AtomGraph, scales: dict[str, nn.Module], losses: dict[str, nn.Module]) -> Tensor:
    target = scales[name].norm(getattr(batch, name))
    term: Tensor = losses[name](output.view(target.shape), target, natoms=batch.atom_counts)
    return term


def compare(epochs: int) -> str:
    """A row a kind of weight: how far it moved and how far the two are apart, relative to the largest weight of a tensor; then the run."""
    import_reference()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.yaml"
        normaliser = {"energy": {"mean": 0.0, "stdev": 2.887317180633545}, "forces": {"mean": 0.0, "stdev": 2.887317180633545}}
        model = {"name": "equiformer_v2", **SETTINGS}
        path.write_text(yaml.safe_dump({"model": model, "dataset": {"train": {"transforms": {"normalizer": normaliser}}}}))
        words = [f"backbone={path}", f"training.epochs={epochs}", f"training.validate_every={10**6}", f"run.folder={folder}/run", *WORDS]
        config: RunConfig = parse_config(compose("train", words))
        plan = Plan.of(config.training, 16)
        torch.manual_seed(config.training.seed)
        base = load(path, dtype="float64", weights=None).backbone
        start = {name.removeprefix("network."): value.detach().clone() for name, value in base.named_parameters()}
        found = ours(config)
        wanted, norms = reference(config, plan, start)
    idle = [pattern.removeprefix("network.").removesuffix("*") for pattern in base.idle_weights]
    rows = []
    for kind, belongs in (("weights", False), ("weights that no output reads", True)):
        names = [name for name in wanted if any(name.startswith(prefix) for prefix in idle) == belongs]
        moved, apart = (
            max(float((wanted[name] - other[name]).abs().max() / wanted[name].abs().max()) for name in names) for other in (start, found)
        )
        rows.append([kind, str(sum(wanted[name].numel() for name in names)), f"{moved:.1e}", f"{apart:.1e}"])
    note = f"{plan}; norms of the gradients {min(norms):.3g} to {max(norms):.3g}, clipped at {config.training.gradient_clip_norm:g}"
    return f"{markdown_table(['', 'numbers', 'change', 'difference'], rows)}\n\n{note}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    content = f"{compare(options.epochs)} {stamp('python -m benchmarks.equiformer_v2_reference_training')}"
    write_between_markers(ROOT / "docs" / "parity.md", "training of EquiformerV2", content)


if __name__ == "__main__":
    main()
