"""Do the patterns agree: correlation, anomaly correlation, and how long a forecast keeps it.

Correlations are taken over the cells of one field (``across``), weighted by area, case by case,
and then averaged; a correlation taken over space and time at once mixes the pattern with the
season. They say nothing of the spread, and the ensemble mean gains by being smooth: give
``members=True`` to see what single members keep.

References:
    Lippe et al., PDE-Refiner, 2023, arXiv:2308.05732, section 4 (time until the correlation falls
    below 0.8). Jolliffe and Stephenson, Forecast Verification, 2nd edition, 2012, section 6.2
    (the uncentred anomaly correlation).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciddm.data.schema import find
from sciddm.errors import InputError, nearest
from sciddm.score.weights import MEMBER, Labelled, average, averaged, each, finish, label, pair


def correlation(
    ens: Labelled,
    truth: Labelled,
    *,
    across: Sequence[str] | None = None,
    members: bool = False,
    over: Sequence[str] | None = None,
) -> Labelled:
    """Pearson correlation of the ensemble mean (or of every member) with the truth over a field.

    Args:
        ens: ``(member, *dims)``, or ``(*dims)`` for a single estimate.
        truth: ``(*dims)``.
        across: Dims that make a field; all but ``member`` by default.
        members: Correlate each member and keep the dim ``member``.
        over: Dims to average the correlations over; by default all that are not in ``across``.

    Returns:
        The remaining dims, in [-1, 1]; NaN where a field is constant.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t, count = _estimates(e, t, members)
        inside = averaged(e, across)
        e, t = e - average(e, inside), t - average(t, inside)
        return _product(e, t, inside, over, "pattern correlation", members, count)

    return each(score, ens, truth)


def acc(
    ens: Labelled,
    truth: Labelled,
    climatology: Labelled,
    *,
    across: Sequence[str] | None = None,
    members: bool = False,
    over: Sequence[str] | None = None,
) -> Labelled:
    """Anomaly correlation, uncentred: ``<(x - c)(y - c)> / sqrt(<(x - c)^2> <(y - c)^2>)``.

    Args:
        climatology: ``c``, at the points of the truth; dims that it lacks (cases, leads) are
            repeated. A climatology of the day of the year is to be taken at the valid times first.
        ens, truth, across, members, over: As :func:`correlation`.

    Raises:
        InputError: As :func:`correlation`; a climatology on other points.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        c = climatology if isinstance(climatology, xr.DataArray) else climatology[str(e.name)]
        e, t, count = _estimates(e, t, members)
        extra = [str(d) for d in c.dims if d not in t.dims]
        if extra:
            raise InputError(
                f"the climatology of {label(e)} has a dim {extra[0]!r} that the truth lacks; "
                f"select it at the valid times.{nearest(extra[0], map(str, t.dims))}"
            )
        lacking = {d: t.sizes[d] for d in t.dims if d not in c.dims}
        c = c.drop_vars([n for n in c.coords if n not in c.dims]).expand_dims(lacking)
        c = c.assign_coords({d: t[d] for d in lacking if d in t.coords})
        _, c = pair(t.expand_dims(MEMBER), c.where(t.notnull()))
        inside = averaged(e, across)
        return _product(e - c, t - c, inside, over, "uncentred anomaly correlation", members, count)

    return each(score, ens, truth)


def _estimates(
    ens: xr.DataArray, truth: xr.DataArray, members: bool
) -> tuple[xr.DataArray, xr.DataArray, int]:
    if MEMBER not in ens.dims:
        ens = ens.expand_dims(MEMBER)
    ens, truth = pair(ens, truth)
    count, ens = ens.sizes[MEMBER], ens.astype(np.float64)
    return ens if members else ens.mean(MEMBER), truth.astype(np.float64), count


def _product(
    e: xr.DataArray,
    t: xr.DataArray,
    inside: Sequence[str],
    over: Sequence[str] | None,
    name: str,
    members: bool,
    count: int,
) -> xr.DataArray:
    def mean(field: xr.DataArray) -> xr.DataArray:
        return average(field, inside).compute()

    size = (mean(e**2) * mean(t**2)) ** 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        each_case = mean(e * t) / size.where(size > 0)
    note = mean(t).attrs["weights"]
    whose = "of the ensemble mean" if count > 1 else "of a single estimate"
    whose = "of each member" if members else whose
    done = finish(average(each_case, over), f"{name}, {whose}", count, "1")
    return done.assign_attrs(weights=note, across=list(inside))


def time_to_decorrelation(
    correlation: Labelled, *, level: float = 0.8, dim: str | None = None
) -> Labelled:
    """The lead at which a correlation first falls below ``level``, interpolated between leads.

    At lead 0 the correlation is taken as 1, so a fall within the first lead counts too. Average
    the correlations over cases first, or the times of the cases afterwards: they differ.

    Args:
        correlation: From :func:`correlation` or :func:`acc`, along leads.
        level: What it falls below.
        dim: The dim of leads, found by its meaning if not given.

    Returns:
        The remaining dims, in the units of the lead (hours for time differences); infinite where
        it never falls below, NaN where a correlation before the fall is NaN.

    Raises:
        InputError: No such dim, leads that do not rise from above 0, or a level outside (-1, 1).
    """
    if not -1.0 < level < 1.0:
        raise InputError(f"level is {level}; expected a correlation in (-1, 1), such as 0.8")

    def score(c: xr.DataArray, _: xr.DataArray) -> xr.DataArray:
        name = dim or find(c, "lead")
        if name is None or name not in c.dims or name not in c.coords:
            raise InputError(
                f"{label(c)} has dims {tuple(c.dims)}; expected a dim of leads with a coordinate, "
                f"such as 'lead_time'.{nearest(dim or 'lead_time', map(str, c.dims))}"
            )
        lead, unit = c[name].values, c[name].attrs.get("units")
        if lead.dtype.kind == "m":
            lead, unit = lead / np.timedelta64(1, "h"), "hours"
        lead = lead.astype(np.float64)
        if lead[0] < 0 or (np.diff(lead) <= 0).any():
            raise InputError(f"leads {name!r} do not rise from 0 or above: {lead[:4]}; sort them")
        values = xr.apply_ufunc(
            _crossing,
            c.compute(),
            input_core_dims=[[name]],
            kwargs={"lead": lead, "level": level},
        )
        text = f"first lead with a correlation below {level:g}, linear between leads"
        done = finish(values, text, c.attrs.get("members"), unit)
        return done.assign_attrs({k: c.attrs[k] for k in ("weights",) if k in c.attrs})

    return each(score, correlation, correlation)


def _crossing(values: np.ndarray, lead: np.ndarray, level: float) -> np.ndarray:
    """``(*others, leads) -> (*others)``."""
    if lead[0] > 0:
        values = np.concatenate([np.ones((*values.shape[:-1], 1)), values], -1)
        lead = np.concatenate([[0.0], lead])
    # NaN counts as a fall: what follows it is not known.
    below = ~(values >= level)
    at = np.argmax(below, axis=-1)
    before = np.maximum(at - 1, 0)
    low, high = (np.take_along_axis(values, i[..., None], -1)[..., 0] for i in (at, before))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (high - level) / (high - low)
    # Low already at the first lead given, which is 0.
    share = np.where(at > 0, share, np.where(np.isnan(low), np.nan, 0.0))
    crossed = lead[before] + share * (lead[at] - lead[before])
    return np.where(below.any(-1), crossed, np.inf)
