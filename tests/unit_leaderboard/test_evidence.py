"""Badges of verification, and the files that stand behind them, on the site."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.made_up_records import HASH, made_up
from leaderboard import build
from leaderboard.board import entries
from leaderboard.board_data import board_content
from leaderboard.entries import write_verdict
from leaderboard.evidence import VERIFICATIONS, verdict_facts, verification_of
from tests.unit_leaderboard.test_build import Tags, board
from zoo.digests import file_sha256
from zoo.errors import ZooError
from zoo.evaluation.record import Record, write_record
from zoo.submission.archive import Submission
from zoo.submission.verdict import RECOMPUTED_METRICS, RECOMPUTED_PREDICTIONS, Difference, RecomputedFrames, Verdict


def verdict_on(record: Record, *, predictions: bool = True, archive_sha256: str = HASH) -> Verdict:
    def difference(scale: float) -> Difference:
        return Difference(energy_ev_per_atom=scale, forces_ev_per_angstrom=3 * scale, stress_ev_per_angstrom3=0.0)

    frames = RecomputedFrames(frames=16, of=650, salt="", largest=difference(2.3e-7), tolerated=difference(1e-4), device="cpu")
    badge = RECOMPUTED_PREDICTIONS if predictions else RECOMPUTED_METRICS
    return Verdict(
        record=record.id, archive_sha256=archive_sha256, archive_bytes=1234, badge=badge,
        recomputed=frames if predictions else None, checked=("metrics", "configuration"), stated=("cost", "hardware"), notes=("a note",),
        verified=datetime(2026, 11, 22, tzinfo=UTC), versions={"equizoo": "0.1.0"},
    )  # fmt: skip


def page_of(out: Path, record: Record) -> str:
    return (out / "records" / f"{record.id}.html").read_text(encoding="utf-8")


def test_every_record_has_the_badge_of_its_verdict_and_none_without() -> None:
    records = [made_up(1), made_up(2), made_up(3)]
    verdicts = {records[0].id: verdict_on(records[0]), records[1].id: verdict_on(records[1], predictions=False)}
    verified = board_content(entries(records), verdicts)["texts"]["verified"]
    shown = [verified["words"][code] for code in verified["codes"]]
    assert shown == [RECOMPUTED_PREDICTIONS, RECOMPUTED_METRICS, "not verified"]
    assert [one.name for one in VERIFICATIONS] == shown, "the strongest first"
    assert verification_of(None).style == "none"


def test_a_page_tells_what_was_recomputed_how_well_it_agreed_and_what_is_only_stated(tmp_path: Path) -> None:
    first, second = made_up(1, provenance="submitted"), made_up(2, provenance="submitted")
    folder = board(tmp_path, first, second)
    write_verdict(verdict_on(first), tmp_path)
    out = tmp_path / "site"
    build.build_site(folder, out, board=tmp_path)
    text = Tags(page_of(out, first)).text
    for words in (
        RECOMPUTED_PREDICTIONS,
        "16 of 650, on cpu",
        "2.3e-07 eV/atom, tolerated 1.0e-04",
        "6.9e-07 eV/Å",
        "cost; hardware",
        "a note",
    ):
        assert words in text
    classes = [attributes.get("class") for _, attributes in Tags(page_of(out, first)).tags]
    assert "badge submitted" in classes
    assert "check predictions" in classes
    assert "not verified" in Tags(page_of(out, second)).text
    assert "Only stated by the author" not in Tags(page_of(out, second)).text


def test_stress_is_told_where_there_is_one() -> None:
    verdict = verdict_on(made_up(1))
    assert verdict.recomputed is not None
    assert not [name for name, _ in verdict_facts(verdict) if "stress" in name]
    largest = verdict.recomputed.largest.model_copy(update={"stress_ev_per_angstrom3": 1e-9})
    with_stress = verdict.model_copy(update={"recomputed": verdict.recomputed.model_copy(update={"largest": largest})})
    assert [value for name, value in verdict_facts(with_stress) if "stress" in name] == ["1.0e-09 eV/Å³, tolerated 0.0e+00"]


@pytest.fixture
def submitted(tmp_path: Path) -> tuple[Record, Path]:
    """A board with one verified record, its archive and its verdict, as ``leaderboard.add`` writes them."""
    plain = made_up(1, provenance="submitted")
    assert plain.adapter is not None
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    record = made_up(1, provenance="submitted", adapter={**plain.adapter.model_dump(), "file_sha256": file_sha256(weights)})
    (tmp_path / "records").mkdir()
    (tmp_path / "artefacts").mkdir()
    write_record(tmp_path / "records" / f"{record.id}.json", record)
    archive = tmp_path / "artefacts" / f"{record.id}.zip"
    archive.write_bytes(Submission(record, dict(record.training or {}), b"weights", b"predictions").archive())
    write_verdict(verdict_on(record, archive_sha256=file_sha256(archive)), tmp_path)
    return record, archive


def test_the_archive_and_the_adapter_out_of_it_can_be_downloaded(submitted: tuple[Record, Path], tmp_path: Path) -> None:
    record, archive = submitted
    out = tmp_path / "site"
    build.build_site(tmp_path / "records", out, board=tmp_path)
    assert (out / "archives" / f"{record.id}.zip").read_bytes() == archive.read_bytes()
    assert [path.read_bytes() for path in (out / "adapters").iterdir()] == [b"weights"]
    links = [a["href"] for tag, a in Tags(page_of(out, record)).tags if tag == "a" and "download" in a]
    found = [(out / "records" / str(link)).resolve() for link in links if link and not link.startswith("data:")]
    assert {path.suffix for path in found} == {".zip", ".safetensors"}
    assert all(path.is_file() for path in found)


def test_an_archive_that_nobody_verified_is_not_passed_on(submitted: tuple[Record, Path], tmp_path: Path) -> None:
    record, _ = submitted
    (tmp_path / "verdicts" / f"{record.id}.json").unlink()
    out = tmp_path / "site"
    build.build_site(tmp_path / "records", out, board=tmp_path)
    assert not (out / "archives").exists()
    assert "is not on this site" in page_of(out, record)


def test_an_archive_other_than_the_verified_one_stops_the_build(submitted: tuple[Record, Path], tmp_path: Path) -> None:
    _, archive = submitted
    archive.write_bytes(archive.read_bytes() + b" ")
    with pytest.raises(ZooError, match="not the archive that was verified"):
        build.build_site(tmp_path / "records", tmp_path / "site", board=tmp_path)


def test_a_rebuilt_site_is_the_same_and_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    folder, out = board(tmp_path, made_up(1), made_up(2)), tmp_path / "site"
    build.build_site(folder, out)
    pages = sorted((out / "records").iterdir())
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in pages]
    pages[0].write_bytes(b"spoiled")
    build.build_site(folder, out)
    after = [(path.stat().st_mtime_ns, path.read_bytes()) for path in pages]
    assert [content for _, content in after] == [content for _, content in before]
    assert after[1] == before[1]


def test_the_page_loads_the_numbers_of_all_records_as_one_string(tmp_path: Path) -> None:
    """So that they are not parsed before a benchmark is looked at."""
    out = tmp_path / "site"
    build.build_site(board(tmp_path, made_up(1)), out)
    script = (out / "data.js").read_text(encoding="utf-8")
    literal = re.search(r"window\.BOARD_VALUES = (\".*\");", script)
    assert literal is not None
    assert isinstance(json.loads(literal[1]), str)
