"""Burgers' equation in space and time: smooth waves that steepen into shocks.

Equation or source
    u_t + (u^2 / 2)_x = nu u_xx, 0 <= t <= 1, on the circle 0 <= x < 1, nu = 0.01. The initial field
    is Gaussian with s.d. 49 2^(1/2) (4 pi^2 n^2 + 49)^(-5/4) of each cosine and sine of wave number
    n, mean 0, as the published code draws it (gamma 2.5, tau 7, sigma 49; its paper writes another
    law, N(0, 625 (-Laplace + 25)^(-2))). Fourth-order exponential time differencing with the rule
    of 2/3 in float64, on 1 / nu points or more, every some of which are kept; error 2e-5.
Grid and units
    `velocity` at x = i / grid and times j / (grid - 1), dimensionless. float32, dims (sample, time,
    x); x is periodic. Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64, full 50,000 at
    128 x 128. Sample i of a seed has the same bytes however many are made, by
    however many workers.
Splits
    By order: the last 5 % are the test samples, the 10 % before them the validation samples (many,
    so that covariances can be measured on them). The samples are independent: no gap is needed.
What is hard
    A front is 4 nu / |jump| wide: at nu = 0.01 five to ten points of 64, so the benchmark's own
    fields are mild. At viscosity=0.002 the last times hold shocks one or two points wide: where
    they stand is uncertain by much more than their width, and the mean of all places is no shock.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Problem and law: DiffusionPDE, Huang et al., 2024, https://arxiv.org/abs/2406.17763.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError
from sciddm.pde import Burgers, PeriodicField

SIZES = {"toy": (64, 32), "small": (10_000, 64), "full": (50_000, 128)}
LAW = PeriodicField(alpha=2.5, tau=7.0, axes=1, sigma=49 / math.sqrt(2))
VALIDATION, TEST = 0.1, 0.05
TOGETHER = 16


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    viscosity: float = 0.01,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid`` win over
    ``size``."""
    count, side = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=side, seed=seed, numbers={"viscosity": viscosity},
        validation=VALIDATION, test=TEST, workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int, grid: int, seed: int = 0, start: int = 0, viscosity: float = 0.01
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    if not (grid >= 4 and 0 < viscosity <= 1):
        raise InputError(
            f"Got grid={grid} and viscosity={viscosity:g}; expected 4 points or more a side and a "
            "viscosity above 0, at most 1."
        )
    LAW.draw(0, grid, seed=seed, start=start)  # refuses a bad seed
    ratio = max(2, math.ceil(1 / viscosity / grid))
    solve = Burgers(viscosity=viscosity, step=1 / (ratio * grid))
    times = tuple(np.linspace(0.0, 1.0, grid).tolist())
    out = np.empty((samples, grid, grid), dtype=np.float32)
    for first in range(start - start % TOGETHER, start + samples, TOGETHER):
        # Always the same rows together: a transform may round a sample differently among others.
        u = solve.trajectory(LAW.draw(TOGETHER, ratio * grid, seed=seed, start=first), times)
        low, high = max(first, start), min(first + TOGETHER, start + samples)
        out[low - start : high - start] = u[low - first : high - first, 0, :, ::ratio].numpy()
    x = {"units": "1", "long_name": "position", "axis": "X", "period": 1.0}
    return generate.labelled(
        {"velocity": (("sample", "time", "x"), out, {"units": "1", "long_name": "velocity u"})},
        {
            "time": ("time", np.array(times), {"units": "1", "long_name": "time", "axis": "T"}),
            "x": ("x", np.arange(grid) / grid, x),
        },
        name="burgers", title="Burgers' equation on a circle, space and time",
        start=start, seed=seed, numbers={
            "grid": grid, "viscosity": viscosity, "alpha": 2.5, "tau": 7.0, "sigma": 49.0,
        },
        validation=VALIDATION, test=TEST,
    )  # fmt: skip
