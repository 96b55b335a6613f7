"""Proper scores of an ensemble: lowest, in expectation, for the law that the truth came from.

    CRPS(F, y) = E|X - y| - E|X - X'| / 2 = integral (F(z) - 1[y <= z])^2 dz
    ES(F, y)   = E||X - y|| - E||X - X'|| / 2

with ``X, X'`` independent draws from ``F``. With M members the *plain* estimator takes
``E|X - X'|`` over all M^2 pairs, counts each member against itself, and is too high by
``E|X - X'| / (2M)`` (1 % for a calibrated Gaussian at M = 100). The *fair* one takes the
M(M - 1) pairs of different members: its mean is the score of the law itself at every M, so
ensembles of different sizes compare. Fair is the default; attrs name the estimator and M.

References:
    Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007,
    doi:10.1198/016214506000001437, equations 20-22. Ferro, Fair scores for ensemble forecasts,
    2014, doi:10.1002/qj.2270, section 2. Gneiting et al., Calibrated probabilistic forecasting
    using ensemble model output statistics, 2005, doi:10.1175/MWR2904.1, equation 5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from scipy.special import ndtr

from sciddm.errors import InputError
from sciddm.score.weights import (
    MEMBER,
    Labelled,
    average,
    averaged,
    cell_weights,
    each,
    finish,
    label,
    pair,
    units,
    where,
)


def crps(
    ens: Labelled, truth: Labelled, *, fair: bool = True, over: Sequence[str] | None = None
) -> Labelled:
    """Continuous ranked probability score of an ensemble, cell by cell, then averaged.

    ``O(M log M)`` a cell by sorting: ``sum_{i<j} |x_i - x_j| = sum_k (2k - M - 1) x_(k)``.
    A cell's fair score can be negative; its mean is not.

    Args:
        ens: ``(member, *dims)``.
        truth: ``(*dims)``, the same points in any order.
        fair: Unbiased in the number of members (needs two); otherwise the plain estimator,
            which for one member is the absolute error.
        over: Dims to average over; all but ``member`` by default, ``()`` for none.

    Returns:
        The remaining dims, in the units of the field.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t, least=2 if fair else 1)
        cells = _cellwise(_crps, e, t, fair=fair)
        return finish(average(cells, over), _estimator("CRPS", fair), e.sizes[MEMBER], units(e))

    return each(score, ens, truth)


def _crps(ens: np.ndarray, truth: np.ndarray, fair: bool) -> np.ndarray:
    """``(*dims, M), (*dims) -> (*dims)``."""
    members = ens.shape[-1]
    # Errors, not values: the sum below cancels, and errors are small where values are 300 K.
    errors = np.subtract(ens, truth[..., None], dtype=np.float64, order="C")
    errors.sort(axis=-1)
    ranks = 2.0 * np.arange(members) - (members - 1)
    pairs = members * (members - 1) if fair else members**2
    return np.abs(errors).mean(axis=-1) - (errors @ ranks) / pairs


def gaussian_crps(
    mean: Labelled, std: Labelled, truth: Labelled, *, over: Sequence[str] | None = None
) -> Labelled:
    """CRPS of the Gaussian law ``N(mean, std^2)``, in closed form.

    ``s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))`` with ``z = (y - m) / s``; the absolute
    error where ``s = 0``. For climatologies, kriging, and the limit of large ensembles.

    Args:
        mean: ``(*dims)``, without ``member``; dims that only the truth has are repeated, so that
            one climatology serves every case.
        std: The same points and units, not negative.
        truth: The same points, and cases.
        over: Dims to average over; all by default.

    Raises:
        InputError: Points differ, gaps differ, or a standard deviation is negative.
    """

    if type(std) is not type(mean):
        raise InputError(
            f"mean is a {type(mean).__name__} and std a {type(std).__name__}; expected the same"
        )
    if isinstance(mean, xr.Dataset):
        each(lambda m, s: m, mean, std)  # the variables of one are there in the other

    def score(m: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        s = std if isinstance(std, xr.DataArray) else std[str(m.name)]
        e, t = pair(_over_cases(m, t).expand_dims(MEMBER), t)
        _, s = pair(e, _over_cases(s, t))
        m = e.isel({MEMBER: 0}, drop=True)
        if bool((s < 0).any()):
            raise InputError(
                f"std of {label(m)} is negative{where((s < 0).compute())}; expected a standard "
                f"deviation, not a variance or a logarithm"
            )
        cells = xr.apply_ufunc(
            _gaussian_crps, m, s, t, dask="parallelized", output_dtypes=[np.float64]
        )
        result = average(cells, over)
        return finish(result, "closed-form CRPS of a Gaussian", None, units(m))

    return each(score, mean, truth)


def _over_cases(law: xr.DataArray, truth: xr.DataArray) -> xr.DataArray:
    """``law`` repeated along the dims that only ``truth`` has."""
    missing = [d for d in truth.dims if d not in law.dims and d != MEMBER]
    law = law.drop_vars([d for d in missing if d in law.coords])
    return law.expand_dims({d: truth.coords.get(d, truth.sizes[d]) for d in missing})


def _gaussian_crps(mean: np.ndarray, std: np.ndarray, truth: np.ndarray) -> np.ndarray:
    error = truth.astype(np.float64) - mean
    s = np.asarray(std, dtype=np.float64)
    z = np.divide(error, s, out=np.zeros_like(error), where=s > 0)
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    spread = s * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.where(s > 0, spread, np.where(np.isnan(s), np.nan, np.abs(error)))


def brier(
    ens: Labelled,
    truth: Labelled,
    threshold: float,
    *,
    fair: bool = True,
    over: Sequence[str] | None = None,
) -> Labelled:
    """Brier score of the event "more than ``threshold``", ``(p - o)^2``.

    ``p`` is the share of members above, ``o`` is 1 where the truth is. The fair form subtracts
    ``p (1 - p) / (M - 1)`` (Ferro 2014, section 2a). The integral of either over all thresholds is
    the CRPS of the same form.

    Args:
        ens: ``(member, *dims)``.
        truth: ``(*dims)``.
        threshold: In the units of the field; for a Dataset the same for every variable.
        fair: As in :func:`crps`.
        over: Dims to average over; all but ``member`` by default, ``()`` for none.

    Raises:
        InputError: As :func:`crps`, or the threshold is not finite.
    """
    if not np.isfinite(threshold):
        raise InputError(f"threshold is {threshold}; expected a finite number in the field's units")

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t, least=2 if fair else 1)
        members = e.sizes[MEMBER]
        p = (e > threshold).mean(MEMBER, dtype=np.float64)
        cells = (p - (t > threshold)) ** 2 - (p * (1 - p) / (members - 1) if fair else 0.0)
        result = average(cells.where(t.notnull()), over)
        return finish(result, _estimator(f"Brier score above {threshold:g}", fair), members, "1")

    return each(score, ens, truth)


def energy_score(
    ens: Labelled,
    truth: Labelled,
    *,
    across: Sequence[str] | None = None,
    fair: bool = True,
    over: Sequence[str] | None = None,
) -> Labelled:
    """Energy score: the CRPS of whole fields, sensitive to how errors hang together in space.

    The norm is the area-weighted root mean square over ``across``, so the score keeps the units
    of the field, does not grow with the number of cells, and of a single cell is the CRPS.
    The ``O(M^2)`` distances come from one product of matrices a case.

    Args:
        ens: ``(member, *dims)``.
        truth: ``(*dims)``.
        across: Dims whose cells form one vector; all but ``member`` by default.
        fair: As in :func:`crps`.
        over: Dims to average the score over; by default all that are not in ``across``.

    Raises:
        InputError: As :func:`crps`, or a dim stands in both ``across`` and ``over``.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t, least=2 if fair else 1)
        inside: tuple[str, ...] = averaged(e, across)
        outside = (over,) if isinstance(over, str) else over or ()
        twice = [d for d in outside if d in inside]
        if twice:
            raise InputError(
                f"energy score of {label(e)}: {twice[0]!r} is in both `across` (the vector) and "
                f"`over` (the average); give it once"
            )
        one = t.isel({d: 0 for d in t.dims if d not in inside}, drop=True)
        area = (cell_weights(e) * xr.ones_like(one, dtype=np.float64)).transpose(*inside)
        cells = xr.apply_ufunc(
            _energy,
            e.compute(),
            t.compute(),
            area.compute(),
            input_core_dims=[[MEMBER, *inside], [*inside], [*inside]],
            kwargs={"fair": fair},
        )
        result = average(cells, over)
        weights = cell_weights(e).attrs["weights"]
        result = finish(result, _estimator("energy score", fair), e.sizes[MEMBER], units(e))
        return result.assign_attrs(weights=weights, across=list(inside))

    return each(score, ens, truth)


def _energy(ens: np.ndarray, truth: np.ndarray, area: np.ndarray, fair: bool) -> np.ndarray:
    """``(*others, M, *cells), (*others, *cells), (*cells) -> (*others)``."""
    others = truth.shape[: truth.ndim - area.ndim]
    cells = area.size
    fields = ens.reshape(-1, ens.shape[len(others)], cells)
    scores = np.empty(len(fields))
    for i, (x, y) in enumerate(zip(fields, truth.reshape(-1, cells), strict=True)):
        known = ~np.isnan(y)
        w = area.reshape(-1)[known]
        if not w.sum() > 0:
            scores[i] = np.nan
            continue
        errors = (x[:, known].astype(np.float64) - y[known]) * np.sqrt(w / w.sum())
        # From the mean: products of large numbers that nearly cancel would cost digits.
        apart = errors - errors.mean(axis=0)
        product = apart @ apart.T
        size = np.diag(product)
        between = np.sqrt(np.maximum(size[:, None] + size - 2 * product, 0.0))
        np.fill_diagonal(between, 0.0)
        members = len(x)
        pairs = members * (members - 1) if fair else members**2
        distance = np.sqrt((errors**2).sum(axis=1)).mean()
        scores[i] = distance - 0.5 * between.sum() / pairs
    return scores.reshape(others)


def _cellwise(
    kernel: Callable[..., np.ndarray], ens: xr.DataArray, truth: xr.DataArray, **numbers: bool
) -> xr.DataArray:
    return xr.apply_ufunc(
        kernel,
        ens,
        truth,
        input_core_dims=[[MEMBER], []],
        kwargs=numbers,
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"allow_rechunk": True},
        keep_attrs=True,
    )


def _estimator(score: str, fair: bool) -> str:
    return f"fair {score}" if fair else f"plain {score} (biased by the number of members)"
