"""Pickled MACE models converted once, by ``zoo convert`` or into the cache when they are loaded; from then on nothing is unpickled."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from torch import Tensor

from zoo.backbones.mace_checkpoint import read_checkpoint, recognises
from zoo.backbones.mace_converted import FORMAT_VERSION, SUFFIX, is_converted, read_converted, write_converted
from zoo.backbones.mace_network import MaceConfig
from zoo.cache import cache_root
from zoo.digests import file_sha256
from zoo.errors import ZooError


def convert(source: Path, output: Path | None = None, trust_pickle: bool = False) -> Path:
    """Write the converted form of a MACE ``.model``; every number in it is the original's.

    Args:
        source: the ``.model``.
        output: of the converted file, named ``*.mace.safetensors``; None for the source's name with that suffix, beside it.
        trust_pickle: read a file that names packages no model needs; nothing of it is run all the same.

    Returns:
        The path written.

    Raises:
        ZooError: for a file that is missing, damaged, hostile, not a MACE model or already converted; for an output of another suffix, a
            folder, or the source itself.
    """
    if not source.is_file():
        raise ZooError(f"{source}: no such file; pass a .model that mace wrote")
    if not recognises(source) or is_converted(source):
        found = "is converted already" if is_converted(source) else "is no pickled MACE model"
        raise ZooError(f"{source}: {found}; zoo convert takes a .model that mace wrote, other checkpoints are loaded as they are")
    target = output or source.with_name(source.stem + SUFFIX)
    _check_output(target, source)
    write_converted(target, *read_checkpoint(source, trust_pickle))
    return target


def _check_output(target: Path, source: Path) -> None:
    if target.is_dir():
        raise ZooError(f"{target}: is a folder; pass output={target / (source.stem + SUFFIX)}")
    if not target.name.endswith(SUFFIX):
        raise ZooError(f"{target}: converted models have the suffix {SUFFIX}; pass output={target.with_name(target.stem + SUFFIX)}")
    if target.exists() and os.path.samefile(target, source):
        raise ZooError(f"{target}: is the original itself, which would be lost; pass another output=...")


def read_through_cache(source: Path, trust_pickle: bool = False) -> tuple[MaceConfig, dict[str, Tensor]]:
    """Configuration and state of any MACE checkpoint; of a pickled one, the converted form is kept in the cache.

    It lies there under the SHA-256 of the original and the version of the format. One that is damaged is replaced; where the cache cannot
    be written, the original is read each time.

    Raises:
        ZooError: as `zoo.backbones.mace_checkpoint.read_checkpoint`.
    """
    if is_converted(source):
        return read_converted(source)
    target = cache_root() / "converted" / f"{file_sha256(source)}.v{FORMAT_VERSION}{SUFFIX}"
    if target.is_file():
        with contextlib.suppress(ZooError):
            return read_converted(target)
    config, state = read_checkpoint(source, trust_pickle)
    with contextlib.suppress(ZooError):
        write_converted(target, config, state)
    return config, state
