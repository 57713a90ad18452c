"""Energies of finished runs along scans, against the reference: ELoRA's Fig. 3 shows three dihedral cuts of 3BPA."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo import plots
from zoo.data.frame import FloatArray
from zoo.data.keys import LabelKeys
from zoo.errors import ZooError, first_problem, nearest_name_hint
from zoo.sweeps.figures import draw_curve, mean_and_spread, styles
from zoo.sweeps.scans import FRAME_NUMBER, Scan, read_scans
from zoo.sweeps.table import Row, number, read_rows, write_rows
from zoo.sweeps.words import items_of, own_and_run_words

TABLE, FIGURE = "cuts.csv", "cuts.png"


class CutsRequest(BaseModel):
    """Which runs along which cuts.

    Attributes:
        runs: folders of finished runs, ``*`` allowed. Runs whose names differ in ``-s<seed>`` alone are one curve with a band.
        cuts: files, or test sets of published sets (``acac/test_dihedral``); a panel each.
        coordinate, panel: see `zoo.sweeps.scans.read_scans`.
        shift: ``reference`` moves all curves of a panel by what puts the lowest reference energy at zero, as the paper does, so that a
            model's error in the mean stays visible; ``own`` puts each curve's own minimum at zero.
        energy_key: of the files' energies in eV.
        folder: of table and figure; ``sweeps/cuts-<first cut>`` where None.
        batch_size: structures a forward pass.
        draw: draw again from the table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ("3bpa/test_dih_beta120", "3bpa/test_dih_beta150", "3bpa/test_dih_beta180")
    coordinate: str = FRAME_NUMBER
    panel: str | None = None
    shift: Literal["reference", "own"] = "reference"
    energy_key: str = "energy"
    folder: str | None = None
    batch_size: int = Field(default=16, ge=1)
    draw: bool = False

    @property
    def the_folder(self) -> Path:
        """Where results go."""
        return Path(self.folder).expanduser() if self.folder is not None else Path("sweeps") / f"cuts-{Path(self.cuts[0]).stem}"


@dataclass(frozen=True)
class CutsResult:
    """What was computed and drawn.

    Attributes:
        rows: one a run and frame: energies in eV, as the model and the reference give them.
        figure: the PNG.
    """

    rows: list[Row]
    figure: Path


def cuts_of_words(words: Sequence[str]) -> CutsRequest:
    """The request that ``zoo sweep cuts words...`` makes; raises `ZooError` with the first thing that is wrong."""
    settings, for_runs = own_and_run_words(words, tuple(CutsRequest.model_fields))
    if for_runs:
        raise ZooError(f"zoo sweep cuts trains nothing, and its runs bring their models; leave {for_runs[0]} out")
    options: dict[str, Any] = {name: items_of(text) if name in ("runs", "cuts") else text for name, text in settings.items()}
    return make_cuts_request(options)


def make_cuts_request(options: dict[str, Any]) -> CutsRequest:
    """A request from Python values; raises `ZooError` in one line where they are wrong."""
    try:
        request = CutsRequest(**options)
    except ValidationError as error:
        first = first_problem(error)
        hint = nearest_name_hint(first.key, CutsRequest.model_fields) if first.kind == "extra_forbidden" else first.message
        raise ZooError(f"zoo sweep cuts: {first.key}: {hint}") from None
    if not request.cuts:
        raise ZooError("zoo sweep cuts: cuts is empty; pass cuts=FILE")
    if not request.runs and not request.draw:
        raise ZooError("zoo sweep cuts: no runs; pass runs=[runs/a,runs/b], folders of finished runs")
    return request


def run_cuts(request: CutsRequest, say: Callable[[str], None] = print) -> CutsResult:
    """Predict every cut with every run, write ``cuts.csv`` and draw ``cuts.png``.

    Raises:
        ZooError: a folder that is no finished run, two runs of one name and seed, or a file as `read_scans` says.
    """
    table = request.the_folder / TABLE
    if not request.draw:
        folders = _named_runs(request.runs)
        scans = read_scans(request.cuts, request.coordinate, request.panel, LabelKeys(energy_key=request.energy_key))
        rows: list[Row] = []
        for (curve, seed), folder in folders.items():
            rows += _rows_of_run(folder, scans, {"curve": curve, "seed": seed, "run": folder.name}, request.batch_size)
            say(f"{folder}: {sum(len(scan.frames) for scan in scans)} structures")
        write_rows(table, rows)
    rows = read_rows(table)
    figure = _draw(rows, request, request.the_folder / FIGURE)
    say(f"table and figure: {table}, {figure}")
    return CutsResult(rows, figure)


def _named_runs(patterns: Sequence[str]) -> dict[tuple[str, int], Path]:
    """Folders by curve and seed."""
    from zoo.training.folder import RunFolder

    found: dict[tuple[str, int], Path] = {}
    for pattern in patterns:
        for name in sorted(glob(str(Path(pattern).expanduser()))) or [pattern]:
            _, config = RunFolder.existing(name)
            key = (re.sub(r"-s\d+$", "", config.run.name), config.training.seed)
            if key in found:
                raise ZooError(f"runs: {found[key]} and {name} are both {key[0]} with seed {key[1]}; name one of them")
            found[key] = Path(name)
    return found


def _rows_of_run(path: Path, scans: Sequence[Scan], who: Row, batch_size: int) -> list[Row]:
    from zoo.data.checks import check_elements
    from zoo.data.loader import check_edges
    from zoo.evaluation.predictions import predict_frames
    from zoo.training.finished import load_finished
    from zoo.training.folder import RunFolder

    folder, config = RunFolder.existing(path)
    potential = load_finished(folder, config, config.backbone.dtype, config.backbone.torch_device)
    rows: list[Row] = []
    for scan in scans:
        check_elements(scan.frames, potential.backbone.elements)
        check_edges(scan.frames, potential.backbone.graph_recipe)
        energies = predict_frames(potential, scan.frames, batch_size=batch_size).energies
        for frame, place, reference, energy in zip(scan.frames, scan.coordinate, scan.reference, energies, strict=True):
            where: Row = {"cut": scan.name, "frame": frame.frame_id, "coordinate": float(place)}
            rows.append(who | where | {"reference_ev": float(reference), "predicted_ev": float(energy)})
    return rows


def _draw(rows: Sequence[Row], request: CutsRequest, path: Path) -> Path:
    """One panel a cut: the reference in black, and each curve's mean with a band over its seeds."""
    cuts = list(dict.fromkeys(str(row["cut"]) for row in rows))
    curves = list(dict.fromkeys(str(row["curve"]) for row in rows))
    figure = plots.new_grid(len(cuts), 1)
    for column, cut in enumerate(cuts):
        axes = figure.add_subplot(1, len(cuts), column + 1)
        here = [row for row in rows if row["cut"] == cut]
        first = [row for row in here if row["run"] == here[0]["run"] and row["seed"] == here[0]["seed"]]
        reference = np.array([number(row, "reference_ev") for row in first])
        places = np.array([number(row, "coordinate") for row in first])
        axes.plot(places, reference - reference.min(), color="black", linewidth=2.5, label="reference", zorder=0)
        for curve, style in zip(curves, styles(len(curves)), strict=True):
            energies = _energies([row for row in here if row["curve"] == curve], reference.min() if request.shift == "reference" else None)
            spread = np.array([mean_and_spread(values) for values in energies.T.tolist()])  # (F, 2)
            label = f"{curve}: RMSE {1000 * np.sqrt(np.mean((energies - (reference - reference.min())) ** 2)):.3g} meV"
            draw_curve(axes, label, np.column_stack([places, spread]), style, markers=False)
        axes.set_xlabel(_axis_words(request.coordinate))
        axes.set_ylabel("energy − lowest reference energy (eV)" if request.shift == "reference" else "energy − lowest energy (eV)")
        axes.set_title(cut, fontsize=9)
        axes.grid(True, alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return plots.save_figure(figure, path)


def _energies(rows: Sequence[Row], zero: float | None) -> FloatArray:
    """(seeds, F) eV above ``zero``, or above each seed's own minimum."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    energies = np.array([[number(row, "predicted_ev") for row in rows if row["seed"] == seed] for seed in seeds])
    return np.asarray(energies - (energies.min(axis=1, keepdims=True) if zero is None else zero), dtype=np.float64)


def _axis_words(coordinate: str) -> str:
    if coordinate == FRAME_NUMBER:
        return "frame"
    if re.fullmatch(r"\d+(-\d+){3}", coordinate):
        return f"dihedral angle {coordinate} (degrees)"
    return coordinate.replace("_", " ")
