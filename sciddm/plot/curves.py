"""Curves: fans of an ensemble along one dim, histograms of ranks, spectra, losses."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sciddm import score
from sciddm.data.schema import find
from sciddm.errors import InputError
from sciddm.plot.style import LINES, STYLE, axis_of, dates, line, named, need, unit
from sciddm.score.weights import MEMBER, label, match, pair


@mpl.rc_context(STYLE)
def fan(
    ens: xr.DataArray,
    truth: xr.DataArray | None = None,
    observed: xr.DataArray | None = None,
    *,
    past: xr.DataArray | None = None,
    levels: Sequence[float] = (0.5, 0.9),
) -> Figure:
    """An ensemble along one dim (time, lead, a transect): median, central intervals, truth.

    A forecast along leads is drawn against the time at which it is valid, where it says its start;
    truth, observations and past are records along time then.

    Args:
        ens: ``(member, dim)``.
        truth: ``(dim)``, drawn as a line.
        observed: ``(dim)``, drawn as points; NaN where nothing was seen.
        past: ``(time)``, what came before a forecast, drawn as a line up to its start.
        levels: Shares of the truths that the intervals are to hold.

    Raises:
        InputError: Not one series, a level outside (0, 1), or other points.
    """
    series = ens.squeeze([d for d in ens.dims if d != MEMBER and ens.sizes[d] == 1])
    if MEMBER not in series.dims or series.ndim != 2:
        raise InputError(
            f"{label(ens)} has sizes {dict(ens.sizes)}; a fan needs 'member' and one more dim; "
            f"select one point or case with .isel(...)"
        )
    if not all(0.0 < level < 1.0 for level in levels):
        raise InputError(f"levels are {tuple(levels)}; expected shares in (0, 1), such as 0.9")
    (dim,) = (str(d) for d in series.dims if d != MEMBER)
    known = {"valid_time", find(series, "init")} & {*series.coords}
    started = dim == find(series, "lead") and len(known) > 0
    if started:
        truth = None if truth is None else score.at_leads(truth.squeeze(), series)
        observed = None if observed is None else score.at_leads(observed.squeeze(), series)
    if truth is not None:
        series, truth = pair(series, truth)
    at, name = _along(series, dim, started)
    values = series.transpose(MEMBER, ...).values.astype(np.float64)
    fig = Figure(figsize=(7.5, 3.2), layout="constrained")
    ax = fig.subplots()
    for i, level in enumerate(sorted(levels, reverse=True)):
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2], 0, method="weibull")
        shade = 0.18 + 0.3 * i / len(levels)
        text = f"{100 * level:g} %"
        ax.fill_between(at, low, high, color=LINES[0], alpha=shade, lw=0, label=text)
    ax.plot(at, np.quantile(values, 0.5, axis=0), color=LINES[0], lw=1.5, label="median")
    if truth is not None:
        ax.plot(at, truth.values, color="black", lw=1.2, ls="--", label="truth")
    if observed is not None:
        _, seen = match(series, observed)
        ax.plot(at, seen.values, "o", color=LINES[1], ms=4, zorder=3, label="observed")
    first = at.min()
    if past is not None:
        before = past.squeeze()
        when = axis_of(before, str(before.dims[0]))[0]
        first = min(first, when.min())
        ax.plot(when, before.values, color="black", lw=1.2, label="past")
        ax.axvline(when[when <= at.min()].max(initial=when.min()), color="0.6", lw=0.8)
    dates(ax.xaxis, at)
    ax.set(xlabel=name, ylabel=textwrap.fill(named(series), 30), xlim=(first, at.max()))
    fig.legend(loc="outside upper center", ncols=6)
    return fig


def _along(series: xr.DataArray, dim: str, started: bool) -> tuple[np.ndarray, str]:
    """Where the values of a series stand, and the name of that axis."""
    if not started:
        return axis_of(series, dim)
    valid = score.valid_time(series).values.reshape(-1)
    return axis_of(xr.DataArray(valid, {"time": valid}, ("time",)), "time")


@mpl.rc_context(STYLE)
def rank_histogram(counts: xr.DataArray) -> Figure:
    """Counts from :func:`sciddm.score.rank_histogram`, over what a flat histogram would hold.

    Raises:
        InputError: Dims other than ``rank``; sum over them first.
    """
    if counts.dims != ("rank",):
        raise InputError(
            f"{label(counts)} has dims {tuple(counts.dims)}; expected ('rank',) from "
            f"score.rank_histogram; sum over the other dims"
        )
    fig = Figure(figsize=(4.2, 3.0), layout="constrained")
    draw_ranks(fig.subplots(), counts)
    return fig


@mpl.rc_context(STYLE)
def spectrum(spectra: Mapping[str, xr.DataArray]) -> Figure:
    """Power spectra on logarithmic axes, a line each, up to the Nyquist wavenumber.

    Args:
        spectra: Name in the legend -> ``(wavenumber)`` from :func:`sciddm.score.power_spectrum`;
            one with a further dim (members, cases) is its mean, and a band that holds nine in ten.

    Raises:
        InputError: None given, or more dims; average over them first.
    """
    first = need(spectra, "wavenumber", "score.power_spectrum")
    fig = Figure(figsize=(4.8, 3.4), layout="constrained")
    ax = fig.subplots()
    for i, (name, power) in enumerate(spectra.items()):
        k = power["wavenumber"]
        last = power.coords.get("nyquist", k.max())
        kept = power.isel(wavenumber=np.flatnonzero((k > 0) & (k <= last * (1 + 1e-9))))
        others = [d for d in power.dims if d != "wavenumber"]
        if others:
            low, high = (kept.quantile(q, others).values for q in (0.05, 0.95))
            at = kept["wavenumber"].values
            ax.fill_between(at, low, high, color=LINES[i % len(LINES)], alpha=0.25, lw=0)
        ax.loglog(kept["wavenumber"].values, kept.mean(others).values, label=name, **line(i))
    ax.set(xlabel=axis_of(first, "wavenumber")[1], ylabel=f"mean power of a mode{unit(first)}")
    ax.legend()
    return fig


@mpl.rc_context(STYLE)
def learning_curves(curves: Mapping[str, xr.DataArray]) -> Figure:
    """Loss against training step; with a second dim (noise level), a panel for each of its values.

    Args:
        curves: Name in the legend -> ``(step)`` or ``(step, level)``; levels alike in all.

    Raises:
        InputError: None given, more dims, or levels that differ.
    """
    first = need(curves, "step", "a training log")
    extra = [d for d in first.dims if d != "step"]
    for name, curve in curves.items():
        same = {*curve.dims} == {*first.dims} and all(curve[d].equals(first[d]) for d in extra)
        if not same:
            raise InputError(
                f"curve {name!r} has other dims or levels than the first; draw it apart"
            )
    levels = first[extra[0]].values if extra else np.zeros(1)
    columns = min(4, levels.size)
    rows = -(-levels.size // columns)
    size = (2.4 * columns + 0.8, 2.0 * rows + 0.9) if extra else (5.0, 3.4)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for j, ax in enumerate(axes):
        ax.set_visible(j < levels.size)
        for i, curve in enumerate(curves.values() if j < levels.size else ()):
            one = curve.isel({d: j for d in extra})
            ax.semilogy(one["step"].values, one.values, **line(i))
        if extra and j < levels.size:
            ax.set_title(f"{str(extra[0]).replace('_', ' ')} = {levels[j]:.3g}")
    fig.legend(axes[0].lines, list(curves), loc="outside upper center", ncols=4)
    fig.supxlabel("training step", fontsize=9)
    fig.supylabel(named(first) or "loss", fontsize=9)
    return fig


def draw_ranks(ax: Axes, counts: xr.DataArray) -> None:
    """At most 20 bars: shares of neighbouring ranks over what a flat histogram would hold."""
    ranks = counts.size
    first = np.arange(min(ranks, 20)) * ranks // min(ranks, 20)
    width = np.diff(np.append(first, ranks))
    height = np.add.reduceat(counts.values, first) / (width * counts.values.mean())
    ax.bar(first - 0.5, height, width, align="edge", color=LINES[5], edgecolor="white", lw=0.5)
    ax.axhline(1.0, color="black", lw=1, ls="--", label="flat: calibrated")
    ax.legend(loc="upper right")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(
        title="ranks of the truth",
        xlabel=f"rank among {ranks - 1} members",
        ylabel="count / flat count",
        xlim=(-0.5, ranks - 0.5),
        ylim=(0, 1.25 * max(height.max(), 1.2)),
    )
