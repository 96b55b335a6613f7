"""A mesh of springs, let go from a crumpled rest: four fields of a lattice, frame after frame.

Equation or source
    10 x 10 particles of mass 1 at the points of a unit lattice; a spring of constant 1 between all
    neighbours, diagonal ones too (342 springs), at rest at the lattice distance, 1 or 2^(1/2):
    dq/dt = p, dp/dt = sum over springs of (rest / length - 1) (q - q_j) - 0.1 p. The row y = 9 is
    fixed. At the start p = 0 and every free particle is moved on its own to a point uniform in the
    area of a ring round its place, radii 0 .. 0.35. Runge-Kutta of fourth order, one step of
    0.00781 a frame, float64: its error over all frames is below 1e-7.
Grid and units
    `p_x`, `p_y`, and `q_x`, `q_y`, which here are displacements from the lattice. Dimensionless,
    float32, dims (sample, time, y, x), the points counted from 0; the coordinate `fixed` is 1 where
    nothing moves. 805 frames up to 2 pi; `every` = k keeps frames 0, k, 2 k, .., so that the lead
    step is 0.00781 k. Sizes: toy 8 films of 202 frames, small 38 and full 118 of 805. Sample i of a
    seed has the same bytes however many are made, by however many workers.
Splits
    By order, at full size as published: 100 to train, 3 to choose on, 15 to test. The published
    films beyond the training law are a store of their own: `samples = 15`, `ring = (0.35, 0.45)`
    and another seed.
What is hard
    Nothing is random after the start: what a forecast does not know is what it has not learned.
    The start is white in space, so waves of all lengths cross the mesh, and the map is not linear.
Licence
    Made by this file, which carries the licence of the repository. No third-party data.
Cite
    The mesh: Otness et al., NeurIPS Datasets and Benchmarks, https://arxiv.org/abs/2108.07799. The
    task: DYffusion, Cachay et al., NeurIPS 2023, https://arxiv.org/abs/2306.01984.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import generate
from sciddm.errors import InputError

SIZES = {"toy": (8, 10), "small": (38, 10), "full": (118, 10)}
FRAMES = {"toy": 202, "small": 805, "full": 805}
STEP, DAMPING, NEIGHBOURS = 0.00781, 0.1, ((0, 1), (1, 0), (1, 1), (1, -1))
NAMES = {
    "p_x": "momentum along x", "p_y": "momentum along y",
    "q_x": "displacement along x", "q_y": "displacement along y",
}  # fmt: skip
VALIDATION, TEST = 3 / 118, 15 / 118


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    samples: int | None = None,
    grid: int | None = None,
    frames: int | None = None,
    every: int = 1,
    ring: tuple[float, float] = (0.0, 0.35),
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the zarr ``store`` and open it; ``samples``, ``grid``, ``frames`` win over ``size``."""
    count, side = generate.sized(SIZES, size, samples, grid)
    numbers = {"frames": frames or FRAMES[size], "every": every, "ring": list(ring)}
    return generate.make(
        __file__, store, samples=count, grid=side, seed=seed, numbers=numbers,
        workers=workers, resume=resume, overwrite=overwrite, validation=VALIDATION, test=TEST,
    )  # fmt: skip


def fields(
    samples: int,
    grid: int,
    seed: int = 0,
    start: int = 0,
    frames: int = 805,
    every: int = 1,
    ring: tuple[float, float] = (0.0, 0.35),
) -> xr.Dataset:
    """Samples ``start .. start + samples - 1`` of the seed in memory, split by their order."""
    inner, outer = ring
    if min(samples, seed + 1, start + 1, grid - 1, frames, every) < 1 or not 0 <= inner < outer:
        raise InputError(
            f"Got samples {samples}, grid {grid}, seed {seed}, frames {frames}, every {every}, "
            f"ring {inner} .. {outer}; expected positive numbers, rising radii, 2 points a side."
        )
    state = np.stack([begun(grid, seed, start + row, inner, outer) for row in range(samples)])
    film = []
    for frame in range(1 + (frames - 1) // every * every):
        if frame % every == 0:
            film.append(state.astype(np.float32))
        state = advanced(state, STEP)
    values = np.moveaxis(np.stack(film, 1), 2, 0)
    dims, axis, points = ("sample", "time", "y", "x"), {"units": "1"}, np.arange(float(grid))
    fixed = (points[:, None] + 0 * points == grid - 1).astype(np.float32)
    return generate.labelled(
        {n: (dims, values[k], {**axis, "long_name": s}) for k, (n, s) in enumerate(NAMES.items())},
        {
            "time": ("time", STEP * (every * np.arange(len(film))), {**axis, "axis": "T"}),
            "y": ("y", points, {**axis, "long_name": "row of the mesh", "axis": "Y"}),
            "x": ("x", points, {**axis, "long_name": "column of the mesh", "axis": "X"}),
            "fixed": (("y", "x"), fixed, {**axis, "long_name": "held in place"}),
        },
        name="spring_mesh", title="A damped mesh of springs", start=start, seed=seed, numbers={
            "grid": grid, "frames": frames, "every": every, "ring": list(ring), "step": STEP,
            "damping": DAMPING,
        }, validation=VALIDATION, test=TEST,
    )  # fmt: skip


def begun(grid: int, seed: int, index: int, inner: float, outer: float) -> np.ndarray:
    """The start of one sample, (4, y, x): p_x, p_y, q_x, q_y, addressed by (seed, index)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    angle, share = rng.uniform(size=(2, grid, grid))
    radius = np.sqrt(inner**2 + share * (outer**2 - inner**2))
    radius[-1] = 0.0
    q = radius * np.cos(2.0 * math.pi * angle), radius * np.sin(2.0 * math.pi * angle)
    return np.stack([0.0 * radius, 0.0 * radius, *q])


def springs(q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Force (B, 2, y, x) and energy (B,) of the springs at displacements ``q`` (B, 2, y, x)."""
    force, energy = np.zeros_like(q), np.zeros(len(q))
    for dy, dx in NEIGHBOURS:
        a = (..., slice(None, q.shape[-2] - dy), slice(max(0, -dx), q.shape[-1] - max(0, dx)))
        b = (..., slice(dy, None), slice(max(0, dx), q.shape[-1] - max(0, -dx)))
        apart = q[b] - q[a] + np.array([dx, dy], dtype=float)[:, None, None]
        length, rest = np.sqrt(apart[:, :1] ** 2 + apart[:, 1:] ** 2), math.hypot(dy, dx)
        pull = (1.0 - rest / length) * apart
        force[a] += pull
        force[b] -= pull
        energy += 0.5 * ((length - rest) ** 2).sum((1, 2, 3))
    return force, energy


def advanced(state: np.ndarray, step: float) -> np.ndarray:
    """``state`` (B, 4, y, x) one ``step`` later."""

    def rate(x: np.ndarray) -> np.ndarray:
        change = np.concatenate([springs(x[:, 2:])[0] - DAMPING * x[:, :2], x[:, :2]], 1)
        change[:, :, -1] = 0.0
        return change

    a = rate(state)
    b = rate(state + step / 2 * a)
    c = rate(state + step / 2 * b)
    return state + step / 6 * (a + 2 * b + 2 * c + rate(state + step * c))
