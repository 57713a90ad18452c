"""Reading through the cache on disk: what is read must be what memory gives, and what is refused must leave nothing to be trusted."""

from __future__ import annotations

import json
import os
import random
import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.harness import Case
from tests.fuzz.mutations import ANY
from tests.fuzz.seeds import Seed, keys_of
from zoo.data.array_store import open_store
from zoo.data.cache_choice import CacheChoice
from zoo.data.conversion import read_source
from zoo.data.edge_store import obtain_edges
from zoo.data.frame import Frame
from zoo.data.readers import read_file
from zoo.edges import GraphRecipe, edges_of
from zoo.errors import ZooError

ON_DISK = CacheChoice("disk", workers=1)
_RECIPE = GraphRecipe(4.0)
_CACHE = "cache-of-the-fuzz"
Damage = Callable[[Path, random.Random], None]


def content_of(frames: Sequence[Frame]) -> list[tuple[object, ...]]:
    """Everything of every frame, to be compared."""
    return [tuple(value.tobytes() if isinstance(value, np.ndarray) else repr(value) for value in vars(frame).values()) for frame in frames]


def stores() -> list[Path]:
    """What a later run would look into."""
    found = sorted(Path(os.environ["ZOO_CACHE"]).glob("*/*"))
    return [one for one in found if one.is_dir() and not one.name.startswith(".") and one.parent.name in ("frames", "edges")]


def read_both_ways(path: Path) -> object:
    """From memory and through an empty cache; raises what both refuse, and `AssertionError` where they differ."""
    os.environ["ZOO_CACHE"] = str(path.parent / _CACHE)
    answers: list[list[tuple[object, ...]] | ZooError] = []
    for choice in (CacheChoice(), ON_DISK, ON_DISK):
        try:
            answers.append(content_of(read_source(path, keys_of(path), choice=choice).frames))
        except ZooError as error:
            answers.append(error)
    from_memory, *from_disk = answers
    if isinstance(from_memory, ZooError):
        assert all(isinstance(one, ZooError) for one in from_disk), f"memory refuses ({from_memory}), the cache reads"
        assert stores() == [], f"refused ({from_memory}), and yet {stores()} is there"
        raise from_disk[0]  # type: ignore[misc]
    assert all(one == from_memory for one in from_disk), f"the cache gives {str(from_disk[0])[:300]}"
    return from_memory


def through_cache(seed: Seed) -> Seed:
    """The same input, read both ways."""
    return Seed(f"cached {seed.name}", seed.path, seed.target, read_both_ways)


def read_with_its_stores(path: Path) -> object:
    """Frames and edges of ``path/my.extxyz`` with the stores beside it, whatever was done to these."""
    os.environ["ZOO_CACHE"] = str(path / _CACHE)
    source = path / "my.extxyz"
    wanted = read_file(source).frames
    for _ in range(2):
        frames = read_source(source, choice=ON_DISK).frames
        assert content_of(frames) == content_of(wanted), "other frames than the file has"
        edges = obtain_edges(frames, _RECIPE, 1)
        for number, frame in enumerate(wanted):
            assert all(map(np.array_equal, edges.edges(number), edges_of(frame, _RECIPE))), "other edges than the frames have"
    assert [len(open_store(store)["fact_atoms" if store.parent.name == "frames" else "atom_counts"]) for store in stores()] == [8, 8]
    return wanted


def store_cases(extxyz: Path, folder: Path, rounds: int) -> list[Case]:
    """A source whose stores are whole, and ``rounds`` kinds of damage to each of their files and to their folders."""
    whole = folder / "whole"
    whole.mkdir()
    shutil.copy2(extxyz, whole / "my.extxyz")
    read_with_its_stores(whole)
    targets = [path.relative_to(whole) for store in stores() for path in (store, *sorted(store.iterdir()))]
    cases = []
    for place, target in enumerate(targets):
        manifests = tuple(_MANIFESTS.items()) if target.name == "manifest.json" else ()
        kinds = (*manifests, *_DAMAGES.items()) if (whole / target).is_file() else tuple(_OF_FOLDERS.items())
        for number in range(rounds if rounds == 1 else max(rounds, len(manifests))):
            name, damage = kinds[(number + place) % len(kinds)]
            cases.append(
                Case(f"store {target.parts[1]} {target.name[:20]} {name} {number}", _made(whole, target, damage), read_with_its_stores)
            )
    return cases


def _made(whole: Path, target: Path, damage: Damage) -> Callable[[Path, Path], Path]:
    def make(folder: Path, canary: Path) -> Path:
        copy = folder / "copy"
        shutil.copytree(whole, copy)
        damage(copy / target, random.Random(str(target)))
        return copy

    return make


def _mutated(number: int) -> Damage:
    return lambda path, rng: path.write_bytes(ANY[number](path.read_bytes(), rng)) and None


def _replaced(make: Callable[[Path], Any]) -> Damage:
    def damage(path: Path, rng: random.Random) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return damage


def _manifest(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """A manifest whose own checksum fits."""

    def damage(path: Path, rng: random.Random) -> None:
        content = json.loads(path.read_text())
        content.pop("crc32")
        change(content)
        path.write_text(json.dumps({**content, "crc32": zlib.crc32(json.dumps(content, sort_keys=True).encode())}))

    return damage


def _first(content: dict[str, Any]) -> dict[str, Any]:
    one: dict[str, Any] = content["arrays"]["energy" if "energy" in content["arrays"] else "edge_counts"]
    return one


_DAMAGES: dict[str, Damage] = {
    **{mutation.__name__: _mutated(number) for number, mutation in enumerate(ANY)},
    "emptied": lambda path, rng: path.write_bytes(b"") and None,
    "longer": lambda path, rng: path.write_bytes(path.read_bytes() + b"\0") and None,
    "gone": lambda path, rng: path.unlink(),
    "a folder": _replaced(Path.mkdir),
    "a dangling link": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path)),
    "a link to a device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": _replaced(os.mkfifo),
}
_OF_FOLDERS: dict[str, Damage] = {
    "a file": _replaced(lambda path: path.write_text("{}")),
    "an empty folder": _replaced(Path.mkdir),
    "a dangling link": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path)),
    "a link to another folder": _replaced(lambda path: path.symlink_to(path.parent.parent)),
    "gone": lambda path, rng: shutil.rmtree(path),
}
_MANIFESTS: dict[str, Damage] = {
    "negative shape": _manifest(lambda content: _first(content).update(shape=[-8])),
    "huge shape": _manifest(lambda content: _first(content).update(shape=[10**30])),
    "shape of text": _manifest(lambda content: _first(content).update(shape="8")),
    "smaller shape": _manifest(lambda content: _first(content).update(shape=[4])),
    "two shapes": _manifest(lambda content: _first(content).update(shape=[2, 4])),
    "objects": _manifest(lambda content: _first(content).update(dtype="|O")),
    "a type that is none": _manifest(lambda content: _first(content).update(dtype="f8,(")),
    "integers": _manifest(lambda content: _first(content).update(dtype="<i8")),
    "header of nothing": _manifest(lambda content: _first(content).update(header_bytes=-1)),
    "a name that leads away": _manifest(lambda content: content["arrays"].update({"../../my": _first(content)})),
    "no arrays": _manifest(lambda content: content.update(arrays={})),
    "arrays of a list": _manifest(lambda content: content.update(arrays=[1])),
    "no meta": _manifest(lambda content: content.pop("meta")),
    "meta of another": _manifest(lambda content: content.update(meta={})),
    "another layout": _manifest(lambda content: content.update(layout=99)),
    "nested": lambda path, rng: path.write_text("[" * 200_000) and None,
}
