"""The fingerprint of a base, remembered for as long as its values stay: hashing takes longer than all else that attaches a file."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapters.manifest import base_fingerprint, convention_of

_WORD_BYTES = 8


class RememberedFingerprint:
    """`base_fingerprint` of one model, computed again where a value changed.

    A change is seen by torch's own count of changes in place, by another tensor in the parameter's place, and, for what passes by that
    count (``parameter.data``, a NumPy view), by the sum of all bits: far faster than SHA-256, and moved by any single change.
    """

    def __init__(self, model: nn.Module) -> None:
        """Nothing is hashed before the first call.

        Args:
            model: whose values are hashed.
        """
        self._model = model
        self._seen: tuple[tuple[object, ...], ...] | None = None
        self._value = ""

    def __call__(self) -> str:
        """The SHA-256 of the model's values as they are now."""
        seen = (("convention", convention_of(self._model)), *(_trace(name, value) for name, value in self._model.named_parameters()))
        if seen != self._seen:
            self._value, self._seen = base_fingerprint(self._model), seen
        return self._value


def _trace(name: str, parameter: Tensor) -> tuple[object, ...]:
    values = parameter.detach()
    return (name, values.data_ptr(), values._version, values.dtype, values.shape, _sum_of_bits(values))


def _sum_of_bits(values: Tensor) -> int:
    """The values' bytes added up as 64-bit integers, which wrap around; what does not fill the last one is added in bytes."""
    flat = values.reshape(-1)
    if flat.storage_offset() * flat.element_size() % _WORD_BYTES:
        flat = flat.clone()  # torch views as wider numbers only what begins at a multiple of them
    whole = flat.numel() - flat.numel() % (_WORD_BYTES // flat.element_size())
    rest = flat[whole:].clone().view(torch.uint8)
    return int(flat[:whole].view(torch.int64).sum()) + int(rest.sum())
