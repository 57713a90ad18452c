"""The way back: base, adapter and reference energies as one file that the family's own package loads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from zoo.backbones import load_family
from zoo.errors import ZooError, nearest_name_hint
from zoo.files import write_atomically
from zoo.overrides import quoted
from zoo.potential import Potential
from zoo.scratch import scratch_folder

_OPTIONS = ("format", "output")


def export(potential: Potential, output: Path | None, form: str = "native", folder: Path | None = None) -> tuple[Path, str]:
    """Write the model for its own package, whole or not at all; a file of that name is replaced.

    Args:
        potential: active adapters and reference energies go into the file.
        output: with the suffix of the format; None for ``exported`` in ``folder``.
        form: ``native``, the family's own checkpoint, or another of its `zoo.backbones.base.Family.formats`.
        folder: of the run, where there is one.

    Returns:
        The path written, and what of the package takes it.

    Raises:
        ZooError: an unknown format; no name, a folder's, the base's own or one of another suffix; a file that cannot be written.
    """
    family = load_family(potential.backbone.family)
    if form not in family.formats:
        raise ZooError(f"format={form}: not a format of {family.name}; {nearest_name_hint(form, family.formats)}")
    wanted = family.formats[form]
    if output is not None:
        path = output
    elif folder is not None:
        path = folder / f"exported{wanted.suffix}"
    else:
        raise ZooError(f"output is missing; pass output=FILE{wanted.suffix}")
    _check_output(path, wanted.suffix, potential.source)
    if wanted.build is None:
        potential.save_upstream_checkpoint(path)
    else:
        with scratch_folder() as scratch:  # the tool has its own mind about names: the file is moved when it is whole
            native, built = scratch / f"model{family.formats['native'].suffix}", scratch / path.name
            potential.save_upstream_checkpoint(native)
            wanted.build(native, built)
            write_atomically(path, lambda partial: shutil.copyfile(built, partial))
    return path, wanted.loaded_by(path, potential.backbone.head)


def _check_output(path: Path, suffix: str, base: str) -> None:
    if path.is_dir():
        raise ZooError(f"{path}: is a folder; pass output={path}/exported{suffix}")
    if not path.name.endswith(suffix):
        raise ZooError(f"{path}: its tools know this format by the suffix {suffix}; pass output={path.with_suffix(suffix)}")
    if path.exists() and Path(base).is_file() and os.path.samefile(path, base):
        raise ZooError(f"{path}: is the base itself, which the adapter still needs; pass another output=...")


def keys_of_words(words: Sequence[str]) -> list[str]:
    """``RUN --format native --output FILE`` as the ``run=RUN format=native output=FILE`` that every command takes.

    Raises:
        ZooError: for an option without a value.
    """
    keys: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        option, is_whole, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and option in _OPTIONS:
            if not is_whole and remaining and not remaining[0].startswith("-"):
                value = remaining.pop(0)
            if not value:
                raise ZooError(f"--{option} has no value; pass {option}=... or --{option} ...")
            keys.append(f"{option}={quoted(value)}")
        elif not keys and not word.startswith("-") and ("=" not in word or Path(word).is_dir()):
            keys.append(f"run={quoted(word)}")
        else:
            keys.append(word)
    return keys
