"""Forecasts against a record, lead by lead: lining up, every score at once, intervals.

    truth = score.at_leads(record, ens)          # the record at init_time + lead_time
    table = score.by_lead(ens, record, block=5)  # a Dataset along lead_time

A forecast has a dim of leads, and starts along a dim or as a scalar coordinate; the record has one
time axis. Averages are over the cells of each field first (by area) and over starts then, fields
counting alike; roots and ratios are taken last. So one resampling of starts serves every score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciddm.data.schema import find
from sciddm.errors import InputError
from sciddm.score.bootstrap import bootstrap
from sciddm.score.calibration import coverage, rank_histogram
from sciddm.score.probabilistic import brier, crps, energy_score
from sciddm.score.skill import acc, correlation
from sciddm.score.spectrum import power_spectrum
from sciddm.score.valid import at_leads, lead_dim
from sciddm.score.variogram import variogram_score
from sciddm.score.weights import MEMBER, average, label, pair, units

SAMPLES = ("sample", "case")
TOGETHER = 1 << 22
"""Values of the ensemble that are scored at a time, one lead at least."""


def by_lead(
    ens: xr.DataArray,
    truth: xr.DataArray,
    *,
    across: Sequence[str] | None = None,
    level: float = 0.9,
    thresholds: Sequence[float] = (),
    climatology: xr.DataArray | None = None,
    joint: bool = True,
    reach: int = 2,
    spectral: Sequence[str] = (),
    periodic: bool = False,
    block: int | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Every score of a forecast ensemble by lead, a few leads in memory at a time.

    Args:
        ens: ``(member, lead, *starts, *space)`` of one variable.
        truth: A record ``(time, *space)``, films ``(sample, time, *space)``, or the truth at the
            leads of ``ens`` already.
        across: Space dims, the cells of a field; by default all but members, leads, starts and a
            dim called sample or case.
        level: Of the coverage.
        thresholds: For Brier scores, along a dim ``threshold``.
        climatology: For the anomaly correlation: a field, or along time like the truth.
        joint: Energy and variogram scores and correlations too, which cost the most.
        reach: Of the variogram score, in cells.
        spectral: Space dims for the log-spectral distance; none by default.
        periodic: Of the spectra.
        block: Starts in a block of the bootstrap, for ``<score>_low`` and ``<score>_high`` at 90 %;
            none by default.
        draws, seed: Of the bootstrap; ``seed`` also of ties in ranks.

    Returns:
        Along the leads: ``crps`` (fair), ``rmse``, ``mae``, ``bias`` (of the mean), ``spread``,
        ``spread_skill``, ``coverage``, ``rank_histogram (rank, lead)``, and as asked for
        ``energy_score``, ``variogram_score``, ``correlation``, ``correlation_members``, ``acc``,
        ``brier (threshold, lead)``, ``log_spectral_distance``. Each names its estimator, members,
        weights and units; ``attrs["cases"]`` counts the fields behind each lead.

    Raises:
        InputError: As :func:`at_leads` and the scores; Datasets; a block without starts.
    """
    if not (isinstance(ens, xr.DataArray) and isinstance(truth, xr.DataArray)):
        raise InputError("by_lead takes one variable; pick it by name: ens['...'], truth['...']")
    lead, init = lead_dim(ens), find(ens, "init")
    if ens.sizes.get(MEMBER, 0) < 2:
        raise InputError(
            f"{label(ens)} has sizes {dict(ens.sizes)}; expected 'member' with two members or more"
        )
    cases = [str(d) for d in ens.dims if d == init or d in SAMPLES]
    if across is not None:
        cases = [str(d) for d in ens.dims if d not in (MEMBER, lead, *across)]
    space = [str(d) for d in ens.dims if d not in (MEMBER, lead, *cases)]
    starts = next((d for d in [init, *cases] if d in cases and ens.sizes[d] > 1), None)
    if block is not None and starts is None:
        raise InputError(f"{label(ens)} has one start; a bootstrap needs several: leave block out")
    if not space:  # a series: each value is a field of one cell
        ens, truth, space = ens.expand_dims("cell"), truth.expand_dims("cell"), ["cell"]
    true = at_leads(truth, ens)
    normal = None if climatology is None else _normal(climatology, ens)
    parts = []
    leads = max(1, TOGETHER * ens.sizes[lead] // ens.size)
    for first in range(0, ens.sizes[lead], leads):
        part = {lead: slice(first, first + leads)}
        e, t = pair(ens.isel(part).compute(), true.isel(part).compute(), least=2)
        found = _single(e, t, space, level)
        found["rank_histogram"] = rank_histogram(e, t, seed=seed, over=(*cases, *space))
        if len(thresholds):
            found["brier"] = _briers(e, t, space, thresholds)
        if joint and math.prod(e.sizes[d] for d in space) > 1:
            found |= _joint(e, t, space, reach)
        if normal is not None:
            c = normal.isel(part) if lead in normal.dims else normal
            found["acc"] = acc(e, t, c.compute(), across=space, over=())
        if len(spectral):
            found |= _powers(e, t, space, spectral, periodic)
        kept = ("rank", "threshold", "wavenumber")
        parts.append(xr.Dataset({n: _bare(v, kept) for n, v in found.items()}))
    whole = xr.concat(parts, lead, data_vars="minimal", combine_attrs="override")
    ranks, whole = whole["rank_histogram"], whole.drop_vars(["rank_histogram", "rank"])
    members, size = ens.sizes[MEMBER], units(ens)

    def final(mean: xr.Dataset) -> xr.Dataset:
        return _final(mean, members, size)

    out = final(whole.mean(cases, keep_attrs=True))
    out["rank_histogram"] = ranks.transpose("rank", ...)
    if block is not None:
        rest = [d for d in cases if d != starts]
        ends = bootstrap(
            whole.mean(rest, keep_attrs=True),
            block=block, dim=str(starts), statistic=final, draws=draws, seed=seed,
        )  # fmt: skip
        for name in ends.data_vars:
            for q, end in enumerate(("low", "high")):
                out[f"{name}_{end}"] = ends[name].isel(quantile=q, drop=True)
    out = out.assign_coords({lead: ens[lead].variable})
    count = math.prod(ens.sizes[d] for d in cases)
    return out.assign_attrs(
        variable=str(ens.name), members=members, cases=count, level=level, across=space
    )


def _single(
    e: xr.DataArray, t: xr.DataArray, space: list[str], level: float
) -> dict[str, xr.DataArray]:
    """What is averaged over starts before the last root or ratio: one value a start."""
    error = e.mean(MEMBER, dtype=np.float64) - t
    return {
        "crps": crps(e, t, over=space),
        "squared": average(error**2, space),
        "mae": average(abs(error), space),
        "bias": average(error, space),
        "variance": average(e.var(MEMBER, ddof=1, dtype=np.float64), space),
        "coverage": coverage(e, t, level, over=space),
    }


def _briers(
    e: xr.DataArray, t: xr.DataArray, space: list[str], thresholds: Sequence[float]
) -> xr.DataArray:
    each = [_bare(brier(e, t, float(v), over=space), ()) for v in thresholds]
    at = xr.Variable("threshold", np.asarray(thresholds, float), {"units": units(e) or "1"})
    return (
        xr.concat(each, "threshold")
        .assign_coords(threshold=at)
        .assign_attrs(estimator="fair Brier score above the threshold")
    )


def _joint(
    e: xr.DataArray, t: xr.DataArray, space: list[str], reach: int
) -> dict[str, xr.DataArray]:
    single = correlation(e, t, across=space, members=True, over=())
    return {
        "energy_score": energy_score(e, t, across=space, over=()),
        "variogram_score": variogram_score(e, t, across=space, reach=reach, over=()),
        "correlation": correlation(e, t, across=space, over=()),
        "correlation_members": single.mean(MEMBER, keep_attrs=True),
    }


def _powers(
    e: xr.DataArray, t: xr.DataArray, space: list[str], spectral: Sequence[str], periodic: bool
) -> dict[str, xr.DataArray]:
    """Mean power of members and truth, up to the Nyquist wavenumber."""
    rest = [d for d in space if d not in spectral]
    found = {}
    for name, field in (("power", e), ("power_truth", t)):
        power = power_spectrum(field, spectral, periodic=periodic)
        k = power["wavenumber"].values
        last = float(power["nyquist"]) * (1 + 1e-9)
        power = power.isel(wavenumber=np.flatnonzero((k > 0) & (k <= last)))
        found[name] = power.mean([*rest, *([MEMBER] if field is e else [])], keep_attrs=True)
    return found


def _final(mean: xr.Dataset, members: int, size: str | None) -> xr.Dataset:
    """Scores from the means over starts."""
    squared, variance = mean["squared"], mean["variance"]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ((members + 1) / members * variance / squared) ** 0.5
    derived = {
        "rmse": (squared**0.5, "root mean square, of the ensemble mean", size),
        "spread": (variance**0.5, "root mean unbiased variance", size),
        "spread_skill": (ratio, "spread/skill, unbiased, times sqrt((M+1)/M)", "1"),
    }
    if "power" in mean:
        decibel = 10 * xr.apply_ufunc(np.log10, mean["power"] / mean["power_truth"])
        distance = (decibel**2).mean("wavenumber", skipna=False) ** 0.5
        derived["log_spectral_distance"] = (distance, "log-spectral distance of mean power", "dB")
    out = mean.drop_vars(["squared", "variance", "power", "power_truth"], errors="ignore")
    out = out.drop_vars("wavenumber", errors="ignore")
    for name, what in (("mae", "mean absolute"), ("bias", "mean error")):
        note = {"estimator": f"{what}, of the ensemble mean", "members": members, "units": size}
        out[name].attrs.update({k: v for k, v in note.items() if v is not None})
    for name, (value, estimator, unit) in derived.items():
        note = {"estimator": estimator, "members": members, "units": unit}
        note["weights"] = squared.attrs["weights"]
        out[name] = value.assign_attrs({k: v for k, v in note.items() if v is not None})
    first = ["crps", "rmse", "spread", "spread_skill", "coverage"]
    return out[[*first, *[n for n in out.data_vars if n not in first]]]


def _normal(climatology: xr.DataArray, ens: xr.DataArray) -> xr.DataArray:
    time = find(climatology, "time")
    return (
        at_leads(climatology, ens) if time is not None and time in climatology.dims else climatology
    )


def _bare(field: xr.DataArray, keep: Sequence[str]) -> xr.DataArray:
    return field.drop_vars([c for c in field.coords if c not in keep])
