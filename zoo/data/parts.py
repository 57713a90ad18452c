"""The frames of a run by part, with what a record needs to say about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo.data.cache_choice import CacheChoice
from zoo.data.checks import LabelReport, elements_of
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.overlap import overlap_notes, without_repeats
from zoo.data.splits import SplitSizes, frames_sha256, random_split
from zoo.data.stored_frames import take


@dataclass(frozen=True)
class Origin:
    """What the frames are and how they were chosen.

    Attributes:
        protocol: what was drawn from what, e.g. ``"acac/300K n_train=50 n_valid=50 split_seed=0"``.
        metrics: names of the metrics that the protocol asks for, the headline first; empty where there is none.
        isolated_atom_energies: atomic number to eV, where the set gives them.
        linear_references: atomic number to eV, where the set publishes them.
        notes: how files were read.
    """

    protocol: str
    level_of_theory: str
    licence: str
    metrics: tuple[str, ...] = ()
    isolated_atom_energies: dict[int, float] | None = None
    linear_references: dict[int, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSplits:
    """Frames of one run, with what a record needs to say about them.

    Attributes:
        train, valid: may be empty where only tests were asked for.
        tests: name to frames; may be empty.
        name: the set's.
        origin: what the frames are.
        hashes: the name of each part to `frames_sha256`.
        notes: lines to print before the run: how files were read, and frames shared by training and test.
        cache: where frames and graphs are kept.
    """

    train: Sequence[Frame]
    valid: Sequence[Frame]
    tests: dict[str, Sequence[Frame]]
    name: str
    origin: Origin
    hashes: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cache: CacheChoice = field(default_factory=CacheChoice)

    @classmethod
    def of(
        cls, config: DataConfig, train: Sequence[Frame], valid: Sequence[Frame], tests: dict[str, Sequence[Frame]], origin: Origin
    ) -> DataSplits:
        """With hashes and notes worked out."""
        return cls(
            train=train,
            valid=valid,
            tests=tests,
            name=config.name,
            origin=origin,
            hashes={name: frames_sha256(frames) for name, frames in {"train": train, "valid": valid, **tests}.items() if frames},
            notes=(*origin.notes, *overlap_notes(train, valid, tests)),
            cache=config.cache_choice,
        )

    @property
    def protocol(self) -> str:
        """What was drawn from what."""
        return self.origin.protocol

    @property
    def level_of_theory(self) -> str:
        """What the labels were computed with; empty where unknown."""
        return self.origin.level_of_theory

    @property
    def licence(self) -> str:
        """Of the data; empty where unknown."""
        return self.origin.licence

    @property
    def isolated_atom_energies(self) -> dict[int, float] | None:
        """Atomic number to eV, where the set gives them."""
        return self.origin.isolated_atom_energies

    @property
    def parts(self) -> dict[str, Sequence[Frame]]:
        """``"train"``, ``"valid"`` and every test set by name; parts without frames are left out."""
        return {name: frames for name, frames in {"train": self.train, "valid": self.valid, **self.tests}.items() if frames}

    @property
    def tested(self) -> dict[str, Sequence[Frame]]:
        """What errors are reported on: the test sets by name, or the validation frames, named as such, where there are none."""
        return dict(self.tests) if self.tests else {"valid": self.valid}

    def frame_counts(self) -> dict[str, int]:
        """Frames in each part."""
        return {name: len(frames) for name, frames in self.parts.items()}

    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur in any part."""
        return tuple(sorted({number for frames in self.parts.values() for number in elements_of(frames)}))

    def label_report(self) -> LabelReport:
        """Labels found, by source file."""
        return LabelReport.of(*self.parts.values())


@dataclass(frozen=True)
class Drawn:
    """Frames drawn from one pool, and the words that say how."""

    train: Sequence[Frame]
    valid: Sequence[Frame]
    test: Sequence[Frame]
    text: str


def draw(pool: Sequence[Frame], sizes: SplitSizes, seed: int, what: str) -> Drawn:
    """Training, validation and test frames from one pool; raises `zoo.errors.ZooError` where the sizes do not fit.

    A structure that the pool holds several times is drawn once: its repeats would land in training and test.
    """
    whole, pool = len(pool), without_repeats(pool)
    n_train, n_valid, n_test = counts = sizes.resolve(len(pool), what)
    split = random_split(len(pool), counts, seed)
    given = {"n_train": n_train, "n_valid": n_valid, "n_test": n_test}
    repeats = [f"(repeated frames left out: {whole - len(pool)})"] if len(pool) < whole else []
    text = " ".join([*(f"{name}={count}" for name, count in given.items() if count), f"split_seed={seed}", *repeats])
    return Drawn(take(pool, split.train), take(pool, split.valid), take(pool, split.test), f"{what} {text}")


def as_test(drawn: Sequence[Frame], others: Mapping[str, object]) -> dict[str, Sequence[Frame]]:
    """Drawn test frames under the name ``"test"``, or ``"test_drawn"`` where the set brings a test of that name."""
    return {"test_drawn" if "test" in others else "test": drawn} if drawn else {}
