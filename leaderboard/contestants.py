"""Who competes: the name of a record's method, and which records are seeds of one contestant.

Two records are seeds of one contestant if base, method, data, protocol and kind of evidence are the same and their settings differ in the
seed alone. Where settings differ too (two learning rates, say), each kind of settings is a contestant of its own, named by what differs:
averaging them would show a result that nobody obtained, and tuning would look like luck.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.evaluation.record import Record

FROM_SCRATCH, ZERO_SHOT, FULL = "from scratch", "zero-shot", "full"
_TELLING = ("rank", "setting", "threshold_end", "tau_weight_decay", "form", "magnitude", "layers_frozen", "select")
"""Settings of our own methods that belong into a row's name; of a reported record all do, since it has no others."""
_USUAL = {"form": "str", "setting": "all", "tau_weight_decay": 0.01}
"""Defaults of telling settings, which go without saying in the name of a method of ours."""
_SECTIONS = ("backbone", "adapter", "training", "strategy")
_OF_NO_INFLUENCE = ("training.seed", "training.threads", "training.progress_bar", "training.loggers")
"""The seed, and what changes no number of a result."""
_ABSENT = object()


def method_name(record: Record) -> str:
    """The method as a row's name: ``zero-shot``, ``from scratch``, ``elora (rank=16)``; settings that do not tell anything are left out."""
    if record.adapter is None:
        return ZERO_SHOT
    reported = record.provenance == "reported"
    config = record.adapter.config
    told = {key: value for key, value in config.items() if (reported or _tells(key, value)) and value not in (None, False, "", {}, [])}
    plain = record.adapter.method == FULL and record.base.initial_weights == "random"
    name = FROM_SCRATCH if plain else record.adapter.method
    if record.base.initial_weights == "random" and not plain:
        name += ", random start"
    return _with(name, [f"{key}={value}" for key, value in told.items()])


def _tells(key: str, value: Any) -> bool:
    return key in _TELLING and (key not in _USUAL or value != _USUAL[key])


def contestant_names(records: Sequence[Record]) -> list[str]:
    """The method's name of each record, with the settings that tell it from others of the same name on the same data."""
    names = [method_name(record) for record in records]
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        if record.training is not None:
            groups[names[index], record.base.card, record.data.name, record.data.protocol, record.provenance].append(index)
    for members in groups.values():
        if len(members) > 1:
            for index, differing in zip(members, _differing([records[index].training or {} for index in members]), strict=True):
                names[index] = _with(names[index], differing)
    return names


def _with(name: str, settings: Sequence[str]) -> str:
    if not settings:
        return name
    return f"{name[:-1]}, {', '.join(settings)})" if name.endswith(")") else f"{name} ({', '.join(settings)})"


def _differing(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each configuration, ``key=value`` of the settings in which not all of them agree."""
    kept = [{section: _telling(section, config[section]) for section in _SECTIONS if section in config} for config in configs]
    if all(config == kept[0] for config in kept):  # the common case, and the fast one
        return [[] for _ in configs]
    leaves = [dict(_leaves(config)) for config in kept]
    keys = [key for key in dict.fromkeys(key for leaf in leaves for key in leaf) if not _is_one(leaf.get(key, _ABSENT) for leaf in leaves)]
    return [[f"{_short(key, keys)}={leaf.get(key, 'default')}" for key in keys] for leaf in leaves]


def _telling(section: str, content: Any) -> Any:
    if not isinstance(content, Mapping):
        return content
    return {key: value for key, value in content.items() if f"{section}.{key}" not in _OF_NO_INFLUENCE}


def _leaves(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value if isinstance(value, str) else json.dumps(value)


def _is_one(values: Iterator[object]) -> bool:
    return len(set(values)) == 1


def _short(key: str, keys: Sequence[str]) -> str:
    """The last word of a setting's path, or the whole path where another setting ends alike."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key
