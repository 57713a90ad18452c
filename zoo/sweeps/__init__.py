"""Sweeps: many runs that differ in one setting, their table and their figure; and energies along a scan."""

from zoo.sweeps.kinds import KINDS
from zoo.sweeps.request import SweepRequest
from zoo.sweeps.run import SweepResult, draw_sweep, plan_sweep, run_sweep

__all__ = ["KINDS", "SweepRequest", "SweepResult", "draw_sweep", "plan_sweep", "run_sweep"]
