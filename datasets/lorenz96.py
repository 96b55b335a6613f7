"""The Lorenz-96 model: chaos on a circle of latitude, the smallest test of a forecast.

Equation or source
    dX_i/dt = (X_{i+1} - X_{i-2}) X_{i-1} - X_i + F on a circle of 40 (or 36) cells, F = 8. The
    start is F with a deviation N(0, 1) in every cell; after 20 time units, 100 days, the state has
    forgotten it and 41 records follow, 0.05 apart: six hours by the growth of errors. Fourth-order
    Runge-Kutta of step 0.025 in float64. `noise` adds s dW to every cell after each step.
Grid and units
    `state` at cell 0 .. grid - 1 and times 0, 0.05 .. 2, dimensionless. float32, dims (sample,
    time, x); x carries its `period`. Sizes: toy 48 samples, small 2,000, full 10,000, of 40 cells.
    Sample i of a seed has the same bytes however many are made, by however many workers.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. Every
    sample has its own start, so no gap is needed.
What is hard
    Small errors double in 0.4 time units, two days; one of a tenth of the s.d. is as large as the
    s.d. (3.6, about a mean of 2.4) after 2 units. Waves travel: the RMSE of persistence is a
    quarter of the s.d. after one record and 0.9 of it after four. Without noise the law of the next
    record given the last is a point: all spread is what a model does not know.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Lorenz, Predictability: a problem partly solved, ECMWF Seminar on Predictability, 1996. Lorenz
    and Emanuel, Optimal sites for supplementary weather observations, 1998,
    https://doi.org/10.1175/1520-0469(1998)055<0399:OSFSWO>2.0.CO;2 (40 cells, F = 8, 0.05 as six
    hours).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError

SIZES = {"toy": (48, 40), "small": (2_000, 40), "full": (10_000, 40)}
WARM_UP, RECORDS, SPACING, STEP = 20.0, 41, 0.05, 0.025
TOGETHER = 64


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    forcing: float = 8.0,
    noise: float = 0.0,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid`` win over
    ``size``. ``noise`` is the s.d. of the state after one time unit of noise alone."""
    count, cells = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=cells, seed=seed,
        numbers={"forcing": forcing, "noise": noise},
        workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int,
    grid: int,
    seed: int = 0,
    start: int = 0,
    forcing: float = 8.0,
    noise: float = 0.0,
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    if grid < 4:
        raise InputError(f"Got a circle of {grid} cells; expected 4 or more, 40 is customary.")
    if not (np.isfinite(forcing) and 0 <= noise < np.inf):
        raise InputError(
            f"Got forcing={forcing} and noise={noise}; expected finite numbers, noise not below 0."
        )
    states = np.empty((samples, RECORDS, grid), np.float32)
    for low in range(0, samples, TOGETHER):
        numbers = range(start + low, start + min(low + TOGETHER, samples))
        states[low : low + TOGETHER] = films(grid, seed, numbers, forcing, noise)
    x = {"units": "1", "long_name": "cell", "axis": "X", "period": float(grid)}
    return generate.labelled(
        {"state": (("sample", "time", "x"), states, {"units": "1", "long_name": "state"})},
        {
            "time": (
                "time", SPACING * np.arange(RECORDS),
                {"units": "1", "long_name": "time", "axis": "T"},
            ),
            "x": ("x", np.arange(grid, dtype=np.float64), x),
        },
        name="lorenz96", title="Lorenz-96 model", start=start, seed=seed, numbers={
            "grid": grid, "forcing": forcing, "noise": noise, "warm_up": WARM_UP,
            "records": RECORDS, "spacing": SPACING, "step": STEP,
        },
    )  # fmt: skip


def films(grid: int, seed: int, numbers: range, forcing: float, noise: float) -> np.ndarray:
    """Records of some samples, float64 ``(samples, records, grid)``, from noise addressed by (seed,
    number). A row is computed cell by cell, so it does not feel which rows stand beside it."""
    draws = [
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, n]))) for n in numbers
    ]

    def normal() -> np.ndarray:
        return np.stack([rng.standard_normal(grid) for rng in draws])

    state = forcing + normal()
    out, every, before = [], round(SPACING / STEP), round(WARM_UP / STEP)
    for step in range(before + every * (RECORDS - 1) + 1):
        if step >= before and (step - before) % every == 0:
            out.append(state)
        state = advanced(state, forcing, STEP)
        if noise:
            state = state + noise * np.sqrt(STEP) * normal()
    return np.stack(out, axis=1)


def advanced(state: np.ndarray, forcing: float, step: float) -> np.ndarray:
    """One Runge-Kutta step of ``(..., grid)``."""
    a = tendency(state, forcing)
    b = tendency(state + step / 2 * a, forcing)
    c = tendency(state + step / 2 * b, forcing)
    d = tendency(state + step * c, forcing)
    return np.asarray(state + step / 6 * (a + 2 * b + 2 * c + d))


def tendency(state: np.ndarray, forcing: float) -> np.ndarray:
    """dX/dt of ``(..., grid)``."""
    ahead, behind = np.roll(state, -1, -1), np.roll(state, 1, -1)
    return np.asarray((ahead - np.roll(state, 2, -1)) * behind - state + forcing)
