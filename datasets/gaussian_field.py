"""A Gaussian random field of known law: the data set on which every method has an exact answer.

Equation or source
    field = orthonormal 2-D inverse DCT-II of S c(k) xi(k), S the grid size, xi standard normal,
    c(k) = tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2), k = 0 .. S-1 a side, mean mode 0. Zero
    slope at the edges. With alpha 2 and tau 3 it is the coefficient of the Poisson data set, of
    standard deviation 0.2921 (larger at the corners than inside).
Grid and units
    Nodes i / (grid - 1) on both axes as in the PDE data sets, dimensionless, one variable `field`,
    float32, dims (sample, y, x). Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64,
    full 50,000 at 128 x 128 (3.3 GB). Sample i of a seed has the same bytes however many are made.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. The
    samples are independent, so no gap is needed.
What is hard
    Nothing is hidden: denoiser, score, likelihood and every linear posterior are closed form. A
    method that is not calibrated here is not calibrated. With alpha near 1 the field is rough.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Law: Fourier Neural Operator, Li et al., 2020, https://arxiv.org/abs/2010.08895, section 5.2.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.pde.random_field import GaussianField

SIZES = {"toy": (64, 32), "small": (10_000, 64), "full": (50_000, 128)}


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    alpha: float = 2.0,
    tau: float = 3.0,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid`` win over
    ``size``."""
    count, side = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=side, seed=seed,
        numbers={"alpha": alpha, "tau": tau}, workers=workers, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int,
    grid: int,
    seed: int = 0,
    start: int = 0,
    *,
    alpha: float = 2.0,
    tau: float = 3.0,
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    draws = GaussianField(alpha=alpha, tau=tau).draw(samples, grid, seed=seed, start=start)
    field = draws[:, 0].numpy().astype(np.float32)
    return generate.labelled(
        {
            "field": (
                ("sample", "y", "x"), field, {"units": "1", "long_name": "Gaussian random field"}
            ),
        },
        generate.square(grid),
        name="gaussian_field", title="Gaussian random field, cosine spectrum", start=start,
        seed=seed, numbers={"grid": grid, "alpha": alpha, "tau": tau},
    )  # fmt: skip
