"""What the board's site takes with many records: ``python -m benchmarks.leaderboard_site [--records 10000] [--folder DIR]``.

Makes records up, builds the site twice, and opens it in a Chromium (playwright's, or the one that ``ZOO_CHROMIUM`` names). Times by the
clock depend on what else the machine does, so processor time stands beside them: of the build's process, and of the page's main thread.
Prints without a browser; with one and 10,000 records it rewrites the table in docs/leaderboard.md.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.made_up_records import made_up
from benchmarks.tables import ROOT, markdown_table, stamp, write_between_markers
from leaderboard.build import build_site
from zoo.evaluation.record import write_record

RECORDS = 10_000
HEADER = ("What", "Time or size")
COMMAND = "python -m benchmarks.leaderboard_site"
# A click on a column's header, from the event to the laid-out table.
SORT = """async key => {
    const button = document.querySelector(`th[data-key="${key}"] button`), started = performance.now();
    button.click();
    document.querySelector('.scroll').getBoundingClientRect();
    return performance.now() - started;
}"""


def in_a_browser(site: Path, opened: int = 5) -> tuple[list[tuple[str, list[float]]], str]:
    """(milliseconds of what a reader waits for, the browser's version); raises ImportError without playwright."""
    from playwright.sync_api import sync_playwright

    times: dict[str, list[float]] = {}
    executable = os.environ.get("ZOO_CHROMIUM")
    arguments = ["--no-sandbox", "--headless", "--disable-gpu"] if executable else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        for _ in range(opened):
            page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            page.goto(f"{site.as_uri()}/index.html")
            page.wait_for_selector("table.board tbody td")
            loaded = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
            measured = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
            times.setdefault("page loaded: scripts run, table drawn", []).append(loaded)
            times.setdefault("of it processor time of the page's main thread", []).append(1000 * measured["TaskDuration"])
            for key, what in (("base", "a column of texts"), ("head", "a column of numbers")):
                for direction in ("up", "down"):
                    times.setdefault(f"table sorted by {what}, {direction}", []).append(page.evaluate(SORT, key))
            page.close()
        version = f"Chromium {browser.version}"
        browser.close()
    return list(times.items()), version


def built(records: Path, site: Path) -> str:
    """Seconds by the clock and of the processor that a build takes."""
    started, before = time.perf_counter(), time.process_time()
    build_site(records, site)
    return f"{time.perf_counter() - started:.1f} s, {time.process_time() - before:.1f} s of the processor"


def main() -> int:
    """Print the figures, and write them where they are complete; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard_site", description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "records").mkdir()
        for number in range(options.records):
            record = made_up(number)
            write_record(folder / "records" / f"{record.id}.json", record)
        rows = [(f"site of {options.records} records built", built(folder / "records", folder / "site"))]
        rows.append(("built again, nothing new", built(folder / "records", folder / "site")))
        data = (folder / "site" / "data.js").read_bytes()
        rows.append(("data of the tables", f"{len(data) / 1e6:.2f} MB, {len(gzip.compress(data)) / 1e6:.2f} MB compressed"))
        try:
            times, version = in_a_browser(folder / "site")
        except ImportError:
            print(markdown_table(HEADER, rows))
            print("not opened: playwright is not installed (pip install playwright)")
            return 0
    rows += [(what, f"{statistics.median(values):.0f} ms ({min(values):.0f} to {max(values):.0f})") for what, values in times]
    busy = f"Load average when it began {load:.1f} on {os.cpu_count()} cores: above that, times by the clock are those of a busy machine."
    text = f"{markdown_table(HEADER, rows)}\n\n{stamp(COMMAND)} {version}, headless, opened five times: median, and least to most. {busy}"
    if options.records == RECORDS:
        write_between_markers(ROOT / "docs" / "leaderboard.md", "leaderboard-site", text)
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
