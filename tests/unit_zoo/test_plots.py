"""Plots are PNG files with units on their axes; what cannot be drawn is one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from zoo import plots
from zoo.data.frame import Frame
from zoo.errors import ZooError
from zoo.evaluation.predictions import Predictions

PNG = b"\x89PNG\r\n\x1a\n"


def labelled(count: int = 40) -> tuple[list[Frame], Predictions, Predictions]:
    """Frames around -626 eV/atom, a good model, and a zero-shot one that is 0.1 eV/atom off and three times too noisy."""
    generator = np.random.default_rng(0)
    base = Frame.unlabelled(Atoms("C5H8O2", positions=generator.uniform(0, 4, (15, 3))))
    frames = [replace(base, energy=-9391.0 + generator.normal(0, 0.5), forces=generator.normal(0, 1.0, (15, 3))) for _ in range(count)]

    def model(offset: float, noise: float) -> Predictions:
        return Predictions(
            tuple(frame.name for frame in frames),
            np.array([frame.energy + offset + generator.normal(0, noise) for frame in frames]),
            tuple(frame.forces + generator.normal(0, noise, (15, 3)) for frame in frames),
            (None,) * count,
        )

    return frames, model(0.0, 0.05), model(1.5, 0.25)


ROWS = [
    {"step": str(step), "epoch": "0", "train/loss": str(3.0 / (1 + step)), "valid/loss": str(4.0 / (1 + step)) if step % 5 == 0 else "",
     "val_force_mae_mev_per_angstrom": str(300.0 / (1 + step)) if step % 5 == 0 else "", "lr-AdamW": str(0.02 * (1 - step / 60))}
    for step in range(60)
]  # fmt: skip


def test_learning_curves_draw_one_panel_a_quantity_with_its_unit(tmp_path: Path, drawn: list[Any]) -> None:
    path = plots.plot_learning_curves(ROWS, tmp_path / "curves.png")
    assert path.read_bytes().startswith(PNG)
    panels = {axes.get_ylabel(): axes for axes in drawn[0].axes}
    assert list(panels) == ["loss", "force MAE (meV/Å)", "learning rate"]
    assert [line.get_label() for line in panels["loss"].lines] == ["train", "valid"]
    assert [len(line.get_xdata()) for line in panels["loss"].lines] == [60, 12]
    assert panels["loss"].get_yscale() == "log"
    assert panels["learning rate"].get_yscale() == "linear"


def test_a_curve_that_reaches_zero_keeps_a_linear_axis(tmp_path: Path, drawn: list[Any]) -> None:
    plots.plot_learning_curves([{"step": 0, "train/loss": 1.0}, {"step": 1, "train/loss": 0.0}], tmp_path / "curves.png")
    assert drawn[0].axes[0].get_yscale() == "linear"


def test_a_log_with_nothing_to_draw_is_an_error_and_no_empty_picture(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"nothing to plot; .*found: epoch, step"):
        plots.plot_learning_curves([{"step": 0, "epoch": 1}], tmp_path / "curves.png")
    with pytest.raises(ZooError, match="found: no rows"):
        plots.plot_learning_curves([], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_energy_parity_names_the_offset_taken_from_zero_shot_and_takes_none_from_the_fine_tuned(tmp_path: Path, drawn: list[Any]) -> None:
    frames, fine_tuned, zero_shot = labelled()
    shifted = replace(fine_tuned, energies=fine_tuned.energies + 0.3)
    assert plots.plot_energy_parity(tmp_path / "energy.png", frames, shifted, zero_shot).read_bytes().startswith(PNG)
    below, above = (text.get_text() for text in drawn[0].axes[0].get_legend().get_texts())
    offset = np.mean([(e - f.energy) / 15 for e, f in zip(zero_shot.energies, frames, strict=True)])
    assert below.startswith(f"zero-shot, {offset:+.4g} eV/atom removed: RMSE ")
    errors = np.array([(e - f.energy) / 15 for e, f in zip(shifted.energies, frames, strict=True)])
    assert abs(errors.mean()) > 0.015  # the 0.3 eV over 15 atoms that must stay
    assert above == f"fine-tuned: RMSE {1000 * np.sqrt(np.mean(errors**2)):.3g} meV/atom"
    assert "eV/atom" in drawn[0].axes[0].get_xlabel()


def test_force_parity_states_the_rmse_of_all_components(tmp_path: Path, drawn: list[Any]) -> None:
    frames, fine_tuned, zero_shot = labelled()
    frames[3] = replace(frames[3], forces=np.full((15, 3), np.nan))
    assert plots.plot_force_parity(tmp_path / "forces.png", frames, fine_tuned, zero_shot).read_bytes().startswith(PNG)
    errors = [p - f.forces for p, f in zip(fine_tuned.forces, frames, strict=True) if f.has_forces]
    assert drawn[0].axes[0].get_legend().get_texts()[1].get_text() == f"fine-tuned: RMSE {1000 * np.std(errors):.3g} meV/Å"
    assert len(drawn[0].axes[0].collections[0].get_offsets()) == 39 * 45


def test_many_points_are_thinned_for_drawing(tmp_path: Path, drawn: list[Any]) -> None:
    frames, fine_tuned, _ = labelled(500)
    plots.plot_force_parity(tmp_path / "forces.png", frames, fine_tuned)
    assert len(drawn[0].axes[0].collections[0].get_offsets()) == 20_000


def test_held_atoms_have_no_part_in_a_force_plot(tmp_path: Path, drawn: list[Any]) -> None:
    frames, fine_tuned, _ = labelled(3)
    held = np.arange(15) < 5
    slabs = [replace(frame, fixed=held, forces=np.where(held[:, None], np.nan, frame.forces)) for frame in frames]
    plots.plot_force_parity(tmp_path / "forces.png", slabs, fine_tuned)
    points = drawn[0].axes[0].collections[0].get_offsets()
    assert points.shape == (3 * 10 * 3, 2)
    assert np.isfinite(points).all()


def test_parity_without_labels_is_an_error(tmp_path: Path) -> None:
    frames, fine_tuned, _ = labelled(2)
    bare = [Frame.unlabelled(frame.to_atoms()) for frame in frames]
    with pytest.raises(ZooError, match="no frame has an energy"):
        plots.plot_energy_parity(tmp_path / "energy.png", bare, fine_tuned)
    with pytest.raises(ZooError, match="no frame has forces"):
        plots.plot_force_parity(tmp_path / "forces.png", bare, fine_tuned)


def test_importing_the_module_does_not_import_matplotlib() -> None:
    program = "import sys, zoo.plots; print([name for name in sys.modules if name.startswith(('zoo.plots', 'matplotlib', 'torch'))])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['zoo.plots']"
