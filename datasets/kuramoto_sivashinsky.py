"""The Kuramoto-Sivashinsky equation: cells that merge and split for ever, in space and time.

Equation or source
    u_t + u u_x + u_xx + u_xxxx = 0 on the circle 0 <= x < 64. The start is a sum of ten sines with
    amplitude U(-1/2, 1/2), one or two waves round the circle and a phase U(0, 2 pi); after 75 time
    units the field has forgotten it, and 32 records 0.8 apart follow. Fourier modes on 128 points
    or more, of which every second is kept below 128, the 2/3 rule on the product, fourth-order
    exponential time differences of step 0.1, in float64.
Grid and units
    `velocity` at x = 64 i / grid and times 0, 0.8, .. 24.8, dimensionless. float32, dims (sample,
    time, x); x carries its `period`, 64. Sizes: toy 48 samples at 64 points, small 10,000 at 64,
    full 50,000 at 128. Sample i of a seed has the same bytes however many are made, by however many
    workers.
Splits
    By order: the last 5 % are the test samples, the 5 % before them the validation samples. Every
    sample has its own start, so no gap is needed.
What is hard
    Chaos: errors grow by e in about 10 time units. Runs with steps of 0.1 and 0.05 differ by 2e-4
    after 20 units and by 15 % or more after 100: the law is that of the attractor, not of the step.
    Records settle those after them, less and less; the mean of what may follow goes flat.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Length, start and spacing: Lie Point Symmetry Data Augmentation for Neural PDE Solvers,
    Brandstetter, Welling and Worrall, 2022, https://arxiv.org/abs/2202.07643 (there both length
    and final time vary by 10 %). PDE-Refiner, Lippe et al., 2023, https://arxiv.org/abs/2308.05732.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciddm.data import generate
from sciddm.pde import KuramotoSivashinsky, PeriodicField

SIZES = {"toy": (48, 64), "small": (10_000, 64), "full": (50_000, 128)}
FLOW = KuramotoSivashinsky(length=64.0, step=0.1)
WARM_UP, RECORDS, SPACING = 75.0, 32, 0.8
TOGETHER = 16


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
    count, points = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=points, seed=seed,
        workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(samples: int, grid: int, seed: int = 0, start: int = 0) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    PeriodicField(axes=1).draw(0, grid, seed=seed, start=start)  # refuses bad numbers
    FLOW.torus((grid,))
    ratio = 1 if grid >= 128 else 2
    times = SPACING * np.arange(RECORDS)
    velocity = np.empty((samples, RECORDS, grid), dtype=np.float32)
    for first in range(start - start % TOGETHER, start + samples, TOGETHER):
        # Always the same rows together: a transform may round a sample differently among others.
        begun = torch.stack([sines(ratio * grid, seed, first + i) for i in range(TOGETHER)])
        u = FLOW.trajectory(begun[:, None], (WARM_UP + times).tolist())[:, 0, :, ::ratio]
        low, high = max(first, start), min(first + TOGETHER, start + samples)
        velocity[low - start : high - start] = u[low - first : high - first].numpy()
    x = {"units": "1", "long_name": "position", "axis": "X", "period": FLOW.length}
    return generate.labelled(
        {"velocity": (("sample", "time", "x"), velocity, {"units": "1", "long_name": "u"})},
        {
            "time": ("time", times, {"units": "1", "long_name": "time", "axis": "T"}),
            "x": ("x", FLOW.length * np.arange(grid) / grid, x),
        },
        name="kuramoto_sivashinsky", title="Kuramoto-Sivashinsky equation, space and time",
        start=start, seed=seed, numbers={
            "grid": grid, "length": FLOW.length, "step": FLOW.step, "warm_up": WARM_UP,
            "records": RECORDS, "spacing": SPACING,
        },
    )  # fmt: skip


def sines(points: int, seed: int, index: int) -> Tensor:
    """The start of one sample, float64 ``(points,)``, from noise addressed by (seed, index)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    amplitude, phase = rng.uniform(-0.5, 0.5, 10), rng.uniform(0.0, 2.0 * math.pi, 10)
    waves = rng.integers(1, 3, 10)
    x = 2.0 * math.pi * np.arange(points) / points
    return torch.from_numpy((amplitude * np.sin(waves * x[:, None] + phase)).sum(1))
