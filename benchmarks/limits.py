"""Solvers and guidance at the limit: every rule beside the exact law, a table a problem.

The parts run side by side, two at a time. With --quick at most 8 minutes on 2 cores.

    python benchmarks/limits.py [--quick] [--json] [PART ...]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _parts import Benchmark  # noqa: E402

PARTS = (
    "rules",
    "cost",
    "poisson",
    "lorenz",
    "solvers",
    "calibration",
    "stochastic",
    "events",
)
"""Longest first; the tables are printed as the parts end."""

if __name__ == "__main__":
    Benchmark("limits", "_limits", PARTS).main(__doc__ or "")
