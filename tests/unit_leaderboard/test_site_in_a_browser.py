"""The site in a real browser, opened from the disk: sorting, filters, downloads, comparison, plots, links, keyboard and accessibility."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from benchmarks.made_up_records import made_up
from leaderboard import build
from leaderboard.entries import write_verdict
from leaderboard.ranking import pareto_front
from tests.browser import axe_script, chromium
from tests.unit_leaderboard.test_build import hostile_record
from tests.unit_leaderboard.test_evidence import verdict_on
from zoo.evaluation.record import write_record

pytestmark = pytest.mark.slow
ROWS = "table.board tbody tr:not([aria-hidden]):has(td)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real board with some made-up results of our own beside it, and one that tries to break out of its page."""
    folder = tmp_path_factory.mktemp("board")
    records = folder / "records"
    records.mkdir()
    for path in build.RECORDS.rglob("*.json"):
        (records / path.name).write_bytes(path.read_bytes())
    for number in range(120):
        record = made_up(number)
        write_record(records / f"{record.id}.json", record)
        if record.provenance == "submitted":
            write_verdict(verdict_on(record, predictions=number % 2 == 0), folder)
    record = hostile_record()
    write_record(records / f"{record.id}.json", record)
    build.build_site(records, folder / "site", board=folder)
    return folder / "site"


@pytest.fixture
def open_page(browser: Any, site: Path) -> Iterator[Callable[..., Any]]:
    """Opens an address of the site; an error on its console, or a dialogue, fails the test in the end."""
    problems: list[str] = []
    contexts = []

    def opened(address: str, **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "accept_downloads": True, **options})
        context.set_default_timeout(60_000)  # a busy machine is slow, not wrong
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialogue {dialog.message}"), dialog.dismiss()))
        page.goto(f"{site.as_uri()}/{address}")
        page.wait_for_selector("h1")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def column(page: Any, place: int) -> list[str]:
    return list(page.eval_on_selector_all(ROWS, f"rows => rows.map(row => row.children[{place}].textContent)"))


def number(text: str) -> float:
    return float(text.split(" ±")[0].replace("\u202f", ""))


def test_a_column_is_sorted_within_each_kind_of_evidence_and_the_address_says_so(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/benchmark/3bpa")
    assert page.locator("th[aria-sort]").count() == 1, "the best stand first before anything is chosen"
    page.click("th[data-key=trainable] button")
    page.click("th[data-key] button:has-text('test_300K · force RMSE')")
    head = page.locator("th[aria-sort]")
    assert (head.count(), head.get_attribute("aria-sort")) == (1, "ascending")
    place = page.eval_on_selector("th[aria-sort]", "th => [...th.parentElement.children].indexOf(th)")
    kinds = page.eval_on_selector_all(ROWS, "rows => rows.map(row => row.className)")
    values = column(page, place)
    sections = page.eval_on_selector_all("table.board tbody tr", f"rows => rows.map(r => r.children[{place}]?.textContent ?? 'section')")
    for part in " | ".join(sections).split("section")[1:]:
        shown = [number(text) for text in part.split(" | ") if text.strip()]
        assert shown == sorted(shown)
    assert len(set(kinds)) >= 3
    assert kinds == sorted(kinds, key=("reproduced", "submitted", "reported", "local").index), "kinds of evidence never mix"
    address = page.url
    page.click("th[aria-sort] button")
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    again = open_page("index.html" + address[address.index("#") :])
    assert again.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert column(again, place) == values, "the address brings the same view back"


def test_a_protocol_that_others_share_no_error_with_is_in_the_order_of_its_own(open_page: Callable[..., Any]) -> None:
    protocol = "all n_train=200 n_valid=50 n_test=200 split_seed=0 (changed from protocol subset-mae)"
    page = open_page(f"index.html#/benchmark/lam?protocol={quote(protocol)}")
    page.wait_for_selector(ROWS)
    labels = page.eval_on_selector_all("table.board thead th", "heads => heads.map(head => head.textContent)")
    (place,) = [place for place, label in enumerate(labels) if "sse-pbe-ligeps · force MAE" in label]
    errors = [number(text) for text in column(page, place)]
    assert len(errors) == 9
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


def test_search_filters_and_columns(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/benchmark/rmd17")
    everything = page.locator(ROWS).count()
    page.fill("input[type=search]", "reported pace")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length < {everything}")
    assert set(column(page, 1)) == {"PACE"}
    assert "q=reported+pace" in page.url
    page.fill("input[type=search]", "nothing has this name")
    page.wait_for_selector("text=Nothing matches these filters.")
    page.fill("input[type=search]", "")
    page.wait_for_function(f"document.querySelectorAll('{ROWS}').length >= {everything}")
    page.locator("label:has-text('reported') input").uncheck()
    assert "reported" not in set(page.eval_on_selector_all(ROWS, "rows => rows.map(row => row.className)"))
    page.click("details.columns summary")
    page.locator("details.columns label:has-text('Level of theory') input").check()
    page.locator("details.columns label:has-text('Trained parameters') input").uncheck()
    assert page.locator("th[data-key=theory]").count() == 1
    assert "show=theory&hide=trainable" in page.url, "by name, so that the address still holds on a larger board"
    fresh = open_page("index.html" + page.url[page.url.index("#") :])
    assert fresh.locator("th[data-key=theory]").count() == 1
    assert fresh.locator("th[data-key=trainable]").count() == 0


def test_every_row_carries_the_badges_of_its_evidence_and_its_verification(open_page: Callable[..., Any]) -> None:
    script = "rows => rows.map(row => [row.className, ...['badge', 'check'].map(kind => row.querySelector(`.${kind}`).textContent)])"
    found = {}
    for kind in ("reproduced", "submitted"):
        others = ",".join({"reproduced", "submitted", "reported", "local"} - {kind})
        page = open_page(f"index.html#/?without={others}")
        rows = page.eval_on_selector_all(ROWS, script)
        assert {(row, badge) for row, badge, _ in rows} == {(kind, kind)}
        found[kind] = {check for *_, check in rows}
    assert found == {"reproduced": {"not verified"}, "submitted": {"✓✓ predictions", "✓ metrics", "not verified"}}
    page.select_option("label:has-text('Verification') select", "metrics recomputed from predictions")
    assert set(page.eval_on_selector_all(f"{ROWS} .check", "all => all.map(one => one.textContent)")) == {"✓ metrics"}
    page.click("text=What the badges mean")
    assert "sent in, recomputed on arrival" in page.inner_text("details.meaning")


def test_the_ranking_is_best_first_and_leads_to_the_rows(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/ranking?benchmark=rmd17&without=reproduced,submitted,local")
    ranks = [number(text) for text in column(page, 3)]
    assert len(ranks) > 3
    assert ranks[: ranks.index(max(ranks)) + 1] == sorted(ranks[: ranks.index(max(ranks)) + 1])
    name = page.locator(f"{ROWS} th a").first.inner_text()
    page.locator(f"{ROWS} th a").first.click()
    page.wait_for_selector("h1:has-text('rmd17')")
    assert set(page.eval_on_selector_all(f"{ROWS} th a", "all => all.map(one => one.textContent)")) == {name}


def test_the_overview_shows_gains_and_profiles_of_each_kind_of_evidence(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/plots?evidence=reported")
    page.wait_for_selector("figure, p:has-text('stands beside')")
    bases = page.eval_on_selector_all("select >> nth=1 >> option", "all => all.map(option => option.value)")
    assert "MACE-OFF" in bases
    page.select_option("select >> nth=1", "MACE-OFF")
    assert "base=MACE-OFF" in page.url
    assert page.locator("figure h2").first.inner_text() == "Gain over full fine-tuning"
    page.locator("figure summary").first.click()
    table = page.locator("figure .numbers tbody tr").first.inner_text()
    assert "rmd17" in page.locator("figure .numbers").first.inner_text()
    assert "elora" in table


def test_a_page_of_a_record_draws_it_beside_others(open_page: Callable[..., Any], site: Path) -> None:
    record = next((site / "records").glob("MACE-OFF.elora.3bpa*.html"))
    page = open_page(f"records/{record.name}")
    page.wait_for_selector("#plots figure svg")
    assert page.eval_on_selector_all("#plots h3", "all => all.map(title => title.textContent)") == ["Beside others", "By test set"]
    page.select_option(
        "#plots select",
        next(
            iter(
                page.eval_on_selector_all("#plots option", "all => all.filter(o => o.text.includes('600K · force RMSE')).map(o => o.value)")
            )
        ),
    )
    page.locator("#plots summary").first.click()
    rows = page.eval_on_selector_all(
        "#plots figure:first-of-type tbody tr", "rows => rows.map(row => [...row.children].map(c => c.textContent))"
    )
    values = [float(row[1]) for row in rows]
    assert values == sorted(values)
    assert [row[0] for row in rows if "this one" in row[0]] == ["MACE-OFF, elora (this one)"]
    assert f"place {[row[0] for row in rows].index('MACE-OFF, elora (this one)') + 1} of {len(rows)}" in page.inner_text(
        "#plots figcaption >> nth=0"
    )


def test_the_front_on_the_page_is_that_of_the_ranking(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/plots/rmd17")
    page.wait_for_selector("figure")
    draw = random.Random(0)
    for _ in range(30):
        points = [(float(draw.randint(0, 6)), float(draw.randint(0, 6))) for _ in range(draw.randint(1, 25))]
        drawn = page.evaluate("points => Parts.front(points.map(([x, y]) => ({ x, y }))).map(p => [p.x, p.y])", points)
        kept = [point for point, on in zip(points, pareto_front(points), strict=True) if on]
        assert sorted(map(tuple, drawn)) == sorted(kept)


def test_downloads_hold_the_rows_and_columns_in_sight(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/benchmark/3bpa?q=reported")
    heads = page.locator("th[data-key]").count()
    contents = {}
    for kind in ("CSV", "JSON", "LaTeX"):
        with page.expect_download() as waiting:
            page.click(f"div[role=group] button:has-text('{kind}')")
        contents[kind] = Path(waiting.value.path()).read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(contents["CSV"])))
    assert len(rows) == 9
    deviations = [head for head in rows[0] if "standard deviation" in head]
    assert len(deviations) > 3
    assert {len(row) for row in rows} == {heads + len(deviations)}
    assert rows[0][:2] == ["provenance", "verified"]
    assert {tuple(row[:2]) for row in rows[1:]} == {("reported", "not verified")}
    elora = next(row for row in rows if row[2:4] == ["MACE-OFF", "elora"])
    assert elora[rows[0].index("test_300K · force RMSE / meV/Å")] == "7.5"
    listed = json.loads(contents["JSON"])
    assert len(listed) == 8
    assert listed[0]["records"][0].startswith(listed[0]["Base"])
    assert contents["LaTeX"].count("\\\\\n") == 9
    assert "test\\_300K" in contents["LaTeX"]


def test_two_rows_are_compared_and_a_record_is_opened(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/benchmark/3bpa?q=reported+mace-off")
    button = page.locator("button:has-text('Compare two')")
    assert button.is_disabled()
    for name in ("elora", "full"):
        page.locator(f"input[aria-label='Compare MACE-OFF, {name}']").check()
    button.click()
    page.wait_for_selector("h1:has-text('Comparison')")
    line = page.locator("tr:has(th:has-text('test_300K · force RMSE'))").inner_text()
    assert "7.5 ± 0.05" in line
    assert "7.8 ± 0.01" in line
    assert "+4 %, worse" in line
    page.go_back()
    page.wait_for_selector("table.board")
    page.locator("tr:has(input[aria-label='Compare MACE-OFF, elora']) th a").click()
    page.wait_for_selector("h2:has-text('What was run')")
    assert "ICML 2025" in page.inner_text("main")
    with page.expect_download() as waiting:
        page.click("a:has-text('The record, JSON')")
    assert json.loads(Path(waiting.value.path()).read_text(encoding="utf-8"))["data"]["name"] == "3bpa"


@pytest.mark.parametrize(
    ("address", "protocol", "wanted"),
    [("3bpa", "ELoRA", ("Error by temperature", "Profile")), ("rmd17", "n_train=50", ("Error against cost", "Method by data set"))],
)
def test_plots_are_drawn_and_say_what_they_show(
    address: str, protocol: str, wanted: tuple[str, str], open_page: Callable[..., Any]
) -> None:
    page = open_page(f"index.html#/plots/{address}")
    page.wait_for_selector("figure")
    options = page.eval_on_selector_all("select >> nth=0 >> option", "all => all.map(option => option.value)")
    page.select_option("select >> nth=0", next(value for value in options if protocol in value))
    titles = page.eval_on_selector_all("figure h2", "all => all.map(title => title.textContent)")
    assert {"Spread over seeds", *wanted} <= set(titles)
    labels = page.eval_on_selector_all("figure [role=img]", "all => all.map(drawn => drawn.getAttribute('aria-label'))")
    assert all(len(label) > 30 for label in labels)
    assert page.eval_on_selector_all("figure svg", "all => all.every(svg => svg.querySelectorAll('path, rect, circle').length > 3)")


def test_the_keyboard_is_enough(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/benchmark/3bpa")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("th[data-key=method] button")
    page.keyboard.press("Enter")
    assert page.locator("th[data-key=method]").get_attribute("aria-sort") == "ascending"
    page.locator("table.board input[type=checkbox]").first.focus()
    page.keyboard.press("Space")
    assert page.locator("table.board input[type=checkbox]").first.is_checked()
    page.focus(".scroll")
    page.keyboard.press("PageDown")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"


def test_only_the_rows_in_sight_are_drawn_and_all_can_be_reached(open_page: Callable[..., Any]) -> None:
    page = open_page("index.html#/")
    total = int(page.locator("table.board").get_attribute("aria-rowcount"))
    assert total > 500
    assert page.locator("table.board tbody tr").count() < 80
    page.eval_on_selector(".scroll", "box => { box.scrollTop = box.scrollHeight; }")
    page.wait_for_function(f"document.querySelector('tr[aria-rowindex=\"{total}\"]') !== null")


def test_what_a_record_says_is_shown_and_not_run(open_page: Callable[..., Any], site: Path) -> None:
    page = open_page("index.html#/?q=alert")
    assert page.locator(ROWS).count() == 1
    assert "<script>alert(1)</script>" in page.inner_text(ROWS)
    page.goto(f"{site.as_uri()}/records/{hostile_record().id}.html")
    page.wait_for_timeout(300)
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "address",
    [
        "index.html#/",
        "index.html#/benchmark/3bpa",
        "index.html#/plots/3bpa",
        "index.html#/plots/rmd17",
        "index.html#/plots",
        "index.html#/ranking",
        "COMPARE",
        "RECORD",
        "VERIFIED",
    ],
)
def test_axe_finds_nothing_serious(address: str, scheme: str, open_page: Callable[..., Any], site: Path) -> None:
    script = axe_script()
    records = {"RECORD": "MACE-OFF.elora.3bpa*.html", "VERIFIED": f"{next((site.parent / 'verdicts').iterdir()).stem}.html"}
    if address in records:
        page = open_page(f"records/{next((site / 'records').glob(records[address])).name}", color_scheme=scheme)
        page.wait_for_selector("#plots figure")
    elif address == "COMPARE":
        page = open_page("index.html#/benchmark/3bpa?q=reported+mace-off", color_scheme=scheme)
        for name in ("elora", "full"):
            page.locator(f"input[aria-label='Compare MACE-OFF, {name}']").check()
        page.click("button:has-text('Compare two')")
        page.wait_for_selector("h1:has-text('Comparison')")
    else:
        page = open_page(address, color_scheme=scheme)
        if "plots" in address:
            page.wait_for_selector("figure")
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.evaluate(script)
    # without preload, which would fetch the style sheet, and a page on a disk may fetch nothing
    found = page.evaluate(
        "async () => (await axe.run({preload: false})).violations.map(v => [v.id, v.impact, v.nodes.slice(0, 3).map(n => n.html)])"
    )
    assert [entry for entry in found if entry[1] in ("serious", "critical")] == []
    assert page.evaluate("async () => (await axe.run({preload: false})).passes.length") > 10, "axe looked at the page"


def test_a_phone_sees_no_sideways_scrolling_of_the_page(open_page: Callable[..., Any]) -> None:
    for address in ("index.html#/", "index.html#/benchmark/acac", "index.html#/plots/acac", "index.html#/plots", "index.html#/ranking"):
        page = open_page(address, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") <= 391, address
