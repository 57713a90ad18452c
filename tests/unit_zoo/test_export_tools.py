"""What upstream's tools make of an exported file: LAMMPS models, compiled and packaged models, and MACE's calculator under e3nn 0.4.4."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

import zoo
from tests.families import installed, skip_without
from tests.unit_zoo.round_trip import TOLERANCE, assert_agree, difference, exported, numbers, numbers_of_run, run, train, upstream
from zoo.errors import ZooError

pytestmark = pytest.mark.slow
NEQUIP_FAMILIES = installed("nequip", "allegro")


@pytest.fixture(scope="module")
def sevennet_0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real SevenNet-0, 20 steps on the embedded set, in float32."""
    return train("sevennet-0", "float32", tmp_path_factory.mktemp("real") / "sevennet-0")


def test_sevennet_0_goes_back_to_its_own_calculator(sevennet_0):
    found = upstream("sevennet", {"float32": exported(sevennet_0)})
    assert_agree(found["float32"], sevennet_0, TOLERANCE["float32"], "SevenNetCalculator")


@pytest.mark.parametrize("which", ["float32", "float64", "sevennet-0"])
def test_sevenn_get_model_makes_a_lammps_model_of_the_exported_file(which, trained, sevennet_0, tmp_path):
    """In float32, which is all that sevenn has, of a float64 file too."""
    folder = sevennet_0 if which == "sevennet-0" else trained("sevennet", which)
    run(sys.executable, "-m", "sevenn.main.sevenn", "get_model", exported(folder), "-o", "lammps", folder=tmp_path)
    found = upstream("sevennet-lammps", {"float32": tmp_path / "lammps.pt"})
    assert_agree(found["float32"], folder, TOLERANCE["float32"], "sevenn get_model")


@pytest.mark.parametrize("version", ["0.6", "0.4.4"])
def test_maces_calculator_and_lammps_model_under_both_versions_of_e3nn(version, trained, old_e3nn, tmp_path):
    e3nn = old_e3nn if version == "0.4.4" else None
    files = {}
    for dtype in TOLERANCE:
        files[dtype] = tmp_path / dtype / "exported.model"
        files[dtype].parent.mkdir()
        shutil.copy(exported(trained("mace", dtype)), files[dtype])
    for dtype, found in upstream("mace", files, e3nn=e3nn).items():
        assert_agree(found, trained("mace", dtype), TOLERANCE[dtype], f"MACECalculator, e3nn {version}")
    run(sys.executable, "-m", "mace.cli.create_lammps_model", files["float64"], e3nn=e3nn)
    lammps = {"float64": Path(f"{files['float64']}-lammps.pt")}
    found = upstream("mace-lammps", lammps, e3nn=e3nn)["float64"]
    assert_agree(found, trained("mace", "float64"), TOLERANCE["float64"], f"mace_create_lammps_model, e3nn {version}")


@pytest.mark.parametrize("family", NEQUIP_FAMILIES)
def test_a_package_is_read_by_upstreams_calculator_and_here(family, trained, tmp_path):
    from zoo.cli import main

    files = {}
    for dtype in TOLERANCE:
        files[dtype] = tmp_path / dtype / "model.nequip.zip"
        main(["export", str(trained(family, dtype)), "--format", "package", "--output", str(files[dtype])])
        assert [path.name for path in files[dtype].parent.iterdir()] == ["model.nequip.zip"]
    for dtype, found in upstream(family, files).items():
        assert_agree(found, trained(family, dtype), TOLERANCE[dtype], f"{family} package")
    with pytest.raises(ZooError, match="trust_pickle"):
        zoo.load(files["float64"])
    again = numbers(zoo.load(files["float64"], trust_pickle=True))
    assert max(difference(again, numbers_of_run(trained(family, "float64"))).values()) <= 1e-12


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("family", "form"), [("nequip", "native"), ("nequip", "package"), pytest.param("allegro", "native", marks=skip_without("allegro"))]
)
def test_nequip_compile_takes_the_exported_file_and_its_calculator_the_compiled_one(family, form, trained, tmp_path):
    from zoo.cli import main

    folder = trained(family, "float64")
    name = "model.ckpt" if form == "native" else "model.nequip.zip"
    main(["export", str(folder), "--format", form, "--output", str(tmp_path / name)])
    options = ["--device", "cpu", "--mode", "aotinductor", "--target", "ase"]
    run(sys.executable, "-m", "nequip.scripts.compile", name, "model.nequip.pt2", *options, folder=tmp_path)
    found = upstream(family, {"float64": tmp_path / "model.nequip.pt2"})["float64"]
    assert_agree(found, folder, TOLERANCE["float64"], f"nequip-compile of {form}")
