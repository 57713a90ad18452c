"""The files a finished run leaves: adapter, plots, record, and the table on the screen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.state import write_adapter
from zoo.adapter_files import manifest_of
from zoo.data.loader import stored_graphs
from zoo.data.parts import DataSplits
from zoo.evaluation.metrics import METRICS, compute_metrics
from zoo.evaluation.predictions import Predictions, predict_frames
from zoo.evaluation.provenance import base_record, data_record, made_here, reference_energy_record
from zoo.evaluation.record import build_record, metric_records, write_record
from zoo.evaluation.record_parts import AdapterRecord, CostRecord, ForgettingRecord
from zoo.plots import plot_energy_parity, plot_force_parity, plot_learning_curves
from zoo.potential import Potential
from zoo.training.config import RunConfig
from zoo.training.folder import RunFolder
from zoo.training.preparation import Material
from zoo.training.validation import Validation

MetricsByTest = dict[str, dict[str, float]]
# settings whose values may be paths
_FILES = {"backbone": ("name",), "adapter": ("path",), "data": ("path", "train", "valid", "test", "isolated_atoms", "linear_references")}
_SHOWN = ("force_mae_mev_per_angstrom", "force_rmse_mev_per_angstrom", "energy_mae_mev_per_atom", "energy_rmse_mev")


@dataclass(frozen=True)
class TestResults:
    """Metrics by test set; ``zero_shot`` is empty where it was not asked for."""

    zero_shot: MetricsByTest
    fine_tuned: MetricsByTest

    __test__ = False  # not a test class, whatever pytest thinks of its name


def predict_tests(potential: Potential, splits: DataSplits, batch_size: int) -> dict[str, Predictions]:
    """Predictions for every test set, or for the validation frames where the data has no test set."""
    recipe = potential.backbone.graph_recipe
    return {
        name: predict_frames(potential, frames, batch_size, graphs=stored_graphs(frames, recipe, splits.cache))
        for name, frames in splits.tested.items()
    }


def score(splits: DataSplits, zero_shot: Mapping[str, Predictions], fine_tuned: Mapping[str, Predictions]) -> TestResults:
    """Every metric that each test set's labels define."""
    parts = splits.tested

    def metrics(predictions: Mapping[str, Predictions]) -> MetricsByTest:
        return {name: compute_metrics(predicted, parts[name]) for name, predicted in predictions.items()}

    return TestResults(metrics(zero_shot), metrics(fine_tuned))


def write_adapter_file(config: RunConfig, folder: RunFolder, material: Material, validation: Validation) -> Path:
    """The trained adapter with all that a reader needs to use it, and nothing (no times, no paths) that differs between equal runs."""
    potential, splits = material.potential, material.splits
    (name,) = potential.adapters.active
    adapter = potential.adapters.get(name)
    manifest = manifest_of(
        potential,
        adapter,
        potential.get_reference_shifts(),
        splits.level_of_theory,
        data={"name": splits.name, "protocol": splits.protocol, "licence": splits.licence, **splits.hashes},
        training={
            "steps": material.plan.steps,
            "best_step": validation.best_step,
            "kept_step": validation.kept_step,
            "seed": config.training.seed,
        },
    )
    write_adapter(folder.adapter, adapter, manifest)
    return folder.adapter


def write_whole_model(config: RunConfig, folder: RunFolder, potential: Potential) -> None:
    """``model.pth`` of a run from random weights, which an adapter file alone could not bring back."""
    if config.strategy.weights == "random":
        potential.save_upstream_checkpoint(folder.model)


def training_settings(config: RunConfig) -> dict[str, Any]:
    """The config as a record carries it: files by name alone, since where they lie is nobody else's business."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude={"run": True, "backbone": {"device"}, "data": {"cache", "workers"}})
    for group, keys in _FILES.items():
        for key in keys:
            if settings[group].get(key) is not None:
                settings[group][key] = _file_names(settings[group][key])
    return settings


def _file_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _file_names(path) for key, path in value.items()}
    if isinstance(value, list):
        return [_file_names(path) for path in value]
    return Path(value).name


def write_plots(
    folder: RunFolder,
    history: Sequence[Mapping[str, float]],
    splits: DataSplits,
    zero_shot: Mapping[str, Predictions],
    fine_tuned: Mapping[str, Predictions],
) -> None:
    """``plots/learning_curves.png`` and an energy and a force parity plot a test set."""
    plots = folder.path / "plots"
    plot_learning_curves(history, plots / "learning_curves.png")
    for name, frames in splits.tested.items():
        if any(frame.has_energy for frame in frames):
            plot_energy_parity(plots / f"energy_parity_{name}.png", frames, fine_tuned[name], zero_shot.get(name))
        if any(frame.has_forces for frame in frames):
            plot_force_parity(plots / f"force_parity_{name}.png", frames, fine_tuned[name], zero_shot.get(name))


def write_run_record(
    config: RunConfig,
    folder: RunFolder,
    potential: Potential,
    splits: DataSplits,
    results: TestResults,
    forgetting: ForgettingRecord | None,
    cost: CostRecord,
) -> None:
    """``record.json``: the result in the leaderboard's schema."""
    (name,) = potential.adapters.active
    adapter = potential.adapters.get(name)
    before = config.strategy.reference_energies_before
    record = build_record(
        base=base_record(potential, config.strategy.weights),
        adapter=AdapterRecord(
            method=adapter.method.name,
            config=adapter.method.config_dict,
            file_sha256=hashlib.sha256(folder.adapter.read_bytes()).hexdigest(),
            file_bytes=folder.adapter.stat().st_size,
            trainable_count=adapter.trainable_count,
            coverage_share=potential.coverage.share(adapter.blocks),
            report=potential.adapters.report(),
        ),
        data=data_record(splits),
        seed=config.training.seed,
        reference_energies=reference_energy_record(potential, before, "model" if config.strategy.refit_reference_energies else before),
        training=training_settings(config),
        metrics=metric_records(results.fine_tuned),
        zero_shot_metrics=metric_records(results.zero_shot),
        cost=cost,
        **{**made_here(), "forgetting": forgetting},
    )
    write_record(folder.record, record)


def summary_table(results: TestResults) -> str:
    """Test set, metric, zero-shot, fine-tuned, and how many times smaller: aligned plain text, with a warning where forces became worse."""
    lines = [f"{'test set':<16} {'metric':<26} {'unit':<9} {'zero-shot':>10} {'fine-tuned':>11} {'ratio':>7}"]
    worse = []
    for test_set, metrics in results.fine_tuned.items():
        for name in _SHOWN:
            if name not in metrics:
                continue
            before, after = results.zero_shot.get(test_set, {}).get(name), metrics[name]
            old = f"{'':>10} {after:11.2f}"
            if before is not None:
                ratio = before / after
                old = f"{before:10.2f} {after:11.2f} {ratio:6.{1 if ratio >= 1 else 2}f}x"
                worse += [test_set] if ratio < 1 and name.startswith("force") and test_set not in worse else []
            lines.append(f"{test_set:<16} {METRICS[name].label:<26} {METRICS[name].unit:<9} {old}")
    if results.zero_shot:
        lines.append("zero-shot energies include the reference energies set before the training")
    if worse:
        lines.append(
            f"warning: the forces are worse than the base's on {', '.join(worse)}; try a lower training.optimizer.learning_rate, more "
            "training.steps, or look at history.csv"
        )
    return "\n".join(lines)
