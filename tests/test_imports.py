"""`import zoo` is cheap: it loads no backbone, graph library or trainer, in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch_geometric", "e3nn", "lightning", "pytorch_lightning", "hydra", "matplotlib", "sevenn", "nequip", "mace", "fairchem", "ase"}


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in `sys.modules` after the statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import zoo",
        "import zoo; assert zoo.list_models()",
        "import adapters",
        "import zoo.cli",
    ],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement) & HEAVY == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert "ase" in loaded_by("import zoo, ase") & HEAVY


def test_an_unknown_attribute_names_the_known_ones() -> None:
    import zoo

    with pytest.raises(AttributeError, match="list_models"):
        _ = zoo.lod  # type: ignore[attr-defined]


def test_a_foreign_adapters_package_is_refused_with_the_remedy(tmp_path: Path) -> None:
    foreign = tmp_path / "adapters"
    foreign.mkdir()
    (foreign / "__init__.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import zoo"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    last_line = done.stderr.strip().splitlines()[-1]
    assert "pip uninstall adapters" in last_line
    assert str(foreign) in last_line
