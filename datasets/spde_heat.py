"""The heat equation driven by noise: a film whose every forecast has a known Gaussian law.

Equation or source
    u_t = nu u_xx - c u_x - mu u + W on the circle 0 <= x < 2 pi with nu = 0.012, c = 0.25,
    mu = 0.08; W is white in time, of spectral density s^2 / (k^2 + 9) in space with s such that u
    has variance 1 on 64 points. Each Fourier mode is stepped by its own exact law from the
    stationary one, in float64: there is no error in time. `law` in this file makes the exact
    law of every forecast from the attribute `sciddm_generator` of a store.
Grid and units
    `temperature` at x = 2 pi i / grid and times 0, 1, .. 47, dimensionless. float32, dims (sample,
    time, x); x carries its `period`. Sizes: toy 48 films at 64 points, small 4,000 at 64, full
    20,000 at 128. Film i of a seed has the same bytes however many are made.
Splits
    By order: the last 10 % are the test films, the 5 % before them the validation films. Films are
    independent, so no gap is needed.
What is hard
    Nothing is hidden, so nothing is forgiven: correlations over a frame run from 0.92 (the mean)
    through 0.68 (mode 5) to 0 (mode 20 and beyond), those over 20 frames from 0.2 down. Waves are
    carried 2.55 points a frame, so persistence is poor. Fine modes have 1e-5 of the variance.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Lord, Powell and Shardlow, An introduction to computational stochastic PDEs, 2014, chapter 10.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.covariance import PowerLaw
from sciddm.data import generate
from sciddm.forecasters import LinearGaussian
from sciddm.pde import StochasticHeat

SIZES = {"toy": (48, 64), "small": (4_000, 64), "full": (20_000, 128)}
LENGTH, FRAMES, STEP = 2 * math.pi, 48, 1.0
VALIDATION, TEST = 0.05, 0.10


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    diffusivity: float = 0.012,
    speed: float = 0.25,
    damping: float = 0.08,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid`` win over
    ``size``."""
    count, points = generate.sized(SIZES, size, samples, grid)
    numbers = {"diffusivity": diffusivity, "speed": speed, "damping": damping}
    return generate.make(
        __file__, store, samples=count, grid=points, seed=seed, numbers=numbers,
        validation=VALIDATION, test=TEST, workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int,
    grid: int,
    seed: int = 0,
    start: int = 0,
    *,
    diffusivity: float = 0.012,
    speed: float = 0.25,
    damping: float = 0.08,
) -> xr.Dataset:
    """Films ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    unit = StochasticHeat(LENGTH, diffusivity, damping, speed, PowerLaw(1.0, 3.0))
    # of two variances a coefficient, the ends are one each
    power = unit.stationary(64) / 64
    scale = float((2 * power.sum() - power[0] - power[-1]).rsqrt())
    law = StochasticHeat(LENGTH, diffusivity, damping, speed, PowerLaw(1.0, 3.0, scale))
    films = law.films(samples, grid, FRAMES, STEP, seed=seed, start=start)
    x = {"units": "1", "long_name": "position", "axis": "X", "period": LENGTH}
    attrs = {"units": "1", "long_name": "temperature"}
    return generate.labelled(
        {"temperature": (("sample", "time", "x"), films.numpy().astype(np.float32), attrs)},
        {
            "time": ("time", STEP * np.arange(FRAMES), {"units": "1", "axis": "T"}),
            "x": ("x", LENGTH * np.arange(grid) / grid, x),
        },
        name="spde_heat", title="Heat equation driven by noise", start=start, seed=seed,
        validation=VALIDATION, test=TEST, numbers={
            "grid": grid, "length": LENGTH, "step": STEP, "frames": FRAMES,
            "diffusivity": diffusivity, "speed": speed, "damping": damping,
            "noise": {"alpha": 1.0, "tau": 3.0, "scale": scale},
        },
    )  # fmt: skip


def law(ds: xr.Dataset) -> LinearGaussian:
    """The law of a store of this recipe, for fields in its units."""
    said = ds.attrs["sciddm_generator"]
    length, nu, mu, speed = (said[k] for k in ("length", "diffusivity", "damping", "speed"))
    heat = StochasticHeat(length, nu, mu, speed, PowerLaw(**said["noise"]))
    return LinearGaussian.circle(*heat.transition(said["grid"], said["step"]), said["grid"])
