"""Which configuration files there are: the folder of the Hydra groups, and the options of a group by name."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import ZooError

NO_METHODS = ("file", "plugin")
"""Options of the group ``adapter`` that name no method by themselves."""


def config_root() -> Path:
    """The folder of the Hydra groups: the source tree's ``configs`` where there is one, else the copy the wheel carries."""
    source = Path(__file__).resolve().parents[1] / "configs"
    packaged = Path(__file__).resolve().parent / "_configs"
    for folder in (source, packaged):
        if (folder / "train.yaml").is_file():
            return folder
    raise ZooError(f"no configuration found at {packaged} or {source}; reinstall equizoo")


def adapter_names() -> list[str]:
    """What ``adapter=`` takes by name: methods with a configuration, presets, and methods of other installed packages."""
    return sorted({name for name in group_options("adapter") if name not in NO_METHODS} | set(methods_of_other_packages()))


def methods_of_other_packages() -> tuple[str, ...]:
    """Adapter methods that other installed packages declare, by name."""
    from adapters.plugins import ADAPTERS, plugins

    return tuple(plugins(ADAPTERS))


def group_options(group: str) -> list[str]:
    """The files of one Hydra group, by name."""
    return sorted(path.stem for path in (config_root() / group).glob("*.yaml"))
