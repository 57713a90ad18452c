"""The converted form of a MACE model: one safetensors file with the configuration in its header, from which nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from zoo.backbones.mace_network import MaceConfig
from zoo.errors import ZooError, first_line, first_problem
from zoo.files import write_atomically

SUFFIX = ".mace.safetensors"
FORMAT_VERSION = 2
"""1 had a checksum of the tensors alone. It goes up too when the reading of pickles is mended: the cache is then filled anew."""
_METADATA_KEY = "equizoo_mace"


def write_converted(path: Path, config: MaceConfig, state: dict[str, Tensor]) -> None:
    """Write configuration and state as one safetensors file; the same model gives the same bytes.

    Raises:
        ZooError: where the file cannot be written.
    """
    tensors = {name: state[name].detach().to("cpu").contiguous() for name in sorted(state)}
    plain = config.model_dump(mode="json")
    fields = {"format_version": FORMAT_VERSION, "config": plain, "content_sha256": _content_sha256(plain, tensors)}
    content = serialise_safetensors(tensors, metadata={_METADATA_KEY: json.dumps(fields, sort_keys=True)})
    write_atomically(path, lambda partial: partial.write_bytes(content))


def is_converted(path: Path) -> bool:
    """Whether the file is one that `write_converted` wrote, by its header."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 0 < length < 2**26 and f'"{_METADATA_KEY}"'.encode() in stream.read(length)


def read_converted(path: Path) -> tuple[MaceConfig, dict[str, Tensor]]:
    """Configuration and state, both as they were written.

    Raises:
        ZooError: for a file that cannot be read, is damaged, contradicts itself, or is of another version of the format.
    """
    try:
        content = path.read_bytes()
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        fields = json.loads(header["__metadata__"][_METADATA_KEY])
        version, plain, written = (fields[name] for name in ("format_version", "config", "content_sha256"))
        if version != FORMAT_VERSION:
            remedy = "update equizoo" if version > FORMAT_VERSION else "convert the original again"
            raise ZooError(f"{path}: a converted model of format {version}, this equizoo reads {FORMAT_VERSION}; {remedy}")
        state = parse_safetensors(content)
        if _content_sha256(plain, state) != written:
            raise ZooError(f"{path}: damaged converted model (its SHA-256 is not the one written); convert the original again")
        return MaceConfig.model_validate(plain), state
    except ZooError:
        raise
    except ValidationError as error:
        first = first_problem(error)
        raise ZooError(f"{path}: not a MACE model: {first.key or 'its settings'}: {first.message}; convert the original again") from None
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, OSError) as error:
        raise ZooError(f"{path}: damaged converted model ({first_line(error)}); convert the original again") from None


def _content_sha256(config: Any, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT_VERSION, config], sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
