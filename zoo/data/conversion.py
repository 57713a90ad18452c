"""From a file or folder to frames on disk: read, checked and converted once, in parallel where the format allows it.

The store is named by what it follows from: the content of every file of the source, the label keys, the reading code and ASE's version.
What the frames are needed for is not part of it: labels that a run needs are looked up in the facts of the store.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import zoo.units
from zoo.data.array_store import Array, StoreWriter
from zoo.data.cache_choice import CacheChoice
from zoo.data.facts import LABEL_BITS
from zoo.data.frame import Frame
from zoo.data.frame_store import FrameStore, SourceNumbers, arrays_of
from zoo.data.keys import LabelKeys
from zoo.data.labels import Label
from zoo.data.processes import in_order, with_progress
from zoo.data.raw import Chunk, Format, ReadOptions
from zoo.data.readers import FileContent, empty_file_error, file_notes, format_of, formats, guarded, labelled, read_file
from zoo.data.source_files import content_of, total_bytes
from zoo.data.store_builder import obtain_store
from zoo.data.stored_frames import StoredFrames
from zoo.errors import ZooError

_FRAMES_OF_A_PIECE = 2_000
_ATOMS_OF_A_PIECE = 50_000
_WHY_HELD = "since files of this format may name others, whose changes would go unseen"


def read_source(
    path: str | Path,
    keys: LabelKeys | None = None,
    level_of_theory: str = "",
    needs: Sequence[Label] = (),
    choice: CacheChoice | None = None,
) -> FileContent:
    """`zoo.data.readers.read_file`, with the frames on disk where ``choice`` says so (in memory without one).

    Raises:
        ZooError: as `read_file`, where the source changes while it is read, and where the cache cannot be written.
    """
    path, keys, choice = Path(path), keys or LabelKeys(), choice or CacheChoice()
    if choice.mode == "memory" or not path.exists():
        return read_file(path, keys, level_of_theory, needs)
    source_format = format_of(path, keys.format)
    files = source_format.files(path)
    if files is None or not choice.frames_on_disk(total_bytes(files)):
        content = read_file(path, keys, level_of_theory, needs)
        asked = choice.mode == "disk"
        return replace(content, notes=(*content.notes, f"{path.name}: stays in memory, {_WHY_HELD}")) if asked else content
    conversion = _Conversion(path, source_format.name, keys)
    key = conversion.key(files)

    def build(writer: StoreWriter) -> Mapping[str, Any]:
        meta = conversion.build(writer, choice.builders)
        if conversion.key(source_format.files(path) or ()) != key:
            # else the copy would stand for what the source was before
            raise ZooError(f"{path}: changed while it was read; start again when nothing writes to it any more")
        return meta

    store = obtain_store("frames", key, build)
    frames = StoredFrames.all_of(FrameStore(store, level_of_theory))
    _check_needed(frames, needs, path, keys)
    notes = Counter(dict(store.meta["notes"]))
    return FileContent(frames, file_notes(path, notes, len(frames)))


def _check_needed(frames: StoredFrames, needs: Sequence[Label], path: Path, keys: LabelKeys) -> None:
    wanted = sum(LABEL_BITS[label] for label in needs)
    if wanted and ((frames.fact("labels") & wanted) != wanted).any():
        read_file(path, keys, needs=needs)  # names the frame, and what was found in its place


@dataclass(frozen=True)
class _Piece:
    """Some frames as a process hands them back: arrays, the source of each, and notes with the number of frames they concern."""

    arrays: dict[str, Array]
    sources: list[str]
    notes: Counter[str]


@dataclass(frozen=True)
class _Conversion:
    """The work of one process, and of the one that joins the pieces."""

    path: Path
    format_name: str
    keys: LabelKeys

    @property
    def format(self) -> Format:
        """Looked up in each process: its functions are not all to be pickled."""
        return formats()[self.format_name]

    def key(self, files: Sequence[Path]) -> str:
        """A hash of all that the frames follow from."""
        parts = [self.path.name, content_of(files, self.path), self.format_name, self.keys.model_dump(mode="json"), _code()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def build(self, writer: StoreWriter, processes: int) -> Mapping[str, Any]:
        """Convert every frame; raises `ZooError` for whatever `read_file` refuses."""
        numbers, notes, count = SourceNumbers(), Counter[str](), 0
        counted = ((len(piece.sources), piece) for piece in self._pieces(processes))
        for piece in with_progress(counted, f"reading {self.path.name}", None):
            writer.append({**piece.arrays, **numbers.of(piece.sources)})
            notes.update(piece.notes)
            count += len(piece.sources)
        if not count:
            raise empty_file_error(self.path)
        return {"frames": count, "sources": numbers.names, "notes": list(notes.items())}

    def _pieces(self, processes: int) -> Iterator[_Piece]:
        options = ReadOptions(type_map=self.keys.type_map)
        chunks = None if self.format.chunks is None else self.format.chunks(self.path, options, _FRAMES_OF_A_PIECE)
        if chunks is not None:
            yield from in_order(self, guarded(chunks, self.path, self.format_name), processes)
            return
        places: Counter[str] = Counter()
        raws = guarded(self.format.read(self.path, options), self.path, self.format_name)
        yield from _in_pieces(labelled(raws, self.path, self.keys, (), places))

    def __call__(self, chunk: Chunk) -> _Piece:
        """The frames of one chunk."""
        assert self.format.read_chunk is not None
        options = ReadOptions(type_map=self.keys.type_map)
        raws = guarded(self.format.read_chunk(self.path, options, chunk), self.path, self.format_name)
        places = Counter({chunk.source or self.path.name: chunk.first})
        return _joined(list(labelled(raws, self.path, self.keys, (), places)))


def _in_pieces(frames: Iterator[tuple[Frame, tuple[str, ...]]]) -> Iterator[_Piece]:
    held: list[tuple[Frame, tuple[str, ...]]] = []
    atoms = 0
    for one in frames:
        held.append(one)
        atoms += len(one[0])
        if len(held) == _FRAMES_OF_A_PIECE or atoms >= _ATOMS_OF_A_PIECE:
            yield _joined(held)
            held, atoms = [], 0
    if held:
        yield _joined(held)


def _joined(held: list[tuple[Frame, tuple[str, ...]]]) -> _Piece:
    frames = [frame for frame, _ in held]
    return _Piece(arrays_of(frames), [frame.source for frame in frames], Counter(note for _, notes in held for note in notes))


@cache
def _code() -> list[str]:
    """The reading code, whose change changes what is read: this package's modules, units and ASE."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for module in (*sorted(package.rglob("*.py")), Path(zoo.units.__file__)):
        digest.update(module.relative_to(package.parent).as_posix().encode() + b"\0" + module.read_bytes() + b"\0")
    return [digest.hexdigest(), version("ase")]
