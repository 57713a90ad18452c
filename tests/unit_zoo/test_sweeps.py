"""A sweep runs what is missing and nothing else; its table is the records', its figure is the table's."""

from __future__ import annotations

import csv
import os
import signal
import statistics
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.errors import ZooError
from zoo.evaluation.record import read_record
from zoo.sweeps import plan_sweep, processes, run_sweep
from zoo.sweeps.request import make_request
from zoo.sweeps.table import read_rows
from zoo.training.finished import load_finished
from zoo.training.folder import RunFolder
from zoo.training.run import fine_tune

STEPS = ["training.steps=4", "training.validate_every=1"]
RANKS = {"values": [1, 2], "seeds": [0, 1]}
SPARSE = {"methods": ["sparse:setting=linear:tau_learning_rate=1", "sparse:setting=all"], "values": [0.01, 1], "seeds": [0]}
CURVES = {"methods": ["full", "elora:rank=2"], "seeds": [0, 1]}


def quietly(_: str) -> None:
    pass


def finish_all(kind: str, words: list[str], **options: Any) -> Path:
    """Every run of a sweep, in this process; the sweep's folder."""
    for job in plan_sweep(make_request(kind, words, options)):
        fine_tune(job.config, say=quietly)
    return Path(options["folder"])


@pytest.fixture(scope="module")
def words(small_run) -> list[str]:
    return [*small_run, *STEPS]


@pytest.fixture(scope="module")
def ranks(words, tmp_path_factory) -> Path:
    return finish_all("rank", words, folder=str(tmp_path_factory.mktemp("ranks") / "sweep"), **RANKS)


@pytest.fixture(scope="module")
def thresholds(words, tmp_path_factory) -> Path:
    return finish_all("lambda_tau", words, folder=str(tmp_path_factory.mktemp("thresholds") / "sweep"), **SPARSE)


@pytest.fixture(scope="module")
def curves(words, tmp_path_factory) -> Path:
    return finish_all("convergence", words, folder=str(tmp_path_factory.mktemp("curves") / "sweep"), **CURVES)


@pytest.fixture
def no_process(monkeypatch):
    """The commands of the processes that were to begin; none does."""
    begun: list[list[str]] = []

    def refuse(command, **_):
        begun.append(command)
        raise ZooError("no process here")

    monkeypatch.setattr(processes.subprocess, "Popen", refuse)
    return begun


def test_a_sweep_from_the_command_line_runs_names_what_failed_and_keeps_the_rest(words, zoo, tmp_path, monkeypatch):
    command = ["training_size", "values=[4,100000]", "methods=[elora]", "seeds=[0]", "sweep.folder=out", "jobs=2"]
    command += [word for word in words if not word.startswith("data.n_train")]
    finished = zoo("sweep", *command)
    message = cli_refusal(finished)
    assert not lacks(message, "1 of 2 runs failed", "elora-training_size-100000-s0", "n_train=100000", "the same command")
    (row,) = read_rows(tmp_path / "out/sweep.csv")
    assert (row["run"], row["value"], row["method"]) == ("elora-training_size-4-s0", 4, "elora")
    assert (tmp_path / "out/sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "zoo: error: " in (tmp_path / "out/logs/elora-training_size-100000-s0.txt").read_text()
    # the same command again: what is finished is not run again
    begun: list[str] = []
    monkeypatch.setattr(processes, "_start", lambda job, *_: begun.append(job.name) or (_ for _ in ()).throw(ZooError("stop")))
    assert cli_refusal(zoo("sweep", *command)) == "stop"
    assert begun == ["elora-training_size-100000-s0"]


def test_the_words_of_each_process_make_the_run_that_was_checked(words, zoo, tmp_path):
    (job,) = plan_sweep(make_request("rank", words, {"values": [2], "seeds": [1], "folder": str(tmp_path / "my sweep")}))
    assert zoo("train", *job.command(resume=False)).code == 0
    _, config = RunFolder.existing(job.folder)
    assert config == job.config
    assert job.is_finished


def test_finished_runs_are_not_run_again_and_an_interrupted_one_goes_on(ranks, words, no_process, tmp_path):
    lines: list[str] = []
    result = run_sweep("rank", words, lines.append, folder=str(ranks), **RANKS)
    assert (len(result.rows), result.failed, no_process) == (4, {}, [])
    assert lines[0].endswith("4 runs, 4 of them finished before")
    record = ranks / "runs/elora-rank-2-s1/record.json"
    kept = record.read_bytes()
    record.unlink()
    try:
        with pytest.raises(ZooError, match="no process here"):
            run_sweep("rank", words, lines.append, folder=str(ranks), **RANKS)
    finally:
        record.write_bytes(kept)
    assert lines[-1].endswith("elora-rank-2-s1: goes on")
    assert [command[-1] for command in no_process] == ["run.resume=true"]


def test_a_dry_run_prints_what_is_missing_and_touches_nothing(ranks, words, no_process, zoo):
    before = sorted(ranks.rglob("*"))
    finished = zoo("sweep", "rank", "values=[1,4]", "seeds=[0]", f"sweep.folder={ranks}", "--dry-run", *words)
    assert finished.code == 0, finished.err
    done, missing = finished.out.splitlines()
    assert done == f"# finished: {ranks / 'runs/elora-rank-1-s0'}"
    assert not lacks(missing, "zoo train ", "adapter=elora", "adapter.rank=4", "training.seed=0", "hydra.run.dir=")
    assert sorted(ranks.rglob("*")) == before
    assert no_process == []


def test_a_folder_with_another_configuration_is_refused_before_anything_runs(ranks, words, no_process):
    message = refusal_of(run_sweep, "rank", [*words, "training.steps=5"], quietly, folder=str(ranks), values=[8, 1], seeds=[0])
    assert not lacks(message, "elora-rank-1-s0", "training.steps=4", "this one has 5", "sweep.folder=")
    assert no_process == []


def test_a_run_that_fails_again_is_named_with_the_reason_of_this_time(words, monkeypatch, tmp_path):
    popen = subprocess.Popen
    says = iter(["zoo: error: no such weights", "Killed by a full disk"])
    monkeypatch.setattr(
        processes.subprocess, "Popen", lambda command, **options: popen(["sh", "-c", f"echo '{next(says)}'; exit 1"], **options)
    )
    for reason in ("no such weights", "Killed by a full disk"):
        result = run_sweep("rank", words, quietly, folder=str(tmp_path), values=[1], seeds=[0])
        assert result.failed == {"elora-rank-1-s0": reason}


def interrupted() -> None:
    raise KeyboardInterrupt


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("stop", "ended"), [(interrupted, KeyboardInterrupt), (terminated, SystemExit)])
def test_an_interruption_leaves_no_process_behind(stop, ended, words, monkeypatch, tmp_path):
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def sleep(command, **options):
        started.append(popen(["sleep", "60"], **options))
        return started[-1]

    def interrupt(line: str) -> None:
        if line.startswith("[2/"):
            stop()

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(processes.subprocess, "Popen", sleep)
    with pytest.raises(ended):
        run_sweep("rank", words, interrupt, folder=str(tmp_path), values=[1, 2], seeds=[0], jobs=2)
    assert [process.returncode for process in started] == [-15]
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_cores_are_shared_out_between_processes_unless_the_user_says_how(words, monkeypatch, tmp_path):
    seen: list[str | None] = []

    def look(command, **options):
        seen.append(options["env"].get("OMP_NUM_THREADS"))
        raise ZooError("stop")

    monkeypatch.setattr(processes.subprocess, "Popen", look)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 12)
    for given, jobs in ((None, 4), ("7", 4), (None, 1)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if given is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", given)
        with pytest.raises(ZooError, match="stop"):
            run_sweep("rank", words, quietly, folder=str(tmp_path / "out"), values=[1], seeds=[0], jobs=jobs)
    assert seen == ["3", "7", None]


def test_the_table_says_what_the_records_and_histories_say(ranks, words, no_process):
    run_sweep("rank", words, quietly, folder=str(ranks), **RANKS)
    rows = read_rows(ranks / "sweep.csv")
    assert [(row["method"], row["value"], row["seed"]) for row in rows] == [("elora", value, seed) for value in (1, 2) for seed in (0, 1)]
    for row in rows:
        folder = ranks / "runs" / str(row["run"])
        record = read_record(folder / "record.json")
        assert record.adapter is not None
        assert record.cost is not None
        for prefix, metrics in (("", record.metrics), ("zero_shot/", record.zero_shot_metrics)):
            assert metrics
            assert all(row[f"{prefix}{metric.test_set}/{metric.name}"] == metric.value for metric in metrics)
        assert (row["record_id"], row["trainable_count"]) == (record.id, record.adapter.trainable_count)
        assert (row["base_parameter_count"], row["wall_seconds"]) == (record.base.parameter_count, record.cost.wall_seconds)
        with (folder / "history.csv").open() as stream:
            history = list(csv.DictReader(stream))
        best = min(history, key=lambda line: float(line["valid/loss"]))
        assert (row["valid_loss"], row["best_step"], row["steps"]) == (float(best["valid/loss"]), float(best["step"]), 4)
    assert len({row["valid_loss"] for row in rows}) == 4


def test_the_sparsity_of_the_table_is_that_of_the_adapter_file(thresholds, words, no_process):
    rows = run_sweep("lambda_tau", words, quietly, folder=str(thresholds), **SPARSE).rows
    for row in (rows[0], rows[-1]):
        folder, config = RunFolder.existing(thresholds / "runs" / str(row["run"]))
        report = load_finished(folder, config, "float32", "cpu").adapters.report()
        assert 0 < report["sparsity_layerwise"] < 1
        assert {name: row[name] for name in report} == pytest.approx(report, rel=1e-6)


def test_the_figure_shows_means_and_spreads_of_the_table(ranks, words, no_process, drawn):
    rows = run_sweep("rank", words, quietly, folder=str(ranks), show=["loss", "forces", "parameters"], **RANKS).rows
    panels = {axes.get_ylabel(): axes for axes in drawn[0].axes}
    assert list(panels) == ["lowest validation loss", "valid: force MAE (meV/Å)", "trained parameters (% of the base's)"]
    assert {axes.get_xlabel() for axes in panels.values()} == {"rank"}
    losses = [[row["valid_loss"] for row in rows if row["value"] == value] for value in (1, 2)]
    loss = panels["lowest validation loss"]
    (line,) = loss.lines
    assert list(line.get_xdata()) == [1, 2]
    assert list(line.get_ydata()) == pytest.approx([statistics.mean(pair) for pair in losses])
    top = max(statistics.mean(pair) + statistics.stdev(pair) for pair in losses)
    assert loss.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(top)
    assert (loss.get_xscale(), [tick.get_text() for tick in loss.get_xticklabels()]) == ("log", ["1", "2"])
    share = [100 * row["trainable_count"] / row["base_parameter_count"] for row in rows if row["seed"] == 0]
    assert list(panels["trained parameters (% of the base's)"].lines[0].get_ydata()) == pytest.approx(share)
    (legend,) = drawn[0].legends
    assert (legend.get_texts()[0].get_text(), legend.get_title().get_text()) == ("elora", "mean ± standard deviation of 2 seeds")


def test_errors_and_sparsity_are_drawn_for_each_setting(thresholds, words, no_process, drawn):
    rows = run_sweep("lambda_tau", words, quietly, folder=str(thresholds), **SPARSE).rows
    energy, forces, sparsity, against = drawn[0].axes
    assert energy.get_ylabel() == "valid: energy MAE per atom (meV/atom)"
    assert forces.get_ylabel() == against.get_ylabel() == "valid: force MAE (meV/Å)"
    assert sparsity.get_ylabel() == against.get_xlabel() == "layer-wise sparsity (%)"
    assert energy.get_xlabel() == r"threshold decay $\lambda_\tau$"
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == SPARSE["methods"]
    first = [row for row in rows if row["method"] == SPARSE["methods"][0]]
    assert list(against.lines[0].get_xdata()) == pytest.approx([100 * row["sparsity_layerwise"] for row in first])
    assert list(against.lines[0].get_ydata()) == [row["valid/force_mae_mev_per_angstrom"] for row in first]
    assert len({line.get_color() for line in energy.lines}) == len({line.get_marker() for line in energy.lines}) == 2


def test_convergence_is_drawn_from_the_validations_of_every_seed(curves, words, no_process, drawn):
    run_sweep("convergence", words, quietly, folder=str(curves), show=["loss", "forces"], **CURVES)
    loss, forces = drawn[0].axes
    assert (loss.get_xlabel(), loss.get_ylabel(), forces.get_ylabel()) == (
        "optimizer step",
        "validation loss",
        "validation: force MAE (meV/Å)",
    )
    full, elora = loss.lines
    assert list(full.get_xdata()) == list(elora.get_xdata()) == [1, 2, 3, 4]
    histories = [read_rows(curves / "runs" / name / "history.csv") for name in ("full-s0", "full-s1")]
    assert list(full.get_ydata()) == pytest.approx(
        [statistics.mean(row["valid/loss"] for row in pair) for pair in zip(*histories, strict=True)]
    )
    assert len(loss.collections) == 2


def test_a_figure_is_drawn_again_from_the_tables_alone(curves, ranks, words, no_process, zoo, tmp_path):
    for kind, folder, options, tables in (("convergence", curves, CURVES, 2), ("rank", ranks, RANKS, 1)):
        run_sweep(kind, words, quietly, folder=str(folder), **options)
        alone = tmp_path / kind
        alone.mkdir()
        for table in folder.glob("*.csv"):
            (alone / table.name).write_bytes(table.read_bytes())
        finished = zoo("sweep", kind, "draw=true", f"sweep.folder={alone}")
        assert finished.code == 0, finished.err
        assert (alone / "sweep.png").read_bytes().startswith(b"\x89PNG")
        assert len(list(alone.iterdir())) == tables + 1
    assert not lacks(cli_refusal(zoo("sweep", "rank", "draw=true", f"sweep.folder={tmp_path / 'convergence'}")), "kind: convergence")
    assert not lacks(cli_refusal(zoo("sweep", "rank", "draw=true", f"sweep.folder={tmp_path / 'none'}")), "sweep.csv: cannot be read")
    assert not lacks(cli_refusal(zoo("sweep", "rank", "draw=true")), "needs sweep.folder=FOLDER")


def test_what_the_runs_do_not_have_is_not_drawn_but_refused(ranks, words, no_process):
    options = {"folder": str(ranks), **RANKS}
    assert not lacks(refusal_of(run_sweep, "rank", words, quietly, show=["sparsity"], **options), "elora", "'sparsity'", "leave it out")
    message = refusal_of(run_sweep, "rank", words, quietly, show=["forces"], test_sets=["hot"], **options)
    assert not lacks(message, "no 'hot'", "valid")


def test_zero_has_its_place_on_an_axis_of_decays(drawn, tmp_path):
    from zoo.sweeps.figures import draw_rows

    rows = [
        {"kind": "weight_decay", "run": "x", "method": "full", "value": value, "seed": 0, "valid_loss": 1 + value}
        for value in (0, 1e-8, 0.01)
    ]
    rows = [row | {"test/force_mae_mev_per_angstrom": 1.0} for row in rows]
    draw_rows(rows, make_request("weight_decay", (), {}), tmp_path / "sweep.png")
    (axes,) = drawn[0].axes
    assert (axes.get_xscale(), [tick.get_text() for tick in axes.get_xticklabels()]) == ("symlog", ["0", "1e-08", "0.01"])
    places = axes.transData.transform([(value, 1.0) for value in (0, 1e-8, 0.01)])[:, 0]
    assert all(after - before > 20 for before, after in pairwise(places))
