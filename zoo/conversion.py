"""Checkpoints that are pickled modules, converted once into a configuration and safetensors; from then on nothing is unpickled."""

from __future__ import annotations

import contextlib
from pathlib import Path

from zoo.backbones.mace_checkpoint import SUFFIX, is_converted, read_checkpoint, recognises, write_converted
from zoo.cache import cache_root
from zoo.digests import file_sha256
from zoo.errors import ZooError


def convert(source: Path, output: Path | None = None, trust_pickle: bool = False) -> Path:
    """Write the converted form of a MACE ``.model``; every number in it is the original's.

    Args:
        source: the ``.model``.
        output: of the converted file; None for the source's name with ``.mace.safetensors``, beside it.
        trust_pickle: read a file that names packages no model needs; nothing of it is run all the same.

    Returns:
        The path written.

    Raises:
        ZooError: for a file that is missing, damaged, hostile, not a MACE model or already converted.
    """
    if not source.is_file():
        raise ZooError(f"{source}: no such file; pass a .model that mace wrote")
    if not recognises(source) or is_converted(source):
        found = "is converted already" if is_converted(source) else "is no pickled MACE model"
        raise ZooError(f"{source}: {found}; zoo convert takes a .model that mace wrote, other checkpoints are loaded as they are")
    target = output or source.with_name(source.stem + SUFFIX)
    write_converted(target, *read_checkpoint(source, trust_pickle))
    return target


def converted_in_cache(source: Path, trust_pickle: bool = False) -> Path:
    """The converted form of ``source``, kept in the cache under the SHA-256 of the original; made where it is not there yet.

    Where the cache cannot be written the original is returned, to be read each time.
    """
    if is_converted(source):
        return source
    target = cache_root() / "converted" / (file_sha256(source) + SUFFIX)
    if target.is_file():
        return target
    config, state = read_checkpoint(source, trust_pickle)
    with contextlib.suppress(ZooError):
        write_converted(target, config, state)
        return target
    return source
