"""Ways to spoil a file: bytes, words, numbers and shapes, each by a seeded generator."""

from __future__ import annotations

import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Mutation = Callable[[bytes, random.Random], bytes]
_NUMBER = re.compile(rb"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
_ODD_WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"1e999",
    b"9" * 30,
    b"",
    b"x",
    b"[]",
    b"{}",
    b"null",
    b"\xff\xfe",
    b"[[[[[[[[",
    b"2147483648",
    b"-0",
)


def truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))] if content else b""


def bits_flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 8, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def head_flipped(content: bytes, rng: random.Random) -> bytes:
    """Bits of the first 256 bytes, where formats keep their lengths and offsets."""
    return bits_flipped(content[:256], rng) + content[256:]


def block_overwritten(content: bytes, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(content)), rng.choice((1, 4, 8, 64, 512))
    block = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return content[:start] + block + content[start + size :]


def block_moved(content: bytes, rng: random.Random) -> bytes:
    """A piece left out, doubled, or put elsewhere."""
    start, size = rng.randrange(len(content)), rng.choice((1, 7, 64, 1024))
    piece, rest = content[start : start + size], content[:start] + content[start + size :]
    place = rng.randrange(len(rest) + 1)
    return rng.choice((rest, content[:start] + piece + content[start:], rest[:place] + piece + rest[place:]))


def number_replaced(content: bytes, rng: random.Random) -> bytes:
    """Of text: some numbers become words, huge or negative."""
    found = list(_NUMBER.finditer(content))
    for match in sorted(rng.sample(found, min(len(found), rng.choice((1, 1, 3)))), key=lambda one: -one.start()):
        content = content[: match.start()] + rng.choice(_ODD_WORDS) + content[match.end() :]
    return content


def line_spoilt(content: bytes, rng: random.Random) -> bytes:
    """Of text: a line left out, doubled, emptied or cut."""
    lines = content.splitlines(keepends=True)
    index = rng.randrange(len(lines)) if lines else 0
    if lines:
        line = lines[index]
        lines[index : index + 1] = rng.choice(([], [line, line], [b"\n"], [line[: len(line) // 2] + b"\n"]))
    return b"".join(lines)


def json_spoilt(content: bytes, rng: random.Random) -> bytes:
    """Of JSON: one value becomes another kind of value."""
    values = json.loads(content)
    places = list(_places(values))
    container, key = places[rng.randrange(len(places))]
    container[key] = rng.choice((None, [], {}, "x", -1, 1e308, [[1], [2, 3]], True, [None], 10**400, container[key]))
    return json.dumps(values).encode()


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def array_reshaped(content: bytes, rng: random.Random) -> bytes:
    """Of a .npy or .npz: an array of another shape, type or content."""
    import io

    loaded = np.load(io.BytesIO(content))
    arrays = {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
    name = rng.choice(sorted(arrays))
    given = arrays[name]
    flat = given.reshape(-1)
    arrays[name] = rng.choice(
        (
            flat,
            flat[:-1],
            given[..., None],
            given[:0],
            given.T,
            np.zeros(()),
            np.full_like(given, -7) if given.dtype.kind in "if" else given[:1],
            given.astype(str),
            given.astype(complex) if given.dtype.kind in "if" else given,
            np.full(given.shape, np.nan),
            np.zeros((1, 0, 3)),
        )
    )
    stream = io.BytesIO()
    if "" in arrays:
        np.save(stream, arrays[""])
    else:
        np.savez(stream, **arrays)
    return stream.getvalue()


def member_spoilt(content: bytes, rng: random.Random) -> bytes:
    """Of a zip archive: one member spoilt, with a checksum that fits, as an honest tool would write it."""
    import io

    with zipfile.ZipFile(io.BytesIO(content)) as source:
        members = {name: source.read(name) for name in source.namelist()}
    name = rng.choice(sorted(name for name in members if members[name]) or sorted(members))
    spoil = rng.choice((truncated, bits_flipped, head_flipped, block_overwritten, number_replaced))
    members[name] = spoil(members[name], rng)
    if rng.random() < 0.1:
        del members[name]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as target:
        for kept, inner in members.items():
            target.writestr(kept, inner)
    return stream.getvalue()


ANY: tuple[Mutation, ...] = (truncated, bits_flipped, head_flipped, block_overwritten, block_moved)
TEXT: tuple[Mutation, ...] = (number_replaced, line_spoilt)


def mutations_of(path: Path) -> tuple[Mutation, ...]:
    """What fits a file: bytes of all, words of text, shapes of arrays, members of archives."""
    content = path.read_bytes()
    own: tuple[Mutation, ...] = ()
    if path.suffix in (".npy", ".npz"):
        own += (array_reshaped, array_reshaped)
    if zipfile.is_zipfile(path):
        own += (member_spoilt, member_spoilt)
    elif b"\0" not in content:
        own += TEXT
    if path.suffix == ".json":
        own += (json_spoilt, json_spoilt)
    return (*ANY, *own)
