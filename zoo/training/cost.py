"""What a run cost: time over all its resumptions, and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch

from zoo.evaluation.provenance import hardware
from zoo.evaluation.record_parts import CostRecord


class Stopwatch:
    """Wall and CPU seconds of the training loop; the state goes into checkpoints, so that resumed runs add up."""

    def __init__(self) -> None:
        self._before = {"wall": 0.0, "cpu": 0.0}
        self._started: dict[str, float] | None = None

    def start(self) -> None:
        """Count from now, on top of what was loaded."""
        self._started = {"wall": time.perf_counter(), "cpu": time.process_time()}

    def stop(self) -> None:
        """Count no further: the tests that follow are not training."""
        self._before, self._started = self.state_dict(), None

    def state_dict(self) -> dict[str, float]:
        """Seconds so far: ``wall`` and ``cpu``."""
        if self._started is None:
            return dict(self._before)
        now = {"wall": time.perf_counter(), "cpu": time.process_time()}
        return {name: self._before[name] + now[name] - self._started[name] for name in now}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict` of the run that was stopped."""
        self._before = {"wall": float(state["wall"]), "cpu": float(state["cpu"])}

    def record(self, device: torch.device) -> CostRecord:
        """The cost of a run on ``device`` as a record carries it."""
        seconds = self.state_dict()
        on_gpu = device.type == "cuda"
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
        return CostRecord(
            wall_seconds=seconds["wall"],
            cpu_seconds=seconds["cpu"],
            gpu_seconds=seconds["wall"] if on_gpu else None,
            peak_memory_mib=kibibytes / 1024,
            peak_gpu_memory_mib=torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None,
            hardware=hardware(device),
            threads=torch.get_num_threads(),
        )
