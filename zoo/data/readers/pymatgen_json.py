"""JSON of pymatgen structures with their labels, as SNAP's fitting sets, MatPES and MPtrj lay them out; pymatgen itself is not needed.

- SNAP: a list of ``{"structure": ..., "outputs": {"energy", "forces", "stress"}, "num_atoms", ...}``;
- MatPES and others: a list of ``{"structure": ..., "energy", "forces", "stress", ...}``, or one such entry;
- MPtrj: ``{material: {frame: {"structure", "uncorrected_total_energy", "force", "stress", "magmom", ...}}}``.

All three keep VASP's stress: in kbar, positive under compression, and where it is six numbers in VASP's order xx, yy, zz, xy, yz, zx, which
is not ASE's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from zoo.data.raw import Format, RawFrame, ReadOptions, Units
from zoo.data.readers.json_members import members
from zoo.data.unpacking import DAMAGED, open_text
from zoo.errors import ZooError

_HEAD_CHARACTERS = 1 << 20
_STRUCTURE_KEYS = frozenset({"@module", "@class", "@version", "structure", "outputs", "lattice", "sites", "charge"})
_IDENTIFIERS = ("_id", "matpes_id", "material_id", "identifier", "id")
# MPtrj's names; its energies are VASP's own and, as `corrected_total_energy`, with the Materials Project's corrections of 2020
_HOUSE_NAMES = {"uncorrected_total_energy": "energy", "force": "forces", "magmom": "magnetic_moments"}
_STRESS_NOTE = "stress taken as VASP's: kbar, positive under compression; six numbers are xx, yy, zz, xy, yz, zx"
_ENERGY_NOTE = "energy is uncorrected_total_energy; data.energy_key=corrected_total_energy takes the other"
# `xyz` is written from `abc` and the cell: where they disagree by more than rounding, one of them is stale
_POSITION_TOLERANCE_ANGSTROM = 1e-3


def _recognises(path: Path) -> bool:
    """By the words that any structure has near its beginning: ASE's own JSON databases have neither."""
    if not (path.is_file() and path.name.endswith((".json", ".json.gz"))):
        return False
    head = ""
    # of a compressed file that was cut off, what comes before the cut is enough; the reader then says what is wrong with it
    with suppress(OSError, *DAMAGED), open_text(path, errors="replace") as stream:
        while len(head) < _HEAD_CHARACTERS and (piece := stream.read(_HEAD_CHARACTERS // 1000)):
            head += piece
    return head.lstrip()[:1] in ("[", "{") and '"lattice"' in head and '"sites"' in head


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    count = 0
    try:
        with open_text(path, errors="replace") as stream:
            for name, entry in _entries(stream):
                yield _frame(entry, name, f"{path}: entry {count}")
                count += 1
    except (json.JSONDecodeError, EOFError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ZooError(f"{path}: is incomplete or not JSON after {count} whole entries ({reason}); fetch or write it again") from error


def _entries(stream: IO[str]) -> Iterator[tuple[str, Any]]:
    """The entries of a file of any of the layouts, with the frame's name where the layout has one."""
    found = members(stream)
    first = next(found, None)
    if first is None:
        return
    key, value = first
    if key is not None and not _is_material(value):
        yield "", dict([(key, value), *((str(name), member) for name, member in found)])  # the whole file is one entry
        return
    for name, member in chain([first], found):
        if name is None:
            yield "", member
        else:
            yield from member.items()


def _is_material(value: Any) -> bool:
    """Whether ``value`` is MPtrj's ``{frame: entry}``."""
    return isinstance(value, dict) and bool(value) and all(isinstance(one, dict) and "structure" in one for one in value.values())


def _frame(entry: Any, name: str, where: str) -> RawFrame:
    structure = entry.get("structure", entry) if isinstance(entry, dict) else None
    if not isinstance(structure, dict) or not {"lattice", "sites"} <= structure.keys():
        raise ZooError(f"{where} holds no pymatgen structure; wanted 'lattice' and 'sites', bare or under 'structure'")
    numbers = np.array([_atomic_number(site, f"{where}, site {index}") for index, site in enumerate(structure["sites"])], dtype=np.int64)
    if (stated := entry.get("num_atoms", len(numbers))) != len(numbers):
        raise ZooError(f"{where} says num_atoms={stated} but has {len(numbers)} sites; repair or remove the entry")
    cell = np.array(structure["lattice"]["matrix"], dtype=np.float64)
    found, notes = _found(entry, structure["sites"])
    return RawFrame(
        numbers=numbers,
        positions=_positions(structure["sites"], cell, where),
        cell=cell,
        pbc=np.array(structure["lattice"].get("pbc") or (True, True, True), dtype=bool),
        found=found,
        units=Units(stress="-kbar"),
        charge=structure.get("charge") or 0,
        identifier=name or next((str(entry[key]) for key in _IDENTIFIERS if isinstance(entry.get(key), str | int)), ""),
        notes=notes,
    )


def _atomic_number(site: Mapping[str, Any], where: str) -> int:
    species = site.get("species") or [{"element": site.get("label"), "occu": 1}]
    if len(species) != 1 or species[0].get("occu", 1) != 1:
        mixture = ", ".join(f"{one.get('element')} {one.get('occu')}" for one in species)
        raise ZooError(f"{where}, is disordered ({mixture}); give ordered structures, with one element on every site")
    symbol = species[0].get("element")
    if symbol not in atomic_numbers or symbol == "X":
        raise ZooError(f"{where}, holds {symbol!r}, which is not an element; repair the entry")
    return int(atomic_numbers[symbol])


def _positions(sites: list[dict[str, Any]], cell: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """(N, 3) Å, from the Cartesian positions of the sites or, where they have none, the fractional ones."""
    if not all("abc" in site for site in sites):
        return np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(-1, 3)
    fractional = np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3)
    from_fractional: NDArray[np.float64] = fractional @ cell
    if not all("xyz" in site for site in sites):
        return from_fractional
    positions = np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(-1, 3)
    difference = np.abs(positions - from_fractional).max(initial=0.0)
    if difference > _POSITION_TOLERANCE_ANGSTROM:
        raise ZooError(f"{where}: 'xyz' and 'abc' of its sites are up to {difference:.3g} Å apart; repair the entry")
    return positions


def _found(entry: Mapping[str, Any], sites: list[dict[str, Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The entry's labels under their own and the house names, properties that every site has, and what should be said about them."""
    outputs = entry.get("outputs")
    named = {**entry, **(outputs if isinstance(outputs, dict) else {})}
    found = {name: value for name, value in named.items() if name not in _STRUCTURE_KEYS and value is not None}
    notes = []
    for name, house_name in _HOUSE_NAMES.items():
        # `magmom` can also be the total moment of the cell, one number
        if name in found and house_name not in found and (name != "magmom" or isinstance(found[name], list)):
            found[house_name] = found[name]
            notes += [_ENERGY_NOTE] if house_name == "energy" and "corrected_total_energy" in found else []
    if np.size(found.get("stress", ())) in (6, 9):
        found["stress"] = _tensor(np.asarray(found["stress"], dtype=np.float64))
        notes.append(_STRESS_NOTE)
    properties = [site.get("properties") or {} for site in sites]
    for name in set(properties[0]).intersection(*properties) if properties else ():
        found.setdefault(name, [one[name] for one in properties])
    return found, tuple(notes)


def _tensor(stress: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) from VASP's six numbers, or as it is."""
    if stress.size == 9:
        return stress.reshape(3, 3)
    xx, yy, zz, xy, yz, zx = stress.reshape(6)
    return np.array([[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]])


FORMAT = Format(
    name="pymatgen_json",
    description="JSON (.json, .json.gz) of pymatgen structures with labels, as SNAP, MatPES and MPtrj write them",
    recognises=_recognises,
    read=_read,
)
