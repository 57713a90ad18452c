"""What the board's site takes with many records: ``python -m benchmarks.leaderboard_site [--records 10000] [--folder DIR]``.

Makes records up, builds the site, and where there is a Chromium (playwright's, or the one that ``ZOO_CHROMIUM`` names) opens it and sorts.
Prints; writes nothing else.
"""

from __future__ import annotations

import argparse
import gzip
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.made_up_records import made_up
from leaderboard.build import build_site
from zoo.evaluation.record import write_record

# Loads of the page, and clicks on the headers of a text and two number columns, from the event to the drawn frame.
SORT = """async key => {
    const button = document.querySelector(`th[data-key="${key}"] button`), started = performance.now();
    button.click();
    document.querySelector('.scroll').getBoundingClientRect();
    return performance.now() - started;
}"""


def in_a_browser(site: Path, opened: int = 3) -> list[tuple[str, list[float]]]:
    """Milliseconds of the things a reader waits for."""
    loads, drawn = [], []
    sorts: dict[str, list[float]] = {"base": [], "head": [], "method": []}
    from playwright.sync_api import sync_playwright

    executable = os.environ.get("ZOO_CHROMIUM")
    arguments = ["--no-sandbox", "--headless", "--disable-gpu"] if executable else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        for _ in range(opened):
            page: Any = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"{site.as_uri()}/index.html")
            page.wait_for_selector("table.board tbody td")
            loads.append(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"))
            drawn.append(float(page.evaluate("document.documentElement.dataset.drawn")))
            for key, times in sorts.items():
                times.append(page.evaluate(SORT, key))
            page.close()
    return [
        ("loaded, scripts run and table drawn", loads),
        ("of it the table", drawn),
        *((f"sorted by {key}", times) for key, times in sorts.items()),
    ]


def main() -> int:
    """Print the figures; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard_site", description=__doc__)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "records").mkdir()
        for number in range(options.records):
            record = made_up(number)
            write_record(folder / "records" / f"{record.id}.json", record)
        started, cpu = time.perf_counter(), time.process_time()
        build_site(folder / "records", folder / "site")
        wall, processor = time.perf_counter() - started, time.process_time() - cpu
        print(f"{options.records} records: built in {wall:.1f} s, {processor:.1f} s of processor time")

        data = (folder / "site" / "data.js").read_bytes()
        print(f"data.js: {len(data) / 1e6:.2f} MB, {len(gzip.compress(data)) / 1e6:.2f} MB compressed")
        try:
            for what, times in in_a_browser(folder / "site"):
                print(f"{what}: {', '.join(f'{value:.0f}' for value in times)} ms")
        except ImportError:
            print("not opened: playwright is not installed (pip install playwright)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
