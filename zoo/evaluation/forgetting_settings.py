"""On which frames forgetting is measured: read with every configuration, and so without torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ForgettingSettings(BaseModel):
    """``data``: a set at the base's own level of theory, by name; ``frames``: how many of it are drawn, always the same ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str
    frames: int = Field(default=50, ge=1, le=1000)
