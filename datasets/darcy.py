"""Darcy flow through a two-phase medium, clean variant: a thresholded field, solved exactly.

Equation or source
    -div(a grad u) = 1 on the unit square, u = 0 on the edge. The coefficient a (`coefficient`) is
    12 where a Gaussian random field with spectrum 3 (pi^2 |k|^2 + 9)^(-1) is >= 0 and 3 elsewhere;
    u (`solution`) solves the conservative five-point scheme with harmonic face means by a direct
    method in float64. This is not the published file: there a spline between two grids drives a
    negative in 9 of 10 samples and u to -0.287 .. 0.118. Here the maximum principle holds,
    0 <= u <= 0.0246. Never mix the two.
Grid and units
    Nodes i / (grid - 1) on both axes, everything dimensionless. float32, dims (sample, y, x).
    Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64, full 50,000 at 128 x 128 (6.6 GB).
    Sample i of a seed has the same bytes however many are made, by however many workers.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. The
    samples are independent, so no gap is needed.
What is hard
    The coefficient is binary and the map from a to u is not linear: a Gaussian posterior is a
    baseline, not the truth. From 500 of 128 x 128 values of a, filling in the nearest value and
    solving gives u to 2.3 %. The inverse direction is scored as the fraction of wrong cells.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Problem and law: DiffusionPDE, Huang et al., 2024, https://arxiv.org/abs/2406.17763.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciddm.data import generate
from sciddm.pde.elliptic import Darcy
from sciddm.pde.random_field import GaussianField

SIZES = {"toy": (64, 32), "small": (10_000, 64), "full": (50_000, 128)}


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid`` win over
    ``size``."""
    count, side = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=side, seed=seed,
        workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(samples: int, grid: int, seed: int = 0, start: int = 0) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    coefficient = np.empty((samples, grid, grid), dtype=np.float32)
    solution = np.empty_like(coefficient)
    field, solve = GaussianField(alpha=2.0, tau=3.0), Darcy()
    for row in range(samples):
        phase = field.draw(1, grid, seed=seed, start=start + row)
        a = torch.where(phase >= 0.0, 12.0, 3.0).to(torch.float64)
        coefficient[row] = a[0, 0].numpy()
        solution[row] = solve(a)[0, 0].numpy()
    dims = ("sample", "y", "x")
    return generate.labelled(
        {
            "coefficient": (dims, coefficient, {"units": "1", "long_name": "coefficient a"}),
            "solution": (dims, solution, {"units": "1", "long_name": "solution u"}),
        },
        generate.square(grid),
        name="darcy", title="Darcy flow through a two-phase medium, harmonic face means",
        start=start, seed=seed, numbers={
            "grid": grid, "alpha": 2.0, "tau": 3.0, "high": 12.0, "low": 3.0, "threshold": 0.0,
            "source": 1.0,
        },
    )  # fmt: skip
