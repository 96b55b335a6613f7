"""Kolmogorov flow: a forced, turbulent sheet of fluid, its vorticity now and one time unit later.

Equation or source
    dw/dt + u . grad w = Laplace w / 200 - 4 cos 4y on the torus of side 2 pi, u the flow without
    divergence whose curl is w (a push of sin 4y along x, Reynolds number 200). A periodic Gaussian
    field of spectrum (n^2 + 9)^(-2) and s.d. 3 runs for 5 time units; `initial` is the vorticity
    then and `final` one unit later. Fourier modes, the 2/3 rule on products, fourth-order
    exponential time differences of step 0.5 / grid, in float64.
Grid and units
    Points 2 pi i / grid on both axes, which carry their `period`; everything dimensionless.
    float32, dims (sample, y, x). Sizes: toy 12 samples at 32 x 32, small 10,000 at 64 x 64, full
    50,000 at 128 x 128 (6.6 GB; about 6 s a sample and core). Sample i of a seed has the same
    bytes however many are made, by however many workers. 128 points resolve the flow; a smaller
    grid cuts its fine scales off and is a flow of its own, not a view of the fine one.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. Every
    sample has its own start, so no gap is needed.
What is hard
    The law of `initial` is not Gaussian: vorticity lies in filaments that the flow has stretched.
    One unit is long enough for vortices to change places, so the map from `initial` to `final`
    bends strongly; viscosity takes fine scales that the inverse direction can only draw.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Equation, Reynolds number and times: InverseBench, Zheng et al., 2025,
    https://arxiv.org/abs/2503.11043 (the law of the start is ours).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.pde import Kolmogorov, PeriodicField

SIZES = {"toy": (12, 32), "small": (10_000, 64), "full": (50_000, 128)}
LAW = PeriodicField(alpha=4.0, tau=6.0 * math.pi)
SPREAD, WARM_UP, LEAD = 3.0, 5.0, 1.0


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
    LAW.draw(0, grid, seed=seed, start=start)  # refuses bad numbers before any work
    flow = Kolmogorov(reynolds=200.0, mode=4, amplitude=1.0, step=0.5 / grid)
    flow.torus((grid, grid))
    amplitude = SPREAD / float(LAW.spectrum(256).norm())
    both = np.empty((2, samples, grid, grid), dtype=np.float32)
    for row in range(samples):
        # One by one: a transform may round a sample differently in a batch of another size.
        w = amplitude * LAW.draw(1, grid, seed=seed, start=start + row)
        both[:, row] = flow.trajectory(w, (WARM_UP, WARM_UP + LEAD))[0, 0].numpy()
    dims, points = ("sample", "y", "x"), 2.0 * math.pi * np.arange(grid) / grid
    axis = {"units": "1", "period": 2.0 * math.pi}
    return generate.labelled(
        {
            "initial": (dims, both[0], {"units": "1", "long_name": "vorticity"}),
            "final": (dims, both[1], {"units": "1", "long_name": "vorticity one unit later"}),
        },
        {
            "y": ("y", points, {**axis, "long_name": "second coordinate", "axis": "Y"}),
            "x": ("x", points, {**axis, "long_name": "first coordinate", "axis": "X"}),
        },
        name="kolmogorov", title="Kolmogorov flow, vorticity at two times",
        start=start, seed=seed, numbers={
            "grid": grid, "step": flow.step, "reynolds": flow.reynolds, "mode": flow.mode,
            "spread": SPREAD, "warm_up": WARM_UP, "lead": LEAD, "alpha": LAW.alpha, "tau": LAW.tau,
        },
    )  # fmt: skip
