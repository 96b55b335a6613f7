"""One thread a test process, no windows, and properties that try the same cases every time."""

from __future__ import annotations

import os

# Before torch is imported by any test: pools of threads that wait for each other starve xdist.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "disabled")

from hypothesis import HealthCheck, settings

settings.register_profile(
    "house",
    deadline=None,  # two processes share the machine: a slow example is no wrong one
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")
