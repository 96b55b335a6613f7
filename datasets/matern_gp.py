"""Draws of a Gaussian process with a Matern covariance, each at irregular times of its own.

Equation or source
    Y ~ GP(0, k), k(s, t) = (1 + r) exp(-r), r = sqrt(3) |s - t| / length, length 8: the Matern
    covariance of smoothness 3/2; `smoothness` 0.5, 1.5 and 2.5 are closed forms too, and inf is the
    squared exponential exp(-|s - t|^2 / (2 length^2)). Drawn exactly, in float64, from the Cholesky
    factor of each series' own times. `noise` is the s.d. of white noise on every value.
Grid and units
    `value` at times 0 .. 63, dimensionless, variance 1, float32. Each series has 32 to 96 times,
    drawn evenly over that stretch: CF ragged arrays, dims (obs,) and (item,). With `poisson` the
    number of times is Poisson of mean 8 within 5 .. 50 and the times lie in [0, 1]: with smoothness
    inf and length 0.158, exp(-d^2 / 0.05), the task of neural processes. Sizes: toy 48 series,
    small 1,000, full 10,000. Series i of a seed is the same however many are made.
Splits
    By item: the last 10 % are the test series, the 10 % before them the validation series. Every
    series has its own noise, so no gap is needed.
What is hard
    Smooth values at times nearly equal: covariances close to singular. Nothing is hidden from a
    model that knows the covariance, so the exact posterior is the floor of every score.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Rasmussen and Williams, Gaussian processes for machine learning, 2006, eq. 4.14-4.17. The task
    of neural processes: Bilos et al., Modeling temporal data as continuous functions with
    stochastic process diffusion, ICML 2023.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate, records
from sciddm.data.items import Item, Items
from sciddm.errors import InputError

SIZES = {"toy": 48, "small": 1_000, "full": 10_000}
POINTS, SPAN, FEW, JITTER = 64, 63.0, (5, 8, 50), 1e-9
SMOOTH = (0.5, 1.5, 2.5, math.inf)


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    items: int | None = None,
    smoothness: float = 1.5,
    length: float = 8.0,
    noise: float = 0.0,
    poisson: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``items`` wins over ``size``.
    ``length`` is in the unit of the times."""
    count = records.sized(SIZES, size, items)
    records.free(store, overwrite)
    if smoothness not in SMOOTH or not length > 0 or not noise >= 0:
        raise InputError(
            f"Got smoothness={smoothness}, length={length}, noise={noise}; expected a smoothness "
            f"of {SMOOTH}, a positive length and noise not below 0."
        )
    made = [series(seed, i, smoothness, length, noise, poisson) for i in range(count)]
    return records.save(
        Items(("value",), tuple(made), units={"value": "1"}, time_units="1"), store,
        generate.splits(count, 0.1, 0.1), name="matern_gp",
        title="Gaussian process of Matern covariance",
        generator={
            "version": 1, "seed": seed, "items": count, "smoothness": str(smoothness),
            "length": length, "noise": noise, "poisson": poisson,
        }, overwrite=overwrite,
    )  # fmt: skip


def series(
    seed: int,
    number: int,
    smoothness: float = 1.5,
    length: float = 8.0,
    noise: float = 0.0,
    poisson: bool = False,
) -> Item:
    """One series, its noise addressed by (seed, number)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
    if poisson:
        count = min(max(int(rng.poisson(FEW[1])), FEW[0]), FEW[2])
        time = np.sort(rng.uniform(0, 1, count))
    else:
        count = int(rng.integers(POINTS // 2, 3 * POINTS // 2 + 1))
        time = np.sort(rng.uniform(0, SPAN, count))
    matrix = covariance(time[:, None], time[None], smoothness, length)
    factor = np.linalg.cholesky(matrix + JITTER * np.eye(count))
    value = factor @ rng.standard_normal(count) + noise * rng.standard_normal(count)
    return Item(f"{number:05d}", time, value[:, None])


def covariance(
    s: np.ndarray, t: np.ndarray, smoothness: float = 1.5, length: float = 8.0
) -> np.ndarray:
    """k(s, t) of times that broadcast."""
    gap = np.abs(s - t) / length
    if math.isinf(smoothness):
        return np.asarray(np.exp(-0.5 * gap**2))
    r = math.sqrt(2 * smoothness) * gap
    power = {0.5: 1.0, 1.5: 1 + r, 2.5: 1 + r + r**2 / 3}[smoothness]
    return np.asarray(power * np.exp(-r))
