"""Imports point down: leaderboard -> zoo -> adapters; read from the syntax tree, so that imports inside functions count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BACKBONE_PACKAGES = ("sevenn", "nequip", "allegro", "mace", "fairchem")

# (importing module or package, what it must not import, why)
RULES = [
    ("adapters", ("zoo", "leaderboard"), "adapters work on any nn.Module"),
    ("adapters", BACKBONE_PACKAGES, "rules name layer types by string, so that no backbone need be installed"),
    ("adapters", ("lightning", "hydra", "torch_geometric", "ase"), "a method needs tensors only"),
    ("zoo", ("leaderboard",), "the board reads what the zoo writes"),
    ("zoo.backbones", ("adapters",), "a backbone translates a graph and does not know that its weights are adapted"),
    ("zoo.backbones", ("zoo.training", "zoo.data", "zoo.potential", "zoo.loading", "zoo.evaluation"), "a backbone translates a graph only"),
    *(
        (name, ("zoo.training", "zoo.loading", "zoo.evaluation", "zoo.backbones.sevennet"), "prediction needs no trainer and no family")
        for name in ("zoo.potential", "zoo.forces", "zoo.reference_shifts", "zoo.routing", "zoo.copies")
    ),
    ("zoo.data", ("zoo.training", "zoo.potential", "zoo.loading", "zoo.backbones", "zoo.evaluation"), "data know no model"),
    ("zoo.evaluation", ("zoo.training",), "a result is recomputed without the trainer"),
    ("zoo.registry", ("zoo.backbones", "zoo.loading", "torch"), "cards are listed without loading a model"),
    ("zoo", ("pytest", "tests", "benchmarks"), "the conformance kit is for any test runner, and is installed without our tests"),
    ("leaderboard", BACKBONE_PACKAGES, "the board reads records"),
]
# May be used anywhere in the zoo, backbones included: `adapters.errors` is the base of the error types, `adapters.plugins` reads what
# installed packages declare.
EVERYWHERE = ("adapters.errors", "adapters.plugins")


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(tree: ast.AST, importer: str, is_package: bool) -> Iterator[tuple[str, int]]:
    """Every dotted name that is imported, relative and `importlib.import_module("...")` ones resolved, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            package = importer.split(".") if is_package else importer.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{stem}.{alias.name}", node.lineno
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((str(argument.value), node.lineno) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(path for package in ("adapters", "zoo", "leaderboard") for path in (root / package).rglob("*.py")):
        importer = module_name(path, root)
        names = list(imported_names(ast.parse(path.read_text(encoding="utf-8")), importer, path.name == "__init__.py"))
        for layer, forbidden, why in RULES:
            if not is_within(importer, layer):
                continue
            for name, line in names:
                if any(is_within(name, package) for package in forbidden) and not any(is_within(name, free) for free in EVERYWHERE):
                    found.append(f"{path.relative_to(root)}:{line} imports {name}: {why}")
    return found


def test_imports_point_down() -> None:
    assert violations(ROOT) == []


def test_every_rule_names_a_layer_that_exists() -> None:
    for layer, _, _ in RULES:
        path = ROOT.joinpath(*layer.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), layer


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("adapters/planted.py", "from zoo.graph import AtomGraph"),
        ("adapters/planted.py", "def f():\n    import sevenn.nn"),
        ("zoo/planted.py", "import leaderboard.schema"),
        ("zoo/backbones/planted.py", "from adapters import blocks"),
        ("zoo/backbones/planted.py", "from .. import training"),
        ("zoo/data/planted.py", "import importlib\nimportlib.import_module('zoo.training.run')"),
        ("zoo/evaluation/planted.py", "from ..training.run import train"),
        ("zoo/testing/planted.py", "import pytest"),
        ("leaderboard/__init__.py", "import mace"),
    ],
)
def test_a_planted_upward_import_is_found(tmp_path: Path, file: str, source: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text("from adapters.errors import AdapterError\nimport macedonia\n")
    assert violations(tmp_path) == []
    path.write_text(source)
    assert len(violations(tmp_path)) == 1
