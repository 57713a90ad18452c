"""``zoo export``: what 20 steps of training made of a model, upstream's own calculators compute in a process without equizoo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from tests.families import installed
from tests.unit_zoo.round_trip import (
    TOLERANCE,
    assert_agree,
    difference,
    exported,
    line_printed,
    numbers,
    numbers_of_run,
    upstream,
    write_toy,
)
from zoo.backbones import family_names, load_family
from zoo.errors import ZooError
from zoo.export import export, keys_of_words
from zoo.potential import Potential


@pytest.mark.parametrize("family", installed("mace", "sevennet", "nequip", "allegro", "uma"))
def test_a_trained_and_exported_model_gives_upstream_the_runs_numbers(family, trained):
    folders = {dtype: trained(family, dtype) for dtype in TOLERANCE}
    found = upstream(family, {dtype: exported(folder) for dtype, folder in folders.items()})
    for dtype, folder in folders.items():
        assert found[dtype]["stress"].shape == (2, 6)
        assert_agree(found[dtype], folder, TOLERANCE[dtype], family)


@pytest.mark.parametrize("family", installed(*family_names()))
def test_zoo_load_reads_the_exported_file_with_the_runs_numbers(family, trained):
    folder = trained(family, "float32")
    loaded = zoo.load(exported(folder))
    assert loaded.dtype == torch.float32
    measured = difference(numbers(loaded), numbers_of_run(folder))
    assert max(measured.values()) <= 1e-6, measured


@pytest.mark.parametrize("family", installed("mace", "sevennet", "nequip", "allegro", "equiformer_v2", "uma"))
def test_a_float64_run_is_exported_and_read_in_float64(family, trained):
    folder = trained(family, "float64")
    loaded = zoo.load(exported(folder))
    assert loaded.dtype == torch.float64
    assert max(difference(numbers(loaded), numbers_of_run(folder)).values()) <= 1e-12


WORDS = [
    (["runs/x"], ["run=runs/x"]),
    (["runs/x", "--format", "native", "--output", "a.pth"], ["run=runs/x", "format=native", "output=a.pth"]),
    (["--format=native", "run=runs/x", "output=a.pth"], ["format=native", "run=runs/x", "output=a.pth"]),
    (["runs/a (1)", "--output", "T=300 K.pth"], ["run='runs/a (1)'", "output='T=300 K.pth'"]),
    (["backbone=sevennet-0", "runs/x"], ["backbone=sevennet-0", "runs/x"]),  # refused later: arguments are key=value
]


@pytest.mark.parametrize(("words", "keys"), WORDS, ids=lambda value: " ".join(value))
def test_words_and_options_become_keys(words, keys):
    assert keys_of_words(words) == keys


TAKEN_BY = {
    "mace": ("exported.model", ['MACECalculator(model_paths="{path}")', "mace_create_lammps_model {path}"]),
    "sevennet": ("exported.pth", ['SevenNetCalculator("{path}")', "sevenn get_model {path}"]),
    "nequip": (
        "exported.ckpt",
        ["nequip-compile {path} exported.nequip.pt2", '.from_compiled_model("exported.nequip.pt2")'],
    ),
    "nequix": ("exported.nqx", ['NequixCalculator(model_path="{path}")']),
}


@pytest.mark.parametrize("family", installed(*TAKEN_BY))
def test_the_line_printed_says_where_the_file_is_and_what_takes_it(family, trained):
    folder = trained(family, "float32")
    line = line_printed(folder).read_text()
    name, wanted = TAKEN_BY[family]
    assert line.count("\n") == 1
    assert f"with elora, in float32 -> {folder}/{name}, for " in line
    assert [text for text in wanted if text.format(path=folder / name) not in line] == []


@pytest.mark.parametrize(("family", "option"), [("mace", 'head="pbe d3"'), ("sevennet", 'modal="pbe d3"')])
def test_the_head_in_use_is_part_of_what_is_printed(family, option):
    text = load_family(family).formats["native"].loaded_by(Path("my model"), "pbe d3")
    assert f'"my model", {option})' in text
    assert "'my model' -" in text  # the shell's quotes
    assert text.endswith(" 'pbe d3'")


def test_a_failed_export_leaves_what_was_there(zoo, trained, tmp_path, monkeypatch):
    folder = trained("sevennet", "float32")
    (tmp_path / "out.pth").write_bytes(b"an older file")

    def half(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", half)
    finished = zoo("export", str(folder), "output=out.pth")
    assert (finished.code, finished.err.count("\n")) == (1, 1)
    assert "out.pth: cannot be written (No space left on device)" in finished.err
    assert (tmp_path / "out.pth").read_bytes() == b"an older file"
    assert [path.name for path in tmp_path.iterdir()] == ["out.pth"]


def test_a_package_that_cannot_be_made_leaves_nothing_and_is_one_line(tmp_path, monkeypatch):
    potential = Potential(load_family("nequip").toy(0))
    monkeypatch.setattr("zoo.backbones.nequip_package.TOOL", "no_such_tool")
    with pytest.raises(
        ZooError, match=r"toy.nequip.zip: nequip-package cannot make it \(.*no_such_tool.*\); export format=native"
    ) as caught:
        export(potential, tmp_path / "toy.nequip.zip", "package")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_the_base_itself_is_not_overwritten(zoo, tmp_path):
    base = write_toy("sevennet", tmp_path)
    content = base.read_bytes()
    finished = zoo("export", f"backbone={base}", "adapter=elora", f"output={base}")
    assert (finished.code, finished.err.count("\n")) == (1, 1)
    assert "is the base itself" in finished.err
    assert base.read_bytes() == content
    assert zoo("export", f"backbone={base}", "adapter=elora", "output=other.pth").code == 0  # the positive control


def test_a_base_without_a_run_is_exported_in_the_precision_of_its_file(tmp_path, capsys):
    from zoo.cli import main

    path = tmp_path / "toy.model"
    load_family("mace").toy(0).write_upstream_checkpoint(path, {})
    main(["export", f"backbone={path}", f"output={tmp_path / 'again.model'}"])
    assert "with no adapter, in float64 -> " in capsys.readouterr().out
    assert zoo.load(tmp_path / "again.model").dtype == torch.float64
