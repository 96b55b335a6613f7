"""Burgers' equation between two walls, pushed by a force: the film of both, for control.

Equation or source
    u_t + (u^2 / 2)_x = nu u_xx + f, 0 <= t <= 8, u = 0 at x = 0 and 1, nu = 0.01. The initial field
    is a bump to the right, amplitude 0 .. 2 at 0.2 .. 0.4, and one to the left, -2 .. 0 at
    0.6 .. 0.8, widths 0.05 .. 0.15. The force is eight bumps in space and time (the first always
    there, each other one in half of the samples) of amplitude -1.5 .. 1.5, centres anywhere, widths
    0.1 .. 0.4 in x and in t / 8; every number is uniform. The published text does not say how many
    bumps there are nor in what unit of time their widths are: these two are a choice made here.
    Central differences on half the spacing of 120 points or less, Runge-Kutta of fourth order with
    steps of 0.0011, float64, where the publication has Euler's rule.
Grid and units
    `velocity` and `force` at x = (i + 1) / (grid + 1), zero at the walls outside, and 2 / 3 grid
    times from 0 to 8, all dimensionless. float32, dims (sample, time, x). Sizes: toy 32 samples of
    16 x 24, small 8,000 and full 48,000 of 80 x 120. Sample i of a seed has the same bytes however
    many are made, by however many workers.
Splits
    By order: the last sixth are the test samples (8,000 of 48,000, as published), the 5 % before
    them the validation samples. The samples are independent: no gap is needed.
What is hard
    Shocks form where the bumps meet, and at the walls. Which force makes an end is far from unique.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Problem and law: Wavelet diffusion neural operator, Hu et al., 2025,
    https://arxiv.org/abs/2412.04833.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError

Force = Callable[[float], np.ndarray]
SIZES = {"toy": (32, 24), "small": (8_000, 120), "full": (48_000, 120)}
VALIDATION, TEST = 0.05, 1 / 6
VISCOSITY, END, BUMPS, TOGETHER = 0.01, 8.0, 8, 16


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
        validation=VALIDATION, test=TEST, workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(samples: int, grid: int, seed: int = 0, start: int = 0) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    if grid < 6 or grid % 3 or not 0 <= seed < 2**32 or start < 0:
        raise InputError(
            f"Got grid={grid} and seed={seed}; expected a multiple of 3, 6 or more, so that there "
            "are two times for three points, and a seed from 0 to 2**32 - 1."
        )
    ratio = math.ceil(242 / (grid + 1))
    x = np.arange(1, ratio * (grid + 1)) / (ratio * (grid + 1))
    times = np.linspace(0.0, END, 2 * grid // 3)
    kept = slice(ratio - 1, None, ratio)
    out = np.empty((2, samples, len(times), grid), dtype=np.float32)
    for first in range(start - start % TOGETHER, start + samples, TOGETHER):
        # always the same rows together: a product may round a sample differently among others
        u, force = _draw(range(first, first + TOGETHER), x, seed)
        low, high = max(first, start), min(first + TOGETHER, start + samples)
        rows, mine = slice(low - start, high - start), slice(low - first, high - first)
        for j, time in enumerate(times):
            if j:
                u = _advance(u, force, times[j - 1], time, x[0])
            out[0, rows, j], out[1, rows, j] = u[mine, kept], force(time)[mine, kept]
    dims = ("sample", "time", "x")
    return generate.labelled(
        {
            "velocity": (dims, out[0], {"units": "1", "long_name": "velocity u"}),
            "force": (dims, out[1], {"units": "1", "long_name": "force f"}),
        },
        {
            "time": ("time", times, {"units": "1", "long_name": "time", "axis": "T"}),
            "x": ("x", x[kept], {"units": "1", "long_name": "position", "axis": "X"}),
        },
        name="burgers_forced", title="Burgers' equation between walls under a force",
        start=start, seed=seed, validation=VALIDATION, test=TEST,
        numbers={"grid": grid, "viscosity": VISCOSITY, "end": END},
    )  # fmt: skip


def _draw(index: range, x: np.ndarray, seed: int) -> tuple[np.ndarray, Force]:
    """The initial fields (n, x), and the forces as a function of the time."""
    low = np.array([0.2, 0.0, 0.05, 0.6, -2.0, 0.05])
    high = np.array([0.4, 2.0, 0.15, 0.8, 0.0, 0.15])
    start, bumps = [], []
    for i in index:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, i])))
        start.append(low + (high - low) * rng.random(6))
        unit = rng.random((6, BUMPS))
        there = (unit[5] < 0.5) | (np.arange(BUMPS) == 0)
        size = (3 * unit[0] - 1.5) * there
        bumps.append([size, unit[1], 0.1 + 0.3 * unit[2], unit[3], 0.1 + 0.3 * unit[4]])
    c1, a1, w1, c2, a2, w2 = np.array(start).T[:, :, None]
    u = a1 * np.exp(-0.5 * ((x - c1) / w1) ** 2) + a2 * np.exp(-0.5 * ((x - c2) / w2) ** 2)
    a, c, w, s, d = np.array(bumps).transpose(1, 0, 2)
    shapes = a[..., None] * np.exp(-0.5 * ((x - c[..., None]) / w[..., None]) ** 2)

    def force(time: float) -> np.ndarray:
        weight = np.exp(-0.5 * ((time / END - s) / d) ** 2)
        return np.asarray((weight[:, None] @ shapes)[:, 0])

    return u, force


def _advance(u: np.ndarray, force: Force, start: float, stop: float, dx: float) -> np.ndarray:
    """Fields (n, x) from one time to another."""
    count = math.ceil((stop - start) / 0.0011)
    h = (stop - start) / count

    v = np.zeros((len(u), u.shape[1] + 2))
    flow = np.empty_like(v)

    def slope(u: np.ndarray, f: np.ndarray) -> np.ndarray:
        v[:, 1:-1] = u
        np.multiply(v, v, out=flow)
        spread = (VISCOSITY / dx**2) * (v[:, 2:] - 2 * u + v[:, :-2])
        return np.asarray(spread - (flow[:, 2:] - flow[:, :-2]) / (4 * dx) + f)

    f0 = force(start)
    for i in range(count):
        f1, f2 = force(start + (i + 0.5) * h), force(start + (i + 1) * h)
        a = slope(u, f0)
        b = slope(u + 0.5 * h * a, f1)
        c = slope(u + 0.5 * h * b, f1)
        u = u + h / 6 * (a + 2 * b + 2 * c + slope(u + h * c, f2))
        f0 = f2
    return u
