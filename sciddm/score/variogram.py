"""The variogram score: do the differences between cells have the right size?

    VS_p(F, y) = <w_ij (E|X_i - X_j|^p - |y_i - y_j|^p)^2>_ij

over pairs of different cells. It sees wrong correlations that the energy score hardly does, and
does not see a bias that all cells share: read it beside the CRPS.

The expectation over M members is itself uncertain, so the plain score is too high by the variance
of ``|X_i - X_j|^p`` over M. The fair one subtracts the unbiased estimate of that, and has the same
mean at every M.

References:
    Scheuerer and Hamill, Variogram-based proper scoring rules for probabilistic forecasts of
    multivariate quantities, 2015, doi:10.1175/MWR-D-14-00269.1, equation 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import xarray as xr

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
)

Cells = tuple[slice, ...]


def variogram_score(
    ens: Labelled,
    truth: Labelled,
    *,
    across: Sequence[str] | None = None,
    power: float = 0.5,
    reach: int | None = None,
    fair: bool = True,
    over: Sequence[str] | None = None,
) -> Labelled:
    """Variogram score of whole fields, a mean over pairs of cells weighted by both areas.

    Args:
        ens: ``(member, *dims)``.
        truth: ``(*dims)``.
        across: Dims whose cells form one vector; all but ``member`` by default.
        power: ``p``; 0.5 is customary, 1 and 2 weigh large differences more.
        reach: Only pairs at most so many cells apart along each dim of ``across``; all by default,
            which on fields of thousands of cells takes long and is mostly noise.
        fair: Unbiased in the number of members (needs two).
        over: Dims to average the score over; by default all that are not in ``across``.

    Returns:
        The remaining dims, in the units of the field to the power ``2 p``.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`; a dim in both ``across`` and ``over``,
            one cell only, or a power or reach that is not positive.
    """
    if not 0 < power < np.inf or (reach is not None and reach < 1):
        raise InputError(f"power is {power} and reach {reach}; expected positive numbers")

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t, least=2 if fair else 1)
        inside: tuple[str, ...] = averaged(e, across)
        for dim in (over,) if isinstance(over, str) else over or ():
            if dim in inside:
                raise InputError(
                    f"variogram score of {label(e)}: {dim!r} is in both `across` (the vector) and "
                    f"`over` (the average); give it once"
                )
        area = cell_weights(e)
        one = t.isel({d: 0 for d in t.dims if d not in inside}, drop=True)
        weights = area * xr.ones_like(one, dtype=np.float64)
        cells = xr.apply_ufunc(
            _pairs,
            e.compute(),
            t.compute(),
            weights.compute(),
            input_core_dims=[[MEMBER, *inside], [*inside], [*inside]],
            kwargs={"power": power, "reach": reach, "fair": fair},
        )
        if not bool(cells.notnull().any()):
            raise InputError(
                f"variogram score of {label(e)}: no pair of cells along {tuple(inside)}; expected "
                "two cells or more"
            )
        result = average(cells, over)
        kind = "fair" if fair else "plain"
        name = f"{kind} variogram score of order {power:g}, mean over pairs of cells"
        result = finish(result, name, e.sizes[MEMBER], units(e) if power == 0.5 else None)
        if power != 0.5 and e.attrs.get("units") not in (None, "1"):
            result.attrs["units"] = f"({e.attrs['units']})^{2 * power:g}"
        note = {"across": list(inside), "reach": 0 if reach is None else reach}
        return result.assign_attrs(weights=area.attrs["weights"], **note)

    return each(score, ens, truth)


def _offsets(shape: Sequence[int], reach: int | None) -> Iterator[tuple[int, ...]]:
    """Steps between cells, one of every two that are opposite."""
    most = [n - 1 if reach is None else min(reach, n - 1) for n in shape]
    for step in product(*[range(-m, m + 1) for m in most]):
        if step > (0,) * len(shape):
            yield step


def _pairs(
    ens: np.ndarray,
    truth: np.ndarray,
    weights: np.ndarray,
    power: float,
    reach: int | None,
    fair: bool,
) -> np.ndarray:
    """``(*others, M, *cells), (*others, *cells), (*cells) -> (*others)``."""
    shape = weights.shape
    axes = tuple(range(-len(shape), 0))
    total = np.zeros(truth.shape[: truth.ndim - len(shape)])
    share = np.zeros_like(total)
    members = ens.shape[truth.ndim - len(shape)]
    for step in _offsets(shape, reach):
        near = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, shape, strict=True))
        far = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, shape, strict=True))
        sizes = _difference(ens, near, far, power)
        error = (sizes.mean(axes[0] - 1) - _difference(truth, near, far, power)) ** 2
        if fair:
            error -= sizes.var(axes[0] - 1, ddof=1) / members
        w = weights[near] * weights[far] * ~np.isnan(error)
        total += (w * np.nan_to_num(error)).sum(axes)
        share += w.sum(axes)
    return np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0)


def _difference(x: np.ndarray, near: Cells, far: Cells, power: float) -> np.ndarray:
    every = (slice(None),) * (x.ndim - len(near))
    size = np.abs(x[every + far].astype(np.float64) - x[every + near])
    return np.sqrt(size) if power == 0.5 else size**power
