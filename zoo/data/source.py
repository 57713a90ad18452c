"""From the ``data`` part of a configuration to training, validation and test frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from zoo.data import emt
from zoo.data.catalogue import data_card, data_set_names
from zoo.data.config import EMBEDDED_SET, FILE_SET, DataConfig
from zoo.data.conversion import read_source
from zoo.data.frame import Frame
from zoo.data.keys import LabelKeys
from zoo.data.labels import Label
from zoo.data.linear_references import read_linear_references
from zoo.data.named import load_named
from zoo.data.parts import DataSplits, Origin, as_test, draw
from zoo.data.readers import FileContent
from zoo.data.reference_energies import read_isolated_atoms
from zoo.data.splits import SplitSizes
from zoo.errors import ZooError, nearest_name_hint


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
        _refuse(config, _SET_OPTIONS, "belongs to a published set")
        return _from_files(config, needs)
    _refuse(config, _FILE_OPTIONS, f"belongs to data=file and has no effect on {config.name!r}")
    if config.name == EMBEDDED_SET:
        _refuse(config, _SET_OPTIONS, f"has no effect on {config.name!r}, which has one pool")
        return _from_emt(config)
    return load_named(config, needs)


_DRAWING_OPTIONS = frozenset({"test", "n_train", "n_valid", "n_test", "valid_fraction", "test_fraction", "split_seed"})


def load_evaluated(config: DataConfig, part: str | None, with_training: bool = False) -> DataSplits:
    """The frames that an evaluation reads: as `load_splits`, but nothing that it does not look at.

    One file, of which no part and no sizes are asked for, is read as a whole. Of a published set whose test set is named, the pool is
    left where it is (OC20's is 225 GB).

    Args:
        config: options that were given count, be it with their default; a run's own configuration gives them all.
        part: the part to evaluate, None where the user names none.
        with_training: whether the training split is looked at as well, as for a fit of reference energies.

    Raises:
        ZooError: as `load_splits`; labels may be missing.
    """
    if config.name in data_set_names():
        _refuse(config, _FILE_OPTIONS, f"belongs to data=file and has no effect on {config.name!r}")
        return load_named(config, (), part, with_pool=with_training or part not in data_card(config.name).tests)
    if config.name != FILE_SET or config.path is None or part is not None or config.model_fields_set & _DRAWING_OPTIONS:
        return load_splits(config, needs=())
    if config.train is not None or config.valid is not None:
        return load_splits(config, needs=())  # refuses them
    _refuse(config, _SET_OPTIONS, "belongs to a published set")
    contents = {name: _read(path, config, ()) for name, path in _test_paths(config.path).items()}
    origin = _file_origin(config, f"{FILE_SET}/{Path(config.path).stem} whole", contents.values())
    return DataSplits.of(config, [], [], {name: content.frames for name, content in contents.items()}, origin)


_SET_OPTIONS = ("subset", "protocol")
_FILE_OPTIONS = ("path", "train", "valid", "isolated_atoms", "linear_references", "level_of_theory", "licence", *LabelKeys.model_fields)


def _refuse(config: DataConfig, options: Sequence[str], why: str) -> None:
    """An option that would be ignored is an error: the user meant something by it."""
    for option in options:
        if getattr(config, option) != DataConfig.model_fields[option].default:
            raise ZooError(f"data.{option}={getattr(config, option)} {why}; remove it or choose another data set")


def _from_emt(config: DataConfig) -> DataSplits:
    drawn = draw(emt.emt_pool(), config.sizes(), config.split_seed, EMBEDDED_SET)
    tests = _chosen({"test": emt.emt_test}, config)
    origin = Origin(protocol=drawn.text, level_of_theory=emt.LEVEL_OF_THEORY, licence="MIT")
    return DataSplits.of(config, drawn.train, drawn.valid, tests | as_test(drawn.test, tests), origin)


def _from_files(config: DataConfig, needs: Sequence[Label]) -> DataSplits:
    pool_path = config.path or config.train
    if pool_path is None or (config.path is not None and config.train is not None):
        raise ZooError("data=file wants either data.path=FILE (split here) or data.train=FILE; give one of them")
    if config.path is not None and config.valid is not None:
        raise ZooError("data.valid=... goes with data.train=..., while data.path is split here; rename data.path to data.train")
    if config.valid is not None and (config.n_valid is not None or config.valid_fraction is not None):
        raise ZooError("data.n_valid and data.valid_fraction have no effect where data.valid names a file; remove them")
    pool = _read(pool_path, config, needs)
    given_valid = _read(config.valid, config, needs) if config.valid is not None else None
    # with a validation file nothing is drawn for validation
    sizes = config.sizes() if given_valid is None else SplitSizes(config.n_train, 0, config.n_test, test_fraction=config.test_fraction)
    drawn = draw(pool.frames, sizes, config.split_seed, f"{FILE_SET}/{Path(pool_path).stem}")
    # test sets without forces are common (scans, reaction paths): what they have is counted and evaluated
    contents = {name: _read(path, config, ("energy",)) for name, path in _test_paths(config.test).items()}
    tests = {name: content.frames for name, content in contents.items()}
    return DataSplits.of(
        config,
        drawn.train,
        drawn.valid if given_valid is None else given_valid.frames,
        tests | as_test(drawn.test, tests),
        _file_origin(config, drawn.text, (pool, *((given_valid,) if given_valid else ()), *contents.values())),
    )


def _read(path: str, config: DataConfig, needs: Sequence[Label]) -> FileContent:
    return read_source(path, config.label_keys(), config.level_of_theory, needs, config.cache_choice)


def _file_origin(config: DataConfig, protocol: str, contents: Iterable[FileContent]) -> Origin:
    atoms, linear = config.isolated_atoms, config.linear_references
    return Origin(
        protocol=protocol,
        level_of_theory=config.level_of_theory,
        licence=config.licence,
        isolated_atom_energies=None if atoms is None else read_isolated_atoms(atoms, config.label_keys()),
        linear_references=None if linear is None else read_linear_references(linear),
        notes=tuple(note for content in contents for note in content.notes),
    )


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
