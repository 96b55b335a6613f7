"""Flow round a cylinder in a channel: the speed at two times, with the inflow and body unknown.

Equation or source
    Incompressible Navier-Stokes, viscosity 0.001, in a box of side 1, by volume penalisation in
    Fourier space (`sciddm.pde.ObstacleFlow`): no-slip cylinder, no-slip walls 1/32 thick at the
    lower and upper edge, uniform inflow from the left, a sponge over the last 0.15 before the right
    edge. Inflow speed U(0.5, 3); centre x in U(30, 60) / 128 and y in U(30, 90) / 128; radius
    U(5, 20) / 128, from 2 / grid on. The flow is set off at once; `early` is the speed at 0.4 and
    `late` at 0.8, `body` the solid part, `inflow` the speed of the inflow. Fourth-order
    exponential time differences, step and penalty 0.2 / (grid inflow), in float64.
Grid and units
    Points i / grid on both axes, everything dimensionless. float32, dims (sample, y, x); `inflow`
    (sample). Sizes: toy 8 samples at 32 x 32, small 10,000 at 64 x 64, full 15,000 at 128 x 128
    (about 10 s a sample and core). Sample i of a seed has the same bytes however many are made, by
    however many workers. Boundary layers are one to two points thick at 128: a coarser grid is a
    flow of its own.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. The
    samples are independent, so no gap is needed.
What is hard
    The law is far from Gaussian: exact zeros in the body, sharp layers, a wake whose place is
    settled by a circle that few sensors touch. The last 0.15 of x is the sponge, not physics. The
    start is symmetric and 0.8 is early: wakes are double vortices, not yet vortex streets.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Set-up in the spirit of the bounded flow of DiffusionPDE, Huang et al., 2024,
    https://arxiv.org/abs/2406.17763, turned by a quarter; its generator is not public, the numbers
    differ. Method: Angot, Bruneau and Fabrie, 1999.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.pde import ObstacleFlow, PeriodicField

SIZES = {"toy": (8, 32), "small": (10_000, 64), "full": (15_000, 128)}
TIMES, WALLS = (0.4, 0.8), 1.0 / 16.0


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
    PeriodicField().draw(0, grid, seed=seed, start=start)  # refuses bad numbers before any work
    speeds = np.empty((2, samples, grid, grid), dtype=np.float32)
    body = np.empty_like(speeds[0])
    inflow = np.empty(samples, dtype=np.float32)
    for row in range(samples):
        flow = flow_of(grid, seed, start + row)
        records = flow.trajectory(flow.start((grid, grid)), TIMES)
        speeds[:, row] = flow.speed(records)[0, 0].numpy()
        body[row] = flow.body(flow.torus((grid, grid))).numpy()
        inflow[row] = flow.inflow
    dims, points, axis = ("sample", "y", "x"), np.arange(grid) / grid, {"units": "1"}
    return generate.labelled(
        {
            "early": (dims, speeds[0], {**axis, "long_name": "speed at time 0.4"}),
            "late": (dims, speeds[1], {**axis, "long_name": "speed at time 0.8"}),
            "body": (dims, body, {**axis, "long_name": "solid fraction"}),
            "inflow": (("sample",), inflow, {**axis, "long_name": "speed of the inflow"}),
        },
        {
            "y": ("y", points, {**axis, "long_name": "across the channel", "axis": "Y"}),
            "x": ("x", points, {**axis, "long_name": "along the channel", "axis": "X"}),
        },
        name="obstacle_flow", title="Flow round a cylinder in a channel, speed at two times",
        start=start, seed=seed, numbers={"grid": grid, "viscosity": 1e-3, "walls": WALLS},
    )  # fmt: skip


def flow_of(grid: int, seed: int, index: int) -> ObstacleFlow:
    """The flow of one sample: inflow, centre and radius addressed by (seed, index)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    inflow, x, y, share = rng.uniform([0.5, 30, 30, 0], [3.0, 60, 90, 1])
    least = max(5 / 128, 2 / grid)
    step = 0.2 / (grid * inflow)
    return ObstacleFlow(
        inflow=float(inflow), centre=(y / 128, x / 128), walls=WALLS, viscosity=1e-3, step=step,
        radius=float(least + share * (20 / 128 - least)), penalty=step, time=TIMES[-1],
    )  # fmt: skip
