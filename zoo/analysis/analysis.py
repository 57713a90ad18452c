"""All tables of one adapter, and the folder of files that they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.analysis.block_figures import draw_singular_values, draw_sparsity, draw_stable_ranks
from zoo.analysis.changes import Changes
from zoo.analysis.correlation import PathRow, SpeciesRow, correlations
from zoo.analysis.coverage import CoverageRow, coverage_rows
from zoo.analysis.coverage_figure import draw_coverage
from zoo.analysis.heat_maps import draw_irreps, draw_r2_by_path, draw_r2_by_species
from zoo.analysis.sizes import IrrepRow, SparsityRow, irrep_norms, sparsities
from zoo.analysis.spectra import SingularValueRow, StableRankRow, spectra
from zoo.analysis.tables import write_table
from zoo.errors import ZooError
from zoo.potential import Potential

_Draw = Callable[[Sequence[Any], str, Path], Path]


@dataclass(frozen=True)
class Analysis:
    """What one adapter did to its base; tables are in a fixed order, numbers float64.

    Attributes:
        title: method and base.
        coverage: one row a block of the base, and one a parameter without blocks.
        r2_species: 1 - R^2 by layer, role, channel and element; empty where no weights belong to single elements, or none changed.
        r2_paths: 1 - R^2 by layer, role and channel.
        stable_rank: one row a delta that is a matrix.
        singular_values: of the same deltas.
        irreps: norms by layer, role and irrep.
        sparsity: zeros by parameter.
        notes: what could not be analysed, a sentence each.
    """

    title: str
    coverage: tuple[CoverageRow, ...]
    r2_species: tuple[SpeciesRow, ...] = ()
    r2_paths: tuple[PathRow, ...] = ()
    stable_rank: tuple[StableRankRow, ...] = ()
    singular_values: tuple[SingularValueRow, ...] = ()
    irreps: tuple[IrrepRow, ...] = ()
    sparsity: tuple[SparsityRow, ...] = ()
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> list[Path]:
        """`write_tables` and `draw`.

        Returns:
            The files written.

        Raises:
            ZooError: where the folder cannot be written.
        """
        return [*self.write_tables(folder), *self.draw(folder)]

    def write_tables(self, folder: Path) -> list[Path]:
        """Write ``NAME.csv`` of each table that has rows; the files of an earlier analysis, tables and figures, are removed.

        Returns:
            The files written.

        Raises:
            ZooError: where the folder cannot be written.
        """
        if folder.exists() and not folder.is_dir():
            raise ZooError(f"{folder}: is a file; pass another out=FOLDER")
        if folder.is_dir():
            _remove_earlier(folder)
        return [write_table(folder / f"{name}.csv", row_type, getattr(self, name)) for name, (row_type, _) in self._filled().items()]

    def draw(self, folder: Path) -> list[Path]:
        """Write ``NAME.png`` of each table that has rows.

        Returns:
            The files written.

        Raises:
            ZooError: where the folder cannot be written.
        """
        return [draw(getattr(self, name), self._title_of(name), folder / f"{name}.png") for name, (_, draw) in self._filled().items()]

    def _filled(self) -> dict[str, tuple[type[Any], _Draw]]:
        return {name: kind for name, kind in _FILES.items() if getattr(self, name)}

    def _title_of(self, name: str) -> str:
        lacks_species = name == "r2_paths" and not self.r2_species
        return f"{self.title}, in which no weights belong to single elements" if lacks_species else self.title


_FILES: dict[str, tuple[type[Any], _Draw]] = {
    "coverage": (CoverageRow, draw_coverage),
    "r2_species": (SpeciesRow, draw_r2_by_species),
    "r2_paths": (PathRow, draw_r2_by_path),
    "stable_rank": (StableRankRow, draw_stable_ranks),
    "singular_values": (SingularValueRow, draw_singular_values),
    "irreps": (IrrepRow, draw_irreps),
    "sparsity": (SparsityRow, draw_sparsity),
}


def _remove_earlier(folder: Path) -> None:
    try:
        for name in _FILES:
            (folder / f"{name}.csv").unlink(missing_ok=True)
            (folder / f"{name}.png").unlink(missing_ok=True)
    except OSError as error:
        raise ZooError(f"{folder}: cannot be written ({error.strerror or error}); pass another out=FOLDER") from None


def analyse(potential: Potential, adapter: str | None = None) -> Analysis:
    """Measure what an adapter does to the weights of its base.

    Args:
        potential: with the adapter, as ``zoo.load(base, adapter=FILE)`` gives it.
        adapter: its name; None for the one that is active.

    Returns:
        The tables. Of a method that changes activations only the coverage, and a note that says so.

    Raises:
        ZooError: no active adapter, or several, and no name; adapters that are merged.
        adapters.errors.AdapterError: an unknown name.
    """
    changes = Changes(potential, adapter)
    method, coverage = changes.adapter.method.name, tuple(coverage_rows(changes))
    title = f"{method} on {potential.source}"
    notes = []
    gated = sum(row.status == "output adapted" for row in coverage)
    if gated:
        notes.append(
            f"{method} changes the output of layers with {gated} of the {len(potential.coverage.blocks)} blocks instead of their weights: "
            "there the coverage is all there is to analyse"
        )
    if not changes.any:
        return Analysis(title, coverage, notes=tuple(notes))
    r2_species, r2_paths = correlations(changes)
    if not r2_species:
        notes.append("no weights belong to single elements: 1 - R^2 is by path alone")
    ranks, values = spectra(changes)
    if not ranks:
        notes.append(f"{method} adapts no matrix: there are no ranks and singular values")
    elif not values:
        notes.append("every delta is zero: there are no singular values")
    return Analysis(
        title,
        coverage,
        tuple(r2_species),
        tuple(r2_paths),
        tuple(ranks),
        tuple(values),
        tuple(irrep_norms(changes)),
        tuple(sparsities(changes)),
        tuple(notes),
    )
