"""A published set by its card: read, and split as its protocol says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from zoo.data.cache_choice import CacheChoice
from zoo.data.card_files import local_path, read_card_file
from zoo.data.cards import VALID_FROM_TRAINING, DataCard, Pool, Protocol, Selection
from zoo.data.catalogue import data_card
from zoo.data.config import DataConfig
from zoo.data.frame import Frame
from zoo.data.labels import Label
from zoo.data.linear_references import read_linear_references
from zoo.data.parts import DataSplits, Drawn, Origin, as_test, draw
from zoo.data.reference_energies import read_isolated_atoms
from zoo.data.splits import SplitSizes, random_split
from zoo.data.stored_frames import join, take
from zoo.errors import ZooError, nearest_name_hint


@dataclass(frozen=True)
class _Plan:
    """One loading of a card: the pool, the tests and the sizes, protocol and user's settings joined.

    Attributes:
        pool_name, pool: None where the set has none.
        tests: the test sets to read.
        valid_from: the test set that validation frames are drawn from, or `VALID_FROM_TRAINING`; from the pool where None.
        protocol_text: how the protocol line ends.
    """

    card: DataCard
    pool_name: str | None
    pool: Pool | None
    tests: tuple[str, ...]
    valid_from: str | None
    sizes: SplitSizes
    seed: int
    metrics: tuple[str, ...]
    protocol_text: str

    @property
    def what(self) -> str:
        """How the protocol line begins."""
        return self.card.name if self.pool_name is None else f"{self.card.name}/{self.pool_name}"


def load_named(config: DataConfig, needs: Sequence[Label], part: str | None = None, with_pool: bool = True) -> DataSplits:
    """The frames of a published set.

    Args:
        config: its name, and what to draw from it.
        needs: labels that every training and validation frame must have.
        part: read no test set but this, where it is one.
        with_pool: whether training and validation frames are read, without which an evaluation of a test set can do.

    Raises:
        ZooError: an unknown subset, protocol or test set, a file that cannot be had, a missing label, or sizes that do not fit.
    """
    card = data_card(config.name)
    plan = _plan(card, config, part)
    notes = [f"{card.name} is a subset of {card.subset_of}"] if card.subset_of else []
    drawn = Drawn([], [], [], f"{plan.what} tests alone")
    if with_pool and plan.pool is not None:
        pool, more = _read_all(card, plan.pool.files, needs, config.cache_choice)
        notes += more
        drawn = draw(pool, plan.sizes if plan.valid_from is None else _without_validation(plan.sizes), plan.seed, plan.what)
    tests: dict[str, Sequence[Frame]] = {}
    valid, text = drawn.valid, drawn.text
    if plan.valid_from == VALID_FROM_TRAINING:
        valid, text = drawn.train, f"{text} validated on the same"
    # validation frames leave their test set, whether or not anybody looks at them here
    for name in dict.fromkeys((*plan.tests, *([plan.valid_from] if plan.valid_from in card.tests and with_pool else []))):
        frames, more = _read_all(card, card.tests[name], (), config.cache_choice)
        notes += more
        if name == plan.valid_from:
            taken, frames = _drawn_from_test(plan, frames)
            valid = taken if with_pool else []
            text += f" n_valid={len(taken)} from {name}"
        if name in plan.tests:
            tests[name] = frames
    origin = Origin(
        protocol=text + plan.protocol_text,
        level_of_theory=card.level_of_theory,
        licence=card.licence,
        metrics=plan.metrics,
        isolated_atom_energies=_isolated_atoms(card),
        linear_references=_linear_references(card),
        notes=tuple(notes),
    )
    return DataSplits.of(config, drawn.train, valid, tests | as_test(drawn.test, tests), origin)


def _plan(card: DataCard, config: DataConfig, part: str | None) -> _Plan:
    name, protocol = card.protocol(config.protocol)
    pool_name, pool = card.pool(config.subset or (protocol.subset if protocol else None))
    fair = tuple(card.tests) if pool is None or pool.tests is None else pool.tests
    default = tuple(test for test in (protocol.tests if protocol and protocol.tests is not None else fair) if test in fair)
    given = {field: getattr(config, field) for field in ("n_train", "n_valid", "n_test", "valid_fraction", "test_fraction")}
    own = {field: getattr(protocol, field, None) for field in given}
    # a count goes before a share: a protocol's count must not hide the share that the user gave
    if given["valid_fraction"] is not None:
        own["n_valid"] = None
    if given["test_fraction"] is not None:
        own["n_test"] = None
    other_pool = protocol is not None and protocol.subset not in (None, pool_name)
    changed = other_pool or any(value not in (None, getattr(protocol, field, None)) for field, value in given.items())
    return _Plan(
        card=card,
        pool_name=pool_name,
        pool=pool,
        tests=_chosen(card, fair, default, config, part),
        valid_from=_validation_source(card, protocol, fair, config),
        sizes=SplitSizes(**{field: own[field] if value is None else value for field, value in given.items()}),
        seed=config.split_seed,
        metrics=() if protocol is None else protocol.metrics,
        protocol_text=_protocol_text(name, changed, config.protocol is not None),
    )


def _protocol_text(name: str | None, changed: bool, asked_for: bool) -> str:
    """How the protocol line ends: a protocol is named where it is followed, or was asked for."""
    if name is None or (changed and not asked_for):
        return ""
    return f" (changed from protocol {name})" if changed else f" (protocol {name})"


def _validation_source(card: DataCard, protocol: Protocol | None, fair: Sequence[str], config: DataConfig) -> str | None:
    """The protocol's test set for validation; with another pool that pool's own test, where there is one alone."""
    wanted = protocol.valid_from if protocol is not None else None
    if wanted == VALID_FROM_TRAINING:
        return wanted if (config.n_valid, config.valid_fraction) == (None, None) else None  # the user wants frames apart
    if wanted is None or wanted in fair:
        return wanted
    if len(fair) == 1:
        return fair[0]
    raise ZooError(f"{card.name}: the protocol validates on frames of {wanted}, which are not fair to this subset; choose another protocol")


def _chosen(card: DataCard, fair: Sequence[str], default: tuple[str, ...], config: DataConfig, part: str | None) -> tuple[str, ...]:
    """The test sets that the user, or else the protocol, asks for."""
    if part is not None and part in card.tests:
        return (part,)
    if isinstance(config.test, dict):
        raise ZooError(f"data.test names files, but {config.name!r} brings its own test sets; give names of them: {', '.join(fair)}")
    if config.test is None:
        return default
    wanted = [config.test] if isinstance(config.test, str) else config.test
    for name in wanted:
        if name not in card.tests:
            raise ZooError(f"{config.name} has no test set {name!r}; {nearest_name_hint(name, fair)}")
        if name not in fair:
            raise ZooError(
                f"{config.name}: test set {name!r} shares frames with the training pool; take one of {', '.join(fair) or 'none'}, or "
                f"evaluate it by name (zoo evaluate split={name})"
            )
    return tuple(name for name in fair if name in wanted)


def _without_validation(sizes: SplitSizes) -> SplitSizes:
    """With validation frames from elsewhere nothing is drawn for validation."""
    return SplitSizes(sizes.n_train, 0, sizes.n_test, test_fraction=sizes.test_fraction)


def _drawn_from_test(plan: _Plan, frames: Sequence[Frame]) -> tuple[Sequence[Frame], Sequence[Frame]]:
    """(validation frames, the test frames that are left)."""
    n_valid = plan.sizes.n_valid if plan.sizes.n_valid is not None else round((plan.sizes.valid_fraction or 0.1) * len(frames))
    if not 0 < n_valid < len(frames):
        raise ZooError(
            f"{plan.card.name}: {n_valid} validation frames and a rest cannot be drawn from the {len(frames)} of {plan.valid_from}; "
            "lower data.n_valid"
        )
    chosen = random_split(len(frames), (0, n_valid, 0), plan.seed).valid
    drawn = frozenset(chosen)
    return take(frames, chosen), take(frames, [index for index in range(len(frames)) if index not in drawn])


def _read_all(card: DataCard, keys: Sequence[str], needs: Sequence[Label], choice: CacheChoice) -> tuple[Sequence[Frame], list[str]]:
    contents = [read_card_file(card, key, needs, choice) for key in keys]
    frames = join([content.frames for content in contents])
    if card.select.model_dump(exclude_none=True):
        frames = take(frames, [index for index, frame in enumerate(frames) if _selected(frame, card.select)])
    if not frames:
        raise ZooError(
            f"{card.name}: no frame of {', '.join(keys)} passes the set's selection ({card.select.model_dump(exclude_none=True)})"
        )
    return frames, [note for content in contents for note in content.notes]


def _selected(frame: Frame, select: Selection) -> bool:
    if select.max_atoms is not None and len(frame) > select.max_atoms:
        return False
    if select.min_magnetic_moment is None:
        return True
    moments = frame.magnetic_moments
    return moments is not None and bool(np.linalg.norm(moments, axis=1).max() > select.min_magnetic_moment)


def _isolated_atoms(card: DataCard) -> dict[int, float] | None:
    if card.isolated_atoms is not None:
        path, file = local_path(card, card.isolated_atoms)
        return read_isolated_atoms(path, card.keys_of(file))
    printed: Mapping[str, float] = card.reference_energies
    return {atomic_numbers[symbol]: energy for symbol, energy in printed.items()} or None


def _linear_references(card: DataCard) -> dict[int, float] | None:
    return None if card.linear_references is None else read_linear_references(local_path(card, card.linear_references)[0])
