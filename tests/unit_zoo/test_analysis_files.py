"""``zoo analyse``: the files it leaves, in what order and form, and what it refuses."""

from __future__ import annotations

import ast
import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import zoo.analysis
import zoo.plots
from adapters.method import create_method
from tests.direct_family import DirectToy, Settings
from tests.families import needs
from tests.unit_zoo.conftest import Finished, Zoo
from zoo.analysis import Analysis, analyse
from zoo.analysis.command import keys_of_words
from zoo.backbones import load_family
from zoo.compose import compose
from zoo.loading import load
from zoo.potential import Potential
from zoo.training.config import parse_config

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


@pytest.fixture(scope="module")
def run(toy_checkpoint: Path, small_run: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of seconds."""
    from zoo.training.run import fine_tune

    folder = tmp_path_factory.mktemp("analysed") / "runs" / "a"
    words = [*small_run, "training.steps=3", "adapter=elora", "adapter.rank=2", f"run.folder={folder}"]
    fine_tune(parse_config(compose("train", words)), say=lambda line: None)
    return folder


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
    assert [path.name for path in written] == [f"{name}.{suffix}" for suffix in ("csv", "png") for name in TABLES]
    assert names(tmp_path / "new" / "folder") == {path.name for path in written}
    for name in TABLES:
        assert_holds(tmp_path / "new" / "folder" / f"{name}.csv", getattr(analysis, name))
        assert (tmp_path / "new" / "folder" / f"{name}.png").read_bytes().startswith(PNG)


def test_an_analysis_has_the_same_bytes_each_time_and_replaces_an_earlier_one(tmp_path: Path) -> None:
    spec = {"name": "elora", "rank": 2}
    first, second = tmp_path / "first", tmp_path / "second"
    analysed("sevennet", spec).write_tables(first)
    analysed("sevennet", {"name": "full"}).write_tables(second)
    assert (first / "irreps.csv").read_bytes() != (second / "irreps.csv").read_bytes()
    analysed("sevennet", spec).write_tables(second)
    assert names(first) == names(second)
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names(first))


def test_a_table_that_is_no_more_leaves_no_files(tmp_path: Path) -> None:
    analysed("sevennet", {"name": "elora", "rank": 2}).write_tables(tmp_path)
    (tmp_path / "sparsity.png").write_bytes(PNG)
    (tmp_path / "my notes.txt").write_text("kept")
    analysed("sevennet", {"name": "mmea"}).write(tmp_path)
    assert names(tmp_path) == {"coverage.csv", "coverage.png", "my notes.txt"}


def test_an_untrained_adapter_and_one_without_matrices_are_drawn_too(tmp_path: Path) -> None:
    fresh = analysed("sevennet", {"name": "elora", "rank": 2}, random=False)
    assert {row.stable_rank for row in fresh.stable_rank} == {0.0}
    assert fresh.notes == ("every delta is zero: there are no singular values",)
    fresh.write(tmp_path / "fresh")  # colours and axes without a number to go by
    assert "singular_values.csv" not in names(tmp_path / "fresh")
    potential = Potential(DirectToy(Settings()))
    potential.adapters.add("one", "bias")
    potential.adapters.randomise("one", seed=1)
    biases = analyse(potential)
    assert biases.notes[-1] == "bias adapts no matrix: there are no ranks and singular values"
    biases.write(tmp_path / "biases")
    left = ("coverage", "r2_paths", "irreps", "sparsity")
    assert names(tmp_path / "biases") == {f"{name}.{end}" for name in left for end in ("csv", "png")}


def test_a_run_and_its_adapter_file_are_analysed_alike(zoo: Zoo, run: Path, toy_checkpoint: Path) -> None:
    done = zoo("analyse", str(run))
    assert done.code == 0, done.err
    assert f"14 files in {run}/analysis/" in done.out
    assert names(run / "analysis") == {f"{name}.{end}" for name in TABLES for end in ("csv", "png")}
    trained = json.loads((run / "record.json").read_text())["adapter"]
    rows = cells(run / "analysis" / "coverage.csv")
    assert sum(int(row["trained"]) for row in rows) == trained["trainable_count"]
    adaptable = sum(int(row["weights"]) for row in rows if row["status"] != "not adaptable")
    assert sum(int(row["weights"]) for row in rows if row["status"] == "adapted") / adaptable == pytest.approx(trained["coverage_share"])
    # the embedded set holds copper and gold
    assert {row["species"] for row in cells(run / "analysis" / "r2_species.csv") if row["has_reference"] == "True"} == {"Cu", "Au"}
    # the run was in float32, the base's file is in float64
    done = zoo("analyse", f"{run}/adapter.safetensors", f"backbone={toy_checkpoint}", "backbone.dtype=float32")
    assert done.code == 0, done.err
    for name in TABLES:
        assert (run / "adapter-analysis" / f"{name}.csv").read_bytes() == (run / "analysis" / f"{name}.csv").read_bytes(), name


def test_the_base_of_a_file_is_the_card_that_it_names(tmp_path: Path) -> None:
    potential = load("sevennet-0", adapter={"name": "elora", "rank": 1, "roles": ["readout"]})
    file = tmp_path / "my adapter.safetensors"
    potential.save_adapter("elora", file)
    quoted = f"adapter='{file}'"
    assert keys_of_words([str(file)]) == [quoted, "backbone=sevennet-0"]
    assert keys_of_words([str(file), "backbone=a.pth", "out=x"]) == [quoted, "backbone=a.pth", "out=x"]
    assert keys_of_words([f"adapter={file}", "backbone.name=a.pth"]) == [quoted, "backbone.name=a.pth"]
    assert keys_of_words(["hf://owner/name", "backbone=a.pth"]) == ["adapter=hf://owner/name", "backbone=a.pth"]
    assert keys_of_words([str(tmp_path)]) == [f"run={tmp_path}"]
    assert keys_of_words([f"run={tmp_path}", "out=x"]) == [f"run={tmp_path}", "out=x"]


def test_bad_input_is_refused_in_one_line(zoo: Zoo, run: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
    file = f"{run}/adapter.safetensors"
    Path("text").write_text("no adapter")
    random_run = tmp_path / "random"
    random_run.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    (random_run / "config.yaml").write_text(yaml.safe_dump({**config, "strategy": {**config["strategy"], "weights": "random"}}))
    (random_run / "adapter.safetensors").write_bytes(b"")
    other = tmp_path / "other.pth"
    load_family("sevennet").toy(1).write_upstream_checkpoint(other, {})
    before = names(run)
    cases = {
        (): "takes one RUN or one adapter FILE, found: nothing",
        (str(run), file): "takes one RUN or one adapter FILE",
        (str(run), "adapter=elora"): "takes one RUN or one adapter FILE",
        ("absent",): "absent: neither a run's folder nor an adapter file",
        (".",): "not a run folder",
        ("text",): "text: damaged adapter file",
        (file,): "is no card; pass its checkpoint: backbone=FILE",
        (file, f"backbone={other}"): "adapter made for base",
        (str(run), f"backbone={toy_checkpoint}"): "brings its own base",
        (str(run), "outt=x"): "unknown key 'outt'",
        (str(run), "out=text"): "text: is a file; pass another out=FOLDER",
        (str(run), "out=text/deeper"): "text/deeper",
        (str(random_run),): "trained from random weights, so that there is no base to compare with",
        ("hf://owner/name", "backbone=sevennet-0"): "an address has no folder for the results; pass out=FOLDER",
    }
    for words, message in cases.items():
        assert message in refused(zoo("analyse", *words)), words
    assert names(run) == before


DRAWING = sorted([*Path(zoo.analysis.__file__).parent.glob("*.py"), Path(zoo.plots.__file__)])


@pytest.mark.parametrize("path", DRAWING, ids=lambda path: path.name)
def test_matplotlib_is_imported_only_when_something_is_drawn(path: Path) -> None:
    imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    assert not [ast.unparse(node) for node in imports if "matplotlib" in ast.unparse(node)]
