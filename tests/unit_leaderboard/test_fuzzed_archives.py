"""Archives with bytes and values that nobody chose: each is refused in one line or is the honest one, and none ends the verifier.

The seeds are fixed, so that a mutant that was found once is found again.
"""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.refusals import lacks, refusal_of
from tests.unit_leaderboard.forgery import TEST_SET, Forger, judged
from zoo.errors import ZooError
from zoo.evaluation.prediction_files import parse_predictions
from zoo.evaluation.record import parse_record
from zoo.stored_zip import read_stored_zip, stored_zip
from zoo.submission.archive import parse_archive, sha256_of
from zoo.submission.verify import UNFORESEEN, Judgement

NASTY: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**400, 1e308, -1e308, "", "\n\x1b[2J", "\ud800", "a" * 3000, "../../etc/passwd", "/etc/passwd"),
    *([], {}, ["x"], {"a\nb": 1}, "NaN", "${oc.env:HOME}", [[[[[[]]]]]]),
)


def refusal_or_none(parse: Callable[..., object], mutant: bytes) -> str | None:
    """The refusal; None where it was read."""
    try:
        parse(mutant, "s.zip")
    except ZooError as error:
        return str(error)
    return None


def is_refused(parse: Callable[..., object], mutant: bytes, honest: bytes) -> bool:
    """Whether it was refused, in one line, as all but the honest one must be."""
    message = refusal_or_none(parse, mutant)
    assert message is not None or mutant == honest, "a forgery was read as if it were what zoo submit writes"
    assert "\n" not in (message or "")
    return message is not None


def flips(content: bytes, count: int, chance: random.Random) -> Iterator[bytes]:
    """One bit changed, in places spread evenly over the whole."""
    for part in range(count):
        at = min(int((part + chance.random()) * len(content) / count), len(content) - 1)
        yield content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def cuts(content: bytes, count: int, chance: random.Random) -> Iterator[bytes]:
    """The beginning alone, the end alone, a piece left out, a piece twice."""
    for _ in range(count):
        first, second = sorted(chance.sample(range(len(content)), 2))
        yield from (content[:first], content[second:], content[:first] + content[second:], content[:second] + content[first:])


def spans(content: bytes) -> dict[str, tuple[int, int]]:
    """Where each member's header and content, the table and its end lie in a zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos, table = archive.infolist(), archive.start_dir
    found = {"table": (table, len(content) - 22), "end": (len(content) - 22, len(content))}
    for info in infos:
        begin = info.header_offset + 30 + len(info.filename)
        found |= {f"header of {info.filename}": (info.header_offset, begin), info.filename: (begin, begin + info.file_size)}
    return found


def test_every_flipped_bit_and_every_cut_of_an_archive_is_refused(forger: Forger) -> None:
    honest, chance, count = forger.submission.archive(), random.Random(8), 0
    for begin, end in spans(honest).values():
        for part in flips(honest[begin:end], 30, chance):
            count += is_refused(parse_archive, honest[:begin] + part + honest[end:], honest)
    for mutant in cuts(honest, 25, chance):
        count += is_refused(parse_archive, mutant, honest)
    assert count == 30 * 12 + 100, "every mutant differs, and every one is refused"


def test_every_flipped_bit_of_the_predictions_is_refused_or_changes_a_number(forger: Forger) -> None:
    honest, chance = forger.submission.predictions, random.Random(8)
    numbers = {name: span for name, span in spans(honest).items() if name.endswith(".npy") and not name.startswith("header")}
    for name, (begin, end) in spans(honest).items():
        for part in flips(honest[begin:end], 30, chance):
            assert is_refused(parse_predictions, honest[:begin] + part + honest[end:], honest), name
    for name, (begin, end) in numbers.items():  # with a checksum that fits again: numbers may change, the form of the file may not
        for part in flips(honest[begin:end], 60, chance):
            arrays = read_stored_zip(honest, "p", 2**20)
            message = refusal_or_none(parse_predictions, stored_zip({**arrays, name: part}))
            assert "\n" not in (message or "")
            assert message is not None or arrays[name][:128] == part[:128], f"{name}: another header was read"


HEADERS = (
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,), }", "{'descr': '<f8', 'fortran_order': False, 'shape': (-6,), }"),
    *("{'descr': '<f8', 'fortran_order': True, 'shape': (6,), }", "{'descr': '>f8', 'fortran_order': False, 'shape': (6,), }"),
    *("{'descr': '|O', 'fortran_order': False, 'shape': (6,), }", "{'descr': '<f8', 'fortran_order': False, 'shape': (6.0,), }"),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': 6, }", "{'descr': '<f8', 'fortran_order': False}", "{}", "[]", "6", ""),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",), }", "(" * 3000, "-" * 3000 + "1", "[" * 90 + "]" * 90),
    *("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (6,), }", "{'descr': '|V8', 'fortran_order': False, 'shape': (6,), }"),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", "{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3), }"),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (6,), 'x': 1, }", "{'shape': (6,), 'descr': '<f8', 'fortran_order': False, }"),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (6L,), }", "{'descr': 'x\n\x1b', 'fortran_order': False, 'shape': (6,), }"),
    *("{'descr': '<f8', 'fortran_order': False, 'shape': (True,), }", "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (6,), }"),
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Reading `.npy`")  # NumPy's word on headers of Python 2, before they are refused
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (9, 9)], ids=str)
def test_no_header_of_an_array_is_believed(version: tuple[int, int], forger: Forger) -> None:
    arrays = read_stored_zip(forger.submission.predictions, "p", 2**20)
    body = arrays[f"{TEST_SET}/energies.npy"][128:]
    for header in HEADERS:
        text = header.encode("latin-1") + b"\n"
        length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
        forged = b"\x93NUMPY" + bytes(version) + length + text + body
        message = refusal_of(parse_predictions, stored_zip({**arrays, f"{TEST_SET}/energies.npy": forged}), "p.npz")
        assert not lacks(message, "energies"), header


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a JSON value, groups too."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from leaves(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """A copy with another value at ``path``."""
    if not path:
        return by
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], by)
    return changed


def mutants(value: Any, count: int, seed: int) -> Iterator[tuple[str, Any]]:
    """(which place and value, the value with it), ``count`` times."""
    chance, places = random.Random(seed), list(leaves(value))[1:]
    for _ in range(count):
        path, by = chance.choice(places), chance.choice(NASTY)
        changed = replaced(value, path, by)
        if json.dumps(changed) != json.dumps(value):
            yield f"{'.'.join(map(str, path))} = {by!r:.40}", changed


def check_foreseen(judgement: Judgement, what: str) -> None:
    """Accepted, or refused for reasons that somebody wrote."""
    assert judgement.accepted or judgement.reasons, what
    for reason in judgement.reasons:
        assert UNFORESEEN not in reason, f"{what}: {reason}"
        assert reason.isprintable(), what
        assert len(reason) <= 500, what


def test_a_config_of_any_values_is_judged(forger: Forger) -> None:
    accepted = 0
    for what, config in mutants(forger.submission.config, 300, seed=1):
        try:
            forged = forger.sealed(config=config)
        except (ZooError, ValueError):  # no record can name such a config
            continue
        judgement = judged(forged)
        check_foreseen(judgement, what)
        accepted += judgement.accepted
    assert 0 < accepted < 150, "some values of a config change nothing that is checked, most do"


def test_a_record_of_any_values_is_judged(forger: Forger) -> None:
    members = forger.submission.members()
    for what, fields in mutants(json.loads(members["record.json"]), 300, seed=2):
        text = json.dumps(fields, indent=2)
        assert "\n" not in refusal_of(parse_record, text, "record.json"), what
        try:  # with an id that fits
            forged = forger.sealed(lambda own, fields=fields: own.update({k: v for k, v in fields.items() if k != "id"}))
        except (ZooError, ValueError, AttributeError, TypeError):
            continue
        check_foreseen(judged(forged), what)


def test_an_adapter_file_of_any_words_is_judged(forger: Forger) -> None:
    for what, manifest in mutants(forger.adapter_manifest(), 200, seed=3):
        try:
            adapter = forger.adapter_file(**manifest)
        except (ValueError, AttributeError, TypeError):
            continue
        check_foreseen(judged(forger.sealed(adapter=adapter)), what)


@pytest.mark.parametrize("field", ["head", "base_elements", "forces"])
def test_words_that_keep_the_base_from_loading_do_not_buy_the_lower_badge(field: str, forger: Forger) -> None:
    value = {"head": "nowhere", "base_elements": ["Xx"], "forces": "direct"}[field]
    judgement = judged(forger.sealed(adapter=forger.adapter_file(**{field: value})), most=1)
    check_foreseen(judgement, field)
    assert not judgement.accepted
    assert any(not lacks(reason, "sevennet-0 can be loaded, but not as the submission asks for") for reason in judgement.reasons)


@pytest.mark.parametrize("depth", [30, 150, 400, 900, 5000])
def test_values_nested_in_each_other_are_refused(depth: int, forger: Forger) -> None:
    members = forger.submission.members()
    nested = b"[" * depth + b"]" * depth
    config = members["config.json"].replace(b'"name":"elora"', b'"name":' + nested, 1)
    assert config != members["config.json"]
    record = members["record.json"].replace(b'"name": "elora"', b'"name": ' + nested, 1)
    assert record != members["record.json"]
    for name, content in (("config.json", config), ("record.json", record), ("manifest.json", b'{"files":' + nested + b"}")):
        changed = {**members, name: content}
        if name != "manifest.json":
            manifest = json.loads(members["manifest.json"])
            manifest["files"][name] = {"bytes": len(content), "sha256": sha256_of(content)}
            changed["manifest.json"] = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        assert name in refusal_of(parse_archive, stored_zip(changed), "s.zip")


def peak_mib(refuse: Callable[[], object]) -> float:
    tracemalloc.start()
    try:
        refuse()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


def test_a_table_of_half_a_million_members_is_not_read() -> None:
    name = b"a"
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + name
    line = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + name
    for stated in (5, 65535):  # the count is the forger's too
        table = line * 400_000
        content = local + table + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, stated, stated, len(table), len(local), 0)
        assert peak_mib(lambda: refusal_of(read_stored_zip, content, "s.zip", 2**20)) < 20  # noqa: B023
        assert "a table of" in refusal_of(read_stored_zip, content, "s.zip", 2**20)


def test_members_that_share_their_bytes_are_not_copied_a_thousand_times() -> None:
    data = b"\0" * 2**20
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("00000"), data)
        first = archive.infolist()[0]
        for index in range(1, 500):
            twin = copy.copy(first)
            twin.filename = twin.orig_filename = f"{index:05d}"
            archive.filelist.append(twin)
        archive._didModify = True  # type: ignore[attr-defined]
    content = stream.getvalue()
    assert peak_mib(lambda: refusal_of(read_stored_zip, content, "p.npz", 2**30)) < 20
    assert "overlap" in refusal_of(read_stored_zip, content, "p.npz", 2**30)


def test_a_second_table_for_large_files_is_refused(forger: Forger) -> None:
    honest = forger.submission.archive()
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, 0, 1)
    assert "zip64" in refusal_of(parse_archive, honest[:-22] + locator + honest[-22:], "s.zip")


def test_a_key_that_comes_twice_among_many_is_found_at_once() -> None:
    text = "{" + ",".join(f'"{index}":1' for index in range(200_000)) + ',"199999":1}'
    assert "'199999' appears twice" in refusal_of(parse_record, text, "record.json")


@pytest.mark.parametrize("where", ["test_set", "name"])
def test_long_names_are_not_compared_with_each_other(where: str, forger: Forger) -> None:
    fields = json.loads(forger.submission.record.model_dump_json())
    fields["data"]["splits"] |= {("ab" * 900) + str(index): fields["data"]["splits"]["train"] for index in range(500)}
    fields["metrics"][0][where] = "ba" * 950
    assert not lacks(refusal_of(parse_record, json.dumps(fields), "record.json"), "names are known")


def test_weights_that_make_no_number_do_not_pass_for_a_model(forger: Forger, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN differs from every prediction by NaN, which is not more than any tolerance."""
    from dataclasses import replace

    from zoo.submission import recompute

    predict = recompute.predict_frames

    def diverged(*words: Any, **options: Any) -> Any:
        found = predict(*words, **options)
        return replace(found, energies=np.full_like(found.energies, np.nan))

    monkeypatch.setattr(recompute, "predict_frames", diverged)
    judgement = judged(forger.submission, most=2)
    check_foreseen(judgement, "NaN")
    assert any("2 of 2 recomputed frames differ from base + adapter" in reason for reason in judgement.reasons)


def test_stresses_left_out_are_missed(forger: Forger) -> None:
    from dataclasses import replace

    predicted = forger.predicted()
    assert predicted.stresses[0] is not None
    judgement = judged(forger.with_predictions(replace(predicted, stresses=(None,) * 6), metrics=False), most=1)
    check_foreseen(judgement, "without stresses")
    assert not judgement.accepted


def test_every_flipped_bit_of_an_adapter_file_is_refused_though_every_hash_fits(forger: Forger) -> None:
    chance, honest = random.Random(8), forger.submission.adapter
    assert honest is not None
    header = 8 + int.from_bytes(honest[:8], "little")
    parts = [*((part + honest[header:]) for part in flips(honest[:header], 60, chance))]
    parts += [(honest[:header] + part) for part in flips(honest[header:], 20, chance)]
    parts += [part for part in cuts(honest, 5, chance) if part]
    for number, adapter in enumerate(parts):
        judgement = judged(forger.sealed(adapter=adapter))
        check_foreseen(judgement, str(number))
        assert not judgement.accepted, number


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__":{"equizoo":"{}"},"a":{"dtype":"F32","shape":[1000000000,1000000000],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"equizoo":"{}"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,400000000000]}}',
        b'{"__metadata__":{"equizoo":"{}"},"a":{"dtype":"O","shape":[1],"data_offsets":[0,4]}}',
        b"[" * 500_000,
        b'{"__metadata__":{"equizoo":' + b"[" * 500_000 + b"}}",
        b'{"__metadata__":{"equizoo":"' + b"[" * 500_000 + b'"}}',
        b"",
    ],
    ids=["1e18 numbers", "offsets beyond the file", "objects", "nested", "nested metadata", "nested manifest", "empty"],
)
def test_no_header_of_an_adapter_file_is_believed(header: bytes, forger: Forger) -> None:
    judgement = judged(forger.sealed(adapter=len(header).to_bytes(8, "little") + header + b"\0" * 4))
    check_foreseen(judgement, "header")
    (reason,) = judgement.reasons
    assert "adapter" in reason
