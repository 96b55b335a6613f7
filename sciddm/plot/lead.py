"""Forecasts by lead: scores with floors and intervals, maps, spectra, ranks, spread and skill."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from sciddm import score
from sciddm.data.schema import find
from sciddm.errors import InputError, nearest
from sciddm.plot.curves import draw_ranks
from sciddm.plot.maps import aspect_of, draw_map
from sciddm.plot.style import FIELD, LINES, SPREAD, STYLE, axis_of, line, named, scale_of, unit
from sciddm.score.valid import lead_dim
from sciddm.score.weights import MEMBER, label

SCORES = ("crps", "rmse", "spread_skill", "coverage")
SHORT = {
    "crps": "fair CRPS",
    "rmse": "RMSE of the mean",
    "mae": "mean absolute error",
    "spread_skill": "spread / skill",
    "correlation": "correlation of the mean",
    "correlation_members": "correlation of members",
    "acc": "anomaly correlation",
}


@mpl.rc_context(STYLE)
def by_lead(
    scores: Mapping[str, xr.Dataset],
    names: Sequence[str] = SCORES,
    *,
    floors: Mapping[str, xr.Dataset] | None = None,
) -> Figure:
    """Scores against lead, a panel a score and a line a forecast.

    Args:
        scores: Name in the legend -> what :func:`sciddm.score.by_lead` gave; ``<score>_low`` and
            ``<score>_high`` are drawn as a band.
        names: Which scores; one that no Dataset has is left out.
        floors: Name -> Dataset, drawn as thin dark lines: an exact law, a climatology.

    Raises:
        InputError: Nothing to draw, or no such score in any of them.
    """
    lines = {**scores, **(floors or {})}
    known = sorted({str(n) for table in lines.values() for n in table.data_vars})
    drawn = [name for name in names if name in known]
    if not drawn:
        raise InputError(
            f"no score {', '.join(map(repr, names)) or 'named'} to draw; expected Datasets from "
            f"score.by_lead.{nearest(str(names[0]) if names else '', known)}"
        )
    columns = len(drawn) if len(drawn) < 4 else 2 if len(drawn) == 4 else 3
    rows = -(-len(drawn) // columns)
    fig = Figure(figsize=(3.4 * columns + 0.3, 2.4 * rows + 0.5), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, squeeze=False)
    for ax, name in zip(axes.ravel(), drawn, strict=False):
        for i, (who, table) in enumerate(lines.items()):
            if name in table:
                _curve(ax, table, name, who, i, floor=i >= len(scores))
        _ideal(ax, name, next(iter(lines.values())))
        first = next(table[name] for table in lines.values() if name in table)
        ax.set(title=SHORT.get(name, name.replace("_", " ")), ylabel=unit(first, "{}"))
    for ax in axes.ravel()[len(drawn) :]:
        ax.set_visible(False)
    last = next(iter(lines.values()))
    for column in range(columns):
        shown = [ax for ax in axes[:, column] if ax.get_visible()]
        at, words = axis_of(last, lead_dim(last))
        shown[-1].set_xlabel(words)
        shown[-1].tick_params(labelbottom=True)
        if words.endswith("[h]") and 6 < np.ptp(at) <= 240:
            shown[-1].xaxis.set_major_locator(MultipleLocator(6 if np.ptp(at) <= 48 else 24))
    texts = {h.get_label(): h for ax in axes.ravel() for h in ax.lines if h.get_label()[0] != "_"}
    fig.legend(texts.values(), texts.keys(), loc="outside upper center", ncols=4)
    return fig


def _curve(ax: Axes, table: xr.Dataset, name: str, who: str, place: int, *, floor: bool) -> None:
    """One line, with its band unless it is a floor."""
    lead = lead_dim(table)
    at, values = axis_of(table, lead)[0], table[name]
    if values.dims != (lead,):
        raise InputError(f"{who!r}: {name!r} has dims {tuple(values.dims)}; expected ({lead!r},)")
    dark: dict[str, Any] = {"color": "0.25", "ls": (":", "--", "-.")[place % 3], "lw": 1.1}
    style = dark if floor else line(place)
    if f"{name}_low" in table and f"{name}_high" in table and not floor:
        low, high = (table[f"{name}_{end}"].values for end in ("low", "high"))
        ax.fill_between(at, low, high, color=style["color"], alpha=0.2, lw=0)
    marker = "o" if at.size < 13 and not floor else ""
    ax.plot(at, values.values, label=who, marker=marker, ms=3, **style)


def _ideal(ax: Axes, name: str, table: xr.Dataset) -> None:
    """What a right forecast has, where that is one number."""
    level = {"spread_skill": 1.0, "coverage": table.attrs.get("level"), "bias": 0.0}.get(name)
    if level is not None:
        ax.axhline(level, color="black", lw=0.8, zorder=0)
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, level - 0.05), max(high, level + 0.05))


@mpl.rc_context(STYLE)
def spread_skill(scores: Mapping[str, xr.Dataset]) -> Figure:
    """Spread against error, a line a forecast and a point a lead: on the diagonal when right.

    The spread is times ``sqrt((M + 1)/M)``, so that any number of members can be on the diagonal.

    Args:
        scores: Name in the legend -> what :func:`sciddm.score.by_lead` gave.

    Raises:
        InputError: Nothing given, or Datasets without ``spread`` and ``rmse``.
    """
    fig = Figure(figsize=(4.4, 4.0), layout="constrained")
    ax = fig.subplots()
    most = 0.0
    if not scores:
        raise InputError("nothing to draw; expected a mapping of names to score.by_lead(...)")
    for i, (who, table) in enumerate(scores.items()):
        if not {"spread", "rmse"} <= set(table.data_vars):
            raise InputError(f"{who!r} has no 'spread' and 'rmse'; expected score.by_lead(...)")
        members = int(table.attrs["members"])
        spread = table["spread"].values * ((members + 1) / members) ** 0.5
        error = table["rmse"].values
        ax.plot(error, spread, marker="o", ms=3, label=who, **line(i))
        ax.plot(error[:1], spread[:1], "o", ms=7, mfc="none", color=LINES[i % len(LINES)])
        most = max(most, float(np.nanmax(error)), float(np.nanmax(spread)))
    ax.plot([0, 1.1 * most], [0, 1.1 * most], color="black", lw=0.8, zorder=0)
    first = next(iter(scores.values()))["rmse"]
    ax.set(
        xlabel=f"RMSE of the mean{unit(first)}",
        ylabel=f"spread, times sqrt((M+1)/M){unit(first)}",
        xlim=(0, 1.08 * most), ylim=(0, 1.08 * most), aspect="equal",
    )  # fmt: skip
    ax.set_title("ring: the first lead; line: a right spread")
    ax.legend(loc="upper left")
    return fig


@mpl.rc_context(STYLE)
def ranks_by_lead(counts: xr.DataArray, *, leads: int = 6) -> Figure:
    """Rank histograms of some leads, from ``rank_histogram`` of :func:`sciddm.score.by_lead`.

    Raises `InputError` for dims other than ``rank`` and the leads.
    """
    lead = lead_dim(counts)
    if set(counts.dims) != {"rank", lead}:
        raise InputError(
            f"{label(counts)} has dims {tuple(counts.dims)}; expected ('rank', {lead!r}); sum over "
            f"the others"
        )
    chosen = _some(counts.sizes[lead], leads)
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    fig = Figure(figsize=(3.2 * columns + 0.2, 2.3 * rows + 0.2), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    tops = []
    for ax, i, head in zip(axes.ravel(), chosen, _heads(counts, lead, chosen), strict=False):
        draw_ranks(ax, counts.isel({lead: i}, drop=True))
        tops.append(ax.get_ylim()[1])
        ax.set_title(head)
        ax.get_legend().remove()
    for ax in axes.ravel()[len(chosen) :]:
        ax.set_visible(False)
    axes[0, 0].set_ylim(0, max(tops))
    for ax in axes.ravel():
        below = ax.get_subplotspec().rowspan.stop < rows and ax.get_visible()
        ax.set(xlabel="" if below else ax.get_xlabel())
        ax.label_outer()
    return fig


@mpl.rc_context(STYLE)
def spectra_by_lead(
    ens: xr.DataArray,
    truth: xr.DataArray,
    dims: Sequence[str],
    *,
    periodic: bool = False,
    leads: int = 4,
) -> Figure:
    """Power of the members at some leads, and of the truth: is the forecast still as rough?

    Below, the members' power over that of the truth at the same leads, in decibels.

    Args:
        ens: ``(member, lead, *starts, *space)``.
        truth: A record, or at the leads already.
        dims: Space dims to transform.
        periodic: As in :func:`sciddm.score.power_spectrum`.
        leads: How many.

    Raises:
        InputError: As the spectrum and :func:`sciddm.score.at_leads`.
    """
    lead = lead_dim(ens)
    true = score.at_leads(truth, ens)
    chosen = _some(ens.sizes[lead], leads)
    fig = Figure(figsize=(5.2, 5.2), layout="constrained")
    above, below = fig.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    shades = mpl.colormaps["viridis"](np.linspace(0.05, 0.85, len(chosen)))
    bases = []
    for i, head, colour in zip(chosen, _heads(ens, lead, chosen), shades, strict=True):
        one, other = ens.isel({lead: i}, drop=True), true.isel({lead: i}, drop=True)
        power = _mean_power(one.compute(), dims, periodic)
        base = _mean_power(other.transpose(..., *dims).compute(), dims, periodic)
        at = power["wavenumber"].values
        above.loglog(at, power.values, color=colour, lw=1.6, label=head)
        below.semilogx(at, 10 * np.log10(power.values / base.values), color=colour, lw=1.6)
        bases.append(base)
    mean, first = np.mean([base.values for base in bases], axis=0), bases[0]
    above.loglog(first["wavenumber"].values, mean, color="black", ls="--", lw=1.2, label="truth")
    below.axhline(0.0, color="black", lw=1, ls="--")
    above.set_ylabel(f"mean power of a mode{unit(first)}")
    below.set(xlabel=axis_of(first, "wavenumber")[1], ylabel="over the truth [dB]")
    above.legend()
    return fig


def _mean_power(field: xr.DataArray, dims: Sequence[str], periodic: bool) -> xr.DataArray:
    """Over members, starts and all else, up to the Nyquist wavenumber."""
    power = score.power_spectrum(field, dims, periodic=periodic)
    k = power["wavenumber"].values
    kept = np.flatnonzero((k > 0) & (k <= float(power["nyquist"]) * (1 + 1e-9)))
    rest = [d for d in power.dims if d != "wavenumber"]
    return power.isel(wavenumber=kept).mean(rest, keep_attrs=True)


@mpl.rc_context(STYLE)
def lead_maps(
    ens: xr.DataArray, truth: xr.DataArray | None = None, *, leads: int = 4, members: int = 2
) -> Figure:
    """One forecast as maps, a column a lead: truth, mean, members, and the spread.

    Truth, mean and members share one colour scale, the spreads another.

    Args:
        ens: ``(member, lead, *space)`` of one start, two space dims.
        truth: A record, or at the leads already.
        leads: How many columns.
        members: How many single members.

    Raises:
        InputError: More than one start, other dims, or as :func:`sciddm.score.at_leads`.
    """
    lead = lead_dim(ens)
    single = [d for d in ens.dims if d not in (MEMBER, lead) and ens.sizes[d] == 1]
    one = ens.squeeze(single)
    space = [str(d) for d in one.dims if d not in (MEMBER, lead)]
    if MEMBER not in one.dims or len(space) != 2:
        raise InputError(
            f"{label(ens)} has sizes {dict(ens.sizes)}; expected members, leads and two space dims "
            f"of one start: select with .isel(...)"
        )
    if space[0] in (find(one, "longitude"), find(one, "x")):
        space.reverse()
    chosen = _some(one.sizes[lead], leads)
    true = None if truth is None else score.at_leads(truth, one).squeeze()
    cut = one.isel({lead: chosen}).transpose(MEMBER, lead, *space).compute()
    mean, spread = cut.mean(MEMBER, keep_attrs=True), cut.std(MEMBER, ddof=1, keep_attrs=True)
    rows = {} if true is None else {"truth": true.isel({lead: chosen}).transpose(lead, *space)}
    rows[f"mean of {cut.sizes[MEMBER]}"] = mean
    names = cut[MEMBER].values if MEMBER in cut.coords else np.arange(cut.sizes[MEMBER])
    rows |= {f"member {names[m]}": cut[m] for m in range(min(members, cut.sizes[MEMBER]))}
    rows["spread"] = spread
    shared = scale_of(*[f for name, f in rows.items() if name != "spread"])
    widths = scale_of(spread, low=0.0)
    aspect, height = aspect_of(mean[0])
    vertical, wide = axis_of(mean, space[0])[1], 2.4 * min(1.0, 1.1 / height)
    size = (wide * len(chosen) + 1.8, 0.95 * wide * height * len(rows) + 0.7)
    fig = Figure(figsize=size, layout="compressed")
    axes = fig.subplots(len(rows), len(chosen), sharex=True, sharey=True, squeeze=False)
    for j, (name, fields) in enumerate(rows.items()):
        scale, colours = (widths, SPREAD) if name == "spread" else (shared, FIELD)
        for i, ax in enumerate(axes[j]):
            draw_map(ax, fields.isel({lead: i}), scale, colours, "")
            ax.set(aspect=aspect)
            ax.spines[:].set(visible=True, color="0.5")
        axes[j, 0].set_ylabel(f"{name}\n{vertical}")
    for ax, head in zip(axes[0], _heads(one, lead, chosen), strict=True):
        ax.set_title(head)
    fig.supxlabel(axis_of(mean, space[1])[1], fontsize=9)
    text = textwrap.fill(named(mean), 30)
    fig.colorbar(ScalarMappable(shared, FIELD), ax=axes[:-1], label=text, format="%.5g")
    bar = fig.colorbar(
        ScalarMappable(widths, SPREAD), ax=axes[-1:], label=f"s.d.{unit(mean)}", format="%.3g"
    )
    bar.ax.locator_params(nbins=4)
    return fig


def _some(count: int, wanted: int) -> list[int]:
    """Evenly spread, the first and the last among them."""
    return sorted({int(i) for i in np.rint(np.linspace(0, count - 1, max(1, min(wanted, count))))})


def _heads(field: xr.DataArray, lead: str, chosen: Sequence[int]) -> list[str]:
    values, name = axis_of(field, lead)
    words = name.removesuffix("]").split(" [")
    many = f" {words[1]}" if len(words) > 1 else ""
    one = many.removesuffix("s") if len(many) > 3 else many
    return [f"lead {values[i]:g}{one if values[i] == 1 else many}" for i in chosen]
