"""The site: whole, safe against what a record says, light, and careful with folders that are not its own."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.made_up_records import HASH, made_up
from leaderboard import build
from leaderboard.entries import read_records
from leaderboard.record_page import bars_of, before_of, command_of, evaluation_of, facts_of, forgotten_of, shown_number
from leaderboard.reported import reported_records
from zoo.cli import COMMANDS
from zoo.digests import file_sha256
from zoo.errors import ZooError
from zoo.evaluation.record import Record, metric_records, write_record

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'`{{7*7}}&"


class Tags(HTMLParser):
    """Every tag with its attributes, and the texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_record() -> Record:
    metrics = metric_records({HOSTILE: {"force_mae_mev_per_angstrom": 1.0}})
    record = made_up(1)
    data = {**record.data.model_dump(), "name": HOSTILE, "protocol": HOSTILE, "splits": {HOSTILE: {"frames": 1, "sha256": HASH}}}
    base = {**record.base.model_dump(), "card": HOSTILE, "family": HOSTILE}
    return made_up(1, base=base, data=data, metrics=metrics, zero_shot_metrics=(), author=HOSTILE, versions={HOSTILE: HOSTILE})


def board(tmp_path: Path, *records: Record) -> Path:
    folder = tmp_path / "records"
    folder.mkdir(exist_ok=True)
    for record in records:
        write_record(folder / f"{record.id}.json", record)
    return folder


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "board"
    build.build_site(build.RECORDS, out)
    return out


def test_the_real_board_has_a_page_a_record_and_needs_no_server(real: Path) -> None:
    pages = {path.stem for path in (real / "records").glob("*.html")}
    assert pages == {json.loads(path.read_text(encoding="utf-8"))["id"] for path in build.RECORDS.rglob("*.json")}
    for page in (real / "index.html", *sorted((real / "records").glob("*.html"))[:25]):
        for tag, attributes in Tags(page.read_text(encoding="utf-8")).tags:
            for name in ("src", "href"):
                address = attributes.get(name)
                if address and not address.startswith(("#", "data:")):
                    assert not re.match(r"[a-z]+:|//", address), f"{page.name}: {tag} asks the network for {address}"
                    assert (page.parent / address.split("#")[0].split("?")[0]).exists(), f"{page.name}: {address} is not there"


def test_the_first_load_is_under_one_and_a_half_megabytes_compressed(real: Path) -> None:
    tags = Tags((real / "index.html").read_text(encoding="utf-8")).tags
    first = [real / "index.html", *(real / (a.get("src") or a.get("href") or "") for tag, a in tags if tag in ("script", "link"))]
    files = {path for path in first if path.is_file()}
    weight = sum(len(gzip.compress(path.read_bytes())) for path in files)
    library = sum(len(gzip.compress(path.read_bytes())) for path in (real / "vendor").glob("*.js"))
    assert {"data.js", "board.js", "table.js", "style.css"} <= {path.name for path in files}
    assert 0 < weight < 250_000, "the tables alone"
    assert weight + library < 1_500_000, "with every plot"


def test_what_a_record_says_cannot_become_markup_or_code(tmp_path: Path) -> None:
    record = hostile_record()
    out = tmp_path / "site"
    build.build_site(board(tmp_path, record), out)
    page = (out / "records" / f"{record.id}.html").read_text(encoding="utf-8")
    parsed = Tags(page)
    assert HOSTILE in parsed.text, "shown as it is"
    assert [a.get("src") for tag, a in parsed.tags if tag == "script"] == [f"../static/{name}.js" for name in ("theme", "dom", "record")]
    assert not [tag for tag, _ in parsed.tags if tag == "img"]
    assert not [name for _, attributes in parsed.tags for name in attributes if name.startswith("on")]
    assert "49" not in parsed.text.split("{{7*7}}")[1][:3], "no template runs in a template"
    script = (out / "data.js").read_text(encoding="utf-8")
    assert "<" not in script
    assert script.count("\n") == 1


def test_the_record_in_a_page_is_the_record(tmp_path: Path) -> None:
    record = made_up(3)
    out = tmp_path / "site"
    build.build_site(board(tmp_path, record), out)
    (link,) = [
        a
        for tag, a in Tags((out / "records" / f"{record.id}.html").read_text(encoding="utf-8")).tags
        if a.get("download") == f"{record.id}.json"
    ]
    assert link["href"] is not None
    assert Record.model_validate_json(base64.b64decode(link["href"].split(",")[1])) == record


def test_an_adapter_is_offered_if_its_content_is_the_records(tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    (adapters / "mine.safetensors").write_bytes(b"weights")
    (adapters / "other.safetensors").write_bytes(b"other weights")
    first = made_up(2)
    assert first.adapter is not None
    adapter = {**first.adapter.model_dump(), "file_sha256": file_sha256(adapters / "mine.safetensors")}
    mine, missing = made_up(2, adapter=adapter), made_up(4)
    out = tmp_path / "site"
    build.build_site(board(tmp_path, mine, missing), out, adapters_folder=adapters)
    assert [path.read_bytes() for path in (out / "adapters").iterdir()] == [b"weights"]
    assert f'href="../adapters/{adapter["file_sha256"]}.safetensors"' in (out / "records" / f"{mine.id}.html").read_text(encoding="utf-8")
    assert "is not on this site" in (out / "records" / f"{missing.id}.html").read_text(encoding="utf-8")


def test_a_site_is_built_again_without_what_is_gone_and_nothing_else_is_touched(tmp_path: Path) -> None:
    folder = board(tmp_path, made_up(1), made_up(2))
    out = tmp_path / "site"
    assert build.main(["--records", str(folder), "--out", str(out)]) == 0
    next(folder.glob("*.json")).unlink()
    assert build.main(["--records", str(folder), "--out", str(out)]) == 0
    assert len(list((out / "records").iterdir())) == 1
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ZooError, match="holds something that is no site of ours"):
        build.build_site(folder, foreign)
    assert (foreign / "chapter.tex").read_text(encoding="utf-8") == "years of work"


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--records", str(tmp_path / "nowhere"), "--out", str(tmp_path / "site")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "site").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert build.main(["--records", str(board(tmp_path, made_up(1))), "--out", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_of_a_record_is_one_that_zoo_takes() -> None:
    record = made_up(1)
    command = command_of(record)
    assert command is not None
    name, file = command.removeprefix("zoo ").split()
    assert (name in COMMANDS, file) == (True, f"{record.id}.json")
    assert command_of(reported_records()[0]) is None
    zero_shot = {"adapter": None, "training": None, "cost": None, "seed": None}
    assert command_of(made_up(1, **zero_shot)) is None
    assert command_of(made_up(1, **zero_shot, evaluation={"task": "labels", "asked": {"data": {"name": "acac"}}})) is not None


def test_facts_and_bars_leave_out_what_is_not_known() -> None:
    reported = reported_records()[0]
    names = [name for name, _ in facts_of(reported)]
    assert "Base values, SHA-256" not in names
    assert "Base" in names
    record = made_up(1)
    bars = bars_of(record, record.zero_shot_metrics)
    assert len(bars) == len(record.metrics)
    assert all(0 <= float(bar.width) <= 100 and 0 <= float(bar.zero_shot_width) <= 100 for bar in bars)
    assert max(float(width) for bar in bars for width in (bar.width, bar.zero_shot_width)) == 100


def of_ours(method: str | None) -> Record:
    return next(
        record
        for record in read_records()
        if record.provenance == "reproduced"
        and (record.adapter.method if record.adapter else None) == method
        and record.data.protocol == "acac/300K n_train=50 n_valid=50 split_seed=0 (protocol few-shot)"
    )


def test_a_page_has_the_bases_own_numbers_beside_a_runs() -> None:
    run, base = of_ours("elora"), of_ours(None)
    shown = {(bar.test_set, bar.label): bar.zero_shot for bar in bars_of(run, before_of(run, base))}
    assert len(shown) == len(base.metrics)
    assert all(shown.values())
    assert before_of(base, base) == (), "nothing stands beside the base itself"
    assert before_of(reported_records()[0], base) == (), "a paper's row is compared with the paper's own"


def test_a_page_says_which_frames_an_adapter_is_evaluated_on() -> None:
    run = of_ours("elora")
    evaluation = evaluation_of(run)
    assert evaluation == "zoo evaluate adapter=FILE data=acac data.protocol=few-shot 'data.test=[test_300K,test_600K]'"
    hostile = run.model_copy(update={"training": {"data": {"name": "acac; rm -rf ~", "test": "$(reboot)"}}})
    assert evaluation_of(hostile) == "zoo evaluate adapter=FILE 'data=acac; rm -rf ~' 'data.test=$(reboot)'"
    assert evaluation_of(of_ours(None)) is None


def test_a_page_says_what_was_forgotten_with_units() -> None:
    rows = forgotten_of(of_ours("elora"))
    assert ("force MAE", "meV/Å") in {(label, unit) for label, _, _, unit in rows}
    assert all(before and after for _, before, after, _ in rows)
    assert forgotten_of(of_ours(None)) == []


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (0.123456, "0.1235"), (842440, "842\u202f440"), (12345.678, "12\u202f346"), (5.0, "5")]
)
def test_numbers_are_shown_with_four_digits(value: float | None, shown: str) -> None:
    assert shown_number(value) == shown
