"""Five sines of random frequency and phase: the smallest set to generate series from.

Equation or source
    x_c(j) = (sin(f_c j + p_c) + 1) / 2 for steps j = 0 .. 23 and channels c = 1 .. 5, each with its
    own frequency f and phase p, even on [0, 0.1].
Grid and units
    `s1` .. `s5`, dimensionless, within [0, 1], float32, dims (sample, time), 24 steps of 1. Sizes:
    toy 48 series, small 1,000, full 10,000. Series i of a seed is the same however many are made,
    by however many workers.
Splits
    By order: the last 5 % are the test series, the 5 % before them the validation series. Every
    series has its own numbers, so no gap is needed.
What is hard
    Hardly anything, which is why it is used: each channel has two unknowns, and after two exact
    values the rest is known. A model that copies training series scores well in most published
    measures: look at the distance to the nearest one too.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    Yoon, Jarrett and van der Schaar, Time-series generative adversarial networks, NeurIPS 2019.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError

SIZES = {"toy": (48, 24), "small": (1_000, 24), "full": (10_000, 24)}
CHANNELS = 5


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    highest: float = 0.1,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the data set to the zarr ``store`` and open it; ``samples`` and ``grid``, the number of
    steps, win over ``size``. ``highest`` bounds frequency and phase."""
    count, times = generate.sized(SIZES, size, samples, grid)
    return generate.make(
        __file__, store, samples=count, grid=times, seed=seed, numbers={"highest": highest},
        workers=workers, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def fields(
    samples: int, grid: int, seed: int = 0, start: int = 0, highest: float = 0.1
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    if grid < 2 or not 0 < highest < np.inf:
        raise InputError(
            f"Got grid={grid} and highest={highest}; expected 2 or more steps, a positive number."
        )
    draws = np.stack([
        np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, start + i]))).uniform(
            0, highest, (2, CHANNELS)
        )
        for i in range(samples)
    ])  # fmt: skip
    steps = np.arange(grid)
    waves = np.sin(draws[:, 0, :, None] * steps + draws[:, 1, :, None])
    values = ((waves + 1) / 2).astype(np.float32)
    return generate.labelled(
        {
            f"s{c + 1}": (("sample", "time"), values[:, c], {"units": "1"})
            for c in range(CHANNELS)
        },
        {
            "time": (
                "time", steps.astype(np.float64),
                {"units": "1", "standard_name": "time", "axis": "T"},
            )
        },
        name="sines", title="Five sines", start=start, seed=seed,
        numbers={"grid": grid, "highest": highest},
    )  # fmt: skip
