"""What the NequIP framework takes: a checkpoint, and the package that ``nequip-package`` makes of one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shlex import quote

from zoo.backbones.base import UpstreamFormat
from zoo.errors import ZooError

PACKAGE_SUFFIX = ".nequip.zip"
TOOL = "nequip.scripts.package"


def build_package(checkpoint: Path, target: Path) -> None:
    """Pack a checkpoint with upstream's own tool, in a process of its own: it sets what it needs for the whole process.

    Args:
        checkpoint: as `zoo.backbones.nequip_checkpoint.checkpoint_payload` has it.
        target: a new file whose name ends in `PACKAGE_SUFFIX`.

    Raises:
        ZooError: where the tool fails, with the last line it said.
    """
    command = [sys.executable, "-m", TOOL, "build", str(checkpoint.resolve()), str(target.resolve())]
    # it leaves Hydra's files where it runs
    done = subprocess.run(command, cwd=target.parent, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not target.is_file():
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
        raise ZooError(f"{target.name}: nequip-package cannot make it ({said[-1].strip()}); export format=native instead")


def _loaded_by(path: Path, head: str | None) -> str:
    compiled = f"{path.name.removesuffix(PACKAGE_SUFFIX).removesuffix('.ckpt')}.nequip.pt2"
    command = f"nequip-compile {quote(str(path))} {quote(compiled)} --device cpu --mode aotinductor --target ase"
    return f'{command}, then NequIPCalculator.from_compiled_model("{compiled}")'


FORMATS = {
    "native": UpstreamFormat(".ckpt", _loaded_by),
    "package": UpstreamFormat(PACKAGE_SUFFIX, _loaded_by, build_package),
}
