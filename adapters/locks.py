"""One lock a model, for all that runs it, changes its adapters or writes into its weights.

``torch.func.functional_call`` puts the adapted weights in the place of the model's own for as long as it runs, where every thread sees
them. The lock hangs on the model and not on a stack, since several stacks may share one.
"""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary

from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_OF_THE_TABLE = threading.Lock()


def lock_of(model: nn.Module) -> threading.RLock:
    """The lock of a model, the same at each call; the thread that holds it may take it again."""
    with _OF_THE_TABLE:
        return _LOCKS.setdefault(model, threading.RLock())
