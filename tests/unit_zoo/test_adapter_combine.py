"""``zoo adapter combine``: the file it writes is the weighted sum of those it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.build import molecule

import zoo as package
from adapters.method import create_method
from adapters.state import read_adapter
from tests.refusals import cli_refusal
from zoo.backbones import load_family
from zoo.potential import Potential

WEIGHTS = {"one": 0.75, "other": -0.5}


@pytest.fixture(scope="module")
def files(toy_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of the toy with reference energies of their own, in folders as runs have them."""
    potential, folder = package.load(toy_checkpoint), tmp_path_factory.mktemp("runs")
    for seed, (name, rank) in enumerate((("one", 2), ("other", 1))):
        potential.adapters.add(name, create_method({"name": "elora", "rank": rank}))
        potential.adapters.randomise(name, seed)
        potential.adapters.activate([name])
        potential.set_reference_shifts({1: 0.25 * (seed + 1)})
        (folder / name).mkdir()
        potential.save_adapter(name, folder / name / "adapter.safetensors")
    return {name: folder / name / "adapter.safetensors" for name in WEIGHTS}


@pytest.fixture(scope="module")
def both(files: dict[str, Path], toy_checkpoint: Path) -> Potential:
    """The potential with the two attached."""
    potential = package.load(toy_checkpoint)
    for name, path in files.items():
        potential.load_adapter(path, name)
    return potential


def scaled_energy(potential: Potential, weights: dict[str, float]) -> float:
    for name, weight in weights.items():
        potential.adapters.scale(name, weight)
    potential.adapters.activate(list(weights))
    return float(potential.predict([molecule("H2O")])[0].energy)


def energy_with(checkpoint: Path, adapter: Path) -> float:
    return float(package.load(checkpoint, adapter=adapter).predict([molecule("H2O")])[0].energy)


def test_the_combined_file_predicts_what_the_scaled_adapters_do_together(zoo, files, both, toy_checkpoint, tmp_path):
    words = [*map(str, files.values()), "weights=0.75,-0.5", "into=mixed.safetensors", f"backbone={toy_checkpoint}"]
    done = zoo("adapter", "combine", *words)
    assert done.code == 0, done.err
    assert "0.75 x" in done.out
    assert "mixed.safetensors: elora of rank 3" in done.out
    wanted = scaled_energy(both, WEIGHTS)
    assert energy_with(toy_checkpoint, tmp_path / "mixed.safetensors") == pytest.approx(wanted, rel=1e-12)
    assert abs(wanted - scaled_energy(both, {})) > 1e-3
    manifest, _ = read_adapter(tmp_path / "mixed.safetensors")
    assert manifest.training == {"combined": WEIGHTS, "combination": "linear"}
    assert manifest.reference_energies == {"H": 0.75 * 0.25 - 0.5 * 0.5}


def test_without_weights_it_is_the_mean_and_svd_keeps_the_rank_and_says_what_it_costs(zoo, files, both, toy_checkpoint, tmp_path):
    base = f"backbone={toy_checkpoint}"
    assert zoo("adapter", "combine", *map(str, files.values()), "into=mean.safetensors", base).code == 0
    wanted = scaled_energy(both, {"one": 0.5, "other": 0.5})
    assert energy_with(toy_checkpoint, tmp_path / "mean.safetensors") == pytest.approx(wanted, rel=1e-12)
    lost = {}
    for rank in (1, 3):
        done = zoo("adapter", "combine", *map(str, files.values()), f"into=r{rank}.safetensors", "method=svd", f"rank={rank}", base)
        assert f"r{rank}.safetensors: elora of rank {rank}" in done.out
        lost[rank] = float(done.out.split("off from the sum by ")[1].split("%")[0])
    assert lost[1] > 10
    assert lost[3] == 0  # the ranks of the two together
    assert energy_with(toy_checkpoint, tmp_path / "r3.safetensors") == pytest.approx(wanted, rel=1e-9)


def test_one_file_may_be_scaled_and_files_of_one_name_are_told_apart(zoo, files, both, toy_checkpoint, tmp_path):
    base = f"backbone={toy_checkpoint}"
    one = str(files["one"])
    assert zoo("adapter", "combine", one, "weights=[2]", "into=twice.safetensors", base).code == 0
    assert zoo("adapter", "combine", one, one, "weights=1,1", "into=double.safetensors", base).code == 0
    wanted = scaled_energy(both, {"one": 2.0})
    for name in ("twice", "double"):
        assert energy_with(toy_checkpoint, tmp_path / f"{name}.safetensors") == pytest.approx(wanted, rel=1e-12)
    assert read_adapter(tmp_path / "double.safetensors")[0].training["combined"] == {"one": 1.0, "one-2": 1.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes adapter files and into=FILE, found none"),
        (["A", "--blocks", "into=x.safetensors"], "unknown --blocks"),
        (["A", "B"], "wanted the file to write"),
        (["A", "B", "into=x.pt"], "into=x.pt: wanted the file to write"),
        (["A", "B", "into=x.safetensors", "weight=1,2"], "no key 'weight'; did you mean 'weights'"),
        (["A", "B", "into=x.safetensors", "weights=1"], "wanted 2 numbers"),
        (["A", "B", "into=x.safetensors", "weights=1,two"], "wanted 2 numbers"),
        (["A", "B", "into=x.safetensors", "weights=1,nan"], "wanted 2 numbers"),
        (["A", "B", "into=x.safetensors", "method=svd"], "belong together"),
        (["A", "B", "into=x.safetensors", "rank=4"], "belong together"),
        (["A", "B", "into=x.safetensors", "method=svd", "rank=0"], "wanted a whole number from 1"),
        (["A", "B", "into=x.safetensors", "method=svdd", "rank=1"], "did you mean 'svd'"),
        (["absent.safetensors", "into=x.safetensors"], "cannot be read"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(zoo, files, tmp_path, words, message):
    paths = {"A": str(files["one"]), "B": str(files["other"])}
    assert message in cli_refusal(zoo("adapter", "combine", *(paths.get(word, word) for word in words)))
    assert not list(tmp_path.glob("x.*"))


def test_adapters_of_several_bases_or_of_a_base_that_is_not_here_are_refused(zoo, files, toy_checkpoint, tmp_path):
    elsewhere = Potential(load_family("sevennet").toy(1))
    elsewhere.adapters.add("a", "readout")
    foreign = elsewhere.save_adapter("a", tmp_path / "foreign.safetensors")
    words = ["adapter", "combine", str(files["one"]), str(foreign), "into=x.safetensors"]
    message = cli_refusal(zoo(*words, f"backbone={toy_checkpoint}"))
    assert message.startswith(f"{foreign}: ")
    assert elsewhere.base_sha256 in message
    assert "pass backbone=CARD|FILE" in cli_refusal(zoo(*words))
    gates = package.load(toy_checkpoint)
    gates.adapters.add("a", "mmea")
    gated = gates.save_adapter("a", tmp_path / "gates.safetensors")
    assert "mmea" in cli_refusal(zoo("adapter", "combine", str(gated), "into=x.safetensors", f"backbone={toy_checkpoint}"))
    assert not (tmp_path / "x.safetensors").exists()
