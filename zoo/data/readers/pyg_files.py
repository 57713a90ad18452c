"""PyG's stored data sets: the ``processed/*.pt`` of an `InMemoryDataset`, or any file of `Data` that ``torch.save`` wrote.

Layout: ``(fields, slices, class)``, or ``(Data, slices)`` in older files, where every field holds all graphs one after the other and
``slices`` says where each begins. No field says its unit: PyG's MD17 and revised MD17 are in kcal/mol, and need
``data.energy_unit=kcal/mol``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.raw import Format, RawFrame, ReadOptions
from zoo.errors import ZooError

# PyG writes these beside the data, and they hold none
_NOT_DATA = frozenset({"pre_filter.pt", "pre_transform.pt"})
_UNIT_NOTE = "a PyG file states no units: energies are eV unless data.energy_unit says otherwise (PyG's MD17 is in kcal/mol)"
_NUMBERS = ("atomic_numbers", "z")
_POSITIONS = ("positions", "pos")
_HOUSE_NAMES = (("y", "energy"), ("force", "forces"))


def raw_frame_of_fields(fields: Mapping[str, Any], where: str) -> RawFrame:
    """The structure of one PyG graph, by the names that PyG's data sets and our own graphs use.

    Args:
        fields: arrays, numbers and text: ``z`` or ``atomic_numbers`` (N,), ``pos`` or ``positions`` (N, 3), and where known ``energy`` or
            ``y`` (a ``y`` of several numbers is no energy), ``forces`` or ``force``, ``cell``, ``pbc`` (periodic in three directions where
            there is a cell and no ``pbc``), ``stress``, ``virial``, ``fixed``, ``tags``, ``source``.
        where: names the graph in errors.

    Raises:
        ZooError: no atomic numbers or positions, or a cell of another size.
    """
    numbers, positions = (_first_of(names, fields, where) for names in (_NUMBERS, _POSITIONS))
    found = {
        name: value for name, value in fields.items() if name not in {*_NUMBERS, *_POSITIONS, "cell", "pbc", "edge_index", "edge_shift"}
    }
    for own, house in _HOUSE_NAMES:
        if own in fields and house not in fields and (house != "energy" or np.size(fields[own]) == 1):
            found[house] = fields[own]
    for name in ("stress", "virial"):
        if name in found and np.shape(found[name]) == (1, 3, 3):  # of a graph with its leading dimension
            found[name] = found[name][0]
    cell = _sized(fields.get("cell", np.zeros(9)), (3, 3), "cell", where)
    pbc = _sized(fields.get("pbc", np.full(3, bool(np.any(cell)))), (3,), "pbc", where)
    fixed, tags = (fields.get(name) for name in ("fixed", "tags"))
    return RawFrame(
        numbers=np.asarray(numbers, dtype=np.int64).reshape(-1),
        positions=np.asarray(positions, dtype=np.float64),
        cell=cell.astype(np.float64),
        pbc=pbc.astype(bool),
        found=found,
        fixed=np.asarray(fixed, dtype=bool) if fixed is not None and np.any(fixed) else None,
        tags=np.asarray(tags, dtype=np.int64) if tags is not None and np.any(tags) else None,
        source=fields["source"] if isinstance(fields.get("source"), str) else "",
    )


def as_plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors as arrays; values that are None left out."""
    from torch import Tensor

    return {
        name: value.detach().cpu().numpy() if isinstance(value, Tensor) else value for name, value in fields.items() if value is not None
    }


def _read(path: Path, options: ReadOptions) -> Iterator[RawFrame]:
    from zoo.data.restricted_pickle import load_torch_file

    file = _data_file(path)
    for number, fields in enumerate(_graphs(load_torch_file(file), file)):
        raw = raw_frame_of_fields(fields, f"{file}: graph {number}")
        yield replace(raw, source="", notes=(_UNIT_NOTE,))


def _graphs(loaded: Any, file: Path) -> Iterator[dict[str, Any]]:
    from zoo.data.restricted_pickle import PygObject, RefusedError, fields_of

    try:
        if isinstance(loaded, (list, PygObject)):
            for one in loaded if isinstance(loaded, list) else [loaded]:
                yield as_plain(fields_of(one))
        elif isinstance(loaded, tuple) and len(loaded) in (2, 3) and isinstance(loaded[1], (dict, type(None))):
            yield from _separated(fields_of(loaded[0]), loaded[1])
        else:
            raise RefusedError(f"a {type(loaded).__name__}")
    except RefusedError as refused:
        raise ZooError(f"{file}: holds {refused}, not graphs; give the processed/*.pt of a PyG InMemoryDataset") from None


def _separated(fields: Mapping[str, Any], slices: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The graphs that were put one after the other; a data set of a single graph has no slices."""
    if slices is None:
        yield as_plain(fields)
        return
    # PyG joins what has "index" in its name, and faces, along another axis; neither is a label
    kept = [name for name in fields if "index" not in name and name != "face" and not isinstance(slices.get(name, {}), (dict, list))]
    bounds = {name: np.asarray(slices[name]).tolist() for name in kept}
    shared = as_plain({name: fields[name] for name in kept})
    for number in range(max((len(bound) - 1 for bound in bounds.values()), default=0)):
        yield {
            name: value[number] if isinstance(value, list) else value[bounds[name][number] : bounds[name][number + 1]]
            for name, value in shared.items()
        }


def _data_file(path: Path) -> Path:
    if path.is_file():
        return path
    candidates = _candidates(path)
    if len(candidates) != 1:
        names = ", ".join(one.relative_to(path).as_posix() for one in candidates)
        raise ZooError(f"{path}: holds {len(candidates)} PyG data files ({names}); give the path of one of them")
    return candidates[0]


def _candidates(folder: Path) -> list[Path]:
    within = folder if folder.name == "processed" else folder / "processed"
    return sorted(one for one in within.glob("*.pt") if one.name not in _NOT_DATA)


def _first_of(names: tuple[str, ...], fields: Mapping[str, Any], where: str) -> Any:
    for name in names:
        if name in fields:
            return fields[name]
    raise ZooError(
        f"{where} has no {' or '.join(map(repr, names))} (found: {', '.join(sorted(fields)) or 'nothing'}); give a set of structures"
    )


def _sized(value: Any, shape: tuple[int, ...], name: str, where: str) -> NDArray[Any]:
    given = np.asarray(value)
    if given.size != int(np.prod(shape)):
        raise ZooError(f"{where}: {name!r} has shape {given.shape}, wanted {shape}; repair the data set")
    return given.reshape(shape)


FORMAT = Format(
    name="pyg_files",
    description="PyG data sets (processed/*.pt of an InMemoryDataset, or the folder above it); set data.energy_unit, the file states none",
    recognises=lambda path: bool(_candidates(path)) if path.is_dir() else path.suffix == ".pt",
    read=_read,
    files=lambda path: _candidates(path) if path.is_dir() else [path],  # without the raw files beside, that they were made from
)
