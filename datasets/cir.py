"""Cox-Ingersoll-Ross series: a positive process whose noise grows with its value.

Equation or source
    dY = rate (level - Y) dt + diffusion sqrt(Y) dW with rate 1, level 1.2, diffusion 0.2, and Y(0)
    the absolute value of N(0, 1). Drawn from the exact law of a step, in float64: with
    c = diffusion^2 (1 - exp(-rate d)) / (4 rate), Y(t + d) / c is non-central chi-square with
    4 rate level / diffusion^2 degrees of freedom and non-centrality Y(t) exp(-rate d) / c.
Grid and units
    `value` at times 0, step .. (grid - 1) step, dimensionless and positive, float32, dims (sample,
    time); step 1. Sizes: toy 48 series of 64 times, small 1,000, full 10,000. Series i of a seed is
    the same however many are made, by however many workers.
Splits
    By order: the last 5 % are the test series, the 5 % before them the validation series. Every
    series has its own noise, so no gap is needed.
What is hard
    Not Gaussian: values are positive, and in the long run Gamma(60, scale 0.02), mean 1.2 and
    variance 0.024. The first values are of another law and are forgotten after about five units.
    Values one unit apart are correlated by 0.37 only: little can be forecast, much can be said.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Cox, Ingersoll and Ross, A theory of the term structure of interest rates, Econometrica 53,
    1985, eq. 18-19. The numbers: Bilos et al., Modeling temporal data as continuous functions with
    stochastic process diffusion, ICML 2023.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError

SIZES = {"toy": (48, 64), "small": (1_000, 64), "full": (10_000, 64)}


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    rate: float = 1.0,
    level: float = 1.2,
    diffusion: float = 0.2,
    step: float = 1.0,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid``, the number of
    times, win over ``size``."""
    count, times = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=times, seed=seed,
        numbers={"rate": rate, "level": level, "diffusion": diffusion, "step": step},
        workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int,
    grid: int,
    seed: int = 0,
    start: int = 0,
    rate: float = 1.0,
    level: float = 1.2,
    diffusion: float = 0.2,
    step: float = 1.0,
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    if grid < 2 or not min(rate, level, diffusion, step) > 0:
        raise InputError(
            f"Got grid={grid}, rate={rate}, level={level}, diffusion={diffusion}, step={step}; "
            "expected 2 or more times and positive numbers."
        )
    values = np.stack([
        path(seed, start + i, grid, rate, level, diffusion, step) for i in range(samples)
    ])  # fmt: skip
    time = ("time", step * np.arange(grid), {"units": "1", "standard_name": "time", "axis": "T"})
    return generate.labelled(
        {"value": (("sample", "time"), values.astype(np.float32), {"units": "1"})},
        {"time": time}, name="cir", title="Cox-Ingersoll-Ross series", start=start, seed=seed,
        numbers={
            "grid": grid, "rate": rate, "level": level, "diffusion": diffusion, "step": step,
        },
    )  # fmt: skip


def path(
    seed: int, number: int, grid: int, rate: float, level: float, diffusion: float, step: float
) -> np.ndarray:
    """One series (grid,), float64, its noise addressed by (seed, number)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
    decay = np.exp(-rate * step)
    scale = diffusion**2 * (1 - decay) / (4 * rate)
    freedom = 4 * rate * level / diffusion**2
    out = np.empty(grid)
    out[0] = abs(rng.standard_normal())
    for k in range(1, grid):
        out[k] = scale * rng.noncentral_chisquare(freedom, out[k - 1] * decay / scale)
    return out
