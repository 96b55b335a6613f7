"""Baselines without a model: what a scientist would try first."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.interpolate import RBFInterpolator


def thin_plate(
    points: xr.DataArray, template: xr.DataArray, *, edge: float | None = None
) -> xr.DataArray:
    """Scattered values interpolated to a grid by thin plates.

    Parameters
    ----------
    points : values along one dim, with a coordinate for every dim of ``template``.
    template : a field whose dims and coordinates are wanted.
    edge : the known value on the boundary of the grid (a Dirichlet condition), or None.

    Returns a DataArray like ``template``, with the name of ``points``. Duchon, Splines minimizing
    rotation-invariant semi-norms in Sobolev spaces, 1977.
    """
    dims = [str(d) for d in template.dims]
    axes = np.meshgrid(*[template[d].values for d in dims], indexing="ij")
    mesh = np.stack([a.ravel() for a in axes], axis=1)
    where = np.stack([np.asarray(points[d].values, float) for d in dims], axis=1)
    values = np.asarray(points.values, float)
    if edge is not None:
        low, high = mesh.min(0), mesh.max(0)
        inside = ~((where == low) | (where == high)).any(1)
        ring = mesh[((mesh == low) | (mesh == high)).any(1)]
        where = np.concatenate([where[inside], ring])
        values = np.concatenate([values[inside], np.full(len(ring), edge)])
    where, first = np.unique(where, axis=0, return_index=True)
    smooth = RBFInterpolator(where, values[first], smoothing=1e-9)(mesh)
    return template.copy(data=smooth.reshape(template.shape)).rename(points.name)
