"""What the documentation says can be done: its Python runs, its commands compose, its links lead somewhere, its tables are the scripts'."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters import method
from adapters.method import create_method, method_names
from benchmarks.tables import between_markers, markdown_table, replace_between_markers
from tests.documented_files import write_documented_files
from zoo.adapter_commands import parse_words
from zoo.adapter_sources import is_address
from zoo.analysis.command import AnalyseConfig
from zoo.analysis.command import keys_of_words as analysis_keys_of_words
from zoo.choices import CheckConfig, EvaluateConfig, ExportConfig, PredictConfig
from zoo.compose import compose
from zoo.data.cards import DataCard
from zoo.data.catalogue import data_card, data_set_names
from zoo.data.readers import format_names, formats
from zoo.data.source import load_evaluated, load_splits
from zoo.doctor.command import split_words
from zoo.errors import USER_ERRORS
from zoo.evaluation.metrics import METRICS
from zoo.export import keys_of_words
from zoo.registry import describe, list_models
from zoo.reproduce import REPRODUCE_KEYS
from zoo.submission.commands import SUBMIT_KEYS, VERIFY_KEYS, choice_of
from zoo.submission.commands import parse_words as parse_submission_words
from zoo.sweeps import plan_sweep
from zoo.sweeps.cuts import cuts_of_words
from zoo.sweeps.request import request_of_words
from zoo.training.config import RunConfig, parse_config

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("leaderboard/*.md")])
MARKED_BLOCK = re.compile(r"^<!-- (python|zoo|shell) -->\n```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
OPTIONAL = {"docs/simulation.md": "torch_sim"}  # what a page's Python needs beyond the packages that equizoo cannot do without
CONFIGS: dict[str, type[Any]] = {
    "train": RunConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "check-equivariance": CheckConfig,
    "analyse": AnalyseConfig,
}
WITHOUT_KEYS = {"export": keys_of_words, "analyse": analysis_keys_of_words}  # commands that take words without a key


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def marked_blocks(text: str, mark: str) -> list[str]:
    return [block for kind, _, block in MARKED_BLOCK.findall(text) if kind == mark]


def commands(text: str) -> Iterator[list[str]]:
    """The words of each line of the blocks marked ``zoo``, without the word ``zoo``."""
    for block in marked_blocks(text, "zoo"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                assert words[0] == "zoo", line
                yield words[1:]


def first_of_sweep(word: str) -> str:
    """``training.seed=0,1,2`` -> ``training.seed=0``; lists in brackets are one value."""
    key, _, value = word.partition("=")
    return word if value.startswith("[") else f"{key}={value.split(',')[0]}"


def fault_of(words: list[str]) -> str | None:
    """The first thing that a command names and that is not there, None where it would run; it is composed and validated only."""
    name, rest = words[0], words[1:]
    try:
        if name in ("list", "info"):
            return next((word for word in rest if not describe(word)), None)
        if name == "data":
            return next((word for word in rest if not fnmatch.filter(data_set_names(), word)), None)
        if name == "adapter":
            files = parse_words(rest)[1]
            return next((file for file in files if not is_address(file) and not file.endswith(".safetensors")), None)
        if name == "sweep":
            return fault_of_sweep(rest)
        if name == "doctor":
            name, rest = "train", split_words(rest)[1]
        if name in ("submit", "verify", "reproduce"):
            keys = {"submit": SUBMIT_KEYS, "verify": VERIFY_KEYS, "reproduce": REPRODUCE_KEYS}[name]
            choice_of(parse_submission_words(name, "a file", rest, keys)[1])
            return None
        config = composed(name, rest)
        if isinstance(config, RunConfig) and "path" not in config.adapter:
            create_method(config.adapter)
        if config.backbone.name not in list_models() and not Path(config.backbone.name).is_file():
            return f"backbone={config.backbone.name}"
        return fault_of_named_set(config) if "data" in type(config).model_fields and config.data.name in data_set_names() else None
    except USER_ERRORS as error:
        return str(error)


def fault_of_sweep(words: list[str]) -> str | None:
    """As `fault_of`, of every run of a sweep; runs and tables that it draws are not looked for."""
    if words[0] == "cuts":
        return None if cuts_of_words(words[1:]) else "nothing to draw"
    request = request_of_words(words[0], words[1:])
    jobs = [] if request.draw else plan_sweep(request)
    return next((f"backbone={job.config.backbone.name}" for job in jobs if job.config.backbone.name not in list_models()), None)


def composed(name: str, rest: list[str]) -> Any:
    """The validated configuration of a command; of a sweep its first job."""
    rest = WITHOUT_KEYS[name](rest) if name in WITHOUT_KEYS else rest
    given = [first_of_sweep(word) if "-m" in rest else word for word in rest if not word.startswith("-")]
    return parse_config(compose(name, [*given, *(["run.folder=x"] if name == "train" else [])]), CONFIGS[name])


def fault_of_named_set(config: Any) -> str | None:
    """The protocol, subset or test sets that a command names and the set has not."""
    card = data_card(config.data.name)
    card.protocol(config.data.protocol)
    card.pool(config.data.subset)
    named = [config.data.test] if isinstance(config.data.test, str) else list(config.data.test or [])
    split = getattr(config, "split", None)
    unknown = (set(named) | ({split} - {None, "train", "valid", "test"})) - set(card.tests)
    return f"{card.name} has no {sorted(unknown)}" if unknown else None


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the documentation's commands name; the adapter is a real, if hardly trained, one."""
    from zoo.training.run import fine_tune

    folder = tmp_path_factory.mktemp("docs")
    write_documented_files(folder)
    words = ["experiment=quickstart", "data.n_train=1", "data.n_valid=1", "data.test=[]", "training.steps=1", "training.batch_size=1"]
    words += ["evaluation.plots=false", "training.loggers.tensorboard=false", "training.progress_bar=false", "adapter.rank=1"]
    fine_tune(parse_config(compose("train", [*words, f"run.folder={folder / 'runs' / 'quickstart'}"])), say=lambda line: None)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if marked_blocks(text_of(page), "python")])
def test_the_python_of_a_page_runs_from_top_to_bottom(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page in OPTIONAL:
        pytest.importorskip(OPTIONAL[page], reason=f"{page} shows an optional package that is not installed")
    monkeypatch.chdir(workplace)
    method_names()
    monkeypatch.setattr(method, "_METHODS", dict(method._METHODS))  # the example of a new method stays in its page
    names: dict[str, object] = {"__name__": "page"}
    for block in marked_blocks(text_of(page), "python"):
        exec(compile(block, page, "exec"), names)
    assert names.keys() > {"__name__", "__builtins__"}


@pytest.mark.parametrize("page", [page for page in PAGES if marked_blocks(text_of(page), "zoo")])
def test_every_command_of_a_page_composes(page: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    faults = {shlex.join(words): fault_of(words) for words in commands(text_of(page))}
    assert {line: fault for line, fault in faults.items() if fault} == {}


def test_every_command_of_the_help_pages_composes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.cli import COMMANDS

    monkeypatch.chdir(workplace)
    lines = [line.split("  ")[1] for command in COMMANDS.values() for line in command.page.splitlines() if line.startswith("  zoo ")]
    assert len(lines) >= 6
    faults = {line: fault_of(shlex.split(line)[1:]) for line in lines}
    assert {line: fault for line, fault in faults.items() if fault} == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("train training.stepz=3", "stepz"),
        ("train adapter=elora adapter.rnk=4", "rnk"),
        ("info sevennet-9", "sevennet-9"),
        ("train data=absent.xyz", "absent"),
        ("data rmd18/aspirin", "rmd18"),
        ("train data=acac data.protocol=elorra", "elorra"),
        ("evaluate data=3bpa split=test_900K", "test_900K"),
    ],
)
def test_a_wrong_command_would_be_found(line: str, wrong: str) -> None:
    assert wrong in str(fault_of(shlex.split(line)))


def test_every_format_has_a_command_that_reads_such_a_file(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    read = set()
    for name, *rest in commands(text_of("docs/data.md")):
        config = composed(name, rest) if name in ("train", "evaluate") else None
        if config is None or config.data.name != "file":
            continue
        splits = load_splits(config.data) if name == "train" else load_evaluated(config.data, config.split)
        assert all(frame.has_energy and frame.has_forces for frames in splits.parts.values() for frame in frames), rest
        path = Path(config.data.path or config.data.train)
        read.add(next(one.name for one in formats().values() if one.recognises(path)))
    assert read == set(format_names())


def test_every_card_in_the_documentation_is_one(workplace: Path) -> None:
    cards = re.findall(r"^```yaml\n(.*?)^```$", text_of("docs/data.md"), flags=re.MULTILINE | re.DOTALL)
    assert cards
    for text in cards:
        card = DataCard.model_validate(yaml.safe_load(text))
        assert {metric for protocol in card.protocols.values() for metric in protocol.metrics} <= set(METRICS)


def test_every_fenced_command_is_marked_so_that_it_is_checked() -> None:
    for page in PAGES:
        unmarked = MARKED_BLOCK.sub("", text_of(page))
        left = re.search(r"^```(?:python|bash)|^<!-- (?:python|zoo|shell) -->", unmarked, flags=re.MULTILINE)  # a mark wants a language
        assert not left, page


def test_every_make_target_and_benchmark_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w.-]+):", text_of("Makefile"), flags=re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text_of(page), flags=re.MULTILINE)) <= targets, page
        for module in re.findall(r"python -m benchmarks\.(\w+)", text_of(page)):
            assert (ROOT / "benchmarks" / f"{module}.py").is_file(), f"{page}: {module}"


def anchors(text: str) -> set[str]:
    """GitHub's anchors of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_resolves(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{page}: {target}"


def test_the_tables_of_cards_are_those_of_the_cards() -> None:
    from benchmarks import cards

    assert {page for page, _ in cards.TABLES} == {"README.md", "docs/data.md", "docs/adapters.md", "docs/benchmarks-data.md"}
    for (page, name), table in cards.TABLES.items():
        assert between_markers(text_of(page), name) == table(), f"{page}: {name}: run python -m benchmarks.cards"


def test_the_parity_table_has_a_row_for_every_card_and_kind_of_network_that_can_be_compared_here() -> None:
    from zoo.backbones import load_family
    from zoo.registry import describe, list_models

    table = between_markers(text_of("docs/parity.md"), "parity")
    for card in map(describe, list_models()):
        if card.ships_with_a_package:
            assert all(f"`{card.name}`{f', head `{head}`' if head else ''} |" in table for head in card.heads or (None,))
    assert "| `nequix-mp-1` | stored (7) |" in table
    assert "MACE written under e3nn 0.4.4" in table
    for family in ("mace", "nequip", "allegro"):
        for toy in ("", *(f" ({name})" for name in load_family(family).more_toys)):
            assert all(
                f"| {family}, random weights{toy} | crystals" in table and precision in table for precision in ("float32", "float64")
            )


def test_the_contract_matrix_has_every_method_on_every_toy_and_the_control_alone_breaks_the_symmetry() -> None:
    from zoo.testing import registered_toys

    table = between_markers(text_of("docs/contracts.md"), "contracts")
    rows = {tuple(cells[1:3]): cells for line in table.splitlines() if len(cells := [cell.strip() for cell in line.split("|")]) > 3}
    wanted = {(f"`{name}`", str(toy)) for name in method_names() for toy in registered_toys()}
    assert wanted <= rows.keys(), "run python -m benchmarks.contracts"
    assert "fails" not in table
    broken = {method for (method, _), cells in rows.items() if "not equivariant" in cells[4]}
    assert broken == {"`bottleneck`"}
    controls = [cells for (method, _), cells in rows.items() if method == "`bottleneck`" and "no weights" not in cells[3]]
    assert all(float(cells[4].split()[0]) > 1e-3 for cells in controls)
    exact = [(cells[3], cells[4]) for cells in rows.values() if "own start" in cells[3]]
    assert len(exact) < len(rows) / 4  # most start at the base


def test_the_tables_of_counts_are_those_of_the_code() -> None:
    from benchmarks import counts

    potentials = counts.load_all()
    coverage = counts.coverage_table({name: potential.coverage for name, potential in potentials.items()})
    assert between_markers(text_of("docs/adapters.md"), "coverage") == coverage
    assert between_markers(text_of("docs/adapters.md"), "trainable") == counts.trainable_table(potentials)
    assert "842,440" in coverage


@pytest.mark.slow
def test_the_tables_of_shapes_are_those_of_the_code() -> None:
    from benchmarks import counts

    shapes, page = counts.load_shapes(), text_of("docs/adapters.md")
    assert between_markers(page, "coverage of shapes") == counts.coverage_table({name: p.coverage for name, p in shapes.items()})
    assert between_markers(page, "trainable of shapes") == counts.trainable_table(shapes)
    assert between_markers(page, "reach") == counts.reach_table(shapes)


@pytest.mark.slow
def test_the_tables_of_equiformer_v2_are_those_of_the_code() -> None:
    from benchmarks import counts

    found, page = counts.load_equiformers(), text_of("docs/adapters.md")
    assert between_markers(page, "coverage of EquiformerV2") == counts.coverage_table({name: c.coverage for name, c in found.items()})
    assert between_markers(page, "trainable of EquiformerV2") == counts.trainable_table(found)
    assert "153,602,690" in page


def test_replacing_a_table_leaves_the_rest_of_the_page() -> None:
    page = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb\n"
    changed = replace_between_markers(page, "x", "new\n")
    assert changed == "a\n<!-- begin: x -->\nnew\n<!-- end: x -->\nb\n"
    assert between_markers(changed, "x") == "new"
    with pytest.raises(ValueError, match="found 0 pairs"):
        replace_between_markers(page, "y", "new")


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    assert markdown_table(["name", "count"], [["`a`", "1,000"], ["2b", ""]]).splitlines()[1] == "| --- | ---: |"
