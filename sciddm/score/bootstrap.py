"""How sure is a score: block-bootstrap intervals over starts that are not independent.

Forecasts started a day apart meet the same weather, so their scores are alike and the usual
standard error is too small. Here whole blocks of neighbouring starts are drawn with replacement,
long enough that blocks are nearly independent, and the score is taken again for every draw.

References:
    Politis and Romano, A circular block-resampling procedure for stationary data, 1992; The
    stationary bootstrap, 1994, doi:10.1080/01621459.1994.10476870, section 2. Wilks, Resampling
    hypothesis tests for autocorrelated fields, 1997, doi:10.1175/1520-0442(1997)010<0065:RHTFAF>
    2.0.CO;2.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import xarray as xr

from sciddm.errors import InputError, nearest
from sciddm.score.weights import Labelled, label


def bootstrap(
    score: Labelled,
    *,
    block: int,
    dim: str = "init_time",
    statistic: Callable[[Labelled], Labelled] | None = None,
    draws: int = 1000,
    level: float = 0.9,
    stationary: bool = False,
    seed: int = 0,
) -> Labelled:
    """An interval for the mean of a score over starts, or for a function of such means.

    The starts are to be in order of time and evenly spaced. Draw b depends on ``(seed, b)`` and
    the number of starts alone. The interval is between quantiles of the draws; with few blocks it
    is too short (with 10 blocks, a nominal 90 % holds about 80 %).

    Args:
        score: One value a start, ``(dim, *others)``, as from ``over=`` all other dims.
        block: Starts in a block: as many as scores stay alike for, the longest lead at least where
            starts overlap. 1 takes starts as independent.
        dim: The dim of starts.
        statistic: What is wanted of the means, such as a ratio or a root: it is given the means
            with a further dim ``draw``, and works on each draw alike. The mean itself by default.
        draws: Number of resamples.
        level: Share of the interval.
        stationary: Blocks of random length, ``block`` on average (Politis and Romano 1994); else
            of that length round a circle.
        seed: Of the resampling.

    Returns:
        ``(quantile, *others)`` with the two ends at quantiles ``(1 - level)/2, (1 + level)/2``.

    Raises:
        InputError: No such dim, fewer than two blocks, or numbers out of range.
    """
    if dim not in score.dims:
        raise InputError(
            f"bootstrap: no dim {dim!r} of starts among {tuple(map(str, score.dims))}; give the "
            f"score of each start by itself.{nearest(dim, map(str, score.dims))}"
        )
    starts = score.sizes[dim]
    if not 1 <= block <= starts // 2:
        raise InputError(
            f"bootstrap: a block of {block} starts of {starts}; expected at least one start a "
            f"block and two blocks, so from 1 to {starts // 2}"
        )
    if draws < 2 or not 0.0 < level < 1.0:
        raise InputError(
            f"bootstrap: {draws} draws, level {level}; expected two draws or more and a level in "
            f"(0, 1), such as 0.9"
        )
    counts = resamples(starts, block, draws, stationary=stationary, seed=seed)
    if isinstance(score, xr.Dataset):
        means = score.map(_mean, args=(counts, dim))
    else:
        means = _mean(score, counts, dim)
    found = means if statistic is None else statistic(means)
    ends = [round((1 - level) / 2, 12), round((1 + level) / 2, 12)]
    kind = f"{'stationary' if stationary else 'circular'} block bootstrap"
    note = {"interval": f"{level:g}, {kind} over {dim}, blocks of {block}, {draws} draws"}
    with warnings.catch_warnings():  # what is NaN in every draw stays NaN
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        out = found.quantile(ends, "draw", keep_attrs=True)
    if isinstance(out, xr.Dataset):
        for name in out.data_vars:
            out[name].attrs.update(note)
    return out.assign_attrs(note)


def _mean(score: xr.DataArray, counts: np.ndarray, dim: str) -> xr.DataArray:
    """Means over ``dim`` with each start counted as often as it was drawn: ``(draw, *others)``."""
    if dim not in score.dims:
        return score
    if score.dtype.kind not in "fiub":
        raise InputError(f"{label(score)} has dtype {score.dtype}; expected real numbers")
    kept = [d for d in score.dims if d != dim]
    values = score.transpose(dim, *kept).values.astype(np.float64)
    flat = values.reshape(len(values), -1)
    known = ~np.isnan(flat)
    total, share = counts @ np.where(known, flat, 0.0), counts @ known.astype(np.float64)
    mean = np.divide(total, share, out=np.full_like(total, np.nan), where=share > 0)
    coords = {n: c for n, c in score.coords.items() if dim not in c.dims}
    return xr.DataArray(
        mean.reshape(-1, *values.shape[1:]), coords, ("draw", *kept), score.name, score.attrs
    )


def resamples(
    starts: int, block: int, draws: int, *, stationary: bool = False, seed: int = 0
) -> np.ndarray:
    """How often each start stands in each draw, float64 ``(draws, starts)``; rows sum to starts."""
    counts = np.empty((draws, starts))
    for b in range(draws):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 3, b])))
        if stationary:
            fresh = rng.random(starts) < 1 / block
            fresh[0] = True
            first = rng.integers(0, starts, starts)
            since = np.arange(starts) - np.maximum.accumulate(np.where(fresh, np.arange(starts), 0))
            taken = first[np.arange(starts) - since] + since
        else:
            first = rng.integers(0, starts, -(-starts // block))
            taken = (first[:, None] + np.arange(block)).ravel()[:starts]
        counts[b] = np.bincount(taken % starts, minlength=starts)
    return counts
