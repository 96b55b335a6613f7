"""Seasons that slowly change: draws of a periodic Gaussian process, each at times of its own.

Equation or source
    Y ~ GP(0, k), k(s, t) = exp(-2 sin^2(pi |s - t| / period) / roughness^2) exp(-|s - t| / memory)
    with period 12, roughness 1 and memory 48: a cycle whose shape is kept for about four turns.
    Drawn exactly, in float64, from the Cholesky factor of each series' own times. With memory inf
    a cycle never changes. `noise` is the s.d. of white noise on every value.
Grid and units
    `value` at times 0 .. 63, dimensionless, variance 1, float32. Each series has 32 to 96 times,
    drawn evenly over that stretch: CF ragged arrays, dims (obs,) and (item,). `regular` gives all
    of them the times 0, 1 .. 63, dims (item, time). Sizes: toy 48 series, small 1,000, full 10,000.
    Series i of a seed is the same however many are made.
Splits
    By item: the last 10 % are the test series, the 10 % before them the validation series. Every
    series has its own noise, so no gap is needed.
What is hard
    The phase is free and there is no clock: the cycle must be known from its own last turns, at
    times that never come again. A gap of half a turn is not filled by a straight line.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Rasmussen and Williams, Gaussian processes for machine learning, 2006, eq. 4.31. MacKay,
    Introduction to Gaussian processes, 1998, section 5.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate, records
from sciddm.data.items import Item, Items
from sciddm.errors import InputError

SIZES = {"toy": 48, "small": 1_000, "full": 10_000}
POINTS, SPAN, JITTER = 64, 63.0, 1e-9


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    items: int | None = None,
    period: float = 12.0,
    roughness: float = 1.0,
    memory: float = 48.0,
    noise: float = 0.0,
    regular: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``items`` wins over ``size``."""
    count = records.sized(SIZES, size, items)
    records.free(store, overwrite)
    if not (min(period, roughness, memory) > 0 and noise >= 0):
        raise InputError(
            f"Got period={period}, roughness={roughness}, memory={memory}, noise={noise}; expected "
            "positive numbers, noise not below 0."
        )
    numbers = {"period": period, "roughness": roughness, "memory": memory, "noise": noise}
    made = [series(seed, i, regular, **numbers) for i in range(count)]
    return records.save(
        Items(("value",), tuple(made), units={"value": "1"}, time_units="1"), store,
        generate.splits(count, 0.1, 0.1), name="periodic_gp", title="Periodic Gaussian process",
        generator={
            "version": 1, "seed": seed, "items": count, "regular": regular,
            **numbers, "memory": str(memory),
        }, overwrite=overwrite,
    )  # fmt: skip


def series(
    seed: int,
    number: int,
    regular: bool = False,
    period: float = 12.0,
    roughness: float = 1.0,
    memory: float = 48.0,
    noise: float = 0.0,
) -> Item:
    """One series, its noise addressed by (seed, number)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number])))
    count = POINTS if regular else int(rng.integers(POINTS // 2, 3 * POINTS // 2 + 1))
    time = np.arange(float(POINTS)) if regular else np.sort(rng.uniform(0, SPAN, count))
    matrix = covariance(time[:, None], time[None], period, roughness, memory)
    # Whole turns of a cycle that never changes are one value: the root is taken by eigenvalues.
    values, vectors = np.linalg.eigh(matrix + JITTER * np.eye(count))
    root = vectors * np.sqrt(np.maximum(values, 0))
    value = root @ (vectors.T @ rng.standard_normal(count)) + noise * rng.standard_normal(count)
    return Item(f"{number:05d}", time, value[:, None])


def covariance(
    s: np.ndarray,
    t: np.ndarray,
    period: float = 12.0,
    roughness: float = 1.0,
    memory: float = 48.0,
) -> np.ndarray:
    """k(s, t) of times that broadcast."""
    gap = np.abs(s - t)
    return np.asarray(np.exp(-2 * (np.sin(np.pi * gap / period) / roughness) ** 2 - gap / memory))
