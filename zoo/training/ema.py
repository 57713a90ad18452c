"""Exponential moving average of the trained tensors, matched by name.

``torch.optim.swa_utils.AveragedModel`` pairs buffers by position, and a deep copy of an e3nn model can change their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from zoo.errors import ZooError


class ExponentialMovingAverage:
    """``average <- decay * average + (1 - decay) * value``.

    Args:
        tensors: the live tensors by name; their values now are the first average.
        decay: in (0, 1).
        warmup: whether the n-th update uses min(decay, (1 + n) / (10 + n)), which forgets the start sooner.
    """

    def __init__(self, tensors: Mapping[str, Tensor], decay: float, *, warmup: bool = True) -> None:
        self._live = dict(tensors)
        self._decay = decay
        self._warmup = warmup
        self._updates = 0
        self._average = {name: value.detach().clone() for name, value in tensors.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the live tensors in; call once after every optimizer step."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates)) if self._warmup else self._decay
        for name, average in self._average.items():
            average.lerp_(self._live[name], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the live tensors hold the average; afterwards their own values again, bit for bit."""
        saved = {name: value.detach().clone() for name, value in self._live.items()}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(saved)

    def state_dict(self) -> dict[str, object]:
        """Plain tensors and one integer."""
        return {"updates": self._updates, "average": {name: value.clone() for name, value in self._average.items()}}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore `state_dict`; raises `ZooError` where the names differ."""
        average = state["average"]
        assert isinstance(average, Mapping)
        assert isinstance(state["updates"], int)
        if set(average) != set(self._average):
            different = sorted(set(average) ^ set(self._average))
            raise ZooError(
                f"checkpoint: averaged tensors do not match the model's (first difference: {different[0]}); resume with the same config"
            )
        self._updates = state["updates"]
        for name, value in average.items():
            self._average[name].copy_(value)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._live[name].copy_(value)
