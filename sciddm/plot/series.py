"""Series: fans over gaps, forecast fans of items and variables, histograms of the PIT.

What is drawn is what `sciddm.impute`, `sciddm.forecast` and `sciddm.generate` return as Datasets,
dense or ragged: known values as points, members thin, the median and central intervals above them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from sciddm import score
from sciddm.data.schema import find
from sciddm.errors import InputError
from sciddm.plot.style import LINES, STYLE, axis_of, dates, named
from sciddm.score.weights import MEMBER

Part = tuple[str, xr.DataArray, xr.DataArray | None]
"""A panel: its title, (member, time), and the truth (time) or None."""
LEVELS = (0.5, 0.9)
GAP, SHADED = "0.93", 6
"""The colour of gaps, where a panel shows no more than so many."""
TRUTH: dict[str, Any] = {"color": LINES[1], "lw": 1.1, "ls": "--", "label": "truth", "zorder": 3}


def draw(result: xr.Dataset, truth: xr.Dataset | None = None) -> Figure:
    """Fans of whatever a model of series drew: of a forecast along its leads, else over the gaps.

    Args:
        result: Members of one or several items and variables.
        truth: Of the same variables, along time; what is not in it is left out.

    Raises:
        InputError: As `gaps` and `forecasts`.
    """
    return forecasts(result, truth) if find(result, "lead") in result.dims else gaps(result, truth)


def drawn(result: xr.Dataset) -> bool:
    """Whether a Dataset is what a model of series drew: gaps, or a forecast of one start."""
    if "known_values" not in result.attrs:
        return False
    along = {find(result, "lead"), find(result, "time"), "time", "lead_time"}
    along |= {result["row_size"].attrs.get("sample_dimension")} if "row_size" in result else set()
    for value in result.data_vars.values():
        others = [str(d) for d in value.dims if d != MEMBER and d not in along]
        items = [d for d in others if result.coords.get(d, value).attrs.get("cf_role")]
        if MEMBER in value.dims and (others != items or len(others) > 1):
            return False
    return any(MEMBER in value.dims for value in result.data_vars.values())


@mpl.rc_context(STYLE)
def gaps(
    result: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    levels: Sequence[float] = LEVELS,
    panels: int = 6,
    members: int = 5,
    around: float = 1.5,
) -> Figure:
    """What was missing, in its place: a panel an item and variable, about its longest gap.

    Values in which all members agree are known and drawn as points; a few gaps are shaded.

    Args:
        result: ``(member, time)``, with an item dim or ragged, from `sciddm.impute`; one variable
            of it, or all.
        truth: The same times, drawn as a dashed line in the gaps.
        levels: Shares of the truths that the intervals are to hold.
        panels: The most that are drawn, those with the longest gaps first.
        members: How many are drawn as thin lines.
        around: How much is shown on either side of the gap, in its lengths; at least 20 rows.

    Raises:
        InputError: No members, or nothing that was missing.
    """
    shares = _checked(levels)
    found = []
    for part in _parts(result, truth):
        open_ = _open(part[1])
        runs = _runs(open_)
        if len(runs):
            found.append((int(np.diff(runs, axis=1).max()), part, open_, runs))
    if not found:
        raise InputError(
            "All members agree everywhere: nothing was missing; expected a result of sd.impute"
        )
    order = sorted(range(len(found)), key=lambda i: -found[i][0])[:panels]
    fig, axes = _rows(len(order))
    for ax, i in zip(axes, sorted(order), strict=True):
        _, (title, ens, true), open_, runs = found[i]
        at, name = axis_of(ens, str(ens.dims[-1]))
        start, stop = runs[int(np.argmax(np.diff(runs, axis=1)[:, 0]))]
        reach = max(20, int(around * (stop - start)))
        shown = slice(max(0, start - reach), stop + reach)
        near = runs[(runs[:, 0] < shown.stop) & (runs[:, 1] > shown.start)]
        for a, b in near:
            lo, hi = max(a - 1, 0), min(b, at.size - 1)
            if len(near) <= SHADED:
                ax.axvspan(at[lo], at[hi], color=GAP, lw=0, zorder=0)
            _fan(ax, at[lo : hi + 1], ens.values[:, lo : hi + 1], shares, members)
            if true is not None:
                ax.plot(at[lo : hi + 1], true.values[lo : hi + 1], **TRUTH)
        seen = np.where(open_, np.nan, ens.values[0])
        ax.plot(at[shown], seen[shown], "o", color="black", ms=2.2, zorder=4, label="known")
        _finish(ax, at[shown], name, title)
    return _legend(fig, axes)


@mpl.rc_context(STYLE)
def forecasts(
    result: xr.Dataset,
    truth: xr.Dataset | None = None,
    *,
    past: xr.Dataset | None = None,
    levels: Sequence[float] = LEVELS,
    panels: int = 6,
    members: int = 5,
    context: float = 3.0,
) -> Figure:
    """Forecasts against the times for which they hold: a panel an item and variable.

    Args:
        result: ``(member, lead_time)`` of one start, with an item dim or without, from
            `sciddm.forecast`.
        truth: Of the same variables along time, drawn as a dashed line.
        past: What was known, drawn as a line up to the start; of several items with their dim.
        levels: Shares of the truths that the intervals are to hold.
        panels: The most that are drawn.
        members: How many are drawn as thin lines.
        context: How much of the past is shown, in lengths of the forecast.

    Raises:
        InputError: No members, several starts, or leads that the truth does not have.
    """
    shares = _checked(levels)
    lead = find(result, "lead")
    if lead is None or lead not in result.dims:
        raise InputError(
            f"The result has dims {dict(result.sizes)}; expected leads, from sd.forecast; of gaps "
            "use plot.series.gaps"
        )
    true = None
    if truth is not None:
        true = xr.Dataset({n: score.at_leads(truth[n], result[n]) for n in _variables(result)})
    valid = "valid_time" if "valid_time" in result.coords else None
    parts = _parts(result, true)[:panels]
    before = {} if past is None else {t: p for t, p, _ in _parts(past.expand_dims(MEMBER), None)}
    fig, axes = _rows(len(parts))
    for ax, (title, ens, other) in zip(axes, parts, strict=True):
        at, name = axis_of(ens, lead)
        if valid is not None:
            when = xr.DataArray(ens[valid].values, {"time": ens[valid].values}, ("time",))
            at, name = axis_of(when, "time")
        shown, values = at, ens.values
        if title in before:
            known = before[title]
            when_known = axis_of(known, str(known.dims[-1]))[0]
            rows = np.flatnonzero(np.isfinite(known.values[0]) & (when_known < at[0]))
            rows = rows[-max(2, int(context * at.size)) :]
            ax.plot(when_known[rows], known.values[0, rows], color="black", lw=1.2, label="past")
            shown = np.concatenate([when_known[rows], at])
            if rows.size:
                at = np.concatenate([when_known[rows[-1:]], at])
                last = np.full((len(values), 1), known.values[0, rows[-1]])
                values = np.concatenate([last, values], 1)
        _fan(ax, at, values, shares, members)
        if other is not None:
            ax.plot(at[-other.size :], other.values, **TRUTH)
        _finish(ax, shown, name, title)
    return _legend(fig, axes)


@mpl.rc_context(STYLE)
def pit(values: xr.DataArray, *, bins: int = 20, independent: float | None = None) -> Figure:
    """Histogram of the PIT over what a flat one would hold, and the band of a calibrated ensemble.

    Args:
        values: From :func:`sciddm.score.pit`, in [0, 1]; NaN is left out.
        bins: How many.
        independent: How many of the values count as independent, for the band of 95 %: neighbours
            in time do not. Default all of them, which is the narrowest band.

    Raises:
        InputError: Values outside [0, 1], or none.
    """
    x = np.asarray(values.values, dtype=np.float64).ravel()
    x = x[np.isfinite(x)]
    if not x.size or x.min() < 0 or x.max() > 1:
        raise InputError("Got values outside [0, 1], or none; expected those of score.pit")
    count = float(x.size if independent is None else independent)
    height = np.histogram(x, bins, (0, 1))[0] * bins / x.size
    low, high = stats.binom(max(1, round(count)), 1 / bins).ppf([0.025, 0.975]) * bins / count
    fig = Figure(figsize=(4.2, 3.0), layout="constrained")
    ax = fig.subplots()
    edges = np.linspace(0, 1, bins + 1)
    ax.axhspan(low, high, color="0.88", lw=0, label="95 % if calibrated")
    ax.bar(edges[:-1], height, 1 / bins, align="edge", color=LINES[5], edgecolor="white", lw=0.5)
    ax.axhline(1.0, color="black", lw=1, ls="--", label="flat: calibrated")
    ax.legend(loc="upper right")
    ax.set(
        title=f"PIT of {x.size} values",
        xlabel="share of the ensemble below the truth",
        ylabel="count / flat count",
        xlim=(0, 1),
        ylim=(0, 1.3 * max(height.max(), high)),
    )
    return fig


def _checked(levels: Sequence[float]) -> list[float]:
    if not levels or not all(0.0 < level < 1.0 for level in levels):
        raise InputError(f"levels are {tuple(levels)}; expected shares in (0, 1), such as 0.9")
    return sorted(levels, reverse=True)


def _variables(result: xr.Dataset) -> list[str]:
    found = [str(n) for n, v in result.data_vars.items() if MEMBER in v.dims]
    if not found:
        raise InputError(
            f"The result has dims {dict(result.sizes)}; a fan needs members, dim 'member'"
        )
    return found


def _parts(result: xr.Dataset, truth: xr.Dataset | None) -> list[Part]:
    """Every item and variable: (member, time) with its title."""
    names = _variables(result)
    cuts: list[tuple[str, dict[str, Any]]] = [("", {})]
    extra = [str(d) for d in result[names[0]].dims if d != MEMBER]
    if "row_size" in result:
        ends = np.cumsum(result["row_size"].values)
        item = str(result["row_size"].dims[0])
        obs = str(result["row_size"].attrs.get("sample_dimension", extra[0]))
        cuts = [
            (str(label), {obs: slice(int(end - size), int(end))})
            for label, end, size in zip(
                result[item].values, ends, result["row_size"].values, strict=True
            )
        ]
    elif len(extra) == 2:
        (item,) = (d for d in extra if d not in (find(result, "lead"), find(result, "time")))
        labels = result[item].values if item in result.coords else np.arange(result.sizes[item])
        cuts = [(str(label), {item: i}) for i, label in enumerate(labels)]
    elif len(extra) != 1:
        raise InputError(
            f"The result has sizes {dict(result.sizes)}; expected members, a time and at most one "
            f"dim of items: select the rest with .isel(...)"
        )
    out: list[Part] = []
    for label, cut in cuts:
        for name in names:
            ens = result[name].isel(cut)
            if "row_size" in result:
                ens = _along_time(result, ens, cut)
            true = None if truth is None or name not in truth else truth[name].isel(cut).squeeze()
            title = " ".join(filter(None, (label, named(ens))))
            out.append((title, ens.transpose(MEMBER, ...), true))
    return out


def _along_time(result: xr.Dataset, ens: xr.DataArray, cut: dict[str, Any]) -> xr.DataArray:
    """Rows of one item with their times as the coordinate of their dim."""
    obs = str(next(iter(cut)))
    time = find(result, "time") or "time"
    when = result[time].isel(cut)
    return (
        ens.drop_vars(time, errors="ignore")
        .rename({obs: time})
        .assign_coords({time: (time, when.values, when.attrs)})
    )


def _open(ens: xr.DataArray) -> npt.NDArray[np.bool_]:
    """Where members differ."""
    values = ens.values
    return np.asarray((values != values[:1]).any(0) & np.isfinite(values).all(0))


def _runs(open_: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """(k, 2): first and one past the last of every stretch."""
    edge = np.diff(np.concatenate([[0], open_.astype(int), [0]]))
    return np.stack([np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)], 1)


def _fan(
    ax: Axes, at: np.ndarray, values: np.ndarray, levels: Sequence[float], members: int
) -> None:
    """Intervals, median and some members, (M, n)."""
    for i, level in enumerate(levels):
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(values, ends, 0, method="weibull")
        shade = 0.18 + 0.3 * i / len(levels)
        text = f"{100 * level:g} %"
        ax.fill_between(at, low, high, color=LINES[0], alpha=shade, lw=0, label=text, zorder=1)
    for one in values[:members]:
        ax.plot(at, one, color=LINES[0], lw=0.4, alpha=0.6, zorder=2)
    ax.plot(at, np.median(values, 0), color=LINES[0], lw=1.4, label="median", zorder=3)


def _rows(count: int) -> tuple[Figure, list[Axes]]:
    columns = 1 if count <= 3 else 2
    rows = -(-count // columns)
    size = (7.5 if columns == 1 else 9.0, 0.4 + (2.6 if count == 1 else 2.0) * rows)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return fig, list(axes[:count])


def _finish(ax: Axes, at: np.ndarray, name: str, title: str) -> None:
    dates(ax.xaxis, at)
    ax.set(xlabel=name, title=title, xlim=(at.min(), at.max()))


def _legend(fig: Figure, axes: Sequence[Axes]) -> Figure:
    """One for all, each entry once."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, text in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(text, handle)
    fig.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=6)
    return fig
