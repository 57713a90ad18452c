"""The transcribed tables: what they must agree on by themselves, with the papers' text where it is at hand, and with the records."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from leaderboard.reported_tables import FOLDER, NOTES, UNREADABLE, Cell, Paper, facts_of, parsed_number, read_cells, read_papers
from zoo.errors import ZooError

# table: cells, cells with a number
COUNTS = {
    ("elora", "1"): (120, 120), ("elora", "2"): (64, 60), ("elora", "3"): (30, 30), ("elora", "4"): (140, 136), ("elora", "7"): (20, 20),
    ("elora", "8"): (16, 16), ("sparse", "1"): (267, 266), ("sparse", "2"): (25, 19), ("sparse", "3"): (34, 29),
    ("sparse", "4"): (10, 10), ("sparse", "I"): (180, 140), ("sparse", "II"): (126, 126), ("sparse", "III"): (56, 56),
    ("equiformer_v2", "1"): (74, 69), ("equiformer_v2", "2"): (155, 143), ("equiformer_v2", "3"): (99, 96),
    ("equiformer_v2", "4"): (66, 54), ("equiformer_v2", "5"): (108, 108), ("equiformer_v2", "6"): (15, 12),
    ("equiformer_v2", "8"): (42, 42), ("equiformer_v2", "10"): (20, 20),
}  # fmt: skip
# table: first and last line of its numbers in the text of the paper (file that begins with the digits), and the fields that are labels
IN_THE_TEXT = {
    ("elora", "1"): ("000", 168, 187, 2), ("elora", "2"): ("000", 199, 206, 2), ("elora", "3"): ("000", 233, 237, 2),
    ("elora", "4"): ("000", 266, 275, 1), ("elora", "7"): ("000", 632, 636, 2), ("elora", "8"): ("000", 642, 645, 2),
    ("sparse", "1"): ("001", 117, 126, (0, 1, 8, 9)), ("sparse", "2"): ("001", 164, 168, 1), ("sparse", "3"): ("001", 173, 176, 1),
    ("sparse", "4"): ("001", 198, 199, 1), ("sparse", "I"): ("001", 400, 429, 2), ("sparse", "II"): ("001", 437, 445, 2),
    ("sparse", "III"): ("001", 450, 453, (0, 1, 5, 6)), ("equiformer_v2", "2"): ("004", 166, 167, 2),
    ("equiformer_v2", "3"): ("004", 196, 204, 1), ("equiformer_v2", "4"): ("004", 210, 215, 3),
    ("equiformer_v2", "5"): ("004", 234, 242, 2), ("equiformer_v2", "6"): ("004", 247, 251, 2),
    ("equiformer_v2", "8"): ("004", 561, 574, 7), ("equiformer_v2", "10"): ("004", 641, 641, 1),
}  # fmt: skip
# tables of which a cell of the text holds the numbers of several rows
SHARED_CELLS = {("sparse", "1"), ("sparse", "II"), ("sparse", "III")}
# the rows themselves are joined in the text
JOINED_ROWS = {("sparse", "3"), ("equiformer_v2", "2"), ("equiformer_v2", "10")}
# the five parts of Table 1 lie apart and have labels of their own
ABLATIONS = ((100, 107, 5), (111, 115, 2), (123, 125, 1), (129, 132, 1), (136, 138, 1))


SECOND = Path(__file__).with_name("second_transcription")
LABELLED_OTHERWISE = {
    ("sparse", "1"), ("sparse", "4"), ("equiformer_v2", "1"), ("equiformer_v2", "2"), ("equiformer_v2", "5"), ("equiformer_v2", "8"),
}  # fmt: skip


def tokens(text: str) -> list[str]:
    return [token.rstrip(",") for token in re.findall(r"(?<![\d.])(?:\d[\d,]*\.?\d*|\.\d+)", text)]


def tokens_of_lines(lines: list[str], labels: int | tuple[int, ...]) -> list[str]:
    label_fields = range(labels) if isinstance(labels, int) else labels
    fields = [field for line in lines for number, field in enumerate(line.split("\t")) if number not in label_fields]
    return [token for field in fields for token in tokens(field)]


def printed_tokens(paper: str, table: str, folder: Path) -> list[str]:
    """The numbers of a table's lines in the text of its paper, in reading order."""
    if (paper, table) == ("equiformer_v2", "1"):
        prefix, spans = "004", ABLATIONS
    else:
        prefix, *span = IN_THE_TEXT[paper, table]
        spans = (tuple(span),)
    (path,) = folder.glob(f"{prefix}_*.txt")
    lines = path.read_text(encoding="utf-8").split("\n")
    return [token for first, last, labels in spans for token in tokens_of_lines(lines[first - 1 : last], labels)]


def in_reading_order(paper: str, table: str) -> list[Cell]:
    """The cells as the text has them: where energy, force and sparsity share a cell, column by column, and two halves line by line."""
    cells = read_cells(paper, table)
    if (paper, table) not in SHARED_CELLS:
        return cells
    of_row = {cell.row: cell.row.rpartition(" | ")[0] for cell in cells}
    halves: dict[str, list[str]] = {}
    for subset in dict.fromkeys(of_row.values()):
        halves.setdefault(subset.rpartition(" | ")[0], []).append(subset)
    columns = list(dict.fromkeys(cell.column for cell in cells))

    def place(cell: Cell) -> tuple[int, int, int]:
        half = of_row[cell.row].rpartition(" | ")[0]
        return halves[half].index(of_row[cell.row]), list(halves).index(half), columns.index(cell.column)

    return sorted(cells, key=place)


def values(paper: str, table: str) -> dict[tuple[str, str], str]:
    return {(cell.row, cell.column): cell.value for cell in read_cells(paper, table)}


def first_number(text: str) -> str:
    return re.match(r"[\d.,]+", text)[0]


@pytest.fixture(scope="module")
def papers() -> dict[str, Paper]:
    return {paper.paper: paper for paper in read_papers()}


def test_every_table_is_described_and_has_the_counts_both_transcriptions_had(papers: dict[str, Paper]) -> None:
    assert {(name, table) for name, paper in papers.items() for table in paper.tables} == set(COUNTS)
    assert {tuple(path.stem.split("-table-")) for path in FOLDER.glob("*.csv")} == set(COUNTS)
    for (paper, table), (cells, numbers) in COUNTS.items():
        found = read_cells(paper, table)
        assert (len(found), sum(parsed_number(cell.value) is not None for cell in found)) == (cells, numbers), (paper, table)
        assert len({(cell.row, cell.column) for cell in found}) == cells, (paper, table)


def test_every_readable_number_becomes_exactly_one_fact(papers: dict[str, Paper]) -> None:
    for paper, table in COUNTS:
        cells = read_cells(paper, table)
        readable = [cell for cell in cells if parsed_number(cell.value) is not None and cell.note not in UNREADABLE]
        assert [fact.cell for fact in facts_of(papers[paper], table, cells)] == readable


def test_only_the_listed_cells_are_unreadable() -> None:
    marked = Counter(cell.note for paper, table in COUNTS for cell in read_cells(paper, table) if cell.note)
    assert marked == {
        "copied": 12, "ghost": 4, "row lost": 71, "contradicted": 3, "deviation cut": 6, "bracket cut": 7,
        "read from the end": 7, "row from the text": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("paper", "table"), list(COUNTS))
def test_the_second_transcription_has_the_same_numbers(paper: str, table: str) -> None:
    """Made independently, in another folder and by another program; it names some rows and columns of six tables otherwise."""
    with (SECOND / f"{paper}-table-{table}.csv").open(encoding="utf-8") as lines:
        second = {(line["row"], line["column"]): line["value"] for line in csv.DictReader(lines)}
    first = values(paper, table)
    assert Counter(value for value in first.values() if value != "-") == Counter(value for value in second.values() if value != "-")
    if (paper, table) not in LABELLED_OTHERWISE:
        assert {key: value for key, value in first.items() if value != "-"} == {key: value for key, value in second.items() if value != "-"}


def test_what_the_sparse_paper_prints_twice_is_equal() -> None:
    short, compared = values("sparse", "1"), 0
    long = {"rMD17": values("sparse", "I"), "LAM": values("sparse", "II")}
    names = {"E": "Energy", "F": "Force", "Sp.": "Sparsity"}
    for (row, column), value in short.items():
        half, subset, quantity = row.split(" | ")
        if value != "-":
            assert first_number(long[half][f"{subset} | {names[quantity]}", column]) == value, (row, column)
            compared += 1
    assert compared == 266


def test_what_elora_prints_twice_is_equal() -> None:
    of_ten, of_four, compared = values("elora", "4"), values("elora", "7"), 0
    for subset in ("Cu", "Sn"):
        for method in ("Full-parameter", "ELoRA"):
            for letter, head in (("E", "Energy RMSE [meV/atom]"), ("F", "Force RMSE [meV/Å]")):
                assert of_ten[subset, f"{head} | MACE | {method}"] == of_four[f"{subset} | {letter}", f"MACE | {method}"]
                compared += 1
    assert compared == 8


def test_averages_and_repeated_settings_of_equiformer_v2_agree() -> None:
    relaxed = values("equiformer_v2", "10")
    for model in ("Equiformer (Liao & Smidt, 2023)", "EquiformerV2"):
        for task in ("IS2RE direct", "IS2RE direct with IS2RS auxiliary task and Noisy Nodes"):
            numbers = [float(relaxed[model, f"{task} | Energy MAE (meV)↓ | {split}"]) for split in ("ID", "OOD Ads", "OOD Cat", "OOD Both")]
            assert abs(sum(numbers) / 4 - float(relaxed[model, f"{task} | Energy MAE (meV)↓ | Average"])) <= 0.0501
    ablations = values("equiformer_v2", "1")
    for column in ("EquiformerV2 | forces", "EquiformerV2 | energy", "eSCN | forces", "eSCN | energy"):
        assert len({ablations[row, column] for row in ("(b) | 6 | 12", "(c) | 6", "(d) | 2", "(e) | 12")}) == 1


def mean_gain(pairs: Iterable[tuple[float, float]]) -> float:
    """The mean of relative gains of the second over the first, in percent."""
    gains = [100 * (before - after) / before for before, after in pairs]
    return sum(gains) / len(gains)


@pytest.mark.parametrize(
    ("table", "row", "column", "stated"),
    [
        ("1", " | E", "MACE | {}", 25.5), ("1", " | F", "MACE | {}", 23.7),
        ("3", " | E", "MACE | {}", 26.4), ("3", " | F", "MACE | {}", 14.4),
        ("4", "", "Energy RMSE [meV/atom] | MACE | {}", 12.3), ("4", "", "Force RMSE [meV/Å] | MACE | {}", 14.4),
    ],
)  # fmt: skip
def test_the_gains_that_elora_states_follow_from_its_tables(table: str, row: str, column: str, stated: float) -> None:
    """An independent check of digits: means of relative gains over full fine-tuning, as the sections state them."""
    cells = values("elora", table)
    rows = dict.fromkeys(name for name, _ in cells if name.endswith(row))
    full, elora = ([float(first_number(cells[name, column.format(method)])) for name in rows] for method in ("Full-parameter", "ELoRA"))
    assert mean_gain(zip(full, elora, strict=True)) == pytest.approx(stated, abs=0.06)


def test_the_gains_that_equiformer_v2_states_follow_from_its_tables() -> None:
    """Which confirms columns whose headings are shifted in the copy."""
    oxides, adsorption, degrees = (values("equiformer_v2", table) for table in ("4", "3", "6"))
    best, before = "EquiformerV2 (lambda_E = 4, lambda_F = 100) | OC22 | ✓", "eSCN (Passaro & Zitnick, 2023) | OC22 | ✓"
    for quantity, stated in (("Energy MAE (meV)", 18.9), ("Force MAE (meV/Å) ↓", 8.9)):
        mean = [sum(float(oxides[row, f"S2EF-Total test | {quantity} | {part}"]) for part in ("ID", "OOD")) for row in (before, best)]
        assert mean_gain([(mean[0], mean[1])]) == pytest.approx(stated, abs=0.06)
    large, scn = "EquiformerV2 (lambda_E = 4, 153M)", "SCN-MD-Large (Zitnick et al., 2022)"
    for k, stated in ((1, 8), (2, 5)):
        success = [float(adsorption[row, f"k = {k} | Success"].rstrip("%")) for row in (large, scn)]
        assert round(success[0] - success[1]) == stated
    seconds = {row: float(value) for (row, column), value in adsorption.items() if column.startswith("GPU") and value != "-"}
    small = seconds["EquiformerV2 (lambda_E = 4, 31M)"]
    assert [round(seconds[row] / small, 1) for row in ("GemNet-OC-MD-Large (Gasteiger et al., 2022)", scn)] == [3.7, 9.8]
    hours = [float(degrees[row, "Training time (GPU-hours)↓"]) for row in ("Equiformer (Liao & Smidt, 2023) | 2", "EquiformerV2 | 2")]
    assert round(hours[0] / hours[1], 1) == 2.3


@pytest.mark.parametrize(("paper", "table"), list(COUNTS))
def test_the_numbers_are_those_of_the_papers_text(paper: str, table: str, golden_folder: Callable[[str], Path]) -> None:
    printed = printed_tokens(paper, table, golden_folder("papers"))
    transcribed = [token for cell in read_cells(paper, table) for token in tokens(cell.value)]
    assert Counter(printed) == Counter(transcribed)
    assert len(printed) >= COUNTS[paper, table][1]


@pytest.mark.parametrize(("paper", "table"), [table for table in COUNTS if table not in JOINED_ROWS])
def test_the_numbers_stand_where_the_text_has_them(paper: str, table: str, golden_folder: Callable[[str], Path]) -> None:
    """Cells that were exchanged have the same numbers in another order."""
    printed = printed_tokens(paper, table, golden_folder("papers"))
    assert [token for cell in in_reading_order(paper, table) for token in tokens(cell.value)] == printed


@pytest.mark.parametrize(
    ("text", "value", "spread", "bracket"),
    [
        ("0.17", 0.17, None, None), (".044", 0.044, None, None), ("9.50 ± 0.11", 9.5, 0.11, None), ("83.19 (27.50)", 83.19, None, 27.5),
        ("96.84 (86.3", 96.84, None, 86.3), ("2,756,416", 2756416, None, None), ("9.1M", 9100000, None, None),
        ("27.44%", 27.44, None, None),
    ],
)  # fmt: skip
def test_printed_numbers_are_read(text: str, value: float, spread: float | None, bracket: float | None) -> None:
    number = parsed_number(text)
    assert number is not None
    assert (number.value, number.spread, number.bracket) == (value, spread, bracket)


def test_blanks_are_no_numbers_and_anything_else_is_refused() -> None:
    assert [parsed_number(blank) for blank in ("-", "/", "OOM", "didn't converge")] == [None] * 4
    with pytest.raises(ZooError, match="neither a number nor one of"):
        parsed_number("about 3")


def test_a_cell_that_no_part_describes_is_an_error(papers: dict[str, Paper]) -> None:
    with pytest.raises(ZooError, match="is described by 0 parts, wanted 1"):
        list(facts_of(papers["elora"], "8", [Cell("Cu | stress", "SevenNet | ELoRA", "1.0", "")]))
    with pytest.raises(ZooError, match="does not know method 'Unheard'"):
        list(facts_of(papers["elora"], "8", [Cell("Cu | E", "SevenNet | Unheard", "1.0", "")]))


def test_a_note_that_means_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x-table-1.csv").write_text("row,column,value,note\na,b,1,row lots\n", encoding="utf-8")
    with pytest.raises(ZooError, match="unknown note 'row lots'; did you mean 'row lost'"):
        read_cells("x", "1", tmp_path)
    assert "row lost" in NOTES
