"""Distances between grid points, for covariances that fade with distance."""

from __future__ import annotations

import numpy as np

from sciddm.data.codec import Grid
from sciddm.data.schema import find

EARTH = 6371.0
"""Mean radius, km."""


def distances(grid: Grid) -> np.ndarray:
    """Distance between every two grid points, (points, points), in memory order of the grid.

    Great-circle kilometres where the grid has a latitude and a longitude, else Euclidean in the
    units of the coordinates.
    """
    mesh = np.meshgrid(*[grid.coords[d] for d in grid.dims], indexing="ij")
    flat = {d: m.ravel() for d, m in zip(grid.dims, mesh, strict=True)}
    template = grid.template()
    lat, lon = find(template, "latitude"), find(template, "longitude")
    if lat in flat and lon in flat and lat is not None and lon is not None:
        return great_circle(flat[lat], flat[lon])
    position = np.stack(list(flat.values()), axis=1)
    return np.sqrt(((position[:, None] - position[None]) ** 2).sum(-1))


def great_circle(lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Great-circle distance in km between points (n,) in degrees: (n, n), by the haversine."""
    a, b = np.deg2rad(lat), np.deg2rad(lon)
    h = (
        np.sin((a[:, None] - a) / 2) ** 2
        + np.cos(a[:, None]) * np.cos(a) * np.sin((b[:, None] - b) / 2) ** 2
    )
    return 2 * EARTH * np.arcsin(np.sqrt(h.clip(0, 1)))
