"""Nequix's files (``.nqx``): one line of JSON settings, then the model's arrays as ``.npy`` records, one after the other.

Nothing in them can run code. Behind the last array upstream's files hold nothing, a line end, or a copy of the settings' numbers, each a
record of its own (equinox wrote more of the tree than upstream reads back); that tail is kept, so that a file read and written is the same.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib import format as npy
from pydantic import ValidationError
from torch import Tensor

from zoo.backbones.nequix_model import IrrepsRMSNorm, NequixConfig, NequixLayer, NequixNetwork
from zoo.errors import ZooError, first_line, first_problem

_LONGEST_SETTINGS = 1 << 20
_MAGIC = b"\x93NUMPY"
_SCALAR_TYPES = ("|b1", "<i8", "<f8")


def upstream_leaves(network: NequixNetwork) -> list[Tensor]:
    """The weights as views of upstream's shapes in upstream's order: atom energies, each layer, readout.

    A layer's are its radial matrices (in, out), then the matrices (in, out) of linear_1, linear_2 and skip by irrep, then the norm's
    weights by irrep. Written to, they change the network.
    """
    leaves = [network.atom_energies.detach()]
    for layer in network.layers:
        assert isinstance(layer, NequixLayer)
        leaves += [matrix.detach().T for matrix in layer.radial_mlp.parameters()]
        for mixing in (layer.linear_1, layer.linear_2, layer.skip):
            leaves += mixing.weight_views(mixing.weight.detach())
        if isinstance(layer.norm, IrrepsRMSNorm):
            leaves += torch.split(layer.norm.weight.detach(), [multiplicity for multiplicity, _ in layer.norm.shapes])
    return [*leaves, *network.readout.weight_views(network.readout.weight.detach())]


def read_file(path: Path) -> tuple[NequixNetwork, dict[str, Any], bytes]:
    """The network in float32, all of the file's settings, and its tail.

    Raises:
        ZooError: another kind of file, one that ends early or goes on behind its end, or settings that no network fits.
    """
    try:
        stream = io.BytesIO(path.read_bytes())
    except OSError as error:
        raise ZooError(f"{path}: cannot be read ({error.strerror or error}); pass a readable file") from None
    settings = _settings(stream, path)
    config = parse_settings(settings, str(path))
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced: they must not use up the caller's stream
        network = NequixNetwork(config, torch.float32)
    leaves = upstream_leaves(network)
    for index, leaf in enumerate(leaves):
        leaf.copy_(_read_array(stream, leaf.shape, f"{path}: array {index + 1} of {len(leaves)}"))
    return network, settings, _tail(stream, path)


def parse_settings(settings: Mapping[str, Any], source: str) -> NequixConfig:
    """What of the settings decides the network; raises `ZooError` where they are incomplete or no network is known for them."""
    try:
        return NequixConfig.model_validate(settings)
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{source}: {first.key or 'settings'}: {first.message}; pass a file that nequix wrote") from None


def write_file(path: Path, settings: Mapping[str, Any], leaves: Sequence[Tensor], tail: bytes) -> None:
    """Write arrays in float32 as upstream does."""
    with path.open("wb") as stream:
        stream.write(json.dumps(settings).encode() + b"\n")
        for leaf in leaves:
            npy.write_array(stream, np.ascontiguousarray(leaf.to("cpu", torch.float32).numpy()), allow_pickle=False)
        stream.write(tail)


def recognises(path: Path) -> bool:
    """Whether ``path`` begins as a Nequix file does."""
    try:
        with path.open("rb") as stream:
            line = stream.readline(_LONGEST_SETTINGS)
            return line.startswith(b"{") and b'"hidden_irreps"' in line and stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _settings(stream: BinaryIO, path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(stream.readline(_LONGEST_SETTINGS))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ZooError(f"{path}: its first line holds no JSON settings, so it is no Nequix file; pass the .nqx file that nequix wrote")
    return settings


def _read_array(stream: BinaryIO, shape: Sequence[int], what: str) -> Tensor:
    """The next record, which must be float32 of that shape: looked at before anything of its size is allocated."""
    found_shape, dtype = _read_header(stream, what)
    if found_shape != tuple(shape) or dtype != np.dtype("<f4"):
        raise ZooError(f"{what}: found {dtype} {found_shape}, wanted float32 {tuple(shape)}; its settings belong to another model")
    content = stream.read(4 * int(np.prod(shape)))
    if len(content) < 4 * np.prod(shape):
        raise ZooError(f"{what}: the file ends within it; fetch the file again")
    return torch.from_numpy(np.frombuffer(content, dtype="<f4").reshape(shape).copy())


def _read_header(stream: BinaryIO, what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("a version other than 1.0")
        shape, is_fortran_ordered, dtype = npy.read_array_header_1_0(stream)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise ZooError(f"{what}: no .npy record ({first_line(error)}); fetch the file again") from None
    if is_fortran_ordered:
        raise ZooError(f"{what}: found Fortran order, wanted C order as nequix writes; fetch the file again")
    return shape, dtype


def _tail(stream: BinaryIO, path: Path) -> bytes:
    """What stands behind the last array: nothing, a line end, or single numbers."""
    start = stream.tell()
    tail = stream.read()
    if tail in (b"", b"\n"):
        return tail
    stream.seek(start)
    what = f"{path}: {len(tail)} bytes behind the last array"
    while stream.tell() < start + len(tail):
        shape, dtype = _read_header(stream, what)
        if shape != () or dtype.str not in _SCALAR_TYPES or len(stream.read(dtype.itemsize)) < dtype.itemsize:
            raise ZooError(f"{what}: wanted nothing, a line end or single numbers there; fetch the file again")
    return tail
