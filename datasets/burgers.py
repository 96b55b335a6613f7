"""Burgers' equation in space and time: smooth waves that steepen into shocks.

Equation or source
    u_t + (u^2 / 2)_x = nu u_xx, 0 <= t <= 1, on the circle 0 <= x < 1, nu = 0.01. The initial field
    is Gaussian with s.d. 49 2^(1/2) (4 pi^2 n^2 + 49)^(-5/4) of each cosine and sine of wave number
    n, mean 0, as the published code draws it (gamma 2.5, tau 7, sigma 49; its paper writes another
    law, N(0, 625 (-Laplace + 25)^(-2))). Fourth-order exponential time differencing with the rule
    of 2/3 in float64, on 1.28 / nu points or more, every some of which are kept; error 2e-5.
Grid and units
    `velocity` at x = i / grid and times j / (grid - 1), dimensionless. float32, dims (sample, time,
    x); x is periodic. Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64, full 50,000 at
    128 x 128. Sample i of a seed has the same bytes however many are made.
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
import sys
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr

from sciddm.errors import InputError, nearest
from sciddm.pde import Burgers, PeriodicField

SIZES = {"toy": (64, 32), "small": (10_000, 64), "full": (50_000, 128)}
LAW = PeriodicField(alpha=2.5, tau=7.0, axes=1, sigma=49 / math.sqrt(2))
TOGETHER = 16


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    viscosity: float = 0.01,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid`` win over
    ``size``."""
    from sciddm.data import store as zarr_store

    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    count = SIZES[size][0] if samples is None else samples
    side = SIZES[size][1] if grid is None else grid
    if count < 3:
        raise InputError(f"Got {count} samples; three splits need at least 3, ask for more.")
    fields(0, side, seed, viscosity=viscosity)  # refuses bad numbers before any work
    chunk = min(count, max(1, 2**20 // side**2))
    chunks = {"sample": chunk, "time": side, "x": side}
    block = chunk * -(-1000 // chunk)  # whole chunks, so that no two blocks share one
    path = Path(store)
    if count <= block:
        ds = fields(count, side, seed, viscosity=viscosity)
        zarr_store.write(ds, path, chunks=chunks, overwrite=overwrite)
        return zarr_store.open(path)
    lazy = dask.array.zeros((count, side, side), dtype=np.float32, chunks=(chunk, side, side))
    zarr_store.create(_label(lazy, seed, 0, viscosity), path, chunks=chunks, overwrite=overwrite)
    for start in range(0, count, block):
        stop = min(start + block, count)
        part = fields(stop - start, side, seed, start, viscosity)
        zarr_store.put(path, part, {"sample": slice(start, stop)})
        print(f"burgers: {stop} of {count} samples", file=sys.stderr, flush=True)
    return zarr_store.open(zarr_store.finalize(path))


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
    ratio = max(2, math.ceil(1.28 / viscosity / grid))
    solve = Burgers(viscosity=viscosity, step=0.75 / (ratio * grid))
    times = tuple(np.linspace(0.0, 1.0, grid).tolist())
    out = np.empty((samples, grid, grid), dtype=np.float32)
    for first in range(start - start % TOGETHER, start + samples, TOGETHER):
        # Always the same rows together: a transform may round a sample differently among others.
        u = solve.trajectory(LAW.draw(TOGETHER, ratio * grid, seed=seed, start=first), times)
        low, high = max(first, start), min(first + TOGETHER, start + samples)
        out[low - start : high - start] = u[low - first : high - first, 0, :, ::ratio].numpy()
    return _label(out, seed, start, viscosity)


def _label(
    velocity: np.ndarray | dask.array.Array, seed: int, start: int, viscosity: float
) -> xr.Dataset:
    samples, grid, _ = velocity.shape
    test = max(1, round(0.05 * samples))
    held = max(1, round(0.1 * samples))
    edges = [0, max(0, samples - held - test), max(0, samples - test), samples]
    names = ["train", "validation", "test"]
    x, time = np.arange(grid) / grid, np.linspace(0.0, 1.0, grid)
    return xr.Dataset(
        {"velocity": (("sample", "time", "x"), velocity, {"units": "1", "long_name": "u"})},
        {
            "sample": ("sample", np.arange(start, start + samples), {"long_name": "sample number"}),
            "time": ("time", time, {"units": "1", "long_name": "time", "axis": "T"}),
            "x": ("x", x, {"units": "1", "long_name": "position", "axis": "X", "period": 1.0}),
        },
        {
            "Conventions": "CF-1.10",
            "title": "Burgers' equation on a circle, space and time",
            "sciddm_dataset": "burgers",
            "sciddm_sample_dim": "sample",
            "sciddm_splits": {n: edges[i : i + 2] for i, n in enumerate(names)},
            "sciddm_generator": {
                "version": 1, "seed": seed, "samples": samples, "grid": grid,
                "viscosity": viscosity, "alpha": 2.5, "tau": 7.0, "sigma": 49.0,
            },
        },
    )  # fmt: skip
