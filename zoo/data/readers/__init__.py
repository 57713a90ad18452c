"""Labelled structures from a file or folder, whatever its format: each format is a module here that ends in a `FORMAT`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.labels import Label, labelled_frame, lenient_frame
from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.errors import ZooError, nearest_name_hint

__all__ = [
    "FileContent",
    "Label",
    "empty_file_error",
    "file_notes",
    "format_names",
    "format_of",
    "formats",
    "guarded",
    "labelled",
    "read_file",
    "read_frames",
    "read_raw",
    "read_structures",
]

Item = TypeVar("Item")

# in this order: the first that recognises a path reads it, and ase_files takes every file
_FORMAT_MODULES = ("deepmd", "npz", "pymatgen_json", "zipped", "vasp", "ase_database", "oc20_lmdb", "pyg_files", "oc20_raw", "ase_files")


@dataclass(frozen=True)
class FileContent:
    """The frames of a file, and what the log should say about how they were read.

    Attributes:
        frames: in the file's order.
        notes: the format and units where they are not the plain ones, labels that were left out, and how many frames that concerns.
    """

    frames: Sequence[Frame]
    notes: tuple[str, ...]


def read_file(path: str | Path, keys: LabelKeys | None = None, level_of_theory: str = "", needs: Sequence[Label] = ()) -> FileContent:
    """Every frame of a file or folder, in the house units, with notes on what was detected.

    Args:
        path: of a kind that `formats` lists.
        keys: names and units of the labels.
        level_of_theory: carried by every frame.
        needs: labels that every frame must have; the others are read where present and NaN elsewhere.

    Raises:
        ZooError: a path that is absent, unreadable or empty, or a frame as `labelled_frame` says; frames are named by number, from 0.
    """
    path = Path(path)
    keys = keys or LabelKeys()
    counts: Counter[str] = Counter()
    frames = []
    for frame, notes in labelled(_read(path, keys), path, keys, needs, Counter()):
        counts.update(notes)
        frames.append(replace(frame, level_of_theory=level_of_theory))
    if not frames:
        raise empty_file_error(path)
    return FileContent(frames, file_notes(path, counts, len(frames)))


def labelled(
    raws: Iterable[RawFrame], path: Path, keys: LabelKeys, needs: Sequence[Label], places: Counter[str]
) -> Iterator[tuple[Frame, tuple[str, ...]]]:
    """Each frame with its notes; ``places`` counts the frames of each source, from which they take their numbers."""
    for raw in raws:
        source = raw.source or path.name
        frame = labelled_frame(raw, source, places[source], keys, needs)
        places[source] += 1
        yield frame, (*raw.notes, *_frame_notes(raw, frame, keys))


def file_notes(path: Path, counts: Counter[str], frame_count: int) -> tuple[str, ...]:
    """What the log should say of a file, from the notes on its frames."""
    return tuple(f"{path.name}: {note} ({_of(count, frame_count)})" for note, count in counts.items())


def empty_file_error(path: Path) -> ZooError:
    """What to raise for a source without frames."""
    return ZooError(f"{path}: holds no frames; give a file with at least one structure")


def read_frames(
    path: str | Path, keys: LabelKeys | None = None, level_of_theory: str = "", needs: Sequence[Label] = ("energy",)
) -> list[Frame]:
    """The frames of `read_file`, which says what the arguments are; an energy is needed unless ``needs`` says otherwise."""
    return list(read_file(path, keys, level_of_theory, needs).frames)


def read_structures(path: str | Path) -> list[Frame]:
    """Every frame of a file for a prediction: labels under the house names and units where they are whole, NaN where not.

    Raises:
        ZooError: a file that is absent, unreadable or empty, or a frame without atoms or with an impossible cell.
    """
    path = Path(path)
    frames = [lenient_frame(raw, raw.source or path.name, index) for index, raw in enumerate(_read(path, LabelKeys()))]
    if not frames:
        raise empty_file_error(path)
    return frames


def read_raw(path: str | Path, keys: LabelKeys) -> list[RawFrame]:
    """Every structure as its file gives it, with all that the file says beside labels; raises `ZooError` as `read_structures`."""
    path = Path(path)
    raws = list(_read(path, keys))
    if not raws:
        raise ZooError(f"{path}: holds no frames; give a file with at least one structure")
    return raws


@cache
def formats() -> dict[str, Format]:
    """Every format by name, in the order in which they are tried."""
    found: list[Format] = [import_module(f"{__name__}.{module}").FORMAT for module in _FORMAT_MODULES]
    return {one.name: one for one in found}


def format_names() -> tuple[str, ...]:
    """Every value that ``data.format`` takes."""
    return tuple(formats())


def _read(path: Path, keys: LabelKeys) -> Iterator[RawFrame]:
    chosen = format_of(path, keys.format)
    yield from guarded(chosen.read(path, ReadOptions(type_map=keys.type_map)), path, chosen.name)


def guarded(items: Iterable[Item], path: Path, format_name: str) -> Iterator[Item]:
    """What a reader gives; whatever it raises becomes one line."""
    try:
        yield from items
    except ZooError:
        raise
    except Exception as error:  # readers raise whatever their parsing meets: IndexError, KeyError, struct.error, ...
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ZooError(f"{path}: cannot be read as {format_name} ({reason}); is it complete, and of that format?") from error


def format_of(path: Path, name: str | None) -> Format:
    """The format ``name``, else the first that recognises ``path``; raises `ZooError` where there is none, or nothing to read."""
    if not path.exists():
        raise ZooError(f"{path}: does not exist; give the path of a structure file (extxyz, ASE db, ...)")
    if path.is_file() and path.stat().st_size == 0:
        raise ZooError(f"{path}: is empty (0 bytes); give a file with at least one structure")
    known = formats()
    if name is not None:
        if name not in known:
            raise ZooError(f"unknown data.format={name!r}; {nearest_name_hint(name, known)}")
        return known[name]
    for candidate in known.values():
        if candidate.recognises(path):
            return candidate
    raise ZooError(
        f"{path}: is a folder of no kind that is known here (DeePMD systems, OC20 pairs, LMDB, PyG); of structure files give one, or "
        "several as data.train=FILE data.valid=FILE data.test=[FILE,...]"
    )


def _frame_notes(raw: RawFrame, frame: Frame, keys: LabelKeys) -> Iterator[str]:
    if keys.energy_unit is None and raw.units.energy != "eV":
        yield f"energies taken as {raw.units.energy}, as the format documents"
    if keys.pbc is not None and bool(raw.pbc.any()) != keys.pbc:
        yield f"periodicity of the file replaced by pbc={keys.pbc}"
    if "virial" in raw.found and keys.virial_key is None and frame.pbc.all() and not frame.has_stress and keys.stress_key is not None:
        yield "has a virial, which is not read as a stress unless asked for: data.virial_key=virial (stress = -virial / volume)"
    if frame.fixed is not None and frame.has_forces and frame.forces[frame.fixed].size:
        kept = bool((frame.forces[frame.fixed] == frame.forces[frame.fixed]).all())
        yield "forces of fixed atoms are kept as labels" if kept else "forces of fixed atoms are left out of loss and metrics"


def _of(count: int, total: int) -> str:
    return f"all {total} frames" if count == total else f"{count} of {total} frames"
