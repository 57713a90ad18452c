"""Methods and families of other packages, found by their entry points: a small real distribution, and what each mistake in one is told."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from adapters import method
from adapters.method import create_method, method_names
from tests.refusals import cli_refusal, lacks, refusal_of
from zoo.backbones import family_names, family_of_checkpoint, is_installed, load_family
from zoo.compose import compose
from zoo.potential import Potential
from zoo.testing import METHOD_CLAIMS, Toy

METHOD = """
import torch
from adapters.method import AdapterMethod, register

class {name}(AdapterMethod):
    "delta = D, dense."

    name = "{label}"

    def initial_factors(self, block, generator, dtype):
        return {{"D": torch.zeros(block.compact_shape, dtype=dtype)}}

    def delta(self, factors):
        return factors["D"]
"""
FAMILY = """
from dataclasses import replace
from zoo.backbones import load_family

FAMILY = replace(load_family("nequix"), name="guest", recognises=lambda path: path.suffix == ".guest")
"""

Write = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """``package(name, source, group={entry: value})`` puts a module and the metadata of its distribution on the search path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    method_names()
    monkeypatch.setattr(method, "_METHODS", dict(method._METHODS))

    def write(name: str, source: str, **groups: dict[str, str]) -> None:
        (folder / f"{name}.py").write_text(textwrap.dedent(source))
        metadata = folder / f"{name}-1.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        lines = [
            f"[equizoo.{group}]\n" + "".join(f"{key} = {value}\n" for key, value in declared.items()) for group, declared in groups.items()
        ]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        method.plugins.__globals__["_found"].cache_clear()

    yield write
    for module in [name for name, loaded in sys.modules.items() if str(folder) in str(getattr(loaded, "__file__", ""))]:
        del sys.modules[module]
    method.plugins.__globals__["_found"].cache_clear()


def test_a_method_of_another_package_is_met_by_its_name_and_imported_when_it_is_asked_for(package, toy_checkpoint, zoo):
    package("guest_one", METHOD.format(name="Guest", label="guest-dense"), adapters={"guest-dense": "guest_one:Guest"})
    assert "guest-dense" in method_names()
    assert "guest_one" not in sys.modules
    assert create_method({"name": "guest-dense", "roles": ["readout"]}).config_dict["roles"] == ["readout"]
    assert "guest_one" in sys.modules
    potential = Potential(Toy("nequix").build(0))
    for claim in ("settings", "start", "merged", "file"):
        assert (METHOD_CLAIMS[claim](potential, "guest-dense", None).value or 0) < 1e-12
    config = compose("train", ["adapter=guest-dense", "adapter.roles=[readout]", "run.folder=x", "run.name=x"])
    assert config["adapter"] == {"name": "guest-dense", "roles": ["readout"]}
    assert "guest-dense" in zoo("train", "--help").out
    finished = zoo("check-equivariance", f"backbone={toy_checkpoint}", "adapter=guest-dense")
    assert finished.code == 0, finished.err


def test_a_family_of_another_package_is_met_by_its_name_and_by_its_files(package, tmp_path):
    package("guest_family", FAMILY, backbones={"guest": "guest_family:FAMILY"})
    assert "guest" in family_names()
    assert is_installed("guest")
    assert load_family("guest").name == "guest"
    file = tmp_path / "model.guest"
    file.write_bytes(b"weights")
    assert family_of_checkpoint(file).name == "guest"
    assert Toy("guest").build(0).dtype.is_floating_point


def test_a_name_that_is_taken_is_refused_for_that_name_alone(package, toy_checkpoint):
    source = METHOD.format(name="Guest", label="elora")
    package("guest_two", source + FAMILY, adapters={"elora": "guest_two:Guest"}, backbones={"mace": "guest_two:FAMILY"})
    message = refusal_of(create_method, "elora")
    assert not lacks(message, "adapter method 'elora'", "guest_two 1.5", "equizoo", "rename")
    assert create_method("full").name == "full"
    assert not lacks(refusal_of(load_family, "mace"), "family 'mace'", "guest_two 1.5", "equizoo")
    assert load_family("nequix").name == "nequix"
    assert family_of_checkpoint(toy_checkpoint).name == "sevennet"


def test_a_name_that_two_packages_declare_is_refused_and_both_are_named(package):
    for name in ("guest_a", "guest_b"):
        package(name, METHOD.format(name="Guest", label="twice"), adapters={"twice": f"{name}:Guest"})
    assert not lacks(refusal_of(create_method, "twice"), "guest_a 1.5", "guest_b 1.5")


def test_a_package_that_cannot_be_imported_is_reported_in_one_line_and_disturbs_no_other(package, tmp_path, toy_checkpoint, zoo):
    broken = "import no_such_package_anywhere\n"
    package("guest_broken", broken, adapters={"broken": "guest_broken:Guest"}, backbones={"broken": "guest_broken:FAMILY"})
    package("guest_sound", METHOD.format(name="Guest", label="guest-sound"), adapters={"guest-sound": "guest_sound:Guest"})
    assert {"broken", "guest-sound"} <= set(method_names())
    assert create_method("guest-sound").name == "guest-sound"
    assert create_method("elora").name == "elora"
    for ask in (create_method, load_family):
        message = refusal_of(ask, "broken")
        assert not lacks(message, "'broken'", "guest_broken 1.5", "ModuleNotFoundError", "no_such_package_anywhere", "uninstall")
    assert family_of_checkpoint(toy_checkpoint).name == "sevennet"
    other = tmp_path / "unknown.file"
    other.write_text("nothing")
    assert "guest_broken 1.5" in refusal_of(family_of_checkpoint, other)  # it might have known the file
    refused = cli_refusal(zoo("check-equivariance", f"backbone={toy_checkpoint}", "adapter=broken"))
    assert "no_such_package_anywhere" in refused


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("guest_wrong:NUMBER", "a subclass of adapters.method.AdapterMethod"),
        ("guest_wrong:Guest", "a method of the name 'declared'"),
        ("guest_wrong:Absent", "AttributeError"),
    ],
)
def test_a_declaration_that_leads_to_something_else_says_to_what(package, value, wanted):
    package("guest_wrong", METHOD.format(name="Guest", label="other") + "\nNUMBER = 3\n", adapters={"declared": value})
    assert not lacks(refusal_of(create_method, "declared"), value, "guest_wrong 1.5", wanted)


def test_a_family_that_is_none_or_bears_another_name_is_refused(package):
    package("guest_none", FAMILY, backbones={"a": "guest_none:load_family", "b": "guest_none:FAMILY"})
    assert "wanted a zoo.backbones.base.Family" in refusal_of(load_family, "a")
    assert not lacks(refusal_of(load_family, "b"), "called 'guest'", "'b'")


def test_registering_a_second_method_under_a_name_is_refused():
    class Elora(method.AdapterMethod):
        """Another."""

        name = "elora"

    create_method("elora")
    assert not lacks(refusal_of(method.register, Elora), "elora", "adapters.elora", "choose another")
    assert type(create_method("elora")).__module__ == "adapters.elora"


def test_a_distribution_installed_by_pip_is_found_in_a_new_process(tmp_path):
    """A real one, built by the backend that is here, into a folder of its own."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "guest_wheel.py").write_text(METHOD.format(name="Guest", label="from-wheel"))
    (source / "pyproject.toml").write_text(
        textwrap.dedent(
            """
            [build-system]
            requires = ["hatchling"]
            build-backend = "hatchling.build"
            [project]
            name = "guest-wheel"
            version = "0.3"
            [project.entry-points."equizoo.adapters"]
            from-wheel = "guest_wheel:Guest"
            [tool.hatch.build.targets.wheel]
            only-include = ["guest_wheel.py"]
            """
        )
    )
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*install, "--target", str(target), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code = (
        f"import sys; sys.path.append({str(target)!r})\n"
        "from adapters.method import create_method, method_names\n"
        "assert 'guest_wheel' not in sys.modules\n"
        "print('from-wheel' in method_names(), create_method('from-wheel').name)"
    )
    root = Path(__file__).resolve().parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["True", "from-wheel"], found.stderr
