"""Ornstein-Uhlenbeck series with a rising mean, each at irregular times of its own.

Equation or source
    dY = (0.02 t - 0.1 Y) dt + 0.4 dW, Y(0) ~ N(0, 1): pulled towards a line that rises. Drawn from
    the exact law between any two times, in float64: Y(t) given Y(s) is normal with the mean
    m(t) + exp(-0.1 (t - s)) (Y(s) - m(s)) and the variance 0.8 (1 - exp(-0.2 (t - s))), where
    m(t) = 0.2 t - 2 (1 - exp(-0.1 t)). `start` is the s.d. of Y(0).
Grid and units
    `value` at times 0 .. 63, dimensionless, float32. Each series has 32 to 96 times, drawn evenly
    over that stretch: CF ragged arrays, dims (obs,) and (item,). `regular` gives all of them the
    times 0, 1 .. 63, dims (item, time), the published form. Sizes: toy 48 series, small 1,000, full
    10,000. Series i of a seed is the same however many are made.
Splits
    By item: the last 10 % are the test series, the 10 % before them the validation series. Every
    series has its own noise, so no gap is needed.
What is hard
    Not stationary: the mean goes from 0 to 10.6, the variance from 1 to 0.8. A series has no step:
    two times may be nearly one, others lie far apart. Neighbouring values are correlated by 0.9.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Uhlenbeck and Ornstein, On the theory of the Brownian motion, Physical Review 36, 1930. The
    numbers: Bilos et al., Modeling temporal data as continuous functions with stochastic process
    diffusion, ICML 2023.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate, records
from sciddm.data.items import Item, Items
from sciddm.errors import InputError

SIZES = {"toy": 48, "small": 1_000, "full": 10_000}
POINTS, SPAN = 64, 63.0


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    items: int | None = None,
    rate: float = 0.1,
    diffusion: float = 0.4,
    trend: float = 0.02,
    start: float = 1.0,
    regular: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``items`` wins over ``size``. ``trend``
    is the slope of the drift in time; ``start`` the s.d. of the first value, at time 0."""
    count = records.sized(SIZES, size, items)
    records.free(store, overwrite)
    if not (rate > 0 and diffusion >= 0 and start >= 0):
        raise InputError(
            f"Got rate={rate}, diffusion={diffusion}, start={start}; expected a positive rate and "
            "others not below 0."
        )
    numbers = {"rate": rate, "diffusion": diffusion, "trend": trend, "start": start}
    made = [series(seed, i, regular, **numbers) for i in range(count)]
    return records.save(
        Items(("value",), tuple(made), units={"value": "1"}, time_units="1"), store,
        generate.splits(count, 0.1, 0.1), name="ou", title="Ornstein-Uhlenbeck series", generator={
            "version": 1, "seed": seed, "items": count, "regular": regular, **numbers,
        }, overwrite=overwrite,
    )  # fmt: skip


def series(
    seed: int,
    number: int,
    regular: bool = False,
    rate: float = 0.1,
    diffusion: float = 0.4,
    trend: float = 0.02,
    start: float = 1.0,
) -> Item:
    """One series, its noise addressed by (seed, number)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
    count = POINTS if regular else int(rng.integers(POINTS // 2, 3 * POINTS // 2 + 1))
    time = np.arange(float(POINTS)) if regular else np.sort(rng.uniform(0, SPAN, count))
    decay = np.exp(-rate * np.diff(time, prepend=0.0))
    noise = rng.standard_normal(count) * np.sqrt(diffusion**2 / (2 * rate) * (1 - decay**2))
    away, last = np.empty(count), start * float(rng.standard_normal())
    for k in range(count):
        away[k] = last = decay[k] * last + noise[k]
    return Item(f"{number:05d}", time, (mean(time, rate, trend) + away)[:, None])


def mean(time: np.ndarray, rate: float = 0.1, trend: float = 0.02) -> np.ndarray:
    """E[Y(t)]; 0.2 t - 2 (1 - exp(-0.1 t)) with the numbers of this set."""
    return np.asarray(trend / rate * (time - (1 - np.exp(-rate * time)) / rate))


def covariance(
    s: np.ndarray, t: np.ndarray, rate: float = 0.1, diffusion: float = 0.4, start: float = 1.0
) -> np.ndarray:
    """Cov[Y(s), Y(t)] of times that broadcast."""
    still = diffusion**2 / (2 * rate)
    both = np.exp(-rate * (s + t))
    return np.asarray(still * (np.exp(-rate * np.abs(s - t)) - both) + start**2 * both)
