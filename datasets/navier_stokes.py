"""Two-dimensional flow on the torus: the vorticity at time 0 and at time 1.

Equation or source
    dw/dt + u . grad w = 0.001 Laplace w + 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)) on the unit
    torus, u the flow without divergence whose curl is w. The vorticity at time 0 (`initial`) is a
    periodic Gaussian random field with spectral density 2 7^3 (|k|^2 + 49)^(-5/2), k angular, mean
    mode removed; the vorticity at time 1 (`final`) is computed in float64 by Fourier modes, the 2/3
    rule on products and fourth-order exponential time differences of step 0.05. At 128 x 128 the
    standard deviations are 0.262 and 0.256; the published data have 0.26211 and 0.25613.
Grid and units
    Points i / grid on both axes, everything dimensionless. float32, dims (sample, x, y): the first
    grid axis is x, as in the published arrays. Both axes carry their `period`, 1.
    Sizes: toy 64 samples at 32 x 32, small 10,000 at 64 x 64, full 50,000 at 128 x 128 (6.6 GB).
    Sample i of a seed has the same bytes however many are made, by however many workers; on two
    grids it is one field, seen up to the highest mode of each.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. The
    samples are independent, so no gap is needed.
What is hard
    Inverse direction: viscosity wipes out what is finer than a twelfth of the side, so 500 exact
    values of `final` leave about 3.3 % of `initial` unknown, and 4.0 % with errors of 1e-4 of its
    rms. Forward, the limit is 2.3 %; interpolating `initial` and solving comes within a few
    hundredths of it. The equation bends: the posterior of `initial` is only nearly Gaussian.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Problem and law: DiffusionPDE, Huang et al., 2024, https://arxiv.org/abs/2406.17763, after
    Fourier Neural Operator, Li et al., 2020, https://arxiv.org/abs/2010.08895 (section 5.3).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sciddm.data import generate
from sciddm.pde import NavierStokes, PeriodicField

SIZES = {"toy": (64, 32), "small": (10_000, 64), "full": (50_000, 128)}
LAW, FLOW = PeriodicField(alpha=2.5, tau=7.0), NavierStokes(viscosity=1e-3, time=1.0, step=0.05)


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
    ``size``. See `sciddm.data.generate.make`."""
    count, side = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__,
        store,
        samples=count,
        grid=side,
        seed=seed,
        workers=workers,
        resume=resume,
        overwrite=overwrite,
    )


def fields(samples: int, grid: int, seed: int = 0, start: int = 0) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    initial = np.empty((samples, grid, grid), dtype=np.float32)
    final = np.empty_like(initial)
    for row in range(samples):
        # One by one: a transform may round a sample differently in a batch of another size.
        w = LAW.draw(1, grid, seed=seed, start=start + row)
        initial[row] = w[0, 0].to(torch.float32).numpy()
        final[row] = FLOW(w)[0, 0].to(torch.float32).numpy()
    dims, points, axis = ("sample", "x", "y"), np.arange(grid) / grid, {"units": "1", "period": 1.0}
    return generate.labelled(
        {
            "initial": (dims, initial, {"units": "1", "long_name": "vorticity at time 0"}),
            "final": (dims, final, {"units": "1", "long_name": "vorticity at time 1"}),
        },
        {
            "x": ("x", points, {**axis, "long_name": "first coordinate", "axis": "X"}),
            "y": ("y", points, {**axis, "long_name": "second coordinate", "axis": "Y"}),
        },
        name="navier_stokes",
        title="Two-dimensional flow on the torus, vorticity at two times",
        start=start,
        seed=seed,
        numbers={
            "grid": grid,
            "alpha": LAW.alpha,
            "tau": LAW.tau,
            "viscosity": FLOW.viscosity,
            "time": FLOW.time,
            "step": FLOW.step,
        },
    )
