"""Darcy flow as in the published benchmark: its generator's splines, and their defects, kept.

Equation or source
    -div(a grad u) = 1 on the unit square, u = 0 on the edge. The coefficient a (`coefficient`) is
    12 where the field of `gaussian_field` is >= 0 and 3 elsewhere, at the cell centres. A cubic
    spline with not-a-knot ends takes it to the nodes i / (grid - 1), extrapolated half a cell at
    the edge; there the five-point scheme with arithmetic face means is solved directly in float64;
    a second spline takes u (`solution`) back to the centres.
    Known defects, all of the published file too. The spline overshoots the jumps: of 300 samples at
    128 x 128, 90 % have a negative nodal coefficient (48 % away from the edge; -32 to 43 in all)
    and 30 % a negative face, so the equation is not elliptic there. u falls below 0 in 6 % of them
    (-0.005 at worst; the published 50,000 reach -0.287 and 0.118), where the maximum principle
    gives 0 <= u <= 0.0246. Against the same coefficients solved properly (`datasets/darcy.py`, on
    nodes) u is 1.6 % off, value by value. Never mix the two sets.
Grid and units
    Cell centres (i + 1/2) / grid on both axes, everything dimensionless. float32, dims
    (sample, y, x). Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64, full 50,000 at
    128 x 128 (6.6 GB). Sample i of a seed has the same bytes however many are made, by however
    many workers; its coefficient is that of the clean set.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. The
    samples are independent, so no gap is needed.
What is hard
    The coefficient is binary, the map to u is not linear, and an outlier of u is an error of the
    generator, not of physics. From 500 of 128 x 128 values of a the best mean of u errs 2.2 %.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Problem and law: DiffusionPDE, Huang et al., 2024, https://arxiv.org/abs/2406.17763, after
    Fourier Neural Operator, Li et al., 2020, https://arxiv.org/abs/2010.08895.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciddm.data import generate
from sciddm.pde.darcy_spline import DarcySpline
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
    field, solve = GaussianField(alpha=2.0, tau=3.0), DarcySpline()
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
        generate.square(grid, centres=True),
        name="darcy_benchmark", title="Two-phase Darcy flow with the published splines",
        start=start, seed=seed, numbers={
            "grid": grid, "alpha": 2.0, "tau": 3.0, "high": 12.0, "low": 3.0, "threshold": 0.0,
            "source": 1.0,
        },
    )  # fmt: skip
