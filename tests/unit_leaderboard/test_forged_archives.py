"""Archives that are not what `zoo submit` writes: refused when they are read, each for its own reason, and nothing in them is run."""

from __future__ import annotations

import io
import json
import pickle
import stat
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.refusals import lacks, refusal_of
from tests.unit_leaderboard.forgery import TEST_SET, Forger
from zoo.evaluation.prediction_files import parse_predictions
from zoo.stored_zip import read_stored_zip, stored_zip
from zoo.submission.archive import canonical_json, parse_archive, sha256_of

Members = dict[str, bytes]


class Booby:
    """Unpickling this would say so."""

    exploded = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (explode, ())


def explode() -> None:
    Booby.exploded = True


def read(content: bytes) -> Any:
    return parse_archive(content, "s.zip")


def zipped(members: Members, change: Callable[[zipfile.ZipInfo], None] = lambda info: None, more: Any = ()) -> bytes:
    """A zip by the standard library, entry by entry, as another tool would write it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in (*members.items(), *more):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            change(info)
            archive.writestr(info, content)
    return stream.getvalue()


def with_manifest(members: Members) -> Members:
    """With a manifest that fits the other members, as a forger would write it."""
    manifest = json.loads(members["manifest.json"])
    files = {name: {"bytes": len(content), "sha256": sha256_of(content)} for name, content in members.items() if name != "manifest.json"}
    return {**members, "manifest.json": canonical_json({**manifest, "files": files}).encode()}


def with_record(members: Members, change: Callable[[str], str]) -> bytes:
    """The archive with another text of the record."""
    changed = change(members["record.json"].decode())
    assert changed != members["record.json"].decode(), "the forgery changes nothing"
    return stored_zip(with_manifest({**members, "record.json": changed.encode()}))


@pytest.fixture
def members(forger: Forger) -> Members:
    return forger.submission.members()


def test_an_honest_archive_reads_back_as_it_was_and_is_made_to_the_same_bytes_again(forger: Forger) -> None:
    content = forger.submission.archive()
    assert read(content).submission == forger.submission
    assert read(content).submission.archive() == content
    assert zipfile.ZipFile(io.BytesIO(content)).testzip() is None


UNLISTED = b'{"a.pkl":{"bytes":1,"sha256":"' + b"0" * 64 + b'"}'
BYTES: dict[str, tuple[Callable[[Members], bytes], tuple[str, ...]]] = {
    "truncated": (lambda m: stored_zip(m)[:-200], ("damaged or truncated", "copy it again")),
    "a flipped byte": (lambda m: stored_zip(m).replace(b"elora", b"elor@", 1), ("damaged",)),
    "a pickle": (lambda m: pickle.dumps(Booby()), ("a pickle",)),
    "bytes before the zip": (lambda m: b"#!/bin/sh\n" + stored_zip(m), ("bytes before",)),
    "bytes behind the zip": (lambda m: stored_zip(m) + b"hidden", ("bytes behind it",)),
    "a comment": (lambda m: stored_zip(m)[:-2] + b"\x06\x00hidden", ("bytes behind it",)),
    "zip slip": (lambda m: zipped(m, more=[("../../evil.py", b"x")]), ("'../../evil.py'", "outside")),
    "an absolute path": (lambda m: zipped(m, more=[("/etc/passwd", b"x")]), ("'/etc/passwd'", "outside")),
    "a symbolic link": (
        lambda m: zipped(m, lambda i: setattr(i, "external_attr", (stat.S_IFLNK | 0o777) << 16) if i.filename == "config.json" else None),
        ("config.json", "symbolic link"),
    ),
    "an extra file": (lambda m: zipped(m, more=[("setup.py", b"x")]), ("'setup.py'", "does not belong")),
    "a pickled checkpoint beside": (lambda m: zipped(m, more=[("model.pth", pickle.dumps(Booby()))]), ("'model.pth'", "does not belong")),
    "a compressed member": (
        lambda m: zipped(m, lambda i: setattr(i, "compress_type", zipfile.ZIP_DEFLATED) if i.filename == "config.json" else None),
        ("config.json", "compressed", "gigabytes"),
    ),
    "an oversize config": (
        lambda m: stored_zip({**m, "config.json": b" " * (2**20 + 1)}),
        ("config.json", "1048577 bytes", "at most 1048576"),
    ),
    "a missing member": (lambda m: stored_zip({k: v for k, v in m.items() if k != "predictions.npz"}), ("has no predictions.npz",)),
    "other times": (lambda m: zipped(m, lambda i: setattr(i, "date_time", (2020, 1, 1, 0, 0, 0))), ("another form",)),
    "a member changed alone": (lambda m: stored_zip({**m, "config.json": m["config.json"] + b" "}), ("config.json", "was changed after")),
    "a future format": (
        lambda m: stored_zip({**m, "manifest.json": m["manifest.json"].replace(b'"format_version":1', b'"format_version":2')}),
        ("format_version 2", "update equizoo"),
    ),
    "a manifest of other files": (
        lambda m: stored_zip({**m, "manifest.json": m["manifest.json"].replace(b'{"adapter', UNLISTED + b',"adapter')}),
        ("'a.pkl'", "does not hold"),
    ),
    "a key twice in the config": (
        lambda m: stored_zip(with_manifest({**m, "config.json": b'{"adapter":1,' + m["config.json"][1:]})),
        ("config.json", "not canonical JSON"),
    ),
    "a config nested without end": (
        lambda m: stored_zip(with_manifest({**m, "config.json": b"[" * 100_000})),
        ("config.json", "not valid JSON"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("forge", "reason"), BYTES.values(), ids=BYTES)
def test_an_archive_that_is_not_as_it_was_written_is_refused(forge: Any, reason: tuple[str, ...], members: Members) -> None:
    message = refusal_of(read, forge(members))
    assert not lacks(message, "s.zip", *reason), message
    assert not Booby.exploded


def test_a_second_entry_of_a_name_is_refused(members: Members) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = zipped(members, more=[("record.json", b"{}")])
    assert not lacks(refusal_of(read, content), "'record.json'", "twice")


RECORDS: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "an edited metric": (lambda t: t.replace('"value": ', '"value": 1', 1), ("was edited",)),
    "a future schema": (lambda t: t.replace('"schema_version": 1', '"schema_version": 2'), ("schema_version 2",)),
    "a metric that is not a number": (
        lambda t: t[: t.index('"value": ')] + '"value": NaN' + t[t.index(",", t.index('"value": ')) :],
        ("NaN is not a finite number",),
    ),
    "wrong units": (lambda t: t.replace('"unit": "meV/atom"', '"unit": "eV/atom"', 1), ("meV/atom", "found ('eV/atom'")),
    "a key twice": (lambda t: t.replace('"author":', '"author": "B. Other",\n  "author":', 1), ("'author' appears twice",)),
    "an unknown key": (lambda t: t.replace('"author":', '"verified": true,\n  "author":', 1), ("verified",)),
    "other white space": (lambda t: t.replace("\n  ", "\n "), ("not written as zoo submit writes it",)),
    "a negative error": (lambda t: t.replace('"value": ', '"value": -', 1), ("0 or more",)),
}


@pytest.mark.parametrize(("change", "reason"), RECORDS.values(), ids=RECORDS)
def test_a_record_that_is_not_as_it_was_written_is_refused(change: Any, reason: tuple[str, ...], members: Members) -> None:
    assert not lacks(refusal_of(read, with_record(members, change)), "record.json", *reason)


def npz_with(members: Members, name: str, content: bytes) -> bytes:
    arrays = read_stored_zip(members["predictions.npz"], "npz", 2**20)
    assert f"{TEST_SET}/{name}.npy" in arrays
    return stored_zip({**arrays, f"{TEST_SET}/{name}.npy": content})


def npy(values: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, version=(1, 0), **options)
    return stream.getvalue()


ARRAYS: dict[str, tuple[Callable[[Members], bytes], tuple[str, ...]]] = {
    "objects": (lambda m: npz_with(m, "energies", npy(np.array([Booby()] * 6, dtype=object), allow_pickle=True)), ("pickled",)),
    "a shape that lies": (
        lambda m: npz_with(m, "energies", npy(np.zeros(6)).replace(b"(6,), ", b"(6000000000,), ")),
        ("energies", "6000000000", "wants 48000000128"),
    ),
    "numbers that are not finite": (lambda m: npz_with(m, "energies", npy(np.full(6, np.nan))), ("energies", "not finite")),
    "single precision": (lambda m: npz_with(m, "energies", npy(np.zeros(6, dtype=np.float32))), ("<f4", "wanted <f8")),
    "counts that do not add up": (lambda m: npz_with(m, "atom_counts", npy(np.full(6, 10**6))), ("atom_counts add up to 6000000",)),
    "another array": (lambda m: stored_zip({"evil.npy": npy(np.zeros(1))}), ("'evil.npy'", "does not belong")),
    "no array": (lambda m: npz_with(m, "energies", pickle.dumps(Booby())), ("cannot be read", "magic")),
    "a compressed npz": (lambda m: zipped({"a.npy": npy(np.zeros(10**5))}, lambda i: setattr(i, "compress_type", 8)), ("compressed",)),
}  # fmt: skip


@pytest.mark.parametrize(("forge", "reason"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_are_not_plain_float64_of_the_stated_shape_are_refused(forge: Any, reason: tuple[str, ...], members: Members) -> None:
    message = refusal_of(parse_predictions, forge(members), "predictions.npz")
    assert not lacks(message, "predictions.npz", *reason), message
    assert not Booby.exploded


def test_the_booby_trap_works_where_something_is_unpickled() -> None:
    pickle.loads(pickle.dumps(Booby()))  # noqa: S301 - the positive control
    assert Booby.exploded
    Booby.exploded = False
