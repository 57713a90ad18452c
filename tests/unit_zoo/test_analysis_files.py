"""``zoo analyse``: the files it leaves, in what order and form, and what it refuses."""

from __future__ import annotations

import csv
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adapters.method import create_method
from tests.direct_family import DirectToy, Settings
from tests.families import needs
from tests.unit_zoo.conftest import Finished, Zoo
from zoo.analysis import Analysis, analyse
from zoo.backbones import load_family
from zoo.potential import Potential

TABLES = ("coverage", "r2_species", "r2_paths", "stable_rank", "singular_values", "irreps", "sparsity")
PNG = b"\x89PNG\r\n\x1a\n"


def analysed(family: str, spec: dict[str, object], random: bool = True) -> Analysis:
    potential = Potential(load_family(family).toy(0))
    potential.adapters.add("one", create_method(spec))
    if random:
        potential.adapters.randomise("one", seed=3, relative=0.2)
    return analyse(potential)


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def assert_holds(path: Path, rows: Sequence[Any]) -> None:
    """Every value of every row, floats to the last bit."""
    found = cells(path)
    assert len(found) == len(rows) > 0
    for line, row in zip(found, rows, strict=True):
        expected = dataclasses.asdict(row)
        assert list(line) == list(expected)
        for column, value in expected.items():
            text = line[column]
            assert text == ("" if value is None else str(value)), column
            if isinstance(value, float):
                assert float(text) == value


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def run(zoo: Zoo, small_run: list[str]) -> str:
    """A run of seconds in ``runs/a``."""
    done = zoo("train", *small_run, "adapter=elora", "adapter.rank=2", "run.name=a")
    assert done.code == 0, done.err
    return "runs/a"


def refused(done: Finished) -> str:
    """The one line of a mistake; nothing on standard output."""
    assert done.code == 1, done
    assert done.err.count("\n") == 1, done.err
    assert done.out == ""
    return done.err


@pytest.mark.parametrize("family", ["sevennet", "equiformer_v2", "uma"])
def test_every_table_has_its_csv_and_its_figure(family: str, tmp_path: Path) -> None:
    needs(family)
    analysis = analysed(family, {"name": "sparse", "setting": "every"} if family == "equiformer_v2" else {"name": "elora", "rank": 2})
    written = analysis.write(tmp_path / "new" / "folder")
    assert [path.name for path in written] == [f"{name}.{suffix}" for name in TABLES for suffix in ("csv", "png")]
    assert names(tmp_path / "new" / "folder") == {path.name for path in written}
    for name in TABLES:
        assert_holds(tmp_path / "new" / "folder" / f"{name}.csv", getattr(analysis, name))
        assert (tmp_path / "new" / "folder" / f"{name}.png").read_bytes().startswith(PNG)


def test_an_analysis_has_the_same_bytes_each_time_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    spec = {"name": "elora", "rank": 2}
    first, second = tmp_path / "first", tmp_path / "second"
    analysed("sevennet", spec).write(first)
    analysed("sevennet", {"name": "full"}).write(second)
    analysed("sevennet", spec).write(second)
    assert names(first) == names(second)
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names(first))


def test_a_table_that_is_no_more_leaves_no_files(tmp_path: Path) -> None:
    analysed("sevennet", {"name": "elora", "rank": 2}).write(tmp_path)
    (tmp_path / "my notes.txt").write_text("kept")
    analysed("sevennet", {"name": "mmea"}).write(tmp_path)
    assert names(tmp_path) == {"coverage.csv", "coverage.png", "my notes.txt"}


def test_an_untrained_adapter_and_one_without_matrices_are_drawn_too(tmp_path: Path) -> None:
    fresh = analysed("sevennet", {"name": "elora", "rank": 2}, random=False)
    assert {row.stable_rank for row in fresh.stable_rank} == {0.0}
    assert fresh.notes == ("every delta is zero: there are no singular values",)
    fresh.write(tmp_path / "fresh")
    assert "singular_values.csv" not in names(tmp_path / "fresh")
    potential = Potential(DirectToy(Settings()))
    potential.adapters.add("one", "bias")
    potential.adapters.randomise("one", seed=1)
    biases = analyse(potential)
    assert biases.notes[-1] == "bias adapts no matrix: there are no ranks and singular values"
    biases.write(tmp_path / "biases")
    assert names(tmp_path / "biases") == {
        f"{name}.{end}" for name in ("coverage", "r2_paths", "irreps", "sparsity") for end in ("csv", "png")
    }


def test_a_run_is_analysed_into_its_folder(zoo: Zoo, run: str) -> None:
    done = zoo("analyse", run)
    assert done.code == 0, done.err
    assert f"14 files in {run}/analysis/" in done.out
    assert names(Path(run, "analysis")) == {f"{name}.{end}" for name in TABLES for end in ("csv", "png")}
    trained = json.loads(Path(run, "record.json").read_text())["adapter"]
    rows = cells(Path(run, "analysis", "coverage.csv"))
    assert sum(int(row["trained"]) for row in rows) == trained["trainable_count"]
    adaptable = sum(int(row["weights"]) for row in rows if row["status"] != "not adaptable")
    assert sum(int(row["weights"]) for row in rows if row["status"] == "adapted") / adaptable == pytest.approx(trained["coverage_share"])
    # the embedded set holds copper and gold
    assert {row["species"] for row in cells(Path(run, "analysis", "r2_species.csv")) if row["has_reference"] == "True"} == {"Cu", "Au"}


def test_an_adapter_file_is_analysed_with_its_base(zoo: Zoo, run: str, toy_checkpoint: Path) -> None:
    assert zoo("analyse", run, "out=whole").code == 0
    file = f"{run}/adapter.safetensors"
    assert zoo("analyse", file, f"backbone={toy_checkpoint}").code == 0
    assert zoo("analyse", f"adapter={file}", f"backbone={toy_checkpoint}", "out=named").code == 0
    for folder in (f"{run}/adapter-analysis", "named"):
        for name in TABLES:
            assert Path(folder, f"{name}.csv").read_bytes() == Path("whole", f"{name}.csv").read_bytes(), (folder, name)


def test_bad_input_is_refused_in_one_line(zoo: Zoo, run: str, toy_checkpoint: Path, tmp_path: Path) -> None:
    file = f"{run}/adapter.safetensors"
    Path("text").write_text("no adapter")
    other = tmp_path / "other.pth"
    load_family("sevennet").toy(1).write_upstream_checkpoint(other, {})
    cases = {
        (): "takes one RUN or one adapter FILE, found: nothing",
        (run, file): "takes one RUN or one adapter FILE",
        (run, "adapter=elora"): "takes one RUN or one adapter FILE",
        ("absent",): "absent: neither a run's folder nor an adapter file",
        (".",): "not a run folder",
        ("text",): "text: damaged adapter file",
        (file,): "is no card; pass its checkpoint: backbone=FILE",
        (file, f"backbone={other}"): "adapter made for base",
        (run, f"backbone={toy_checkpoint}"): "brings its own base",
        (run, "outt=x"): "unknown key 'outt'",
        (run, "out=text"): "text: is a file; pass another out=FOLDER",
    }
    for words, message in cases.items():
        assert message in refused(zoo("analyse", *words)), words
    assert "analysis" not in names(Path(run))


def test_a_run_from_random_weights_has_no_base_to_compare_with(zoo: Zoo, small_run: list[str]) -> None:
    done = zoo("train", *small_run, "strategy=scratch", "adapter=full", "run.name=s")
    assert done.code == 0, done.err
    assert "trained from random weights" in refused(zoo("analyse", "runs/s"))


def test_importing_the_analysis_does_not_import_matplotlib() -> None:
    code = "import sys, zoo.analysis, zoo.analysis.command; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
