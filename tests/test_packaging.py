"""The wheel carries everything that the command line needs, and works away from the checkout."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MACE_COMMAND = "pip install --no-deps mace-torch==0.3.16"
FAIRCHEM_COMMAND = "pip install --no-deps fairchem-core==2.24.0"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the hatchling of this environment, so that the test needs no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("elsewhere") / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def run_away_from_the_checkout(installed: Path, code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(installed)!r})\n{code}"],
        cwd=installed.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def data_files(package: str) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*") if path.suffix in {".yaml", ".json", ".typed"}}


def test_the_wheel_has_every_module_card_and_config_and_no_test(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        path.relative_to(ROOT).as_posix() for package in ("zoo", "adapters", "leaderboard") for path in (ROOT / package).rglob("*.py")
    }
    configs = {name.replace("configs/", "zoo/_configs/", 1) for name in data_files("configs")}
    assert len(configs) >= 5
    assert (modules | configs | data_files("zoo") | data_files("adapters") | data_files("leaderboard")) - names == set()
    assert {name.split("/")[0] for name in names} == {"zoo", "adapters", "leaderboard", f"equizoo-{version()}.dist-info"}


def test_the_installed_package_finds_its_configs_away_from_the_checkout(installed: Path) -> None:
    found = run_away_from_the_checkout(installed, "from zoo.config_groups import config_root; print(config_root())")
    assert Path(found) == installed / "zoo" / "_configs"
    assert (Path(found) / "train.yaml").read_text() == (ROOT / "configs" / "train.yaml").read_text()


def test_the_checkout_reads_its_own_configs_and_no_stale_copy() -> None:
    from zoo.config_groups import config_root

    assert config_root() == ROOT / "configs"


def test_the_installed_package_lists_the_cards_away_from_the_checkout(installed: Path) -> None:
    listed = run_away_from_the_checkout(installed, "import zoo; print(zoo.__file__); print(zoo.list_models())")
    assert str(installed) in listed
    assert "sevennet-0" in listed


def test_the_command_zoo_is_declared(installed: Path) -> None:
    assert "zoo = zoo.cli:main" in next(installed.glob("equizoo-*.dist-info")).joinpath("entry_points.txt").read_text()


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def test_the_imported_version_is_the_packaged_one() -> None:
    import zoo

    assert zoo.__version__ == version()


@pytest.mark.parametrize("command", [MACE_COMMAND, FAIRCHEM_COMMAND])
def test_packages_that_come_alone_are_installed_by_the_same_command_everywhere(command: str) -> None:
    for name in ("README.md", "CONTRIBUTING.md", "constraints.txt", "zoo/backbones/__init__.py"):
        assert command in (ROOT / name).read_text(), name
    assert command.replace("pip", "$(PIP)", 1) in (ROOT / "Makefile").read_text()


def test_every_direct_dependency_is_pinned_once_within_its_declared_range() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}
    assert len(pins) == len(lines)
    extras = [text for extra in ("dev", "mace", "allegro", "fairchem", "torchsim") for text in project["optional-dependencies"][extra]]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_environment_is_the_pinned_one() -> None:
    """A test result says something about the pins only if it was made with them."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    for name in ("torch", "e3nn", "sevenn", "nequip", "nequip-allegro", "lightning", "numpy", "pydantic"):
        assert importlib.metadata.version(name).split("+")[0] == pins[name], name
    for command in (MACE_COMMAND, FAIRCHEM_COMMAND):
        package, _, pin = command.split()[-1].partition("==")
        assert importlib.metadata.version(package) == pin


def test_every_family_has_its_package_so_that_no_contract_is_skipped() -> None:
    from zoo.backbones import family_names, is_installed

    assert len(family_names()) >= 6
    assert [name for name in family_names() if not is_installed(name)] == []


def test_pip_check_finds_the_documented_conflicts_and_no_other() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    lines = re.findall(r"^#\s+(\S+ \S+ (?:has requirement|requires) .*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert len(lines) == 9
    assert done.stdout.splitlines() == lines, done.stderr
