"""The ``data`` part of a configuration."""

from __future__ import annotations

from pydantic import ConfigDict, Field, field_validator

from zoo.data.cache_choice import CacheChoice, CacheMode
from zoo.data.keys import LabelKeys
from zoo.data.splits import SplitSizes
from zoo.units import ENERGY_IN_EV, LENGTH_IN_ANGSTROM

EMBEDDED_SET = "emt-cuau"
FILE_SET = "file"


class DataConfig(LabelKeys):
    """Which frames a run trains, validates and tests on; the label keys and units of `LabelKeys` belong to ``name="file"``.

    Attributes:
        name: ``"emt-cuau"``, a published set (`zoo.data.catalogue.data_set_names`), or ``"file"``.
        path: ``file``: one file that is split into training, validation and, where asked for, test frames.
        train: ``file``: the training file, instead of ``path``.
        valid: ``file``: the validation file; drawn from ``train`` where None.
        test: ``file``: test files, as one path, several (named by their stems), or names to paths. Published sets: the test sets to
            load; all where None.
        isolated_atoms: ``file``: a file with one single-atom frame per element.
        linear_references: ``file``: an npz with one energy an element, see `zoo.data.linear_references`.
        subset: published sets: which pool to draw from, e.g. ``"300K"``.
        protocol: published sets: how a paper trained and tested on it; the card's default where None. Sizes given here go before.
        n_train, n_valid, n_test, valid_fraction, test_fraction: see `SplitSizes`; those of the protocol where None.
        split_seed: of the random split.
        level_of_theory: ``file``: what the labels were computed with.
        licence: ``file``: of the data, carried into records.
        cache, workers: see `zoo.data.cache_choice.CacheChoice`; neither changes a number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = EMBEDDED_SET
    path: str | None = None
    train: str | None = None
    valid: str | None = None
    test: str | list[str] | dict[str, str] | None = None
    isolated_atoms: str | None = None
    linear_references: str | None = None
    subset: str | None = None
    protocol: str | None = None
    n_train: int | None = Field(default=None, ge=1)
    n_valid: int | None = Field(default=None, ge=1)
    n_test: int | None = Field(default=None, ge=0)
    valid_fraction: float | None = Field(default=None, gt=0, lt=1)
    test_fraction: float | None = Field(default=None, ge=0, lt=1)
    split_seed: int = Field(default=0, ge=0)
    level_of_theory: str = ""
    licence: str = ""
    cache: CacheMode = "auto"
    workers: int | None = Field(default=None, ge=0)

    @field_validator("subset", "protocol", mode="before")
    @classmethod
    def _name(cls, value: object) -> object:
        # data.subset=1 arrives as a number
        return str(value) if isinstance(value, int) else value

    @property
    def cache_choice(self) -> CacheChoice:
        """Where frames and graphs are kept."""
        return CacheChoice(self.cache, self.workers)

    @property
    def given_units(self) -> tuple[float, float]:
        """(eV, eV/Å) of the energy and force units that the user's own files are said to be in; 1 where nothing is said."""
        energy, length = (self.energy_unit, self.length_unit) if self.name == FILE_SET else (None, None)
        in_ev = ENERGY_IN_EV[energy or "eV"]
        return in_ev, in_ev / LENGTH_IN_ANGSTROM[length or "Angstrom"]

    def sizes(self) -> SplitSizes:
        """The split sizes asked for."""
        return SplitSizes(self.n_train, self.n_valid, self.n_test, self.valid_fraction, self.test_fraction)

    def label_keys(self) -> LabelKeys:
        """The label keys and units among the options."""
        return LabelKeys(**{name: getattr(self, name) for name in LabelKeys.model_fields})
