"""The board's site: ``python -m leaderboard.build [--board DIR] [--adapters DIR] [--out DIR]``; opens from the disk, needs no server.

One page with the tables and plots, its data as a script, one page a record beside the record's own file, and the plotting library. Texts
of records are escaped by Jinja, or are data to the scripts, which write them as text: a record cannot put markup or code on a page.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from leaderboard.board import PROVENANCES, read_board
from leaderboard.board_data import board_script
from leaderboard.downloads import put_downloads
from leaderboard.entries import BOARD, read_verdicts
from leaderboard.entries import RECORDS as RECORDS_FOLDER
from leaderboard.record_page import environment, record_pages
from zoo.errors import ZooError
from zoo.evaluation.record import Record

SITE = Path(__file__).with_name("site")
RECORDS = BOARD / RECORDS_FOLDER
MARK = "equizoo-leaderboard"
"""The file that marks a folder as a site of ours, which may be overwritten."""


def build_site(records_folder: Path, out: Path, *, board: Path | None = None, adapters_folder: Path | None = None) -> list[Record]:
    """Write the site of all records below a folder, and return them.

    Args:
        records_folder: holds the records as ``*.json``, at any depth.
        out: is created; if it is there already it must be empty or a site that this function wrote.
        board: holds the verdicts on these records and the archives they were verified from (`leaderboard.entries`); none without it.
        adapters_folder: adapter files are looked up here by the SHA-256 in the record and offered for download.

    Raises:
        ZooError: one line for a record or verdict that is refused, or a folder that holds something else.
    """
    with _nothing_is_garbage():
        return _build_site(records_folder, out, board, adapters_folder)


def _build_site(records_folder: Path, out: Path, board: Path | None, adapters_folder: Path | None) -> list[Record]:
    entries = read_board(records_folder)
    records = [entry.record for entry in entries]
    verdicts = read_verdicts(board) if board else {}
    script = board_script(entries, verdicts)
    _prepare(out)
    for name in ("static", "vendor"):
        shutil.rmtree(out / name, ignore_errors=True)
        shutil.copytree(SITE / name, out / name)
    (out / "data.js").write_text(script, encoding="utf-8")
    page = environment().get_template("index.html.j2").render(count=len(records), version=_version(), provenances=PROVENANCES)
    (out / "index.html").write_text(page, encoding="utf-8")
    folder = out / "records"
    folder.mkdir(exist_ok=True)
    wanted = {f"{record.id}.html" for record in records}
    for name in {path.name for path in folder.iterdir()} - wanted:  # of records that are no longer there
        (folder / name).unlink()
    downloads = put_downloads(records, verdicts, board, adapters_folder, out)
    for record, html in record_pages(entries, verdicts, downloads):
        _write(folder / f"{record.id}.html", html.encode())
    return records


def _write(path: Path, content: bytes) -> None:
    """Write what is not there yet: records do not change, so that most pages of a rebuilt site are there, and disks write slowly."""
    try:
        with open(path, "rb") as file:
            if file.read() == content:
                return
        path.unlink()  # to empty a file that is there waits for the disk on some systems
    except FileNotFoundError:
        pass
    with open(path, "xb") as file:
        file.write(content)


@contextmanager
def _nothing_is_garbage() -> Iterator[None]:
    """Without the collector of cycles, which would look through the parts of 10,000 records again and again, all of them in use."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _prepare(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ZooError(f"{out}: a file; name a folder for the site")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise ZooError(f"{out}: holds something that is no site of ours (it has no file {MARK!r}); name an empty or a new folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(f"made by python -m leaderboard.build, equizoo {_version()}\n", encoding="utf-8")


def _version() -> str:
    try:
        return version("equizoo")
    except PackageNotFoundError:
        return "of a source folder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the site; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.build", description="Write the leaderboard's static site.")
    parser.add_argument(
        "--board", type=Path, default=BOARD, metavar="DIR", help="holds records/, verdicts/, artefacts/; default: the package's"
    )
    parser.add_argument("--records", type=Path, default=None, metavar="DIR", help="records from elsewhere; default: those of the board")
    parser.add_argument("--adapters", type=Path, default=None, metavar="DIR", help="adapter files to offer, found by their SHA-256")
    parser.add_argument("--out", type=Path, default=Path("board"), metavar="DIR", help="default: board")
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        folder = options.records or options.board / RECORDS_FOLDER
        records = build_site(folder, options.out, board=options.board, adapters_folder=options.adapters)
    except (ZooError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(records)} records in {time.perf_counter() - started:.1f} s: open {options.out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
