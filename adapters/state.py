"""Adapter files: written whole or not at all, read only if every byte is as it was written, attached only to the base they were made for.

A file is safetensors with tensors ``<parameter>/<label>/<factor>`` and one metadata entry, ``equizoo``: the `AdapterManifest` as canonical
JSON, with a SHA-256 over the manifest and every tensor's name, dtype, shape and bytes. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as serialise_safetensors
from torch import Tensor

from adapters.adapter import Adapter, Provenance
from adapters.errors import AdapterError, first_line, first_problem
from adapters.files import write_atomically
from adapters.manifest import FORMAT_VERSION, AdapterManifest, base_fingerprint, completed, convention_of
from adapters.method import create_method
from adapters.stack import AdapterStack

__all__ = ["AdapterManifest", "base_fingerprint", "load_into", "read_adapter", "write_adapter"]

_METADATA_KEY = "equizoo"
_MAX_HEADER_BYTES = 16 * 2**20
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def write_adapter(path: Path, adapter: Adapter, manifest: AdapterManifest) -> None:
    """Write an adapter file atomically; the same adapter and manifest give the same bytes.

    Args:
        path: of the ``.safetensors`` file; its folder is made if needed.
        adapter: whose tensors are written.
        manifest: what the run knows; the block table and the count are filled in.

    Raises:
        AdapterError: a manifest of another method, numbers that are not finite, a folder that cannot be written or a full disk; an older
            file at ``path`` is left as it was and no partial file remains.
    """
    method = adapter.method
    if (manifest.method, manifest.config) != (method.name, method.config_dict):
        found, wanted = f"{manifest.method} {manifest.config}", f"{method.name} {method.config_dict}"
        raise AdapterError(f"{path}: the manifest states the method {found}, the adapter is {wanted}; state the adapter's")
    tensors = {key: tensor.detach().to("cpu").contiguous() for key, tensor in adapter.tensors.items()}
    _check_finite(tensors, str(path))
    try:
        fields = completed(manifest, adapter).model_dump(mode="json")
        text = _canonical({**fields, "content_sha256": _content_sha256(fields, tensors)})
    except ValueError as error:
        raise AdapterError(f"{path}: the manifest holds a number that is not finite ({error}); correct it before saving") from None
    content = serialise_safetensors(tensors, metadata={_METADATA_KEY: text})
    write_atomically(path, lambda partial: partial.write_bytes(content), AdapterError)


def read_adapter(path: Path) -> tuple[AdapterManifest, dict[str, Tensor]]:
    """An adapter file's manifest and tensors, on the CPU.

    Raises:
        AdapterError: where the file is missing, truncated, altered in any byte, not an adapter of equizoo, of a newer format, or holds
            numbers that are not finite.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        inside = Path(path) / "adapter.safetensors"  # of a run's folder
        wanted = f"pass {inside}" if inside.is_file() else "pass the path of an adapter file"
        raise AdapterError(f"{path}: cannot be read ({error.strerror or error}); {wanted}") from None
    text = _metadata_text(content, str(path))
    fields = _parse_manifest(text, str(path))
    try:
        tensors = parse_safetensors(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path, f"its tensors cannot be read: {first_line(error)}") from None
    stated = fields.pop("content_sha256", None)
    found = _content_sha256(fields, tensors)
    if found != stated:
        raise _damaged(path, f"content SHA-256 {found[:12]}, wanted {str(stated)[:12]}")
    _check_finite(tensors, str(path))
    try:
        return AdapterManifest(**fields), tensors
    except ValidationError as error:
        first = first_problem(error)
        raise AdapterError(
            f"{path}: manifest field {first.key}: {first.message}; write the file again with this version of equizoo"
        ) from None


def load_into(stack: AdapterStack, name: str, manifest: AdapterManifest, tensors: Mapping[str, Tensor]) -> Adapter:
    """Attach a read adapter to a model, active besides those that were.

    Args:
        stack: of the base that the adapter was trained on, in any precision.
        name: of the adapter in the stack.
        manifest: from `read_adapter`.
        tensors: from `read_adapter`; cast to the base's precision.

    Raises:
        AdapterError: another base (both hashes in the message), or tensors that are missing, unexpected, of the wrong shape or too large
            for the base's precision; the stack is left as it was.
    """
    with stack.exclusive():
        _check_base(stack, manifest)
        method = create_method({**manifest.config, "name": manifest.method})
        base = dict(stack.model.named_parameters())
        _check_shapes(Adapter.factor_shapes(method, stack.coverage, base), tensors)
        _check_range(tensors, base)
        adapter = stack.add(name, method)
        with torch.no_grad():
            for key, tensor in adapter.tensors.items():
                tensor.copy_(tensors[key])
        adapter.provenance = Provenance(manifest.reference_energies, manifest.level_of_theory, manifest.data, manifest.training)
    return adapter


def _check_base(stack: AdapterStack, manifest: AdapterManifest) -> None:
    if stack.is_merged:
        raise AdapterError("cannot attach an adapter file while adapters are merged into the model; call unmerge() first")
    convention = convention_of(stack.model)
    if manifest.base_convention != convention and manifest.base_convention:
        raise AdapterError(
            f"adapter trained on a base of the convention {manifest.base_convention!r} (signs of coefficients, or units and graph), found "
            f"{convention!r}: the same weights mean another model; load the adapter with zoo.load({manifest.base_card!r}, adapter=...)"
        )
    found = stack.fingerprint()
    if found != manifest.base_sha256:
        raise AdapterError(
            f"adapter made for base {manifest.base_card} with values {manifest.base_sha256}, found a base with values {found}; "
            f"load the adapter with zoo.load({manifest.base_card!r}, adapter=...)"
        )


def _check_shapes(wanted: Mapping[str, torch.Size], tensors: Mapping[str, Tensor]) -> None:
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unexpected:
        raise AdapterError(
            f"{len(missing)} tensors missing{_first_of(missing)}, {len(unexpected)} unexpected{_first_of(unexpected)}; "
            "it was made by another version of equizoo or another model: load it with the versions in its manifest"
        )
    for key, shape in wanted.items():
        if shape != tensors[key].shape:
            found = tuple(tensors[key].shape)
            raise AdapterError(f"{key} has shape {found}, its settings want {tuple(shape)}; load it with the versions in its manifest")


def _check_range(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> None:
    """A number that float64 holds may be infinite in the base's precision."""
    for key, tensor in tensors.items():
        dtype = base[key.partition("/")[0]].dtype
        if not bool(torch.isfinite(tensor.to(dtype)).all()):
            largest = float(tensor.abs().max())
            raise AdapterError(f"{key} holds {largest:.3g}, more than {dtype} holds; load the base with dtype='float64'")


def _first_of(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""


def _canonical(fields: Mapping[str, Any]) -> str:
    """The one JSON text of a manifest, so that a changed byte cannot hide in white space or in another spelling of the same value."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def _content_sha256(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(_canonical(fields).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def _metadata_text(content: bytes, path: str) -> str:
    """The manifest's JSON out of a safetensors header."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise _damaged(path, f"{len(content)} bytes, too short for its header; truncated or not a safetensors file")
    if length > _MAX_HEADER_BYTES:
        raise _damaged(path, f"a header of {length} bytes, wanted at most {_MAX_HEADER_BYTES}")
    try:
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        raise _damaged(path, "its header is not JSON") from None
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    text = metadata.get(_METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str) or len(metadata or {}) != 1:
        raise AdapterError(
            f"{path}: no {_METADATA_KEY!r} metadata, so not an adapter of equizoo (or damaged); pass a run's adapter.safetensors"
        )
    return text


def _parse_manifest(text: str, path: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
        canonical = isinstance(fields, dict) and _canonical(fields) == text
    except (ValueError, RecursionError):
        canonical = False
    if not canonical:
        raise _damaged(path, "its manifest is not the JSON that was written")
    version = fields.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise AdapterError(f"{path}: adapter format {version}, this equizoo reads up to {FORMAT_VERSION}; update equizoo")
    if type(version) is not int or version < 1:
        raise AdapterError(f"{path}: adapter format {version!r}, and there is none before 1; write the file again with this equizoo")
    assert isinstance(fields, dict)
    return fields


def _check_finite(tensors: Mapping[str, Tensor], path: str) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise AdapterError(f"{path}: {name} is {tensor.dtype}, wanted floating-point numbers; take the adapter from its run again")
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(f"{path}: {name} holds NaN or infinite numbers: training diverged; train again with a lower learning rate")


def _damaged(path: str | Path, detail: str) -> AdapterError:
    return AdapterError(f"{path}: damaged adapter file ({detail}); copy it again from its source")
