"""`zoo doctor` at the command line: words, exit codes, JSON and page; and what `zoo train` logs of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from tests.refusals import Finished, cli_refusal, lacks
from zoo.doctor import Distribution, Finding, Report, examine
from zoo.doctor.page import histogram
from zoo.doctor.registry import checks
from zoo.doctor.report import CheckRun

ROOT = Path(__file__).resolve().parents[2]
Zoo = Callable[..., Finished]
DATA = ("labels", "energies", "forces", "stress", "structures", "outliers", "neighbours")
ONLY = f"only=[{','.join(DATA)}]"


@pytest.fixture
def labelled(emt_atoms: Callable[[int], list[Atoms]]) -> Callable[[str, str, str], list[Atoms]]:
    """``labelled("energy", "forces", "stress")``: twelve labelled structures with their labels under these keys."""

    def make(energy: str, forces: str, stress: str) -> list[Atoms]:
        renamed = []
        for atoms in [atoms for atoms in emt_atoms(60) if atoms.pbc.all()][:12]:
            plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            plain.info[energy] = atoms.get_potential_energy()
            plain.arrays[forces] = atoms.get_forces()
            plain.info[stress] = np.eye(3) * 0.01
            renamed.append(plain)
        return renamed

    return make


def test_clean_data_exit_with_0_and_say_what_was_examined(zoo: Zoo, toy_checkpoint: Path) -> None:
    done = zoo("doctor", f"backbone={toy_checkpoint}", "data=emt-cuau", "data.n_train=20", ONLY)
    assert (done.code, done.err) == (0, ""), done.out + done.err
    assert not lacks(done.out, "emt-cuau n_train=20", "elements", "Cu, Au", "train", "energy 20, forces 20")
    assert re.search(r"^0 errors, \d+ warnings?, \d+ notes?; \d+ checks in", done.out.splitlines()[-1])


@pytest.mark.parametrize(
    ("keys", "check", "words"),
    [
        (("REF_energy", "forces", "stress"), "labels.read", ("has no 'energy'", "data.energy_key=", "REF_energy")),
        (("energy", "REF_forces", "stress"), "labels.read", ("has no 'forces'", "data.forces_key=", "REF_forces")),
        (("energy", "forces", "dft_stress"), "labels.keys", ("no 'stress', but 'dft_stress' in 12", "data.stress_key=dft_stress")),
        (("energy", "forces", "virial"), "labels.keys", ("no 'stress', but 'virial' in 12", "data.virial_key=virial")),
    ],
)
def test_a_renamed_key_is_found(
    keys: tuple[str, str, str],
    check: str,
    words: tuple[str, ...],
    zoo: Zoo,
    toy_checkpoint: Path,
    labelled: Callable[..., list[Atoms]],
    tmp_path: Path,
) -> None:
    write(tmp_path / "mine.extxyz", labelled(*keys), format="extxyz")
    done = zoo("doctor", f"backbone={toy_checkpoint}", "data=mine.extxyz", ONLY, "--json")
    report = json.loads(done.out)
    wrong = check == "labels.read"
    assert done.code == (1 if wrong else 0)
    assert report["passed"] is not wrong
    found = [one for one in report["findings"] if one["check"] == check]
    assert found[0]["level"] == ("error" if wrong else "warning")
    assert not lacks(f"{found[0]['found']}; {found[0]['remedy']}", *words)
    if wrong:  # the other checks saw the frames all the same
        assert "train" in "".join(report["facts"])
        assert {one["name"] for one in report["checks"] if not one["skipped"]} >= {"structures.leakage", "neighbours.counts"}


def test_a_key_that_only_some_frames_have_is_found_beside_what_the_others_have(
    toy_checkpoint: Path, labelled: Callable[..., list[Atoms]], tmp_path: Path
) -> None:
    """Two files joined: half the frames would train without a stress, and nothing would say so."""
    write(tmp_path / "mine.extxyz", [*labelled("energy", "forces", "stress"), *labelled("energy", "forces", "dft_stress")])
    report = examine([f"backbone={toy_checkpoint}", f"data={tmp_path / 'mine.extxyz'}"], only=["labels.keys"])
    (finding,) = report.of_check("labels.keys")
    assert finding.level == "warning"
    assert not lacks(finding.line, "12 of 24 frames have 'stress', and others 'dft_stress' in 12", "one key")


def test_a_text_about_a_label_is_not_taken_for_one(toy_checkpoint: Path, labelled: Callable[..., list[Atoms]], tmp_path: Path) -> None:
    frames = labelled("energy", "forces", "none")
    for atoms in frames:
        del atoms.info["none"]
        atoms.info |= {"stress_unit": "kbar", "stress_steps": 3}
    write(tmp_path / "mine.extxyz", frames)
    assert examine([f"backbone={toy_checkpoint}", f"data={tmp_path / 'mine.extxyz'}"], only=["labels.keys"]).findings == ()


def test_a_renamed_stress_is_an_error_where_the_loss_weighs_stresses(
    zoo: Zoo, toy_checkpoint: Path, labelled: Callable[..., list[Atoms]], tmp_path: Path
) -> None:
    write(tmp_path / "mine.extxyz", labelled("energy", "forces", "dft_stress"))
    words = ("doctor", f"backbone={toy_checkpoint}", "data=mine.extxyz", "only=[labels]")
    done = zoo(*words)
    assert (done.code, "ERROR" in done.out) == (0, False)  # a stress that nobody asked for is not missed
    done = zoo(*words, "training.loss.stress.weight=10")
    assert done.code == 1
    assert not lacks(done.out, "ERROR   labels.parts: 11 of 11 train frames have no stress", "data.stress_key=dft_stress")


def test_strict_fails_on_a_warning(zoo: Zoo, toy_checkpoint: Path, labelled: Callable[..., list[Atoms]], tmp_path: Path) -> None:
    write(tmp_path / "mine.extxyz", labelled("energy", "forces", "dft_stress"))
    words = ("doctor", f"backbone={toy_checkpoint}", "data=mine.extxyz", "only=[labels.keys]")
    assert (zoo(*words, "strict=false").code, zoo(*words, "strict=true").code) == (0, 1)
    write(tmp_path / "mine.extxyz", labelled("energy", "forces", "stress"))
    assert zoo(*words, "strict=true").code == 0


def test_the_json_and_the_page_are_written_and_hold_what_was_found(zoo: Zoo, toy_checkpoint: Path, tmp_path: Path) -> None:
    done = zoo("doctor", f"backbone={toy_checkpoint}", "data=emt-cuau", ONLY, "json=r.json", "html=r.html")
    assert done.code == 0, done.out + done.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["format_version"] == 1
    keys = set(report) | {key for name in ("findings", "checks", "distributions") for one in report[name] for key in one}
    assert {key for key in keys if f"`{key}`" not in (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")} == set()
    assert report["counts"] == {level: sum(one["level"] == level for one in report["findings"]) for level in ("error", "warning", "note")}
    titles = [one["title"] for one in report["distributions"]]
    assert not lacks(" ".join(titles), "energy", "largest force", "neighbours of an atom", "pressure")
    assert all(sum(one["counts"]) > 0 and len(one["edges"]) == len(one["counts"]) + 1 for one in report["distributions"])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<svg") == len(titles)
    assert faults_of(page) == []


class _Page(HTMLParser):
    """Open elements, and whatever a browser would fetch or run."""

    VOID = ("meta", "br", "line", "rect", "link", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.faults += [f"<{tag} {name}={value}>" for name, value in attrs if name in ("src", "href", "onload", "onclick")]
        if tag in ("script", "link", "iframe", "img", "object"):
            self.faults.append(f"<{tag}>")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")


def faults_of(page: str) -> list[str]:
    parser = _Page()
    parser.feed(page)
    addresses = re.findall(r"https?://|url\(|@import", page)
    return [*parser.faults, *parser.open, *addresses]


def test_a_page_that_loads_or_runs_something_would_be_found() -> None:
    assert faults_of("<p>fine</p>") == []
    assert faults_of('<p><script src="a.js"></script></p>') != []
    assert faults_of("<p><div></p></div>") != []


def test_names_from_files_are_text_on_the_page_and_not_markup() -> None:
    evil = "<script>alert(1)</script>"
    finding = Finding("warning", "labels.keys", evil, evil, evil, (evil,))
    report = Report({"data": evil}, (finding,), (CheckRun("labels.keys", evil, 0.1),), (Distribution(evil, evil, (0.0, 1.0), (3,)),))
    assert faults_of(report.html()) == []
    assert "&lt;script&gt;" in report.html()


def test_the_extremes_of_a_distribution_are_in_it() -> None:
    values = [0.1, 0.1, 7.3, float("nan")]
    for logarithmic in (False, True):
        found = Distribution.of("x", "", values, logarithmic=logarithmic)
        assert found is not None
        assert (sum(found.counts), found.edges[0], found.edges[-1]) == (3, 0.1, 7.3)
        assert histogram(found).count("<rect") == 2
    same = Distribution.of("x", "", [5.0] * 4)
    assert same is not None
    assert sum(same.counts) == 4
    assert Distribution.of("x", "", []) is None


def test_the_ends_of_an_axis_are_told_apart() -> None:
    """Total energies an atom of one molecule differ in the fifth digit."""
    found = Distribution.of("energy", "eV/atom", [-626.1234, -626.0981])
    assert found is not None
    first, _, last = re.findall(r"<text[^>]*>([^<]*)</text>", histogram(found))
    assert (first, last) == ("-626.1234", "-626.0981 eV/atom")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["training.stepz=3"], ["stepz", "steps"]),
        (["only=[lables]"], ["'lables'", "labels"]),
        (["sample=0"], ["sample=0", "1 or more"]),
        (["frames=some"], ["frames=some", "or all"]),
        (["strict=maybe"], ["strict=maybe", "true or false"]),
        (["html="], ["html= has no value"]),
        (["json=nowhere/report.json"], ["nowhere", "existing folder"]),
        (["--jsn"], ["--jsn", "--json"]),
    ],
)
def test_wrong_words_are_refused_in_one_line(words: list[str], parts: list[str], zoo: Zoo, toy_checkpoint: Path) -> None:
    assert not lacks(cli_refusal(zoo("doctor", f"backbone={toy_checkpoint}", "data=emt-cuau", *words)), *parts)


def test_a_model_or_data_that_cannot_be_had_is_a_finding(zoo: Zoo, tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"no checkpoint")
    (tmp_path / "broken.extxyz").write_text("3\nenergy=1\nCu 0 0\n")
    done = zoo("doctor", "backbone=broken.pth", "data=broken.extxyz", "--json")
    assert done.code == 1
    assert {one["check"] for one in json.loads(done.out)["findings"]} >= {"labels.read", "model.load"}


def test_one_frame_cannot_be_trained_and_is_looked_at_all_the_same(
    toy_checkpoint: Path, labelled: Callable[..., list[Atoms]], tmp_path: Path
) -> None:
    write(tmp_path / "mine.extxyz", labelled("energy", "forces", "stress")[:1])
    report = examine([f"backbone={toy_checkpoint}", f"data={tmp_path / 'mine.extxyz'}"], only=DATA)
    (error,) = report.of_level("error")
    assert not lacks(error.line, "holds one frame", "give more frames")
    assert not [run for run in report.checks if run.skipped]


def test_an_unknown_head_is_a_finding_that_names_the_known(zoo: Zoo) -> None:
    done = zoo("doctor", "backbone=sevennet-mf-0", "backbone.head=PBF", "data=emt-cuau", "only=[labels]")
    assert done.code == 1
    assert not lacks(done.out, "ERROR   model.load", "PBF", "PBE", "R2SCAN")


def test_training_logs_what_the_cheap_checks_find(
    zoo: Zoo, small_run: list[str], emt_atoms: Callable[[int], list[Atoms]], tmp_path: Path
) -> None:
    structures = emt_atoms(30)
    structures[4].calc.results["forces"] = structures[4].get_forces().copy()
    structures[4].calc.results["forces"][0, 0] = 500.0
    write(tmp_path / "mine.extxyz", structures, format="extxyz")
    words = [word for word in small_run if not word.startswith("data.")]
    done = zoo("train", *words, "data=mine.extxyz", "training.steps=1", "run.name=mine")
    assert done.code == 0, done.err
    assert not lacks(
        done.out, "warning: outliers.forces: 1 of 30 frames have forces of up to 500 eV/Å", "mine.extxyz: frame 4", "zoo doctor"
    )


def test_every_check_has_a_question_and_a_place_in_the_documentation() -> None:
    text = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    known = checks()
    assert len({one.name for one in known}) == len(known) >= 20
    for one in known:
        assert f"`{one.name}`" in text, one.name
        assert one.question.endswith("?"), one.name
        assert (f"`{one.name}`, also in train" in text) == one.cheap, one.name
