"""From the ``data`` part of a configuration to training, validation and test frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, Field

from zoo.data import emt
from zoo.data.checks import LabelReport, elements_of
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.labels import Label
from zoo.data.named import DataCard, data_card, data_set_names, local_file
from zoo.data.readers import read_frames
from zoo.data.reference_energies import read_isolated_atoms
from zoo.data.splits import SplitSizes, frames_sha256, overlap_notes, random_split
from zoo.errors import ZooError, nearest_name_hint

EMBEDDED_SET = "emt-cuau"
FILE_SET = "file"


class DataConfig(LabelKeys):
    """Which frames a run trains, validates and tests on; the label keys and units of `LabelKeys` belong to ``name="file"``.

    Attributes:
        name: ``"emt-cuau"``, a published set (`data_set_names`), or ``"file"``.
        path: ``file``: one file that is split into training, validation and, where asked for, test frames.
        train: ``file``: the training file, instead of ``path``.
        valid: ``file``: the validation file; drawn from ``train`` where None.
        test: ``file``: test files, as one path, several (named by their stems), or names to paths. Published sets: the test sets to
            load; all where None.
        isolated_atoms: ``file``: a file with one single-atom frame per element.
        subset: published sets: which pool to draw from, e.g. ``"300K"``.
        n_train, n_valid, n_test, valid_fraction, test_fraction: see `SplitSizes`.
        split_seed: of the random split.
        level_of_theory: ``file``: what the labels were computed with.
        licence: ``file``: of the data, carried into records.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = EMBEDDED_SET
    path: str | None = None
    train: str | None = None
    valid: str | None = None
    test: str | list[str] | dict[str, str] | None = None
    isolated_atoms: str | None = None
    subset: str | None = None
    n_train: int | None = Field(default=None, ge=1)
    n_valid: int | None = Field(default=None, ge=1)
    n_test: int | None = Field(default=None, ge=0)
    valid_fraction: float = Field(default=0.1, gt=0, lt=1)
    test_fraction: float = Field(default=0.0, ge=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    level_of_theory: str = ""
    licence: str = ""

    def sizes(self) -> SplitSizes:
        """The split sizes asked for."""
        return SplitSizes(self.n_train, self.n_valid, self.n_test, self.valid_fraction, self.test_fraction)

    def label_keys(self) -> LabelKeys:
        """The label keys and units among the options."""
        return LabelKeys(**{name: getattr(self, name) for name in LabelKeys.model_fields})


@dataclass(frozen=True)
class DataSplits:
    """Frames of one run, with what a record needs to say about them.

    Attributes:
        tests: name to frames; may be empty.
        protocol: what was drawn from what, e.g. ``"acac/300K n_train=50 n_valid=50 split_seed=0"``.
        isolated_atom_energies: atomic number to eV, where the set gives them.
        hashes: the name of each part to `frames_sha256`.
        notes: lines to print before the run, such as frames shared by training and test.
    """

    train: list[Frame]
    valid: list[Frame]
    tests: dict[str, list[Frame]]
    name: str
    protocol: str
    level_of_theory: str
    licence: str
    isolated_atom_energies: dict[int, float] | None
    hashes: dict[str, str]
    notes: tuple[str, ...]

    @property
    def parts(self) -> dict[str, list[Frame]]:
        """``"train"``, ``"valid"`` and every test set by name; parts without frames are left out."""
        return {name: frames for name, frames in {"train": self.train, "valid": self.valid, **self.tests}.items() if frames}

    @property
    def tested(self) -> dict[str, list[Frame]]:
        """What errors are reported on: the test sets by name, or the validation frames, named as such, where there are none."""
        return dict(self.tests) if self.tests else {"valid": self.valid}

    def frame_counts(self) -> dict[str, int]:
        """Frames in each part."""
        return {name: len(frames) for name, frames in self.parts.items()}

    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur in any part."""
        return elements_of(frame for frames in self.parts.values() for frame in frames)

    def label_report(self) -> LabelReport:
        """Labels found, by source file."""
        return LabelReport.of(frame for frames in self.parts.values() for frame in frames)


def known_data_names() -> tuple[str, ...]:
    """Every value that ``data.name`` takes."""
    return (EMBEDDED_SET, FILE_SET, *data_set_names())


def load_splits(config: DataConfig, needs: Sequence[Label] = ("energy", "forces")) -> DataSplits:
    """Read, check and split the frames that ``config`` names.

    Args:
        config: the ``data`` part of a configuration.
        needs: labels that every training and validation frame must have: those with a weight in the loss.

    Raises:
        ZooError: an unknown name, an option that does not belong to the set, a missing label or file, or split sizes that do not fit.
    """
    if config.name not in known_data_names():
        raise ZooError(f"unknown data set {config.name!r}; {nearest_name_hint(config.name, known_data_names())}; for your own: data=FILE")
    if config.name == FILE_SET:
        _refuse(config, ("subset",), "belongs to a published set")
        return _from_files(config, needs)
    _refuse(config, _FILE_OPTIONS, f"belongs to data=file and has no effect on {config.name!r}")
    if config.name == EMBEDDED_SET:
        _refuse(config, ("subset",), f"has no effect on {config.name!r}, which has one pool")
        return _from_emt(config)
    return _from_card(config, data_card(config.name), needs)


_DRAWING_OPTIONS = frozenset({"test", "n_train", "n_valid", "n_test", "valid_fraction", "test_fraction", "split_seed"})


def load_evaluated(config: DataConfig, part: str | None) -> DataSplits:
    """The frames that an evaluation reads: as `load_splits`, but one file, of which no part and no sizes are asked for, as a whole.

    Args:
        config: options that were given count, be it with their default; a run's own configuration gives them all.
        part: the part to evaluate, None where the user names none.

    Raises:
        ZooError: as `load_splits`; labels may be missing.
    """
    if config.name != FILE_SET or config.path is None or part is not None or config.model_fields_set & _DRAWING_OPTIONS:
        return load_splits(config, needs=())
    if config.train is not None or config.valid is not None:
        return load_splits(config, needs=())  # refuses them
    _refuse(config, ("subset",), "belongs to a published set")
    whole = {name: read_frames(path, config.label_keys(), config.level_of_theory, ()) for name, path in _test_paths(config.path).items()}
    return _splits(
        config,
        ([], [], whole),
        protocol=f"{FILE_SET}/{Path(config.path).stem} whole",
        level_of_theory=config.level_of_theory,
        licence=config.licence,
    )


_FILE_OPTIONS = ("path", "train", "valid", "isolated_atoms", "level_of_theory", "licence", *LabelKeys.model_fields)


def _refuse(config: DataConfig, options: Sequence[str], why: str) -> None:
    """An option that would be ignored is an error: the user meant something by it."""
    for option in options:
        if getattr(config, option) != DataConfig.model_fields[option].default:
            raise ZooError(f"data.{option}={getattr(config, option)} {why}; remove it or choose another data set")


def _from_emt(config: DataConfig) -> DataSplits:
    train, valid, drawn_test, protocol = _draw(emt.emt_pool(), config.sizes(), config.split_seed, EMBEDDED_SET)
    tests = _chosen({"test": emt.emt_test}, config)
    return _splits(
        config,
        (train, valid, tests | _as_test(drawn_test, tests)),
        protocol=protocol,
        level_of_theory=emt.LEVEL_OF_THEORY,
        licence="MIT",
    )


def _from_card(config: DataConfig, card: DataCard, needs: Sequence[Label]) -> DataSplits:
    subset, pool_key = card.pool(config.subset)
    pool = _card_frames(card, pool_key, needs)
    train, valid, drawn_test, protocol = _draw(pool, config.sizes(), config.split_seed, f"{card.name}/{subset}")

    def reader(key: str) -> Callable[[], list[Frame]]:
        return lambda: _card_frames(card, key, card.files[key].labels)

    tests = _chosen({name: reader(key) for name, key in card.tests.items()}, config)
    atoms = read_isolated_atoms(local_file(card, card.isolated_atoms), card.keys) if card.isolated_atoms is not None else None
    return _splits(
        config,
        (train, valid, tests | _as_test(drawn_test, tests)),
        protocol=protocol,
        level_of_theory=card.level_of_theory,
        licence=card.licence,
        isolated_atom_energies=atoms,
    )


def _from_files(config: DataConfig, needs: Sequence[Label]) -> DataSplits:
    pool_path = config.path or config.train
    if pool_path is None or (config.path is not None and config.train is not None):
        raise ZooError("data=file wants either data.path=FILE (split here) or data.train=FILE; give one of them")
    if config.path is not None and config.valid is not None:
        raise ZooError("data.valid=... goes with data.train=..., while data.path is split here; rename data.path to data.train")
    if config.valid is not None and (config.n_valid is not None or config.valid_fraction != 0.1):
        raise ZooError("data.n_valid and data.valid_fraction have no effect where data.valid names a file; remove them")
    keys = config.label_keys()

    def read(path: str, wanted: Sequence[Label]) -> list[Frame]:
        return read_frames(path, keys, config.level_of_theory, wanted)

    pool = read(pool_path, needs)
    given_valid = read(config.valid, needs) if config.valid is not None else None
    # with a validation file nothing is drawn for validation
    sizes = config.sizes() if given_valid is None else SplitSizes(config.n_train, 0, config.n_test, test_fraction=config.test_fraction)
    train, drawn_valid, drawn_test, protocol = _draw(pool, sizes, config.split_seed, f"{FILE_SET}/{Path(pool_path).stem}")
    # test sets without forces are common (scans, reaction paths): what they have is counted and evaluated
    tests = {name: read(path, ("energy",)) for name, path in _test_paths(config.test).items()}
    return _splits(
        config,
        (train, drawn_valid if given_valid is None else given_valid, tests | _as_test(drawn_test, tests)),
        protocol=protocol,
        level_of_theory=config.level_of_theory,
        licence=config.licence,
        isolated_atom_energies=read_isolated_atoms(config.isolated_atoms, keys) if config.isolated_atoms is not None else None,
    )


def _draw(pool: list[Frame], sizes: SplitSizes, seed: int, what: str) -> tuple[list[Frame], list[Frame], list[Frame], str]:
    """Training, validation and test frames from one pool, and the line that says how they were drawn."""
    counts = sizes.resolve(len(pool), what)
    split = random_split(len(pool), counts, seed)
    n_train, n_valid, n_test = counts
    protocol = f"{what} n_train={n_train} n_valid={n_valid}" + (f" n_test={n_test}" if n_test else "") + f" split_seed={seed}"
    return [pool[i] for i in split.train], [pool[i] for i in split.valid], [pool[i] for i in split.test], protocol


def _as_test(drawn: list[Frame], others: Mapping[str, object]) -> dict[str, list[Frame]]:
    """Drawn test frames under the name ``"test"``, or ``"test_drawn"`` where the set brings a test of that name."""
    return {"test_drawn" if "test" in others else "test": drawn} if drawn else {}


def _chosen(readers: Mapping[str, Callable[[], list[Frame]]], config: DataConfig) -> dict[str, list[Frame]]:
    """The test sets of a named set that ``config.test`` asks for, in the set's order."""
    if isinstance(config.test, dict):
        raise ZooError(f"data.test names files, but {config.name!r} brings its own test sets; give names of them: {', '.join(readers)}")
    wanted = list(readers) if config.test is None else [config.test] if isinstance(config.test, str) else config.test
    for name in wanted:
        if name not in readers:
            raise ZooError(f"{config.name} has no test set {name!r}; {nearest_name_hint(name, readers)}")
    return {name: read() for name, read in readers.items() if name in wanted}


def _test_paths(test: str | list[str] | dict[str, str] | None) -> dict[str, str]:
    if test is None:
        return {}
    if isinstance(test, dict):
        named = dict(test)
    else:
        paths = [test] if isinstance(test, str) else test
        named = {Path(path).stem: path for path in paths}
        if len(named) < len(paths):
            raise ZooError(f"data.test has two files of one name ({', '.join(paths)}); name them: data.test={{a: FILE, b: FILE}}")
    # "train" and "valid" name the other parts in hashes and tables
    return {f"test_{name}" if name in ("train", "valid") else name: path for name, path in named.items()}


def _card_frames(card: DataCard, key: str, needs: Sequence[Label]) -> list[Frame]:
    return read_frames(local_file(card, key), card.keys, card.level_of_theory, needs)


def _splits(
    config: DataConfig,
    parts: tuple[list[Frame], list[Frame], dict[str, list[Frame]]],
    *,
    protocol: str,
    level_of_theory: str,
    licence: str,
    isolated_atom_energies: dict[int, float] | None = None,
) -> DataSplits:
    train, valid, tests = parts
    return DataSplits(
        train=train,
        valid=valid,
        tests=tests,
        name=config.name,
        protocol=protocol,
        level_of_theory=level_of_theory,
        licence=licence,
        isolated_atom_energies=isolated_atom_energies,
        hashes={name: frames_sha256(frames) for name, frames in {"train": train, "valid": valid, **tests}.items() if frames},
        notes=overlap_notes(train, valid, tests),
    )
