"""Pictures of ensembles: labelled fields in, matplotlib figures out.

    fig = plot.recovery(truth, posterior, sensors)
    plot.save(fig, "recovery.png")

Rules that hold in every picture: fields that are compared share one colour scale, drawn once;
colours are perceptually uniform and safe for colour-blind readers (viridis, magma; lines also
differ in dash); axes carry the names and units in the attrs; what is masked is grey. Figures are
made without pyplot, so nothing global changes and nothing has to be closed.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sciddm import score
from sciddm.data.schema import find
from sciddm.errors import InputError, nearest
from sciddm.score.weights import MEMBER, label, match, pair

FIELD: Colormap = mpl.colormaps["viridis"].with_extremes(bad="0.82")
SPREAD: Colormap = mpl.colormaps["magma"].with_extremes(bad="0.82")
# Okabe and Ito, Color Universal Design, 2008: eight colours that colour-blind readers tell apart.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}


@mpl.rc_context(STYLE)
def recovery(
    truth: xr.DataArray, posterior: xr.DataArray, sensors: xr.DataArray | None = None
) -> Figure:
    """One recovered field: truth, sensors, mean, three members, spread, ranks of the truth.

    Args:
        truth: A 2-D field.
        posterior: ``(member, *dims)`` on the same points.
        sensors: What was seen: on grid dims with NaN where nothing was (any subset of points, on
            or off the grid), or along one dim with the positions as coordinates named like the
            dims of ``truth``. Another variable than ``truth`` gets a colour scale of its own.

    Returns:
        A figure; truth, mean, members and (of the same variable) sensors share one colour scale.

    Raises:
        InputError: The fields are not one 2-D field each on the same points, one member only, or
            sensors without positions.
    """
    ens, true = _compared(posterior, truth)
    return _picture(ens, true, None if sensors is None else _positions(sensors, true))


@mpl.rc_context(STYLE)
def maps(
    ens: xr.DataArray, truth: xr.DataArray | None = None, sensors: xr.DataArray | None = None
) -> Figure:
    """One 2-D case of an ensemble: mean, members, spread; truth and sensors as :func:`recovery`.

    Raises `InputError` for no 2-D field, fewer than two members, or a truth that does not match.
    """
    plain = truth is None and MEMBER in ens.dims
    ens, like = _compared(ens, ens[{MEMBER: 0}] if plain else ens if truth is None else truth)
    seen = None if sensors is None else _positions(sensors, like)
    return _picture(ens, None if plain else like, seen)


@mpl.rc_context(STYLE)
def fan(
    ens: xr.DataArray,
    truth: xr.DataArray | None = None,
    observed: xr.DataArray | None = None,
    *,
    levels: Sequence[float] = (0.5, 0.9),
) -> Figure:
    """An ensemble along one dim (time, lead, a transect): median, central intervals, truth.

    Args:
        ens: ``(member, dim)``.
        truth: ``(dim)``, drawn as a line.
        observed: ``(dim)``, drawn as points; NaN where nothing was seen.
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
    if truth is not None:
        series, truth = pair(series, truth)
    (dim,) = (d for d in series.dims if d != MEMBER)
    at, name = _axis(series, str(dim))
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
    _dates(ax.xaxis, at)
    ax.set(xlabel=name, ylabel=textwrap.fill(_text(series), 30), xlim=(at.min(), at.max()))
    fig.legend(loc="outside upper center", ncols=6)
    return fig


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
    _ranks(fig.subplots(), counts)
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
    first = _need(spectra, "wavenumber", "score.power_spectrum")
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
        ax.loglog(kept["wavenumber"].values, kept.mean(others).values, label=name, **_line(i))
    ax.set(xlabel=_axis(first, "wavenumber")[1], ylabel=f"mean power of a mode{_unit(first)}")
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
    first = _need(curves, "step", "a training log")
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
            ax.semilogy(one["step"].values, one.values, **_line(i))
        if extra and j < levels.size:
            ax.set_title(f"{str(extra[0]).replace('_', ' ')} = {levels[j]:.3g}")
    fig.legend(axes[0].lines, list(curves), loc="outside upper center", ncols=4)
    fig.supxlabel("training step", fontsize=9)
    fig.supylabel(_text(first) or "loss", fontsize=9)
    return fig


def save(fig: Figure, path: Path | str, *, dpi: int = 150) -> Path:
    """Write a figure in the format of the suffix; a whole file or none. Replaces what is there.

    Raises:
        InputError: Matplotlib cannot write the suffix.
    """
    path = Path(path)
    known = fig.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise InputError(
            f"cannot write a picture to {path.name!r}: unknown suffix {path.suffix!r}."
            f"{nearest(path.suffix[1:], known)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        fig.savefig(part, dpi=dpi)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _picture(ens: xr.DataArray, truth: xr.DataArray | None, seen: xr.DataArray | None) -> Figure:
    """Two rows of three maps on one colour scale, and beside them spread and ranks."""
    mean = ens.mean(MEMBER, keep_attrs=True)
    spread = ens.std(MEMBER, ddof=1, keep_attrs=True)
    heads = [f"mean of {ens.sizes[MEMBER]} members", "spread"]
    if truth is not None:
        heads[0] += f"\nrmse {float(score.rmse(ens, truth)):.3g}{_unit(ens, ' {}')}"
        heads[1] += f"\nspread/skill {float(score.spread_skill(ens, truth)):.2f}"
    fields = ([] if truth is None else [("truth", truth)]) + [(heads[0], mean)]
    free = 6 - len(fields) - (seen is not None)
    names = ens[MEMBER].values if MEMBER in ens.coords else np.arange(ens.sizes[MEMBER])
    fields += [(f"member {n}", ens.isel({MEMBER: i})) for i, n in enumerate(names[:free])]
    scale = _scale(*(field for _, field in fields))

    aspect, height = _aspect(mean)
    own = seen is not None and seen.name not in (None, mean.name)
    fig = Figure(figsize=(13.0, 4.8 * height + 2.1 + (0.6 if own else 0.0)), layout="constrained")
    axes = fig.subplots(2, 4)
    left = axes[:, :3].ravel().tolist()
    drawn = left[:1] + left[2:] if seen is not None else left
    for ax, (title, field) in zip(drawn, fields, strict=False):
        _map(ax, field, scale, FIELD, title)
    widths = _map(axes[0, 3], spread, _scale(spread, low=0.0), SPREAD, heads[1])
    fig.colorbar(widths, ax=axes[0, 3], label=f"s.d.{_unit(mean)}", format="%.3g")
    used = [*drawn[: len(fields)], axes[0, 3]]
    if seen is not None:
        points = _scatter(left[1], seen, mean, _scale(seen) if own else scale)
        used.append(left[1])
        if own:
            text = textwrap.fill(_text(seen), 36)
            bar = fig.colorbar(points, ax=left[1], location="bottom", label=text, format="%.3g")
            bar.ax.locator_params(nbins=4)
    place: dict[str, Any] = {"location": "bottom", "aspect": 50, "shrink": 0.6}
    fig.colorbar(ScalarMappable(scale, FIELD), ax=left, label=_text(mean), format="%.5g", **place)
    domain = {"xlim": left[0].get_xlim(), "ylim": left[0].get_ylim(), "aspect": aspect}
    vertical, horizontal = (_axis(mean, str(d))[1] for d in mean.dims)
    for (row, column), ax in np.ndenumerate(axes):
        # All maps show one domain: numbers stand at the left and below only.
        outer = column == 0, row == 1 or (column < 3 and axes[1, column] not in used)
        ax.set(ylabel=vertical if outer[0] else "", xlabel=horizontal if outer[1] else "", **domain)
        ax.tick_params(labelleft=outer[0], labelbottom=outer[1])
        ax.spines[:].set(visible=True, color="0.5")
        ax.set_visible(ax in used)
    if truth is not None:
        axes[1, 3].remove()
        corner = fig.add_subplot(axes[1, 3].get_subplotspec())
        _ranks(corner, score.rank_histogram(ens, truth))
    return fig


def _compared(ens: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """One 2-D case ``(member, vertical, horizontal)`` and its truth, with name and units."""
    attrs, name = {**truth.attrs, **ens.attrs}, truth.name if ens.name is None else ens.name
    ens, truth = pair(ens, truth, least=2)
    flat = [d for d in truth.dims if truth.sizes[d] == 1]
    ens, truth = ens.squeeze(flat).compute(), truth.squeeze(flat).compute()
    if truth.ndim != 2:
        raise InputError(
            f"{label(ens)} has sizes {dict(truth.sizes)} beside 'member'; a map needs two dims of "
            f"one case; select with .isel(...), or draw a series with plot.fan"
        )
    dims = [str(d) for d in truth.dims]
    if dims[0] in (find(truth, "longitude"), find(truth, "x")):
        dims.reverse()
    ens, truth = ens.transpose(MEMBER, *dims), truth.transpose(*dims)
    return ens.assign_attrs(attrs).rename(name), truth.assign_attrs(attrs).rename(name)


def _positions(sensors: xr.DataArray, grid: xr.DataArray) -> xr.DataArray:
    """Seen values along one dim, with coords named like the dims of ``grid``."""
    places = [str(d) for d in grid.dims]
    single = [d for d in sensors.dims if sensors.sizes[d] == 1 and d not in places]
    flat = sensors.squeeze(single[: sensors.ndim - 1])
    if set(flat.dims) == set(places):
        flat = flat.stack(point=places)
    elif flat.ndim != 1 or not all(p in flat.coords and flat[p].dims == flat.dims for p in places):
        raise InputError(
            f"sensors have dims {tuple(sensors.dims)}; expected {tuple(places)} with NaN where "
            f"nothing was seen, or one dim with coordinates {places[0]!r} and {places[1]!r}"
        )
    seen = flat[np.isfinite(flat.values)]
    if seen.size:
        return seen
    raise InputError("sensors are NaN everywhere; expected at least one value")


def _scatter(ax: Axes, seen: xr.DataArray, grid: xr.DataArray, scale: Normalize) -> ScalarMappable:
    vertical, horizontal = (seen[str(d)].values for d in grid.dims)
    of = "" if seen.name is None else f" of {seen.name}"
    ax.set(title=f"{seen.size} sensors{of}", facecolor="0.96")
    return ax.scatter(
        horizontal,
        vertical,
        c=seen.values,
        s=float(np.clip(1500 / seen.size, 6, 40)),
        norm=scale,
        cmap=FIELD,
        edgecolors="0.25",
        linewidths=0.4,
    )


def _map(
    ax: Axes, field: xr.DataArray, scale: Normalize, colours: Colormap, title: str
) -> ScalarMappable:
    vertical, horizontal = (_axis(field, str(d))[0] for d in field.dims)
    _dates(ax.yaxis, vertical)
    _dates(ax.xaxis, horizontal)
    values = np.ma.masked_invalid(field.values)
    ax.set_title(title)
    return ax.pcolormesh(
        horizontal, vertical, values, shading="nearest", norm=scale, cmap=colours, rasterized=True
    )


def _aspect(field: xr.DataArray) -> tuple[float, float]:
    """Length of a vertical unit over a horizontal one, and height over width of the picture."""
    vertical, horizontal = (str(d) for d in field.dims)
    ends = (_axis(field, d)[0] for d in (vertical, horizontal))
    tall, wide = (float(np.ptp(date2num(v) if v.dtype.kind == "M" else v)) for v in ends)
    aspect = 1.0
    if (find(field, "latitude"), find(field, "longitude")) == (vertical, horizontal):
        aspect = 1.0 / max(float(np.cos(np.deg2rad(field[vertical].mean()))), 0.2)
    elif len({field[d].attrs.get("units") for d in field.dims if d in field.coords}) > 1:
        aspect = wide / tall  # nothing to compare: a square
    height = float(np.clip(aspect * tall / wide, 0.45, 1.6))
    return height * wide / tall, height


def _ranks(ax: Axes, counts: xr.DataArray) -> None:
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


def _scale(*fields: xr.DataArray, low: float | None = None) -> Normalize:
    least = min(float(f.min()) for f in fields) if low is None else low
    most = max(float(f.max()) for f in fields)
    return Normalize(least, most if most > least else least + 1.0)


def _line(i: int) -> dict[str, Any]:
    return {"color": LINES[i % len(LINES)], "ls": DASHES[i % len(DASHES)], "lw": 1.6}


def _axis(field: xr.DataArray, dim: str) -> tuple[np.ndarray, str]:
    """Numbers (or dates) to draw along a dim, and its name with units."""
    if dim not in field.coords or field[dim].dtype.kind in "US":
        return np.arange(field.sizes[dim]), dim
    coord = field[dim]
    values, units = coord.values, coord.attrs.get("units")
    if values.dtype.kind == "m":
        values, units = values / np.timedelta64(1, "h"), "h"
    elif values.dtype.kind == "O":
        # Calendars without leap years have no dates in matplotlib.
        values, units = coord.dt.decimal_year.values, "year"
    short = {"degrees_north": "°N", "degrees_east": "°E"}
    return values, _text(coord.assign_attrs(units=short.get(str(units), units)))


def _dates(axis: Axis, values: np.ndarray) -> None:
    if values.dtype.kind == "M":
        locator = AutoDateLocator()
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator))


def _text(field: xr.DataArray) -> str:
    known = field.attrs.get("long_name") or field.attrs.get("standard_name") or field.name or ""
    return f"{str(known).replace('_', ' ')}{_unit(field)}".strip()


def _unit(field: xr.DataArray, form: str = " [{}]") -> str:
    units = field.attrs.get("units")
    return "" if units in (None, "", "1") else form.format(units)


def _need(fields: Mapping[str, xr.DataArray], dim: str, source: str) -> xr.DataArray:
    """The first of some fields along ``dim`` and at most one dim more."""
    if not fields:
        raise InputError(f"nothing to draw; expected a mapping of names to fields from {source}")
    for name, field in fields.items():
        if dim not in field.dims or field.ndim > 2:
            raise InputError(
                f"{name!r} has dims {tuple(field.dims)}; expected {dim!r} and at most one "
                f"more, from {source}; average over the others"
            )
    return next(iter(fields.values()))
