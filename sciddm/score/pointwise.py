"""Scores of one estimate: the ensemble mean, or a field without ``member`` as it is.

These say how far the estimate is from the truth and nothing about the spread; for that see
:mod:`sciddm.score.probabilistic` and :mod:`sciddm.score.calibration`. Every average is weighted by
cell area where there is a latitude axis, and skips cells that are NaN in both fields.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciddm.errors import InputError
from sciddm.score.weights import MEMBER, Labelled, average, each, finish, label, pair, units


def rmse(ens: Labelled, truth: Labelled, *, over: Sequence[str] | None = None) -> Labelled:
    """Root mean squared error of the ensemble mean, ``sqrt(<(mean_m x_m - y)^2>)``.

    The root is taken after the average over ``over``. For exchangeable members of variance
    ``s^2`` about the truth's mean its square is ``(1 + 1/M) s^2``: more members help, a little.

    Args:
        ens: ``(member, *dims)``, or ``(*dims)`` for a single estimate.
        truth: ``(*dims)``, the same points in any order.
        over: Dims to average over; all but ``member`` by default, ``()`` for none.

    Returns:
        The remaining dims, in the units of the field.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        error, members = _error(e, t)
        result = average(error**2, over)
        root = (result**0.5).assign_attrs(result.attrs)
        return finish(root, f"root mean square, {_whose(members)}", members, units(e))

    return each(score, ens, truth)


def mae(ens: Labelled, truth: Labelled, *, over: Sequence[str] | None = None) -> Labelled:
    """Mean absolute error of the ensemble mean, ``<|mean_m x_m - y|>``; as :func:`rmse`."""

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        error, members = _error(e, t)
        result = average(abs(error), over)
        return finish(result, f"mean absolute, {_whose(members)}", members, units(e))

    return each(score, ens, truth)


def bias(ens: Labelled, truth: Labelled, *, over: Sequence[str] | None = None) -> Labelled:
    """Mean error of the ensemble mean, ``<mean_m x_m - y>``; positive is too high."""

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        error, members = _error(e, t)
        return finish(average(error, over), f"mean error, {_whose(members)}", members, units(e))

    return each(score, ens, truth)


def relative_error(
    ens: Labelled, truth: Labelled, *, over: Sequence[str] | None = None
) -> Labelled:
    """Relative L2 error of the ensemble mean, ``||mean_m x_m - y|| / ||y||``.

    Both norms run over ``over``. Published tables take the norm over space and then average over
    cases: ``relative_error(ens, truth, over=("y", "x")).mean("sample")``. The error of one draw is
    ``relative_error(ens.isel(member=0), truth)``.

    Raises:
        InputError: As :func:`rmse`; or the truth is zero over a whole norm.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        error, members = _error(e, t)
        result = average(error**2, over)
        reference = average(t.astype(np.float64) ** 2, over)
        if bool((reference == 0).any()):
            raise InputError(
                f"the truth of {label(e)} is zero over all of {tuple(over or t.dims)}: a relative "
                f"error has no meaning there; use rmse"
            )
        ratio = ((result / reference) ** 0.5).assign_attrs(result.attrs)
        return finish(ratio, f"relative L2, {_whose(members)}", members, "1")

    return each(score, ens, truth)


def _error(ens: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, int]:
    """Estimate minus truth in float64, and the number of members behind the estimate."""
    if MEMBER not in ens.dims:
        ens = ens.expand_dims(MEMBER)
    ens, truth = pair(ens, truth)
    return ens.mean(MEMBER, dtype=np.float64) - truth, ens.sizes[MEMBER]


def _whose(members: int) -> str:
    return "of the ensemble mean" if members > 1 else "of a single estimate"
