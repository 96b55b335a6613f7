"""Quantile losses: what papers on series call CRPS, with the number of levels in the name.

    QL_q(x, y) = 2 |(x_q - y) (1[y <= x_q] - q)|
    ql_L  = the mean of QL_q over the levels q = 1/(L+1) .. L/(L+1) and over cells
    wql_L = the same with the sum of |y| below, in place of the number of cells

Over all levels in (0, 1) this is the CRPS; over a few it is not. With the exact quantiles of
N(0, 1) the CRPS is 0.564, ``ql_99`` 0.570, ``ql_19`` 0.591 and ``ql_9`` 0.617: tables with 9
levels (most of forecasting) and with 19 (most of imputation) must not be mixed.

The quantile at ``q`` is the member of rank ``round((M - 1) q)`` from 0, halves to the even one, as
gluonts takes it: with the same members the numbers are gluonts' own.

References:
    Koenker and Bassett, Regression quantiles, 1978, doi:10.2307/1913643, equation 1.2. Gneiting
    and Ranjan, Comparing density forecasts using threshold- and quantile-weighted scoring rules,
    2011, doi:10.1198/jbes.2010.08110, equation 7.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciddm.errors import InputError
from sciddm.score.weights import (
    MEMBER,
    Labelled,
    averaged,
    each,
    finish,
    label,
    match,
    pair,
    units,
)


def weighted_quantile_loss(
    ens: Labelled, truth: Labelled, *, levels: int = 9, over: Sequence[str] | None = None
) -> Labelled:
    """Quantile loss as a share of the truth, ``sum QL / sum |y|``, named ``wql_<levels>``.

    Both sums run over the dims in ``over``: all of them gives the pooled number, which published
    tables hold; all but the items gives one number an item (their mean is *not* the pooled one).

    Args:
        ens: ``(member, *dims)``.
        truth: ``(*dims)``. Cells that are NaN are left out, in the ensemble too, and counted in
            ``attrs["left_out"]``.
        levels: L of the levels 1/(L+1) .. L/(L+1).
        over: Dims to sum over; all but ``member`` by default.

    Returns:
        The remaining dims, without units. NaN where no cell is left or all truths are 0.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`, or fewer than one level.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        loss, t, missing = _losses(e, t, levels)
        dims = averaged(loss, over)
        size = abs(t).sum(dims)
        ratio = loss.sum(dims) / size.where(size > 0)
        return _named(ratio, f"wql_{levels}", "weighted quantile loss", e, levels, missing, "1")

    return each(score, ens, truth)


def quantile_loss(
    ens: Labelled, truth: Labelled, *, levels: int = 9, over: Sequence[str] | None = None
) -> Labelled:
    """Mean quantile loss in the units of the field, named ``ql_<levels>``: beside the CRPS, which
    it tends to with the levels. As :func:`weighted_quantile_loss` otherwise; cells count alike."""

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        loss, _, missing = _losses(e, t, levels)
        mean = loss.mean(averaged(loss, over), skipna=True)
        return _named(mean, f"ql_{levels}", "quantile loss", e, levels, missing, units(e))

    return each(score, ens, truth)


def median_error(ens: Labelled, truth: Labelled, *, over: Sequence[str] | None = None) -> Labelled:
    """Mean absolute error of the median, named ``mae_median``: the loss at the level 1/2.

    As :func:`weighted_quantile_loss` otherwise; cells count alike.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        loss, _, missing = _losses(e, t, 1)
        mean = loss.mean(averaged(loss, over), skipna=True)
        return _named(mean, "mae_median", "absolute error", e, 1, missing, units(e))

    return each(score, ens, truth)


def known(
    ens: xr.DataArray, truth: xr.DataArray, least: int = 1
) -> tuple[xr.DataArray, xr.DataArray]:
    """As :func:`sciddm.score.weights.pair`, with the ensemble left out where the truth is NaN."""
    if MEMBER not in ens.dims:
        return pair(ens, truth, least)  # which says what is wrong
    ens, truth = match(ens, truth)
    return pair(ens.where(truth.notnull()), truth, least)


def ranks(members: int, levels: int) -> np.ndarray:
    """Which of the sorted members stand for the quantiles, (L,)."""
    if levels < 1:
        raise InputError(f"levels is {levels}; expected 1 or more, such as 9, 19 or 99")
    at = np.arange(1, levels + 1) / (levels + 1)
    return np.round((members - 1) * at).astype(int)


def _losses(
    ens: xr.DataArray, truth: xr.DataArray, levels: int
) -> tuple[xr.DataArray, xr.DataArray, int]:
    """Losses of the cells (mean over levels, NaN in gaps), the truth, and the number of gaps."""
    e, t = known(ens, truth)
    loss = xr.apply_ufunc(
        _loss,
        e,
        t,
        input_core_dims=[[MEMBER], []],
        kwargs={"levels": levels},
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
    )
    return loss, t.astype(np.float64), int(t.isnull().sum())


def _loss(ens: np.ndarray, truth: np.ndarray, levels: int) -> np.ndarray:
    """``(*dims, M), (*dims) -> (*dims)``."""
    chosen = np.sort(ens.astype(np.float64), axis=-1)[..., ranks(ens.shape[-1], levels)]
    gap = chosen - truth[..., None].astype(np.float64)
    at = np.arange(1, levels + 1) / (levels + 1)
    result: np.ndarray = 2 * np.abs(gap * ((gap >= 0) - at)).mean(axis=-1)
    return result


def _named(
    score: xr.DataArray,
    name: str,
    what: str,
    ens: xr.DataArray,
    levels: int,
    missing: int,
    unit: str | None,
) -> xr.DataArray:
    """Finished, called by its name; in a Dataset the name is that of the variable."""
    where = f"{levels} levels" if levels > 1 else "the median"
    done = finish(score, f"{name}: {what} at {where}, by order statistics", ens.sizes[MEMBER], unit)
    done.attrs |= {"score": name, "levels": levels, "left_out": missing}
    done.attrs |= {"weights": "none: cells count alike", "variable": label(ens).strip("'")}
    return done.rename(name)
