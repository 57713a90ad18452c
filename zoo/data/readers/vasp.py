"""VASP's OUTCAR and vasprun.xml, read through ASE up to the last complete ionic step.

The energy is the one extrapolated to zero smearing, as ASE and the Materials Project take it; ``energy_key: free_energy`` is the one that
the forces belong to. Magnetic moments of atoms are in the OUTCAR alone. ASE drops what a killed run left unfinished without a word, and can
stumble over it: here complete steps are counted first, and the rest is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.data.readers.ase_files import labels_of_atoms
from zoo.data.unpacking import DAMAGED, lines_of, open_binary
from zoo.errors import ZooError

_HEAD_BYTES = 2000
# the energies of an ionic step follow in the four lines after this one
_OUTCAR_ENERGIES = b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM"
_LINES_OF_ENERGIES = 4


@dataclass(frozen=True)
class _Progress:
    """How far a run came: complete ionic steps, whether another had begun, and whether VASP closed the file itself."""

    complete: int
    begun: bool
    closed: bool

    def notes(self) -> tuple[str, ...]:
        if self.begun:
            return ("the run broke off, and its unfinished last ionic step is left out",)
        return () if self.closed else ("the file ends without VASP's closing lines, after a complete ionic step",)


def _kind(path: Path) -> str | None:
    """ASE's name of the format, by the file's first bytes: names such as ``OUTCAR.1`` and ``run_3.xml`` say little."""
    try:
        with open_binary(path) as stream:
            head = stream.read(_HEAD_BYTES)
    except (OSError, *DAMAGED):
        return None  # not readable here; the format that takes the file says why
    if head.lstrip().startswith(b"vasp."):
        return "vasp-out"
    return "vasp-xml" if b"<modeling>" in head else None


def _outcar_progress(path: Path) -> _Progress:
    complete, awaited, begun, closed = 0, 0, False, False
    with closing(lines_of(path)) as lines:
        for line in lines:
            if awaited:
                awaited -= 1
                if not awaited and line.endswith(b"\n"):  # a number may be cut short where the file ends
                    complete, begun = complete + 1, False
            elif _OUTCAR_ENERGIES in line:
                awaited = _LINES_OF_ENERGIES
            elif b"- Iteration " in line:
                begun = True
            elif b"General timing and accounting" in line:
                closed = True
    return _Progress(complete, begun, closed)


def _vasprun_progress(path: Path) -> _Progress:
    complete, opened, closed = 0, 0, False
    with closing(lines_of(path)) as lines:
        for line in lines:
            opened += b"<calculation>" in line
            complete += b"</calculation>" in line
            closed = closed or b"</modeling>" in line
    return _Progress(complete, opened > complete, closed)


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    from ase.io import iread

    kind = _kind(path) or ("vasp-xml" if ".xml" in path.suffixes else "vasp-out")
    if kind == "vasp-out" and path.suffix in (".bz2", ".xz"):
        raise ZooError(f"{path}: an OUTCAR is read as it is or compressed as .gz, and not as {path.suffix}; unpack it")
    progress = _vasprun_progress(path) if kind == "vasp-xml" else _outcar_progress(path)
    if not progress.complete:
        raise ZooError(f"{path}: breaks off before its first ionic step is complete; give the output of a run that got further")
    count = 0
    for atoms in iread(str(path), index=f":{progress.complete}", format=kind, do_not_split_by_at_sign=True):
        yield RawFrame.of_atoms(atoms, labels_of_atoms(atoms, {}), notes=progress.notes())
        count += 1
    if count < progress.complete:  # of XML that is damaged ASE gives what comes before, without a word
        raise ZooError(f"{path}: has {progress.complete} complete ionic steps, of which {count} can be read; is it damaged? copy it again")


def _files(path: Path) -> Sequence[Path]:
    """With those beside it in which ASE looks for the atoms that were held fixed."""
    return [path, *(one for name in ("CONTCAR", "POSCAR") if (one := path.parent / name).is_file())]


FORMAT = Format(
    name="vasp",
    description="VASP's OUTCAR and vasprun.xml under any name, up to the last complete ionic step",
    recognises=lambda path: path.is_file() and _kind(path) is not None,
    read=_read,
    files=_files,
)
