"""What the verbs ``score`` and ``plot`` do with forecasts: a row and a picture by lead."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciddm.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

COLUMNS = ("crps", "rmse", "spread_skill", "coverage")


def is_forecast(ens: xr.Dataset) -> bool:
    """Whether an ensemble has a dim of leads."""
    from sciddm.data.schema import find

    return find(ens, "lead") in ens.dims


def own_names(ens: xr.Dataset) -> xr.Dataset:
    """A forecast under our names; those of WeatherBench 2 and climpred are known."""
    from sciddm.data import convention

    if "prediction_timedelta" in ens.dims:
        return convention.from_weatherbench2(ens)
    if {"lead", "init"} <= {str(name) for name in ens.coords}:
        return convention.from_climpred(ens)
    return ens


def score(args: argparse.Namespace, ens: xr.Dataset, truth: xr.Dataset) -> None:
    """Print the scores of a forecast, a row a lead of each variable."""
    ens = own_names(ens)
    names = _shared(ens, truth, args)
    tables = {name: _scores(ens, truth, name, args) for name in names}
    first = next(iter(tables.values()))
    leads, unit = _leads(first)
    shown = [*COLUMNS]
    if args.block is not None:
        shown = [f"{name}{end}" for name in COLUMNS for end in ("", "_low", "_high")]
    heads = {
        name: name.replace("coverage", f"coverage_{round(100 * args.level)}") for name in shown
    }
    rows = {
        name: [
            {"lead": leads[i], **{heads[n]: float(table[n][i]) for n in shown}}
            for i in range(len(leads))
        ]
        for name, table in tables.items()
    }
    facts = {"members": first.attrs["members"], "cases": first.attrs["cases"], "lead_units": unit}
    if args.json:
        print(json.dumps({**facts, "estimator": first.crps.attrs["estimator"], "scores": rows}))
        return
    for name, table in tables.items():
        of = table.crps.attrs.get("units")
        print(
            f"{name}{f' [{of}]' if of else ''}: {table.crps.attrs['estimator']}, "
            f"{facts['members']} members, {facts['cases']} cases, "
            f"weights: {table.crps.attrs['weights']}"
        )
        print(" ".join(f"{head:>16}" for head in (f"lead [{unit}]", *heads.values())))
        for row in rows[name]:
            print(" ".join(f"{value:>16.5g}" for value in row.values()))


def plot(args: argparse.Namespace, ens: xr.Dataset, truth: xr.Dataset | None, out: Path) -> str:
    """Draw a forecast to ``out``; returns the name of the variable."""
    from sciddm import plot

    ens = own_names(ens)
    name = _shared(ens, truth, args)[0]
    kind = args.kind or ("maps" if len(_space(ens[name])) == 2 else "fan")
    if kind not in PICTURES:
        raise InputError(f"Got --kind {kind!r}.{nearest(kind, PICTURES)}")
    if truth is None and kind not in ("fan", "maps"):
        raise InputError(f"Got --kind {kind} without --truth, expected what to compare with.")
    plot.save(PICTURES[kind](ens, truth, name, args), out)
    return name


def _fan(ens: xr.Dataset, truth: xr.Dataset | None, name: str, args: argparse.Namespace) -> Figure:
    from sciddm import plot
    from sciddm.data.schema import find

    field = _series(_case(ens[name], args), args)
    if truth is None:
        return plot.fan(field)
    true = _series(_case(_matched(ens, truth)[name], args), args)
    time, init = find(true, "time"), find(field, "init")
    past = None
    if time in true.dims and init in field.coords:
        before = true.isel({time: (true[time] <= field[init]).values})
        past = before.isel({time: slice(-2 * field.sizes[_lead(ens)], None)})
    return plot.fan(field, true, past=past if past is not None and past.size else None)


def _maps(ens: xr.Dataset, truth: xr.Dataset | None, name: str, args: argparse.Namespace) -> Figure:
    from sciddm import plot

    true = None if truth is None else _case(_matched(ens, truth)[name], args)
    return plot.lead_maps(_case(ens[name], args), true)


def _spectra(ens: xr.Dataset, truth: xr.Dataset, name: str, args: argparse.Namespace) -> Figure:
    from sciddm import plot

    space = _space(ens[name])
    circle = all(d in ens.coords and "period" in ens[d].attrs for d in space)
    return plot.spectra_by_lead(ens[name], _matched(ens, truth)[name], space, periodic=circle)


def _ranks(ens: xr.Dataset, truth: xr.Dataset, name: str, args: argparse.Namespace) -> Figure:
    from sciddm import plot

    return plot.ranks_by_lead(_scores(ens, truth, name, args)["rank_histogram"])


def _skill(ens: xr.Dataset, truth: xr.Dataset, name: str, args: argparse.Namespace) -> Figure:
    from sciddm import plot

    return plot.by_lead({name: _scores(ens, truth, name, args)})


def _spread(ens: xr.Dataset, truth: xr.Dataset, name: str, args: argparse.Namespace) -> Figure:
    from sciddm import plot

    return plot.spread_skill({name: _scores(ens, truth, name, args)})


PICTURES: Mapping[str, Callable[..., Any]] = {
    "fan": _fan,
    "maps": _maps,
    "spectra": _spectra,
    "ranks": _ranks,
    "skill": _skill,
    "spread": _spread,
}
"""What ``--kind`` of the command line may say."""


def _scores(ens: xr.Dataset, truth: xr.Dataset, name: str, args: argparse.Namespace) -> xr.Dataset:
    from sciddm import score

    level, block = getattr(args, "level", 0.9), getattr(args, "block", None)
    true = _matched(ens, truth)[name]
    return score.by_lead(ens[name], true, level=level, block=block, joint=False)


def _shared(ens: xr.Dataset, truth: xr.Dataset | None, args: argparse.Namespace) -> list[str]:
    if "member" not in ens.dims:
        raise InputError(
            f"Got {args.ensemble!r} with dims {tuple(ens.dims)}, expected one 'member'."
        )
    names = [str(name) for name in ens.data_vars if "member" in ens[name].dims]
    if truth is not None:
        known = [str(name) for name in truth.data_vars]
        shared = [name for name in names if name in known]
        if not shared:
            hint = nearest(", ".join(names), known)
            raise InputError(f"Got {args.truth!r} without a variable of {args.ensemble!r}.{hint}")
        names = shared
    if args.variable is not None and args.variable not in names:
        hint = nearest(args.variable, names)
        raise InputError(f"Got --variable {args.variable!r}, which is not there.{hint}")
    return names if args.variable is None else [args.variable]


def _matched(ens: xr.Dataset, truth: xr.Dataset) -> xr.Dataset:
    """The truth of the films that were forecast."""
    films = [d for d in truth.dims if d in ens.indexes and d in ("sample", "case")]
    try:
        return truth.sel({d: ens[d] for d in films})
    except KeyError:
        raise InputError(
            f"The truth lacks some {films[0]!r} of the forecast, which runs from "
            f"{ens[films[0]].values[0]} to {ens[films[0]].values[-1]}."
        ) from None


def _case(field: xr.DataArray, args: argparse.Namespace) -> xr.DataArray:
    """One start and film: number ``--case`` of the first dim that has several."""
    init_first = ("init_time", "sample", "case")
    many = [d for d in init_first if d in field.dims and field.sizes[d] > 1]
    if many and args.case >= field.sizes[many[0]]:
        raise InputError(f"Got --case {args.case}, expected below {field.sizes[many[0]]}.")
    single = {d: 0 for d in init_first if d in field.dims}
    return field.isel(single | ({many[0]: args.case} if many else {}))


def _series(field: xr.DataArray, args: argparse.Namespace) -> xr.DataArray:
    """The value at the place ``--at`` says, else the mean by area."""
    from sciddm.score.weights import average

    space = [d for d in _space(field) if d != "time"]
    where = {}
    for pair in args.at or []:
        dim, sign, text = pair.partition("=")
        try:
            where[dim] = float(text)
        except ValueError:
            sign = ""
        if not sign or dim not in space or dim not in field.coords:
            raise InputError(f"Got --at {pair!r}, expected NAME=VALUE.{nearest(dim, space)}")
    here = field.sel(where, method="nearest") if where else field
    rest = [d for d in space if d not in where]
    if not rest:
        return here
    mean = average(here, rest).assign_attrs(field.attrs)
    name = field.attrs.get("long_name", field.name)
    return mean.assign_attrs(long_name=f"mean {name}")


def _lead(ens: xr.Dataset) -> str:
    from sciddm.score.valid import lead_dim

    return lead_dim(ens)


def _space(field: xr.DataArray) -> list[str]:
    from sciddm.data.schema import find

    others = ("member", "init_time", "sample", "case", find(field, "lead"), find(field, "time"))
    return [str(d) for d in field.dims if d not in others]


def _leads(table: xr.Dataset) -> tuple[list[float], str]:
    """Leads as numbers, and their unit."""
    lead = table[_lead(table)]
    if lead.dtype.kind == "m":
        hours = lead.values.astype("m8[s]").astype(float) / 3600
        return [float(v) for v in hours], "h"
    return [float(v) for v in lead.values], str(lead.attrs.get("units", "1"))
