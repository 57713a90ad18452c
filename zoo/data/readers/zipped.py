"""Zip archives of structure files, such as MPtrj's with one extended XYZ file a material, or a folder of VASP runs.

Members are read in the order of their names, one at a time, each from a temporary folder of its own: an archive of many gigabytes needs
room for its largest member only, and no name within it can reach another place on the disk.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.data.readers import ase_database, ase_files, vasp
from zoo.data.unpacking import DAMAGED, check_archive
from zoo.errors import ZooError, first_line
from zoo.scratch import scratch_folder

_LARGEST_TOTAL_BYTES = 50 * 10**9
_OUTCAR, _VASPRUN = "*OUTCAR*", "*vasprun*.xml"
_FORMATS = {
    **dict.fromkeys(("*.xyz", "*.extxyz", "*.traj"), ase_files.FORMAT),
    "*.db": ase_database.FORMAT,
    **dict.fromkeys((_OUTCAR, _VASPRUN), vasp.FORMAT),
}
_Member = tuple[zipfile.ZipInfo, Format]
# files beside an OUTCAR in which ASE looks for the atoms that were held fixed
_COMPANIONS = ("CONTCAR", "POSCAR")


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    try:
        with zipfile.ZipFile(path) as archive:
            chosen, notes = _members(path, archive)
            for member, found in chosen:
                for raw in _frames(path, archive, member, found, options):
                    source = f"{member.filename}/{raw.source}" if raw.source else member.filename
                    yield replace(raw, source=source, notes=(*raw.notes, *notes))
    except DAMAGED as error:
        raise ZooError(f"{path}: is incomplete or damaged ({first_line(error)[:200]}); fetch the archive again") from error


def _members(path: Path, archive: zipfile.ZipFile) -> tuple[list[_Member], tuple[str, ...]]:
    """The members to be read with their formats, by name, and what should be said about the others."""
    visible = sorted((one for one in archive.infolist() if not one.is_dir() and not _hidden(one)), key=lambda one: one.filename)
    known = [(member, found) for member in visible if (found := _format_of(member)) is not None]
    folders = {_folder(member) for member, _ in known if _is_outcar(member)}
    chosen = [(member, found) for member, found in known if not (_is_vasprun(member) and _folder(member) in folders)]
    companions = [member for member in visible if _name(member) in _COMPANIONS and _folder(member) in folders]
    if not chosen:
        raise ZooError(
            f"{path}: none of its {len(visible)} members is of a kind that is read from an archive; wanted {', '.join(_FORMATS)}"
        )
    check_archive(path, [*(member for member, _ in chosen), *companions])
    total = sum(member.file_size for member, _ in chosen)
    if total > _LARGEST_TOTAL_BYTES:
        raise ZooError(
            f"{path}: unpacks to {total / 1e9:.0f} GB, more than the {_LARGEST_TOTAL_BYTES / 1e9:.0f} GB that are read from an archive; "
            "unpack it yourself and give the files"
        )
    notes = []
    if len(known) > len(chosen):
        notes.append("vasprun.xml is left aside where an OUTCAR, which has magnetic moments too, lies beside it")
    if other := len(visible) - len(known) - len(companions):
        notes.append(f"members of the archive that hold no structures known here: {other}")
    return chosen, tuple(notes)


def _frames(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, found: Format, options: ReadOptions) -> Iterator[RawFrame]:
    with scratch_folder() as folder:
        unpacked = _unpack(archive, member, folder)
        for companion in _COMPANIONS if _is_outcar(member) else ():
            beside = str(_folder(member) / companion)
            if beside in archive.namelist():
                _unpack(archive, archive.getinfo(beside), folder)
        try:
            yield from found.read(unpacked, options)
        except (ZooError, zipfile.BadZipFile) as error:
            raise ZooError(str(error).replace(str(unpacked), f"{path}: {member.filename}")) from error
        except Exception as error:  # as in `zoo.data.readers`: parsers raise whatever they meet, and the member has to be named
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ZooError(f"{path}: {member.filename} cannot be read as {found.name} ({reason}); is it complete?") from error


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> Path:
    target = folder / _name(member)
    with archive.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return target


def _format_of(member: zipfile.ZipInfo) -> Format | None:
    return next((one for pattern, one in _FORMATS.items() if fnmatchcase(_name(member), pattern)), None)


def _is_outcar(member: zipfile.ZipInfo) -> bool:
    return fnmatchcase(_name(member), _OUTCAR) and _format_of(member) is vasp.FORMAT


def _is_vasprun(member: zipfile.ZipInfo) -> bool:
    return fnmatchcase(_name(member), _VASPRUN)


def _hidden(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return "__MACOSX" in parts or parts[-1].startswith(".")


def _name(member: zipfile.ZipInfo) -> str:
    return PurePosixPath(member.filename).name


def _folder(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename).parent


FORMAT = Format(
    name="zip",
    description="zip archives (.zip) of extended XYZ files, VASP runs and ASE databases",
    recognises=lambda path: path.is_file() and path.suffix == ".zip",
    read=_read,
)
