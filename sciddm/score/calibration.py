"""Is the spread right? Scores that a calibrated ensemble of *any* size passes exactly.

If the truth and the M members are exchangeable, the truth's rank among them is uniform on
``0..M`` and, with ``U`` uniform on (0, 1), ``(rank + U) / (M + 1)`` is uniform too. Everything
here is built on that, so nothing has to be forgiven for a small ensemble:

    spread/skill   sqrt((M + 1)/M <var> / <(mean - y)^2>) = 1, var with M - 1 below
    coverage       the share of truths between order statistics; the two gaps that the interval
                   cuts count by the part it covers, so the expectation is the level at every M
    SBC            ranks of truths over many simulated cases, for any function of the field
    TARP           the same for the distance to a random reference, a test of the joint law

Interpolated sample quantiles do not have this: M = 64 with numpy's default covers 0.872 at 0.9.

A calibrated ensemble need not be a sharp one: draws from the prior pass all of this. Read it
beside the CRPS, and give SBC functions that see the data.

References:
    Fortin et al., Why should ensemble spread match the RMSE of the ensemble mean?, 2014,
    doi:10.1175/JHM-D-14-0008.1, equation 15. Hamill, Interpretation of rank histograms, 2001,
    doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2. Talts et al., Validating Bayesian
    inference algorithms with simulation-based calibration, 2018, arXiv:1804.06788, theorem 1.
    Lemos et al., Sampling-based accuracy testing of posterior estimators, 2023, arXiv:2302.03026.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy.special import chdtrc

from sciddm.errors import InputError, nearest
from sciddm.score.weights import (
    MEMBER,
    Labelled,
    average,
    averaged,
    each,
    finish,
    label,
    match,
    pair,
    units,
)


def spread_skill(ens: Labelled, truth: Labelled, *, over: Sequence[str] | None = None) -> Labelled:
    """Spread over skill: 1 when right, below 1 over-confident, above 1 too wide.

    ``sqrt((M + 1)/M <var> / <(mean - y)^2>)``; both averages are taken before the ratio and the
    root. NaN where both are zero, infinite where only the error is.

    Args:
        ens: ``(member, *dims)``, two members at least.
        truth: ``(*dims)``.
        over: Dims to average over; all but ``member`` by default, ``()`` for none.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t, least=2)
        members = e.sizes[MEMBER]
        variance = average(e.var(MEMBER, ddof=1, skipna=False, dtype=np.float64), over)
        error = average((e.mean(MEMBER, dtype=np.float64) - t) ** 2, over)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = ((members + 1) / members * variance.compute() / error.compute()) ** 0.5
        ratio = ratio.assign_attrs(variance.attrs)
        return finish(ratio, "spread/skill, unbiased, times sqrt((M+1)/M)", members, "1")

    return each(score, ens, truth)


def spread(ens: Labelled, *, over: Sequence[str] | None = None) -> Labelled:
    """Root mean variance of the members, ``sqrt(<var>)`` with M - 1 below.

    Raises:
        InputError: Fewer than two members, infinities, or NaN in some members only.
    """

    def score(e: xr.DataArray, first: xr.DataArray) -> xr.DataArray:
        e, _ = pair(e, first, least=2)
        variance = average(e.var(MEMBER, ddof=1, skipna=False, dtype=np.float64), over)
        root = (variance**0.5).assign_attrs(variance.attrs)
        return finish(root, "root mean unbiased variance", e.sizes[MEMBER], units(e))

    if MEMBER not in ens.dims:
        raise InputError(f"got dims {tuple(ens.dims)}; expected an ensemble with dim 'member'")
    return each(score, ens, ens.isel({MEMBER: 0}, drop=True))


def coverage(
    ens: Labelled, truth: Labelled, level: float = 0.9, *, over: Sequence[str] | None = None
) -> Labelled:
    """Share of truths inside the central interval of the ensemble; ``level`` when right.

    A truth of rank r counts by the part of ``[r, r + 1] / (M + 1)`` that lies in
    ``[(1 - level)/2, (1 + level)/2]``: 1 inside, 0 outside, a fraction in the two gaps that the
    interval cuts. Where ``(M + 1)(1 - level)/2`` is whole this is the interval between two
    order statistics. Ties share. Below ``2/(1 - level) - 1`` members (19 at 0.9) the interval
    reaches beyond the outermost members, and the score has little power.

    Args:
        ens: ``(member, *dims)``, two members at least.
        truth: ``(*dims)``.
        level: In (0, 1).
        over: Dims to average over; all but ``member`` by default, ``()`` for none.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`, or a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level is {level}; expected a share in (0, 1), such as 0.9")

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t, least=2)
        members = e.sizes[MEMBER]
        low = (e < t).sum(MEMBER) / (members + 1)
        high = ((e <= t).sum(MEMBER) + 1) / (members + 1)
        edge = (1 - level) / 2
        inside = high.clip(edge, 1 - edge) - low.clip(edge, 1 - edge)
        cells = (inside / (high - low)).where(t.notnull())
        estimator = f"coverage of the central {level:g} interval, by fractional ranks"
        return finish(average(cells, over), estimator, members, "1")

    return each(score, ens, truth)


def pit(ens: Labelled, truth: Labelled, *, seed: int = 0) -> Labelled:
    """Probability integral transform ``(rank + U) / (M + 1)``, cell by cell; uniform when right.

    ``U`` comes from ``seed`` and does not depend on the order of dims or on chunks.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t)
        members = e.sizes[MEMBER]
        values = (_ranks(e, t, seed) + _uniform(t, seed, 1)) / (members + 1)
        return finish(values, "randomised probability integral transform", members, "1")

    return each(score, ens, truth)


def rank_histogram(
    ens: Labelled, truth: Labelled, *, seed: int = 0, over: Sequence[str] | None = None
) -> Labelled:
    """How often the truth has rank 0..M among the members; flat when right.

    U-shaped is over-confident, a dome is too wide, a slope is a bias. These are counts, one a
    cell, without area weights. Ties are broken at random from ``seed``.

    Args:
        ens: ``(member, *dims)``.
        truth: ``(*dims)``.
        seed: Of the tie breaking.
        over: Dims to count over; all but ``member`` by default.

    Returns:
        Whole numbers, ``(rank, *remaining)``, rank = members below the truth.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t)
        members = e.sizes[MEMBER]
        ranks = _ranks(e, t, seed)
        dims = averaged(e, over)
        counts = xr.apply_ufunc(
            _count,
            ranks.compute(),
            input_core_dims=[list(dims)],
            output_core_dims=[["rank"]],
            kwargs={"bins": members + 1, "axes": len(dims)},
        )
        counts = counts.assign_coords(
            rank=("rank", np.arange(members + 1), {"long_name": "members below the truth"})
        )
        counts = finish(
            counts.transpose("rank", ...), "rank histogram, ties at random", members, "1"
        )
        return counts.assign_attrs(weights="none: counts of cells")

    return each(score, ens, truth)


def _ranks(ens: xr.DataArray, truth: xr.DataArray, seed: int) -> xr.DataArray:
    """Members below the truth, plus a uniform share of those equal to it; NaN in gaps."""
    below = (ens < truth).sum(MEMBER)
    ties = (ens == truth).sum(MEMBER)
    ranks = below + np.floor(_uniform(truth, seed, 0) * (ties + 1))
    return ranks.where(truth.notnull())


def _uniform(like: xr.DataArray, seed: int, purpose: int) -> xr.DataArray:
    """Uniform draws that stay with their point when a field is transposed or chunked."""
    dims = sorted(str(d) for d in like.dims)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose])))
    return xr.DataArray(rng.random([like.sizes[d] for d in dims]), dims=dims)


def _count(ranks: np.ndarray, bins: int, axes: int) -> np.ndarray:
    """``(*kept, *counted) -> (*kept, bins)``."""
    kept = ranks.shape[: ranks.ndim - axes]
    flat = ranks.reshape(int(np.prod(kept)), -1)
    row, column = np.nonzero(~np.isnan(flat))
    where = row * bins + flat[row, column].astype(np.int64)
    return np.bincount(where, minlength=len(flat) * bins).reshape(*kept, bins)


def chi_square(histogram: Labelled, *, bins: int | None = None) -> Labelled:
    """The p-value that counts of ranks came from a flat law, by Pearson's chi-square.

    Neighbouring cells of a field are not independent, so count far-apart cells or cases: counts
    of every cell of one field give p-values that are too small.

    Args:
        histogram: ``(rank, *dims)`` from :func:`rank_histogram`.
        bins: Groups of neighbouring ranks, as even as whole ranks allow; each should expect
            five counts or more. Every rank by itself by default.

    Returns:
        p-values over the remaining dims.

    Raises:
        InputError: No dim ``rank``, too few counts, or more bins than ranks.
    """

    def score(counts: xr.DataArray, _: xr.DataArray) -> xr.DataArray:
        if "rank" not in counts.dims:
            raise InputError(
                f"{label(counts)} has dims {tuple(counts.dims)}; expected 'rank' from "
                f"rank_histogram.{nearest('rank', map(str, counts.dims))}"
            )
        ranks = counts.sizes["rank"]
        groups = ranks if bins is None else bins
        if not 2 <= groups <= ranks:
            raise InputError(f"bins is {bins}; expected 2 to {ranks} groups of {ranks} ranks")
        first = (np.arange(groups) * ranks) // groups
        values = counts.transpose("rank", ...).values.astype(np.float64)
        observed = np.add.reduceat(values, first, axis=0)
        share = np.diff(np.append(first, ranks)).reshape(-1, *[1] * (values.ndim - 1)) / ranks
        total = values.sum(axis=0)
        if not total.any() or total[total > 0].min() < groups:
            raise InputError(
                f"{label(counts)}: {total.max(initial=0):g} counts for {groups} bins; expected at "
                f"least one a bin (five is better); count more cases or give fewer bins"
            )
        expected = np.where(total > 0, share * total, np.nan)  # land was never counted
        statistic = ((observed - expected) ** 2 / expected).sum(axis=0)
        result = counts.isel(rank=0, drop=True).copy(data=chdtrc(groups - 1, statistic))
        result.attrs = {"estimator": f"Pearson chi-square, {groups} bins", "units": "1"}
        return result.assign_attrs(members=ranks - 1)

    return each(score, histogram, histogram)


def sbc(ens: Labelled, truth: Labelled, case: str, *, bins: int = 20, seed: int = 0) -> Labelled:
    """Simulation-based calibration: p-values that ranks over simulated cases are uniform.

    Each truth is a draw from the prior, each ensemble a posterior given data simulated from it.
    Every cell is tested by itself; to test a function of the field, give the function of both:
    ``sbc(norm(ens), norm(truth), "case")``. Marginals alone miss wrong correlations, and draws
    from the prior pass: add functions such as the norm, or the distance to the observations.
    With many p-values compare the smallest with the false-alarm rate over their number.

    Args:
        ens: ``(member, case, *dims)``.
        truth: ``(case, *dims)``.
        case: The dim of independent cases.
        bins: Groups of ranks; 20 for 1000 cases of 99 members is customary. Fewer where there
            are fewer ranks.
        seed: Of the tie breaking.

    Returns:
        p-values ``(*dims)``.
    """
    counts = rank_histogram(ens, truth, seed=seed, over=(case,))
    return chi_square(counts, bins=min(bins, counts.sizes["rank"]))


def tarp(
    ens: Labelled,
    truth: Labelled,
    case: str,
    *,
    references: xr.DataArray | None = None,
    points: int = 101,
    seed: int = 0,
) -> Labelled:
    """Expected coverage of balls around random references, a test of the joint law of a field.

    For each case, the share of members nearer to a reference than the truth is (ties and the
    step of 1/(M + 1) filled at random) is uniform when right; the curve is its distribution
    function, the diagonal when right. Distances are area-weighted over all dims but ``case``.
    References are by default the truths of other cases: free of this case's truth, as they must
    be, and as far away as truths are, which far references are not (they have no power).

    Args:
        ens: ``(member, case, *dims)``.
        truth: ``(case, *dims)``, two cases at least.
        case: The dim of independent cases.
        references: ``(case, *dims)``, one for each case, drawn without a look at the truths.
        points: Credibility levels between 0 and 1.
        seed: Of the references and the ties.

    Returns:
        Coverage over ``credibility``; ``attrs["max_error"]`` is the largest distance to the
        diagonal, the Kolmogorov-Smirnov statistic (0.062 is its 0.1 % limit for 1000 cases).

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`, no such dim, or one case only.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t)
        inside = tuple(d for d in averaged(e, None) if d != case)
        averaged(e, (case,))
        cases = e.sizes[case]
        if references is None:
            if cases < 2:
                raise InputError(
                    f"tarp of {label(e)}: one case along {case!r}; expected at least two, or "
                    f"references="
                )
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 2])))
            # Every case but its own is equally likely.
            other = (np.arange(cases) + rng.integers(1, cases, cases)) % cases
            r = t.isel({case: other}).assign_coords(t.coords)
        else:
            _, r = match(e, references)
        far = average((t - r) ** 2, inside)
        near = average((e - r) ** 2, inside)
        rank = _ranks(near.compute(), far.compute(), seed)
        members = e.sizes[MEMBER]
        nearer = np.sort(((rank + _uniform(rank, seed, 1)) / (members + 1)).values)
        levels = np.linspace(0.0, 1.0, points)
        curve = xr.DataArray(
            np.searchsorted(nearer, levels, side="right") / cases,
            dims=("credibility",),
            coords={"credibility": ("credibility", levels, {"units": "1"})},
            name=e.name,
            attrs=near.attrs,
        )
        curve = finish(curve, "TARP expected coverage", members, "1")
        return curve.assign_attrs(max_error=float(np.abs(curve.values - levels).max()))

    return each(score, ens, truth)
