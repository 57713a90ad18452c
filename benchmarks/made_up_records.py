"""Records for tests and benchmarks of the board: valid, made up, and as many as asked for."""

from __future__ import annotations

import random
from typing import Any

from zoo.evaluation.record import Record, build_record, metric_records

HASH = "0123456789abcdef" * 4
BASES = ("sevennet-0", "nequix-mp-1", "mace-mp-0-medium", "mace-off23-medium")
METHODS = ("elora", "full", "readout", "sparse", "freeze")
DATA = ("rmd17/aspirin", "rmd17/ethanol", "rmd17/benzene", "rmd17/toluene", "3bpa", "acac", "lam/cu", "lam/sn")


def made_up(number: int, /, **changes: Any) -> Record:
    """One record, drawn from ``number``; ``changes`` replace whole fields."""
    draw = random.Random(number)
    data = changes.pop("data_name", draw.choice(DATA))
    method = changes.pop("method", draw.choice(METHODS))
    tests = ("test_300K", "test_600K") if data in ("3bpa", "acac") else ("test",)
    errors = ("energy_mae_mev", "energy_rmse_mev", "force_mae_mev_per_angstrom", "force_rmse_mev_per_angstrom")
    fields: dict[str, Any] = {
        "created": "2026-01-01T00:00:00Z",
        "base": {
            "card": draw.choice(BASES), "family": "made-up", "values_sha256": HASH, "licence": "MIT", "conservative": True,
            "symmetry": "SO(3)", "parameter_count": 842440,
        },
        "adapter": {
            "method": method, "config": {"rank": draw.choice([4, 16])} if method == "elora" else {}, "file_sha256": HASH,
            "file_bytes": draw.randrange(10**4, 10**7), "trainable_count": draw.randrange(10**3, 10**6), "coverage_share": 0.5,
        },
        "data": {
            "name": data, "protocol": f"{data} n_train={draw.choice([50, 500])}", "level_of_theory": "PBE", "licence": "MIT",
            "splits": {name: {"frames": 100, "sha256": HASH} for name in ("train", "valid", *tests)},
        },
        "seed": draw.randrange(4),
        "reference_energies": {"before": "model", "after": "model", "values": {"H": 1.0}},
        "training": {"backbone": {"name": "sevennet-0"}, "adapter": {"name": method}, "data": {"name": data, "test": list(tests)}},
        "metrics": metric_records({test: {name: draw.lognormvariate(3, 1) for name in errors} for test in tests}),
        "zero_shot_metrics": metric_records({test: {name: draw.lognormvariate(5, 1) for name in errors} for test in tests}),
        "cost": {
            "wall_seconds": 1.0, "cpu_seconds": draw.random() * 1e4, "peak_memory_mib": 500.0, "hardware": "made-up, 2 cores", "threads": 1
        },
        "versions": {"torch": "2.13.0"}, "provenance": draw.choice(["reproduced", "submitted", "local"]),
        **dict.fromkeys(("git_commit", "author", "equivariance_residual", "forgetting")),
    }  # fmt: skip
    return build_record(**{**fields, **changes})
