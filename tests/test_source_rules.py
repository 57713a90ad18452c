"""House rules that a reviewer should not have to look for, each with a planted fault that it must find."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PRODUCT = ("adapters", "zoo", "leaderboard", "configs")
LONGEST_FILE = 400
TEXT_SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".cfg", ".txt", ".sh", ".json", ""}
# Put together from pieces, so that this file does not break its own rules.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$}/-])/(?:" + "|".join(("work", "root", r"home/\w+", r"Users/\w+", "tmp/[wd]", r"mnt/\w+")) + r")(?:/|\b)"
)
REGISTRY = re.compile("|".join((r"python" + "hosted", r"pypi" + r"\.org", r"index" + r"-url", r"find" + r"-links")))
BESIDE_THE_PROJECT = "../" + "shared"


def project_files(root: Path) -> list[Path]:
    """The files git tracks or would track; every file where there is no git, as in an unpacked source archive."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode == 0 and listed.stdout:
        return [root / line for line in listed.stdout.splitlines() if (root / line).is_file()]
    hidden = re.compile(r"(^|/)(\.venv|\.git|__pycache__|\.\w+_cache)/")
    return [path for path in sorted(root.rglob("*")) if path.is_file() and not hidden.search(path.relative_to(root).as_posix())]


def unsafe_torch_loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every ``torch.load`` must name ``weights_only=True``; False only where the user's explicit ``trust_pickle`` is handed in."""
    trusted = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and any(argument.arg == "trust_pickle" for argument in function.args.args)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            allowed = ("True", "False") if id(node) in trusted else ("True",)
            if given.get("weights_only") not in allowed:
                yield node.lineno, "torch.load without weights_only=True"
        if isinstance(node, ast.ImportFrom) and node.module == "torch" and any(alias.name == "load" for alias in node.names):
            yield node.lineno, "torch.load under another name escapes this check"


def python_faults(source: str, product: bool) -> Iterator[tuple[int, str]]:
    yield from unsafe_torch_loads(ast.parse(source))
    if source.count("\n") > LONGEST_FILE:
        yield LONGEST_FILE, f"longer than {LONGEST_FILE} lines: does it answer one question?"
    for number, line in enumerate(source.splitlines(), 1):
        if product and re.search(r"\bNotImplementedError\b|\b(?:TODO|FIXME)\b", line):
            yield number, "unfinished"


def text_faults(text: str, product: bool) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if MACHINE_PATH.search(line):
            yield number, "a path of one machine"
        if REGISTRY.search(line):
            yield number, "a registry's address"
        if product and BESIDE_THE_PROJECT in line:
            yield number, "product code knows a folder beside the project"


def faults(root: Path) -> list[str]:
    found = []
    for path in project_files(root):
        name = path.relative_to(root).as_posix()
        product = name.split("/")[0] in PRODUCT
        if path.name == "utils.py":
            found.append(f"{name}: a name that says nothing")
        if path.suffix not in TEXT_SUFFIXES:
            continue
        text = path.read_text(encoding="utf-8")
        rows = list(text_faults(text, product)) + (list(python_faults(text, product)) if path.suffix == ".py" else [])
        found += [f"{name}:{line}: {fault}" for line, fault in rows]
    return found


def test_the_sources_keep_the_house_rules() -> None:
    assert faults(ROOT) == []


def test_the_sources_are_really_read() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in project_files(ROOT)}
    assert {"zoo/__init__.py", "adapters/blocks.py", "tests/test_source_rules.py", "pyproject.toml"} <= names


def test_no_package_under_tests_shadows_a_real_one() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("zoo/planted.py", "import torch\n\ntorch.load('x')\n"),
        ("zoo/planted.py", "import torch\n\ntorch.load('x', weights_only=False)\n"),
        ("tests/planted.py", "from torch import load\n"),
        ("zoo/planted.py", "raise NotImplemented" + "Error\n"),
        ("adapters/planted.py", "x = 1  # TO" + "DO\n"),
        ("adapters/utils.py", "x = 1\n"),
        ("zoo/planted.py", "x = 1\n" * (LONGEST_FILE + 1)),
        ("configs/planted.yaml", "path: ../" + "shared/data\n"),
        ("docs/planted.md", "run `/ho" + "me/alice/zoo`\n"),
        ("docs/planted.md", "see /wo" + "rk/main\n"),
        ("constraints.txt", "--extra-ind" + "ex-url somewhere\n"),
    ],
)
def test_a_planted_fault_is_found(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name("sound.py").write_text("import torch\n\ntorch.load('framework/x', weights_only=True)  # a/work/b, https://x.org/home/\n")
    assert faults(tmp_path) == []
    path.write_text(text)
    assert len(faults(tmp_path)) == 1
