"""What the card of a published data set says: the files, which part each plays, and how papers trained and tested on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ase.data import atomic_numbers
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from zoo.data.keys import LabelKeys
from zoo.data.labels import Label
from zoo.errors import ZooError, nearest_name_hint


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArchiveFile(_Part):
    """A published archive (tar, zip) that holds files of the set; checksums are None where nobody has verified one."""

    filename: str
    url: str | None = None
    sha256: str | None = None
    size: int | None = None
    md5: str | None = None


class DataFile(ArchiveFile):
    """One published file, folder or archive member, and the labels its frames carry.

    Attributes:
        filename: below the card's ``base_url``, or within ``archive``; the folder's name where ``tree`` is set.
        url: an address of its own.
        labels: of its frames.
        keys: settings of `LabelKeys` in which it differs from the card's.
        archive: key of the archive that holds it.
        tree: name of the checksum list of the files below the folder ``filename``.
        alternatives: other containers of the same frames, taken where one is on this disk, or where the file itself has no address.
    """

    labels: tuple[Label, ...] = ("energy", "forces")
    keys: dict[str, Any] = Field(default_factory=dict)
    archive: str | None = None
    tree: str | None = None
    alternatives: tuple[DataFile, ...] = ()


class Pool(_Part):
    """Files that training and validation frames are drawn from, and the tests that are fair to it (all where None)."""

    files: tuple[str, ...] = Field(min_length=1)
    tests: tuple[str, ...] | None = None


class Selection(_Part):
    """Which frames of the files belong to the set.

    Attributes:
        min_magnetic_moment: at least one atom has a larger moment than this, μ_B.
        max_atoms: at most as many atoms.
    """

    min_magnetic_moment: float | None = None
    max_atoms: int | None = None


VALID_FROM_TRAINING = "training"


class Protocol(_Part):
    """What a paper trained and tested on, and the numbers it reports.

    Attributes:
        source: paper and table.
        subset: the pool.
        n_train, n_valid, n_test, valid_fraction, test_fraction: see `zoo.data.splits.SplitSizes`.
        valid_from: the test set that validation frames are drawn from, which they leave; ``training`` for the training frames
            themselves (whether a model learns at all); from the pool where None.
        tests: the test sets; those that are fair to the pool where None.
        metrics: names of `zoo.evaluation.metrics.METRICS`, the paper's own first.
    """

    description: str
    source: str
    subset: str | None = None
    n_train: int | None = Field(default=None, ge=1)
    n_valid: int | None = Field(default=None, ge=1)
    n_test: int | None = Field(default=None, ge=0)
    valid_fraction: float | None = Field(default=None, gt=0, lt=1)
    test_fraction: float | None = Field(default=None, ge=0, lt=1)
    valid_from: str | None = None
    tests: tuple[str, ...] | None = None
    metrics: tuple[str, ...] = Field(min_length=1)


class Normaliser(_Part):
    """Mean and standard deviation that published models of the set were trained with: eV, eV/Å."""

    mean: float
    std: float


class DataCard(_Part):
    """What a named set is, where it is published, which file plays which part, and its protocols.

    Attributes:
        base_url: the address of a file is ``base_url/filename`` unless it has its own; None where there is none to fetch files from.
        pools: name to the files that training and validation frames are drawn from; none where the set has tests alone.
        tests: name to the files of a test set.
        isolated_atoms: key of the file with the energies of isolated atoms.
        reference_energies: energies of isolated atoms in eV by symbol, where the set prints them instead.
        linear_references: key of a file with one energy an element (OC20), see `zoo.data.linear_references`.
        subset_of: where the files are part of a larger published set: which, and how large that is.
        select: which frames of the files belong to the set.
    """

    name: str
    description: str
    base_url: str | None
    licence: str
    citation: str
    level_of_theory: str
    keys: LabelKeys = LabelKeys()
    files: dict[str, DataFile]
    archives: dict[str, ArchiveFile] = Field(default_factory=dict)
    pools: dict[str, Pool] = Field(default_factory=dict)
    default_pool: str | None = None
    tests: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    isolated_atoms: str | None = None
    reference_energies: dict[str, float] = Field(default_factory=dict)
    linear_references: str | None = None
    normalisers: dict[Literal["energy", "forces"], Normaliser] = Field(default_factory=dict)
    subset_of: str | None = None
    select: Selection = Selection()
    protocols: dict[str, Protocol] = Field(default_factory=dict)
    default_protocol: str | None = None

    @field_validator("pools", mode="before")
    @classmethod
    def _pool_from_short_form(cls, pools: Any) -> Any:
        def whole(pool: Any) -> Any:
            return {"files": [pool]} if isinstance(pool, str) else {"files": pool} if isinstance(pool, list) else pool

        return {name: whole(pool) for name, pool in pools.items()} if isinstance(pools, dict) else pools

    @field_validator("tests", mode="before")
    @classmethod
    def _test_from_short_form(cls, tests: Any) -> Any:
        return {name: [keys] if isinstance(keys, str) else keys for name, keys in tests.items()} if isinstance(tests, dict) else tests

    @model_validator(mode="after")
    def _names_exist(self) -> DataCard:
        def check(what: str, names: tuple[str | None, ...], known: Mapping[str, object]) -> None:
            for name in names:
                if name is not None and name not in known:
                    raise ValueError(f"{what} names {name!r}; {nearest_name_hint(name, known)}")

        for name, pool in self.pools.items():
            check(f"pools.{name}", pool.files, self.files)
            check(f"pools.{name}.tests", pool.tests or (), self.tests)
        for name, keys in self.tests.items():
            check(f"tests.{name}", keys, self.files)
        for name, protocol in self.protocols.items():
            check(f"protocols.{name}", (protocol.subset,), self.pools)
            valid_from = None if protocol.valid_from == VALID_FROM_TRAINING else protocol.valid_from
            check(f"protocols.{name}", (*(protocol.tests or ()), valid_from), self.tests)
        check("isolated_atoms and linear_references", (self.isolated_atoms, self.linear_references), self.files)
        check("archives", tuple(file.archive for file in self.files.values()), self.archives)
        check("default_pool", (self.default_pool,), self.pools)
        check("default_protocol", (self.default_protocol,), self.protocols)
        check("reference_energies", tuple(self.reference_energies), atomic_numbers)
        if self.pools and self.default_pool is None:
            raise ValueError(f"default_pool is missing; name one of {', '.join(self.pools)}")
        for file in self.files.values():
            LabelKeys.model_validate({**self.keys.model_dump(), **file.keys})
        return self

    def protocol(self, name: str | None) -> tuple[str | None, Protocol | None]:
        """(name, protocol) of ``name`` or of the default; raises `ZooError` with the nearest name."""
        chosen = self.default_protocol if name is None else name
        if chosen is None:
            return None, None
        if chosen not in self.protocols:
            raise ZooError(f"{self.name} has no protocol {chosen!r}; {nearest_name_hint(chosen, self.protocols)}")
        return chosen, self.protocols[chosen]

    def pool(self, name: str | None) -> tuple[str | None, Pool | None]:
        """(name, pool) of ``name`` or of the default pool, if there is one; raises `ZooError` with the nearest name."""
        chosen = self.default_pool if name is None else name
        if chosen is None:
            return None, None
        if chosen not in self.pools:
            raise ZooError(f"{self.name} has no subset {chosen!r}; {nearest_name_hint(chosen, self.pools)}")
        return chosen, self.pools[chosen]

    def keys_of(self, file: DataFile) -> LabelKeys:
        """How the labels of one file are read."""
        return LabelKeys.model_validate({**self.keys.model_dump(), **file.keys})
