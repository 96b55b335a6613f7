"""Damped, turning patterns on a square: a daily record whose every forecast has a known law.

Equation or source
    Six pairs of cosine patterns on the unit square. The two amplitudes of a pair are the parts of
    one complex Ornstein-Uhlenbeck process: a day multiplies it by exp(-1 / tau + 2 pi i / P) and
    adds noise that keeps its variance. (tau, P, variance) in days: (30, 40, 1), (20, 15, 0.6),
    (12, 25, 0.5), (8, 6, 0.3), (5, 10, 0.2), (3, 4, 0.1). Outside the patterns every day has white
    noise of its own, of variance 0.01. Drawn from the stationary law, in float64, without error in
    time; `law` in this file is its `LinearGaussian`, exact for every forecast.
Grid and units
    `anomaly` at cell centres (i + 1/2) / grid of both axes, one frame a day from 2000-01-01,
    dimensionless, of variance about 2.7. float32, dims (time, y, x): one long record, whose sample
    dim is its time. Sizes: toy 400 days at 16 x 16, small 4,000 at 32 x 32, full 20,000 at 64 x 64.
Splits
    By order: the last 10 % of the days to test, 10 % before them to validate; 60 days are left out
    between two splits, two of the longest memories.
What is hard
    Nothing is hidden, so nothing is forgiven. Damped anomalies are poor where patterns turn fast:
    the best forecast of a pair after half a turn has the other sign. A short record: 100 memories
    of the slowest pair in the small size.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Uhlenbeck and Ornstein, On the theory of the Brownian motion, Physical Review 36, 1930.
"""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciddm.basis import cosines
from sciddm.data import generate, split
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import LinearGaussian
from sciddm.random import Streams

SIZES = {"toy": (400, 16), "small": (4_000, 32), "full": (20_000, 64)}
PAIRS = (
    (30.0, 40.0, 1.0, (1, 0), (0, 1)),
    (20.0, 15.0, 0.6, (2, 0), (1, 1)),
    (12.0, 25.0, 0.5, (0, 2), (2, 1)),
    (8.0, 6.0, 0.3, (1, 2), (3, 0)),
    (5.0, 10.0, 0.2, (2, 2), (0, 3)),
    (3.0, 4.0, 0.1, (3, 1), (1, 3)),
)
"""tau, period, variance, and the cosines along (y, x) of both patterns."""
ROUGH, GAP = 0.01, 60


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the record to the zarr ``store`` and open it; ``samples`` (days) and ``grid`` win over
    ``size``."""
    from sciddm.data import store as stores

    days, points = generate.sized(SIZES, size, samples, grid)
    if days < 200 or points < 8 or seed < 0:
        raise InputError(
            f"Got {days} days at {points} points a side and seed {seed}; expected at least 200 "
            "days, 8 points and a seed of 0 or more."
        )
    return stores.open(stores.write(record(days, points, seed), store, overwrite=overwrite))


def record(days: int, grid: int, seed: int = 0) -> xr.Dataset:
    """The record in memory, with its splits."""
    known, rng = law(grid), Streams.of(seed, 1)
    values, vectors = torch.linalg.eigh(known.stationary())
    white = rng.inside("rest").normal(torch.zeros(1, len(values), dtype=torch.float64))
    first = known.fields((white @ (vectors * values.sqrt()).T)[:, None])
    walk = known.frames(Context(past=first), rng)
    field = torch.cat([first[:, :, 0], *islice(walk, days - 1)])[:, 0]
    time = np.datetime64("2000-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D")
    ds = xr.Dataset(
        {"anomaly": (("time", "y", "x"), field.numpy().astype(np.float32),
                     {"units": "1", "long_name": "anomaly"})},
        {"time": ("time", time, {"standard_name": "time", "axis": "T"}),
         **generate.square(grid, centres=True)},
        {
            "Conventions": "CF-1.10", "title": "Damped, turning patterns on a square",
            "sciddm_dataset": "ou_modes",
            "sciddm_generator": {"version": 1, "seed": seed, "days": days, "grid": grid},
        },
    )  # fmt: skip
    return split.attach(ds, split.by_order(days, 0.1, 0.1, gap=min(GAP, days // 20)), "time")


def law(grid: int) -> LinearGaussian:
    """The law of the record on ``grid`` points a side, for fields in its units."""
    rows, rank = [], 2 * len(PAIRS)
    step, noise = (torch.zeros(rank, rank, dtype=torch.float64) for _ in range(2))
    basis = cosines(grid, torch.float64)
    for j, (memory, period, variance, *patterns) in enumerate(PAIRS):
        at = slice(2 * j, 2 * j + 2)
        c, s = (f(2 * math.pi / period) * math.exp(-1 / memory) for f in (math.cos, math.sin))
        step[at, at] = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
        # a pattern of unit norm has 1 / grid^2 of its variance at a point, on average
        share = 0.5 * variance * grid**2 * -math.expm1(-2 / memory)
        noise[at, at] = share * torch.eye(2, dtype=torch.float64)
        rows += [torch.outer(basis[m], basis[n]) for m, n in patterns]
    zero = torch.zeros((), dtype=torch.float64)
    return LinearGaussian(torch.stack(rows)[:, None], step[None], noise, zero, 0.0, ROUGH)
