"""Sparse deltas on 450 frames of AcAc beside tuned baselines: ``python -m benchmarks.sparse_acac``.

First each method's learning rate is tuned: short runs of one seed, compared by their validation loss, the test sets untouched. Then every
method runs at its best rate with every seed, and the sparse one over its decays. A finished run is not run again, an unfinished one is
resumed. Tables go to docs/benchmarks.md, the figure to docs/sparse_acac.png.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs import command_of, commits_of, finished_record, hardware_of, mean_and_range, own_and_extra_words
from benchmarks.tables import ROOT, markdown_table, write_between_markers
from zoo.evaluation.record import Record
from zoo.files import write_atomically

COMMON = (
    "experiment=acac",
    "backbone=sevennet-0",
    "data.protocol=full",
    "training.optimizer.name=schedule_free_adamw",
    "training.schedule.name=constant",
    "training.ema_decay=null",
    "training.keep=last",
    "training.validate_every=100",
    "training.progress_bar=false",
    "training.loggers.tensorboard=false",
    "evaluation.zero_shot=false",
    "evaluation.plots=false",
)
RATES = {
    "full": (1e-3, 2e-3, 5e-3, 1e-2),
    "readout": (1e-2, 3e-2, 1e-1),
    "sparse_low": (5e-3, 1e-2, 2e-2),
    "sparse_high": (5e-3, 1e-2, 2e-2),
}
DECAYS = (0.05, 0.2, 0.45)  # ends of the threshold, besides those of the presets
FORCES = "force_rmse_mev_per_angstrom"


@dataclass(frozen=True)
class Run:
    """One run: method, rate, seed, length; where the decay takes the threshold, if another end than the preset's; whether it is tested."""

    method: str
    rate: float
    seed: int
    steps: int
    threshold_end: float | None = None
    tested: bool = True

    @property
    def name(self) -> str:
        """Of its folder."""
        end = "" if self.threshold_end is None else f"-end{self.threshold_end:g}"
        return f"sparse-acac{'' if self.tested else '-tune'}-{self.method}{end}-lr{self.rate:g}-n{self.steps}-s{self.seed}"

    @property
    def words(self) -> list[str]:
        """What follows ``zoo train``."""
        sparse = ["adapter.setting=linear"] if self.method.startswith("sparse") else []
        end = [] if self.threshold_end is None else [f"adapter.threshold_end={self.threshold_end:g}"]
        own = [f"adapter={self.method}", *sparse, *end, f"training.optimizer.learning_rate={self.rate:g}", f"training.steps={self.steps}"]
        test = "data.test=[test_300K,test_600K]" if self.tested else "data.test=[]"
        return [*COMMON, test, *own, f"training.seed={self.seed}"]

    def record(self, runs: Path, extra: Sequence[str]) -> Record:
        """The run's record, after running it if there is none."""
        return finished_record(runs, self.name, [*self.words, *extra])

    def validation_loss(self, runs: Path) -> float:
        """After the last step."""
        with (runs / "runs" / self.name / "history.csv").open() as lines:
            return float(list(csv.DictReader(lines))[-1]["valid/loss"])


def errors_of(record: Record) -> dict[str, float]:
    """Test set -> force RMSE in meV/Å."""
    return {metric.test_set: metric.value for metric in record.metrics if metric.name == FORCES}


def sparsity_of(record: Record, kind: str) -> float | None:
    """In %, of the weights in the adapter file; None of a method that has none."""
    assert record.adapter is not None
    share = record.adapter.report.get(f"sparsity_{kind}")
    return None if share is None else 100 * share


def tuned_rates(runs: Path, steps: int, extra: Sequence[str]) -> tuple[dict[str, float], str, list[Record]]:
    """Method -> the rate with the lowest validation loss, and the table of all of them."""
    rows, best, records = [], {}, []
    for method, rates in RATES.items():
        tries = [Run(method, rate, 0, steps, tested=False) for rate in rates]
        records += [one.record(runs, extra) for one in tries]
        losses = [one.validation_loss(runs) for one in tries]
        best[method] = rates[losses.index(min(losses))]
        rows += [
            [f"`{method}`" if index == 0 else "", f"{rate:g}", f"**{loss:.3f}**" if rate == best[method] else f"{loss:.3f}"]
            for index, (rate, loss) in enumerate(zip(rates, losses, strict=True))
        ]
    return best, markdown_table(["method", "learning rate", "validation loss"], rows), records


def methods_table(records: dict[str, list[Record]], rates: dict[str, float]) -> str:
    """Means over seeds, with the range; errors also as a ratio to tuned full fine-tuning."""
    full = {name: statistics.mean(errors_of(one)[name] for one in records["full"]) for name in ("test_300K", "test_600K")}
    rows = []
    for method, several in records.items():
        assert several[0].adapter is not None
        row = [f"`{method}`", f"{rates[method]:g}"]
        for kind in ("layerwise", "total"):
            found = [share for share in (sparsity_of(one, kind) for one in several) if share is not None]
            row.append(mean_and_range(found) if found else "")
        for name, reference in full.items():
            values = [errors_of(one)[name] for one in several]
            row += [mean_and_range(values), f"{statistics.mean(values) / reference:.3f}"]
        rows.append(row)
    columns = ["method", "learning rate", "layer-wise sparsity / %", "total sparsity / %"]
    return markdown_table([*columns, "300 K forces, meV/Å", "/ `full`", "600 K forces, meV/Å", "/ `full`"], rows)


def decays_table(records: Sequence[Record]) -> str:
    """One row a decay."""
    rows = []
    for record in sorted(records, key=decay_of):
        assert record.adapter is not None
        errors, config = errors_of(record), record.adapter.config
        shares = [f"{sparsity_of(record, kind):.1f}" for kind in ("layerwise", "total")]
        rows.append(
            [f"{decay_of(record):.3g}", f"{config['threshold_end']:g}", *shares, f"{errors['test_300K']:.1f}", f"{errors['test_600K']:.1f}"]
        )
    columns = ["λ_τ", "threshold at the end", "layer-wise sparsity / %", "total sparsity / %"]
    return markdown_table([*columns, "300 K forces, meV/Å", "600 K forces, meV/Å"], rows)


def decay_of(record: Record) -> float:
    """lambda_tau of a run whose decay was found from its threshold's end."""
    from adapters.sparse import SparseConfig

    assert record.adapter is not None
    return SparseConfig(**record.adapter.config).decay  # type: ignore[arg-type]


def draw(path: Path, records: Sequence[Record], baselines: dict[str, list[Record]]) -> None:
    """Force error against layer-wise sparsity, a point a decay, with tuned full fine-tuning and readout as lines; by temperature."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(("test_300K", "test_600K"), start=1):
        axes = figure.add_subplot(1, 2, place)
        points = sorted((sparsity_of(one, "layerwise") or 0.0, errors_of(one)[name], decay_of(one)) for one in records)
        axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o-", color="#0072B2", label="`sparse`, labelled by λ_τ")
        for x, y, decay in points:
            axes.annotate(f"{decay:.2g}", (x, y), xytext=(0, 7), textcoords="offset points", ha="center", fontsize=8)
        for method, colour, line in (("full", "#E69F00", "--"), ("readout", "#009E73", ":")):
            mean = statistics.mean(errors_of(one)[name] for one in baselines[method])
            axes.axhline(mean, color=colour, linestyle=line, label=f"`{method}`, tuned: {mean:.1f}")
        axes.set_xlabel("layer-wise sparsity / %")
        axes.set_ylabel(f"force RMSE at {name.removeprefix('test_')} / meV/Å")
        axes.set_ylim(bottom=0)
        axes.grid(True, alpha=0.25)
        axes.legend(frameon=False)
    write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=110))


def main() -> None:
    words, extra = own_and_extra_words()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--tuning-steps", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=ROOT, help="holds runs/")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    options = parser.parse_args(words)
    rates, tuning, tried = tuned_rates(options.folder, options.tuning_steps, extra)
    print(tuning, flush=True)
    found: dict[str, list[Record]] = {method: [] for method in RATES}
    for seed in options.seeds:
        for method in RATES:
            found[method].append(Run(method, rates[method], seed, options.steps).record(options.folder, extra))
    print(methods_table(found, rates), flush=True)
    rate, seed = rates["sparse_low"], options.seeds[0]
    decays = [found["sparse_low"][0]]
    decays += [Run("sparse_low", rate, seed, options.steps, end).record(options.folder, extra) for end in DECAYS]
    if rates["sparse_high"] == rate:
        decays.append(found["sparse_high"][0])
    everything = [*tried, *(one for several in found.values() for one in several), *decays]
    sparse = found["sparse_low"][0].adapter
    assert sparse is not None
    assert sparse.coverage_share is not None
    adapted = f"{100 * sparse.coverage_share:.1f} %"
    note = (
        f"SevenNet-0, protocol `{tried[0].data.protocol}`, {options.steps} steps of 5 frames, schedule-free AdamW, η_τ = 0.01, seeds "
        f"{', '.join(map(str, options.seeds))} (mean, and range). The sparse deltas are of setting `linear`, {adapted} "
        f"of the parameters. Each method at the rate with the lowest validation loss of {options.tuning_steps} steps with seed 0. The "
        f"decays: seed {seed}, at `sparse_low`'s rate. Made by `{command_of('sparse_acac', options.seeds, extra)}` between "
        f"{min(one.created for one in everything):%Y-%m-%d} and {max(one.created for one in everything):%Y-%m-%d} on "
        f"{hardware_of(everything)}; torch {tried[0].versions['torch']}{commits_of(everything)}."
    )
    draw(options.page.with_name("sparse_acac.png"), decays, found)
    text = "\n\n".join(
        [methods_table(found, rates), "![force error against sparsity](sparse_acac.png)", decays_table(decays), tuning, note]
    )
    write_between_markers(options.page, "sparse-acac", text)


if __name__ == "__main__":
    main()
