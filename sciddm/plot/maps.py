"""Maps of one case: truth, what was seen, mean, members, spread, and the ranks of the truth."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from sciddm import score
from sciddm.data.schema import find
from sciddm.errors import InputError
from sciddm.plot.curves import draw_ranks
from sciddm.plot.style import FIELD, SPREAD, STYLE, axis_of, dates, named, scale_of, unit
from sciddm.score.weights import MEMBER, label, pair


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


def _picture(ens: xr.DataArray, truth: xr.DataArray | None, seen: xr.DataArray | None) -> Figure:
    """Two rows of three maps on one colour scale, and beside them spread and ranks."""
    mean = ens.mean(MEMBER, keep_attrs=True)
    spread = ens.std(MEMBER, ddof=1, keep_attrs=True)
    heads = [f"mean of {ens.sizes[MEMBER]} members", "spread"]
    if truth is not None:
        heads[0] += f"\nrmse {float(score.rmse(ens, truth)):.3g}{unit(ens, ' {}')}"
        heads[1] += f"\nspread/skill {float(score.spread_skill(ens, truth)):.2f}"
    fields = ([] if truth is None else [("truth", truth)]) + [(heads[0], mean)]
    free = 6 - len(fields) - (seen is not None)
    names = ens[MEMBER].values if MEMBER in ens.coords else np.arange(ens.sizes[MEMBER])
    fields += [(f"member {n}", ens.isel({MEMBER: i})) for i, n in enumerate(names[:free])]
    scale = scale_of(*(field for _, field in fields))

    aspect, height = aspect_of(mean)
    own = seen is not None and seen.name not in (None, mean.name)
    fig = Figure(figsize=(13.0, 4.8 * height + 2.1 + (0.6 if own else 0.0)), layout="constrained")
    axes = fig.subplots(2, 4)
    left = axes[:, :3].ravel().tolist()
    drawn = left[:1] + left[2:] if seen is not None else left
    for ax, (title, field) in zip(drawn, fields, strict=False):
        draw_map(ax, field, scale, FIELD, title)
    widths = draw_map(axes[0, 3], spread, scale_of(spread, low=0.0), SPREAD, heads[1])
    fig.colorbar(widths, ax=axes[0, 3], label=f"s.d.{unit(mean)}", format="%.3g")
    used = [*drawn[: len(fields)], axes[0, 3]]
    if seen is not None:
        points = _scatter(left[1], seen, mean, scale_of(seen) if own else scale)
        used.append(left[1])
        if own:
            text = textwrap.fill(named(seen), 36)
            bar = fig.colorbar(points, ax=left[1], location="bottom", label=text, format="%.3g")
            bar.ax.locator_params(nbins=4)
    place: dict[str, Any] = {"location": "bottom", "aspect": 50, "shrink": 0.6}
    fig.colorbar(ScalarMappable(scale, FIELD), ax=left, label=named(mean), format="%.5g", **place)
    domain = {"xlim": left[0].get_xlim(), "ylim": left[0].get_ylim(), "aspect": aspect}
    vertical, horizontal = (axis_of(mean, str(d))[1] for d in mean.dims)
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
        draw_ranks(corner, score.rank_histogram(ens, truth))
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


def draw_map(
    ax: Axes, field: xr.DataArray, scale: Normalize, colours: Colormap, title: str
) -> ScalarMappable:
    vertical, horizontal = (axis_of(field, str(d))[0] for d in field.dims)
    dates(ax.yaxis, vertical)
    dates(ax.xaxis, horizontal)
    values = np.ma.masked_invalid(field.values)
    ax.set_title(title)
    return ax.pcolormesh(
        horizontal, vertical, values, shading="nearest", norm=scale, cmap=colours, rasterized=True
    )


def aspect_of(field: xr.DataArray) -> tuple[float, float]:
    """Length of a vertical unit over a horizontal one, and height over width of the picture."""
    vertical, horizontal = (str(d) for d in field.dims)
    ends = (axis_of(field, d)[0] for d in (vertical, horizontal))
    tall, wide = (float(np.ptp(date2num(v) if v.dtype.kind == "M" else v)) for v in ends)
    aspect = 1.0
    if (find(field, "latitude"), find(field, "longitude")) == (vertical, horizontal):
        aspect = 1.0 / max(float(np.cos(np.deg2rad(field[vertical].mean()))), 0.2)
    elif len({field[d].attrs.get("units") for d in field.dims if d in field.coords}) > 1:
        aspect = wide / tall  # nothing to compare: a square
    height = float(np.clip(aspect * tall / wide, 0.45, 1.6))
    return height * wide / tall, height
