"""Integrals of gridded fields that are multilinear between their points, as weights of the points.

References
----------
Stoer, Bulirsch. Introduction to numerical analysis. 2002, section 3.6 (Gauss' rule of n points is
exact for polynomials of degree 2 n - 1).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.special import ndtr

from sciddm.data.codec import Grid


@cache
def gauss(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and shares of Gauss' rule on [0, 1]."""
    nodes, shares = np.polynomial.legendre.leggauss(n)
    return 0.5 * (nodes + 1), 0.5 * shares


def cuts(grid: Grid, dims: Sequence[str], a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where on the way from ``a`` (0) to ``b`` (1) the planes of the grid are crossed, both ends
    included."""
    found = [np.array([0.0, 1.0])]
    for dim, first, last in zip(dims, a, b, strict=True):
        planes, period = grid.coords[dim], grid.period(dim)
        if period is not None:
            turns = np.arange(*np.floor((np.sort([first, last]) - planes[0]) / period) + [0, 1])
            planes = (planes + period * turns[:, None]).ravel()
        if first != last:
            found.append((planes - first) / (last - first))
    every = np.unique(np.concatenate(found))
    return every[(every >= 0) & (every <= 1)]


def along(
    grid: Grid, dims: Sequence[str], a: np.ndarray, b: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes (m, D) on the way from ``a`` to ``b`` and their shares of it, which sum to 1."""
    crossed = cuts(grid, dims, a, b)
    length, (node, share) = np.diff(crossed)[:, None], gauss(3)
    s = (crossed[:-1, None] + node * length).ravel()
    return a + s[:, None] * (b - a), (share * length).ravel()


def spread(
    grid: Grid, dims: Sequence[str], out: np.ndarray, nodes: np.ndarray, weight: np.ndarray
) -> None:
    """Add to ``out`` the multilinear interpolation to ``nodes`` (m, D), each with its weight."""
    low, share = [], []
    for d, dim in enumerate(dims):
        size, around = len(grid.coords[dim]), grid.period(dim) is not None
        at = grid.position(dim, nodes[:, d])
        at = at if around else at.clip(0, size - 1)
        floor = np.minimum(np.floor(at), size - 1 if around else max(0, size - 2)).astype(int)
        low.append(floor)
        share.append(at - floor)
    for corner in itertools.product((0, 1), repeat=len(dims)):
        part, index = weight, []
        for d, step in enumerate(corner):
            part = part * (share[d] if step else 1 - share[d])
            index.append((low[d] + step) % out.shape[d])
        np.add.at(out, tuple(index), part)


def bell(grid: Grid, dim: str, centre: np.ndarray, sigma: float) -> np.ndarray:
    """Integrals (n, size) of a normal density times the hat of every grid point, closed form."""
    axis, period = grid.coords[dim], grid.period(dim)
    rising = axis if axis[0] <= axis[-1] else axis[::-1]
    closed = rising if period is None else np.append(rising, rising[0] + period)
    out = np.zeros((len(centre), len(closed)))
    for turn in (0.0,) if period is None else (-period, 0.0, period):
        z = (closed - centre[:, None] - turn) / sigma
        mass = np.diff(ndtr(z), axis=1)
        first = -sigma * np.diff(np.exp(-0.5 * z**2), axis=1) / math.sqrt(2 * math.pi)
        step = np.diff(closed)
        # of c - c_low, in units of the step, under the density
        share = (first + (centre[:, None] + turn - closed[:-1]) * mass) / step
        out[:, 1:] += share
        out[:, :-1] += mass - share
    if period is not None:
        out[:, 0] += out[:, -1]
        out = out[:, :-1]
    return out if axis[0] <= axis[-1] else out[:, ::-1]
