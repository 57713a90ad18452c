"""From the words on a command line to one plain configuration, through Hydra, with one-line errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from zoo.config_groups import config_root
from zoo.errors import ZooError, first_line
from zoo.overrides import rewrite_overrides

_RESOLVERS_DONE: list[bool] = []


def _groups_of(name: str) -> list[str]:
    """The Hydra groups that one config file composes."""
    defaults = yaml.safe_load((config_root() / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]
    return [key for entry in defaults if isinstance(entry, dict) for key in entry if not key.startswith("override")]


def _check_words(arguments: Sequence[str], name: str) -> None:
    for argument in arguments:
        if "=" not in argument:
            raise ZooError(f"{argument!r}: arguments are key=value; see zoo {name} --help")


def compose(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Compose one config file with overrides into plain values.

    Args:
        name: of a file in `config_root`, without ``.yaml``.
        arguments: ``key=value`` words.

    Raises:
        ZooError: one line for whatever Hydra or OmegaConf refuse.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    _check_words(arguments, name)
    groups = _groups_of(name)
    plain = [word for word in arguments if _names_a_foreign_group(word, groups)]
    overrides = rewrite_overrides([word for word in arguments if word not in plain], groups)

    def composed() -> Any:
        with initialize_config_dir(str(config_root()), version_base="1.3"):
            return hydra_compose(name, overrides=overrides)

    values = plain_values(one_line_errors(composed))
    for word in plain:
        key, _, text = word.partition("=")
        value, settings = (text if _is_file(text) else yaml.safe_load(text)), values.get(key)
        values[key] = {"name": value, **settings} if isinstance(settings, dict) else value
    return values


def _names_a_foreign_group(word: str, groups: Sequence[str]) -> bool:
    """Whether Hydra would take a plain value, such as ``adapter=elora`` of ``zoo export``, for the choice in a group not composed here."""
    key = word.partition("=")[0]
    return key.isidentifier() and key not in groups and (config_root() / key).is_dir()


def _is_file(value: str) -> bool:
    with suppress(OSError):  # a long list is not a file's name
        return Path(value).is_file()
    return False


def plain_values(config: Any) -> dict[str, Any]:
    """A composed config as nested dicts, interpolations resolved; raises `ZooError` for a value that is still missing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise ZooError(f"config: {missing[0]} is missing; pass {missing[0]}=...")
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ZooError(f"config: {first_line(error)}") from None
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def register_resolvers() -> None:
    """What config files may interpolate, registered once a process.

    ``slug`` (a name fit for a folder), ``adapter_label`` and ``data_label`` (a method's, a set's or a file's name), ``network`` (the path
    of an architecture in ``configs/network``).
    """
    from omegaconf import OmegaConf

    if _RESOLVERS_DONE:
        return
    OmegaConf.register_new_resolver("slug", _slug)
    OmegaConf.register_new_resolver("adapter_label", _adapter_label)
    OmegaConf.register_new_resolver("data_label", _data_label)
    OmegaConf.register_new_resolver("network", lambda name: str(config_root() / "network" / f"{name}.yaml"))
    _RESOLVERS_DONE.append(True)


def _slug(value: object) -> str:
    """``my/model.pth`` -> ``model``, ``rmd17/aspirin`` -> ``rmd17_aspirin``."""
    text = str(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", Path(text).stem if "/" in text and Path(text).suffix else text)


def _data_label(data: Mapping[str, Any]) -> str:
    """A set's name, or the stem of a file's: runs on two files must not want one folder."""
    path = data.get("path") or data.get("train")
    return _slug(Path(str(path)).stem if path else data.get("name", "data"))


def _adapter_label(adapter: Mapping[str, Any]) -> str:
    if adapter.get("path"):
        return f"{Path(str(adapter['path'])).parent.name}-continued"
    rank = f"-r{adapter['rank']}" if adapter.get("rank") else ""
    return f"{adapter.get('name', 'adapter')}{rank}"


def run_hydra(name: str, arguments: Sequence[str], task: Callable[[dict[str, Any]], None]) -> None:
    """Run ``task`` on the composed config through Hydra's own main, so that ``-m`` sweeps, launchers and ``hydra.*`` keys work.

    Raises:
        ZooError: one line for whatever Hydra refuses; errors of ``task`` pass through.
    """
    import sys

    import hydra
    from hydra.core.hydra_config import HydraConfig

    register_resolvers()
    # Hydra turns errors into several lines and exits by itself unless told that the caller wants them
    os.environ["HYDRA_FULL_ERROR"] = "1"
    flags, words = _flags_and_words(arguments)
    _check_words(words, name)
    overrides = rewrite_overrides(words, _groups_of(name))

    failures: list[Exception] = []
    sweeps = any(flag in ("-m", "--multirun") for flag in flags)

    @hydra.main(version_base="1.3", config_path=str(config_root()), config_name=name)
    def main(config: Any) -> None:
        try:
            task(plain_values(config))
        except Exception as error:
            if sweeps:  # a launcher must see that its job failed, be it in another process
                raise
            failures.append(error)  # Hydra would print lines of its own before it hands an error on
        finally:
            _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))

    argv = sys.argv
    sys.argv = [f"zoo {name}", *flags, *overrides]
    try:
        one_line_errors(main)
    finally:
        sys.argv = argv
    if failures:
        raise failures[0]


def _flags_and_words(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's own flags, with the values of those that take one (``--cfg job``), and the ``key=value`` words."""
    flags: list[str] = []
    words: list[str] = []
    for index, word in enumerate(arguments):
        is_value = index > 0 and arguments[index - 1] in ("--cfg", "-c", "--info", "-i") and "=" not in word
        (flags if word.startswith("-") or is_value else words).append(word)
    return flags, words


def one_line_errors(call: Callable[[], Any]) -> Any:
    """Call and turn Hydra's and OmegaConf's errors into a `ZooError` of one line."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register_resolvers()
    try:
        return call()
    except (HydraException, OmegaConfBaseException) as error:
        word = str(getattr(error, "override", None) or "").lstrip("+")  # Hydra's grammar does not say which word it stumbled over
        raise ZooError(f"config: {f'{word}: ' if word else ''}{first_line(error)}") from None
    except (FileExistsError, NotADirectoryError, PermissionError) as error:  # Hydra makes the run folder before it calls us
        reason = "a part of the path is a file, not a folder" if not isinstance(error, PermissionError) else "no permission"
        raise ZooError(f"{error.filename}: cannot be written ({reason}); pass another run.name=... or hydra.run.dir=...") from error


def _remove_if_empty(folder: Path) -> None:
    """Hydra makes the run folder before the run is checked; one that was refused, or that wrote elsewhere, leaves none."""
    with suppress(OSError):
        folder.rmdir()
