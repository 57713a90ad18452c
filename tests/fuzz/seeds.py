"""One small valid input for every reader of the project, and how each is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import yaml

from adapters.method import create_method
from tests.documented_files import write_documented_files
from zoo.backbones import is_installed, load_family

Read = Callable[[Path], object]
CHECKPOINTS = ("sevennet", "mace", "nequip", "allegro", "nequix", "equiformer_v2", "uma")


@dataclass(frozen=True)
class Seed:
    """A valid input.

    Attributes:
        name: for people.
        path: the file or folder that is handed to ``read``.
        target: the file that is spoilt; ``path`` itself, or one within it.
        read: what the project does with it.
    """

    name: str
    path: Path
    target: Path
    read: Read

    def copied(self, folder: Path) -> tuple[Path, Path]:
        """(path, target) of a copy in ``folder``."""
        path = folder / self.path.name
        if self.path.is_dir():
            shutil.copytree(self.path, path)
        else:
            shutil.copy2(self.path, path)
        return path, path / self.target.relative_to(self.path) if self.target != self.path else path


def data_seeds(folder: Path) -> list[Seed]:
    """Every data format: the files that the documentation reads, and the table of linear references."""
    write_documented_files(folder)
    (folder / "single.extxyz").write_text((folder / "my.extxyz").read_text())
    system = folder / "systems" / "a"
    raw = sorted((folder / "raw").iterdir())
    # what targets a folder's file, by the folder
    within = {system: [system / "type.raw", *sorted((system / "set.000").glob("*.npy"))], folder / "raw": raw}
    within[folder / "processed"] = [folder / "processed" / "data.pt"]
    seeds = [Seed(f"data {path.name}/{target.name}", path, target, read_data) for path, targets in within.items() for target in targets]
    plain = ("my.extxyz", "my.npz", "my.json", "my.db", "my.aselmdb", "my.lmdb", "OUTCAR", "vasprun.xml", "calculations.zip")
    seeds += [Seed(f"data {name}", folder / name, folder / name, read_data) for name in plain]
    np.savez(folder / "linear.npz", coeff=np.linspace(-1.0, 0.0, 100))
    return [*seeds, Seed("linear references", folder / "linear.npz", folder / "linear.npz", read_linear)]


def small_seeds(folder: Path) -> list[Seed]:
    """An adapter file, cards of a model and of a data set, a checksum list, a run's configuration, a record."""
    from zoo.compose import compose
    from zoo.potential import Potential

    potential = Potential(load_family("sevennet").toy(0))
    potential.adapters.add("elora", create_method({"name": "elora", "rank": 1}))
    adapter = potential.save_adapter("elora", folder / "adapter.safetensors")
    cards, sets, run = folder / "cards", folder / "sets", folder / "run"
    for made in (cards, sets, run):
        made.mkdir(parents=True)
    package = Path(load_family.__code__.co_filename).parents[1]
    card = yaml.safe_load((package / "cards" / "sevennet-0.yaml").read_text()) | {"name": "fuzzed"}
    (cards / "card.yaml").write_text(yaml.safe_dump(card))
    data = yaml.safe_load((package / "data" / "sets" / "acac.yaml").read_text()) | {"name": "fuzzed"}
    (sets / "set.yaml").write_text(yaml.safe_dump(data))
    shutil.copy2(adapter, run)
    (run / "config.yaml").write_text(yaml.safe_dump(compose("train", ["run.folder=x"])))
    found = [Seed("adapter", adapter, adapter, read_adapter_file)]
    found += [
        Seed("model card", cards, cards / "card.yaml", read_model_card),
        Seed("data card", sets, sets / "set.yaml", read_data_card),
    ]
    return [*found, Seed("run configuration", run, run / "config.yaml", read_run)]


def checkpoint_seeds(folder: Path, families: tuple[str, ...] = CHECKPOINTS) -> list[Seed]:
    """A toy of each installed family, in its own package's file."""
    seeds = []
    for family in filter(is_installed, families):
        found = load_family(family)
        path = folder / f"toy-{family}{found.formats['native'].suffix}"
        found.toy(0).write_upstream_checkpoint(path, {})
        seeds.append(Seed(f"checkpoint {family}", path, path, read_checkpoint))
        if family == "mace":
            from zoo.backbones.mace_conversion import convert

            converted = convert(path, folder / "toy.mace.safetensors", False)
            seeds.append(Seed("checkpoint mace converted", converted, converted, read_checkpoint))
    return seeds


def read_data(path: Path) -> object:
    """Every frame, with the unit that PyG's files do not state."""
    from zoo.data.keys import LabelKeys
    from zoo.data.readers import read_file

    return read_file(path, LabelKeys(energy_unit="eV") if path.name == "processed" else None).frames


def read_linear(path: Path) -> object:
    from zoo.data.linear_references import read_linear_references

    return read_linear_references(path)


def read_adapter_file(path: Path) -> object:
    from adapters.state import read_adapter

    return read_adapter(path)


def read_checkpoint(path: Path) -> object:
    import zoo

    torch.manual_seed(0)
    return zoo.load(path)


def read_model_card(path: Path) -> object:
    from zoo.registry import describe

    os.environ["ZOO_CARDS"] = str(path)
    return describe("fuzzed").text()


def read_data_card(path: Path) -> object:
    from zoo.data.catalogue import data_card

    os.environ["ZOO_SETS"] = str(path)
    return data_card("fuzzed")


def read_run(path: Path) -> object:
    from zoo.training.folder import RunFolder

    return RunFolder.existing(str(path))
