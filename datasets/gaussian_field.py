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

import sys
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr

from sciddm.errors import InputError, nearest
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
    GaussianField(alpha=alpha, tau=tau).draw(
        0, side, seed=seed
    )  # refuses bad numbers before any work
    chunk = min(count, max(1, 2**20 // side**2))
    chunks = {"sample": chunk, "y": side, "x": side}
    block = chunk * -(-1000 // chunk)  # whole chunks, so that no two blocks share one
    path = Path(store)
    if count <= block:
        zarr_store.write(
            fields(count, side, seed, alpha=alpha, tau=tau),
            path,
            chunks=chunks,
            overwrite=overwrite,
        )
        return zarr_store.open(path)
    lazy = dask.array.zeros((count, side, side), dtype=np.float32, chunks=(chunk, side, side))
    template = _label(lazy, seed, 0, alpha=alpha, tau=tau)
    zarr_store.create(template, path, chunks=chunks, overwrite=overwrite)
    for start in range(0, count, block):
        stop = min(start + block, count)
        part = fields(stop - start, side, seed, start, alpha=alpha, tau=tau)
        zarr_store.put(path, part, {"sample": slice(start, stop)})
        print(f"gaussian_field: {stop} of {count} samples", file=sys.stderr, flush=True)
    return zarr_store.open(zarr_store.finalize(path))


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
    return _label(field, seed, start, alpha=alpha, tau=tau)


def _label(
    field: np.ndarray | dask.array.Array, seed: int, start: int, *, alpha: float, tau: float
) -> xr.Dataset:
    samples, grid, _ = field.shape
    held = max(1, round(0.05 * samples))
    edges = [0, max(0, samples - 2 * held), max(0, samples - held), samples]
    names = ["train", "validation", "test"]
    dims, nodes = ("sample", "y", "x"), np.linspace(0.0, 1.0, grid)
    return xr.Dataset(
        {"field": (dims, field, {"units": "1", "long_name": "Gaussian random field"})},
        {
            "sample": ("sample", np.arange(start, start + samples), {"long_name": "sample number"}),
            "y": ("y", nodes, {"units": "1", "long_name": "second coordinate", "axis": "Y"}),
            "x": ("x", nodes, {"units": "1", "long_name": "first coordinate", "axis": "X"}),
        },
        {
            "Conventions": "CF-1.10",
            "title": "Gaussian random field, cosine spectrum",
            "sciddm_dataset": "gaussian_field",
            "sciddm_sample_dim": "sample",
            "sciddm_splits": {n: edges[i : i + 2] for i, n in enumerate(names)},
            "sciddm_generator": {
                "version": 1, "seed": seed, "samples": samples, "grid": grid,
                "alpha": alpha, "tau": tau,
            },
        },
    )  # fmt: skip
