"""What an evaluation was asked for, as its record says it: enough to make it again (`zoo reproduce`), and nothing of anybody's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from zoo.data.config import DataConfig

_ELSEWHERE: Any = {"run": True, "adapter": True, "record": True, "metrics": True, "backbone": {"device"}}


def asked_of(config: BaseModel, data: DataConfig) -> dict[str, Any]:
    """Settings of a base's evaluation that are not the default, ``data`` among them; files by name alone."""
    asked: dict[str, Any] = config.model_dump(mode="json", exclude=_ELSEWHERE, exclude_defaults=True)
    own = data.model_dump(mode="json", exclude={"cache", "workers"}, exclude_defaults=True)
    return asked | {"data": {"name": data.name, **{key: _without_folders(value) for key, value in own.items()}}}


def _without_folders(value: Any) -> Any:
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
