"""The board's site: ``python -m leaderboard.build [--records DIR] [--adapters DIR] [--out DIR]``; opens from the disk, needs no server.

One page with the tables and plots, its data as a script, one page a record beside the record's own file, and the plotting library. Texts
of records are escaped by Jinja, or are data to the scripts, which write them as text: a record cannot put markup or code on a page.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from leaderboard.board import PROVENANCES, read_board
from leaderboard.board_data import board_script
from leaderboard.record_page import environment, record_pages
from zoo.digests import file_sha256
from zoo.errors import ZooError
from zoo.evaluation.record import Record

SITE = Path(__file__).with_name("site")
RECORDS = Path(__file__).with_name("records")
MARK = "equizoo-leaderboard"
"""The file that marks a folder as a site of ours, which may be overwritten."""


def build_site(records_folder: Path, out: Path, adapters_folder: Path | None = None) -> list[Record]:
    """Write the site of all records below a folder, and return them.

    Args:
        records_folder: holds the records as ``*.json``, at any depth.
        out: is created; if it is there already it must be empty or a site that this function wrote.
        adapters_folder: adapter files are looked up here by the SHA-256 in the record and offered for download.

    Raises:
        ZooError: one line for a record that is refused, or a folder that holds something else.
    """
    records = sorted(read_board(records_folder), key=lambda record: (PROVENANCES.index(record.provenance), record.data.name, record.id))
    _prepare(out)
    for name in ("static", "vendor"):
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(SITE / name, out / name)
    shutil.rmtree(out / "adapters", ignore_errors=True)
    adapters = _adapters(records, adapters_folder, out)
    (out / "data.js").write_text(board_script(records), encoding="utf-8")
    page = environment().get_template("index.html.j2").render(count=len(records), version=_version(), provenances=PROVENANCES)
    (out / "index.html").write_text(page, encoding="utf-8")
    folder = out / "records"
    folder.mkdir(exist_ok=True)
    stray = {path.name for path in folder.iterdir()} - {f"{record.id}.html" for record in records}
    for name in stray:  # of records that are no longer there; the rest is overwritten, which is faster than to remove it
        (folder / name).unlink()
    for record, html in record_pages(records, adapters):
        (folder / f"{record.id}.html").write_text(html, encoding="utf-8")
    return records


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ZooError(f"{out}: a file; name a folder for the site")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ZooError(f"{out}: holds something that is no site of ours (it has no file {MARK!r}); name an empty or a new folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(f"made by python -m leaderboard.build, equizoo {_version()}\n", encoding="utf-8")


def _adapters(records: Sequence[Record], folder: Path | None, out: Path) -> Mapping[str, str]:
    """Address on the site by SHA-256 of every adapter file that a record names and ``folder`` holds."""
    if folder is None:
        return {}
    wanted = {record.adapter.file_sha256 for record in records if record.adapter and record.adapter.file_sha256}
    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        digest = file_sha256(path)
        if digest in wanted and digest not in found:
            (out / "adapters").mkdir(exist_ok=True)
            shutil.copyfile(path, out / "adapters" / f"{digest}.safetensors")
            found[digest] = f"../adapters/{digest}.safetensors"
    return found


def _version() -> str:
    try:
        return version("equizoo")
    except PackageNotFoundError:
        return "of a source folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.build", description="Write the leaderboard's static site.")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="DIR", help="default: the records in the package")
    parser.add_argument("--adapters", type=Path, default=None, metavar="DIR", help="adapter files to offer, found by their SHA-256")
    parser.add_argument("--out", type=Path, default=Path("board"), metavar="DIR", help="default: board")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        records = build_site(options.records, options.out, options.adapters)
    except (ZooError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(records)} records in {time.perf_counter() - started:.1f} s: open {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
