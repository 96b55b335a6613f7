"""Lorenz's three equations as short series: chaos that is smooth, from any start.

Equation or source
    x' = 10 (y - x), y' = x (28 - z) - y, z' = x y - 2.667 z from a start N(0, 1) x 10. Fourth-order
    Runge-Kutta in float64, 20 steps between two records. `noise` is the s.d. of white noise on
    every record, in units of the s.d. of its variable on the attractor (7.9, 9.0, 8.6).
Grid and units
    `x`, `y`, `z` at 100 times evenly from 0 to 2, dimensionless, float32, dims (sample, time).
    Sizes: toy 48 series, small 1,000, full 10,000. Series i of a seed is the same however many are
    made, by however many workers.
Splits
    By order: the last 5 % are the test series, the 5 % before them the validation series. Every
    series has its own start, so no gap is needed.
What is hard
    Deterministic given the start, which may lie far from the attractor: the first half unit is a
    fast fall onto it. On it the two wings are left after an unknown number of turns. One variable
    alone tells the others only through its history; x and y change sign together.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Lorenz, Deterministic nonperiodic flow, Journal of the Atmospheric Sciences 20, 1963. The form:
    Bilos et al., Modeling temporal data as continuous functions with stochastic process diffusion,
    ICML 2023.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError

SIZES = {"toy": (48, 100), "small": (1_000, 100), "full": (10_000, 100)}
SPAN, WITHIN, SPREAD = 2.0, 20, (7.9, 9.0, 8.6)
NUMBERS = (10.0, 28.0, 2.667)


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    noise: float = 0.0,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid``, the number of
    times, win over ``size``."""
    count, times = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=times, seed=seed, numbers={"noise": noise},
        workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int, grid: int, seed: int = 0, start: int = 0, noise: float = 0.0
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    if grid < 2 or not 0 <= noise < np.inf:
        raise InputError(
            f"Got grid={grid} and noise={noise}; expected 2 or more times and noise not below 0."
        )
    draws = [
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, start + i])))
        for i in range(samples)
    ]
    first = 10 * np.stack([rng.standard_normal(3) for rng in draws])
    states = records(first, grid)
    if noise:
        states = states + noise * np.array(SPREAD) * np.stack([
            rng.standard_normal((grid, 3)) for rng in draws
        ])  # fmt: skip
    states = states.astype(np.float32)
    time = np.linspace(0, SPAN, grid)
    return generate.labelled(
        {n: (("sample", "time"), states[..., c], {"units": "1"}) for c, n in enumerate("xyz")},
        {"time": ("time", time, {"units": "1", "standard_name": "time", "axis": "T"})},
        name="lorenz63_series", title="Lorenz 1963", start=start, seed=seed,
        numbers={"grid": grid, "noise": noise, "equation": NUMBERS, "within": WITHIN},
    )  # fmt: skip


def records(state: np.ndarray, grid: int) -> np.ndarray:
    """Records (samples, grid, 3) from states (samples, 3) at time 0."""
    step, out = SPAN / (grid - 1) / WITHIN, [state]
    for _ in range(grid - 1):
        for _ in range(WITHIN):
            a = tendency(state)
            b = tendency(state + step / 2 * a)
            c = tendency(state + step / 2 * b)
            state = state + step / 6 * (a + 2 * b + 2 * c + tendency(state + step * c))
        out.append(state)
    return np.stack(out, 1)


def tendency(state: np.ndarray) -> np.ndarray:
    """The right side, of ``(..., 3)``."""
    x, y, z = state[..., 0], state[..., 1], state[..., 2]
    a, b, c = NUMBERS
    return np.stack([a * (y - x), x * (b - z) - y, x * y - c * z], -1)
