"""Films of Kolmogorov flow: a turbulent sheet of fluid, frame after frame.

Equation or source
    dw/dt + u . grad w = Laplace w / 100 - w / 10 - 4 cos 4y on the torus of side 2 pi, u the flow
    without divergence whose curl is w (a push of sin 4y along x, viscosity 0.01, drag 0.1). A
    periodic Gaussian field of spectrum (n^2 + 9)^(-2) and s.d. 3 runs for 40 time units; frames
    0.2 apart follow. Fourier modes, the 2/3 rule on products, fourth-order exponential time
    differences of step 0.8 / grid, in float64.
Grid and units
    `vorticity` at points 2 pi i / grid on both axes, which carry their `period`, and at times 0,
    0.2, 0.4, ..; `push` (y, x), the forcing; everything dimensionless. float32, dims (sample, time,
    y, x). Sizes: toy 8 films of 24 frames at 32 x 32, small 64 of 240 at 64 x 64 (250 MB; 8 s a
    film and core), full 1,000 of 240 at 128 x 128 (16 GB). Sample i of a seed has the same bytes
    however many are made, by however many workers.
Splits
    By order: the last 1/8 are the test films, the 1/16 before them the validation films. Every film
    has its own start, so no gap is needed.
What is hard
    Chaos: a small error grows by e in about 12 frames, and a hundredth of the spread reaches
    correlation 0.8 after about 60, so 200 frames are beyond any forecast of the day and ask for the
    climate: the energy and the spectrum. From frame to frame a quarter of the field changes. Power
    falls by 10^4 from the energetic scales to the finest; errors there are invisible, and return.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Viscosity, forcing and drag: APEBench, Koehler et al., 2024, https://arxiv.org/abs/2411.00180
    (there on 160 x 160 with frames 0.1 apart).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.pde import Kolmogorov, PeriodicField

SIZES = {"toy": (8, 32), "small": (64, 64), "full": (1000, 128)}
FRAMES = {"toy": 24, "small": 240, "full": 240}
LAW = PeriodicField(alpha=4.0, tau=6.0 * math.pi)
SPREAD, WARM_UP, SPACING = 3.0, 40.0, 0.2
VALIDATION, TEST = 1 / 16, 1 / 8


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    frames: int | None = None,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples``, ``grid`` and ``frames``
    win over ``size``."""
    count, side = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=side, seed=seed,
        numbers={"frames": FRAMES[size] if frames is None else frames},
        validation=VALIDATION, test=TEST, workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(samples: int, grid: int, seed: int = 0, start: int = 0, frames: int = 240) -> xr.Dataset:
    """Films ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    LAW.draw(0, grid, seed=seed, start=start)  # refuses bad numbers before any work
    flow = Kolmogorov(reynolds=100.0, drag=0.1, mode=4, amplitude=1.0, step=0.8 / grid)
    flow.torus((grid, grid))
    amplitude = SPREAD / float(LAW.spectrum(256).norm())
    times = SPACING * np.arange(frames)
    films = np.empty((samples, frames, grid, grid), dtype=np.float32)
    for row in range(samples):
        # One by one: a transform may round a sample differently in a batch of another size.
        w = amplitude * LAW.draw(1, grid, seed=seed, start=start + row)
        films[row] = flow.trajectory(w, (WARM_UP + times).tolist())[0, 0].numpy()
    points = 2.0 * math.pi * np.arange(grid) / grid
    axis = {"units": "1", "period": 2.0 * math.pi}
    push = np.repeat(-4.0 * np.cos(4.0 * points)[:, None], grid, axis=1).astype(np.float32)
    return generate.labelled(
        {
            "vorticity": (
                ("sample", "time", "y", "x"), films, {"units": "1", "long_name": "vorticity"}
            )
        },
        {
            "time": ("time", times, {"units": "1", "long_name": "time", "axis": "T"}),
            "y": ("y", points, {**axis, "long_name": "second coordinate", "axis": "Y"}),
            "x": ("x", points, {**axis, "long_name": "first coordinate", "axis": "X"}),
            "push": (("y", "x"), push, {"units": "1", "long_name": "forcing of the vorticity"}),
        },
        name="kolmogorov_film", title="Films of Kolmogorov flow, vorticity",
        start=start, seed=seed, validation=VALIDATION, test=TEST, numbers={
            "grid": grid, "frames": frames, "spacing": SPACING, "step": flow.step,
            "reynolds": flow.reynolds, "drag": flow.drag, "mode": flow.mode, "spread": SPREAD,
            "warm_up": WARM_UP, "alpha": LAW.alpha, "tau": LAW.tau,
        },
    )  # fmt: skip
