"""Poisson's equation with a Gaussian random source: the linear benchmark with an exact posterior.

Equation or source
    Laplace u = a on the unit square, u = 0 on the edge. The source a (`coefficient`) is a Gaussian
    random field with spectrum 3 (pi^2 |k|^2 + 9)^(-1), cosine modes, mean mode removed; u
    (`solution`) solves the five-point scheme exactly, computed in float64. At 128 x 128 the
    standard deviations are 0.2921 and 0.00418; the published data have 0.29195 and 0.0041748.
Grid and units
    Nodes i / (grid - 1) on both axes, everything dimensionless. float32, dims (sample, y, x).
    Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64, full 50,000 at 128 x 128 (6.6 GB).
    Sample i of a seed has the same bytes however many are made, by however many workers.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. The
    samples are independent, so no gap is needed.
What is hard
    Inverse direction: u is far smoother than a, so 500 exact values of u leave 5.5 % of a unknown
    (the error of the exact posterior mean) and 1 % noise makes it 11 %. Forward, the limit is
    1.5 %. Both posteriors are Gaussian and closed form: check the spread, not only the mean.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Problem and law: DiffusionPDE, Huang et al., 2024, https://arxiv.org/abs/2406.17763.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.pde.elliptic import Poisson
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
    field, solve = GaussianField(alpha=2.0, tau=3.0), Poisson()
    for row in range(samples):
        # One by one: a matrix product may round a sample differently in a batch of another size.
        a = field.draw(1, grid, seed=seed, start=start + row)
        coefficient[row] = a[0, 0].numpy()
        solution[row] = solve(a)[0, 0].numpy()
    dims = ("sample", "y", "x")
    return generate.labelled(
        {
            "coefficient": (dims, coefficient, {"units": "1", "long_name": "source term a"}),
            "solution": (dims, solution, {"units": "1", "long_name": "solution u"}),
        },
        generate.square(grid),
        name="poisson", title="Poisson's equation with a Gaussian random source",
        start=start, seed=seed, numbers={"grid": grid, "alpha": 2.0, "tau": 3.0},
    )  # fmt: skip
