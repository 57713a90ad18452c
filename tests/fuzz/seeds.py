"""One small valid input for every reader of the project, and how each is read."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ase.io
import numpy as np
import torch
import yaml

from adapters.method import create_method
from tests.documented_files import write_documented_files
from tests.unit_zoo.test_record import fields
from zoo.backbones import is_installed, load_family
from zoo.data.keys import LabelKeys
from zoo.errors import ZooError

Read = Callable[[Path], object]
KEPT_STEP = 3
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
    _write_more_forms(folder)
    plain = ("my.extxyz", "my.npz", "my.json", "my.db", "my.aselmdb", "my.lmdb", "OUTCAR", "vasprun.xml", "calculations.zip")
    plain += ("my.traj", "my.extxyz.gz", "my.json.gz", "OUTCAR.gz")
    seeds += [Seed(f"data {name}", folder / name, folder / name, read_data) for name in plain]
    np.savez(folder / "linear.npz", coeff=np.linspace(-1.0, 0.0, 100))
    return [*seeds, Seed("linear references", folder / "linear.npz", folder / "linear.npz", read_linear)]


def _write_more_forms(folder: Path) -> None:
    """ASE's own trajectory, and files that are compressed."""
    ase.io.write(folder / "my.traj", ase.io.read(folder / "my.extxyz", index=":"))
    for name in ("my.extxyz", "my.json", "OUTCAR"):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes(), mtime=0))


def small_seeds(folder: Path) -> list[Seed]:
    """An adapter file, cards of a model and of a data set, what a run leaves, and archives with a list of checksums."""
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
    found += [Seed("run configuration", run, run / "config.yaml", read_run)]
    return [*found, *_seeds_of_a_run(folder / "left"), *_seeds_of_downloads(folder / "downloads")]


def _seeds_of_a_run(folder: Path) -> list[Seed]:
    from zoo.evaluation.record import build_record, write_record
    from zoo.training.checkpoints import AtomicCheckpointIO, kept_weights_path, write_kept_weights

    folder.mkdir()
    write_record(folder / "record.json", build_record(**fields()))
    (folder / "history.csv").write_text("step,train/loss,valid/loss\n3,0.5,0.75\n6,0.25,0.5\n")
    tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2)}
    own = {"identity": {}, "ema": None, "plateau": None, "reference_shifts": torch.zeros(4), "random_state": torch.get_rng_state()}
    lightning = {"epoch": 1, "global_step": 3, "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    content = {"equizoo": own | {"cuda_random_state": []}, "state_dict": tensors, **lightning}
    AtomicCheckpointIO().save_checkpoint(content, folder / "last.ckpt")
    write_kept_weights(folder, KEPT_STEP, tensors)
    readers: dict[str, Read] = {"record.json": read_result, "history.csv": read_table, "last.ckpt": read_training_state}
    readers[kept_weights_path(folder, KEPT_STEP).name] = read_weights
    return [Seed(f"run {name}", folder / name, folder / name, read) for name, read in readers.items()]


def _seeds_of_downloads(folder: Path) -> list[Seed]:
    folder.mkdir()
    (folder / "checksums.txt").write_text(f"# two files\n{'0123456789abcdef' * 4} 120 a/first.xyz\n- - second.xyz\n")
    inner = folder / "structures.xyz"
    inner.write_text("1\n\nH 0 0 0\n" * 200)
    for suffix in ("tar.gz", "tar.bz2", "tar"):
        with tarfile.open(folder / f"set.{suffix}", f"w:{suffix.partition('.')[2]}") as archive:  # type: ignore[call-overload]
            archive.add(inner, "set/structures.xyz")
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.write(inner, "set/structures.xyz")
    archives = [folder / f"set.{suffix}" for suffix in ("tar.gz", "tar.bz2", "tar", "zip")]
    found = [Seed(f"archive {path.name}", path, path, take_out) for path in archives]
    return [*found, Seed("checksum list", folder / "checksums.txt", folder / "checksums.txt", read_list)]


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


def keys_of(path: Path) -> LabelKeys:
    """With the unit that PyG's files do not state."""
    return LabelKeys(energy_unit="eV") if path.name == "processed" else LabelKeys()


def read_data(path: Path) -> object:
    """Every frame."""
    from zoo.data.readers import read_file

    return read_file(path, keys_of(path)).frames


def read_result(path: Path) -> object:
    from zoo.evaluation.record import read_record

    return read_record(path)


def read_table(path: Path) -> object:
    from zoo.sweeps.table import read_rows

    return read_rows(path)


def read_training_state(path: Path) -> object:
    from zoo.training.checkpoints import AtomicCheckpointIO

    return AtomicCheckpointIO().load_checkpoint(path)


def read_weights(path: Path) -> object:
    from zoo.training.checkpoints import read_kept_weights

    return read_kept_weights(path.parent, KEPT_STEP)


def read_list(path: Path) -> object:
    from zoo.data.checksums import read_checksums

    return read_checksums(path)


def take_out(path: Path) -> object:
    """One file out of an archive; what is not taken out whole must not be there."""
    from zoo.data.archives import obtain_member, taken_out

    member, out = "set/structures.xyz", path.parent / "out"
    try:
        taken = obtain_member(path, member, out)
    except ZooError:
        assert taken_out(member, out) is None, "a part of it is taken for the whole"
        assert not list(out.glob("*partial*")), "a part of it is left"
        raise
    return taken.read_bytes()


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
