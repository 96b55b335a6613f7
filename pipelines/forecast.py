"""Forecasts from a store, scored by lead against what came: `sciddm run forecast CONFIG`.

Reads
    The section [forecast]: a saved model that forecasts, and a store or file of its past, or the
    split of the section [data] (made first when it is not there).
Writes
    A folder: `forecast.zarr` with every member (a run that was killed goes on with --resume),
    `scores.json`, and the pictures of each variable: scores by lead beside persistence and
    climatology, ranks, one point as a fan, maps by lead. Leads that the past does not reach are
    forecast and not scored.
Costs
    Starts times members times leads times network evaluations a frame; minutes on two cores.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

import sciddm
from sciddm import config, forecasters, plot, recipe, rollout, score, verbs
from sciddm.data import films, split
from sciddm.errors import InputError
from sciddm.model import Model

Tables = dict[str, xr.Dataset]
SAID = ("crps", "rmse", "spread_skill")


def main(run: config.Run) -> None:
    """Check everything, draw, score, write the folder."""
    ask = config.need(run.forecast, "forecast")
    out, files = Path(ask.out), (ask.model, ask.past, ask.forcings)
    if not run.resume:
        recipe.free(out, run.overwrite, *filter(None, files), marker="scores.json")
    model = sciddm.load(ask.model)
    past, train = opened(run, ask)
    if model.task.sample != model.task.time and model.task.sample in past.dims:
        past = past.isel({model.task.sample: even(past.sizes[model.task.sample], ask.films)})
    job = sciddm.Outlook(
        model,
        past,
        ask.steps,
        ask.members,
        ask.seed,
        spread(model, past, ask.steps, ask.starts) if isinstance(ask.starts, int) else ask.starts,
        None if ask.forcings is None else verbs.opened(ask.forcings),
    )
    if ask.block is not None and 2 * ask.block > len(job.starts):
        raise InputError(
            f"Got blocks of {ask.block} starts of {len(job.starts)}; expected at least two blocks."
        )
    ens = rollout.run(
        job, out / "forecast.zarr", resume=run.resume, overwrite=run.overwrite,
        progress=verbs.progress,
    )  # fmt: skip
    leads = job.frames.axis.reached(job.starts, job.steps)
    rows = {type(model.forecaster).__name__: ens}
    for name, rival in (baselines(model, train) if leads else {}).items():
        rows[name] = rollout.draw(replace(job, model=replace(model, sampler=rival)))
    tables = {}
    for name in map(str, ens.data_vars):
        truth = job.frames.given[name]  # in the user's own order, as the forecast is
        truth = truth.squeeze([d for d, n in truth.sizes.items() if n == 1 and d not in ens.dims])
        tables[name] = {
            who: score.by_lead(
                field[name].isel(lead_time=slice(leads)), truth, joint=False, block=ask.block
            )
            for who, field in rows.items()
            if leads
        }
        whole = truth if leads == job.steps else None
        pictures(out, name, ens[name], whole, tables[name])
    facts = {"store": str(out / "forecast.zarr"), "starts": len(job.starts), "leads": job.steps}
    facts |= {"leads_scored": leads, "members": job.members, **ens.attrs}
    flat = {f"{name}, {who}": t for name, row in tables.items() for who, t in row.items()}
    scores = {k: {n: plain(v) for n, v in t.items() if v.ndim == 1} for k, t in flat.items()}
    (out / "scores.json").write_text(json.dumps({**facts, "scores": scores}) + "\n")
    mean = {who: {n: float(table[n].mean()) for n in SAID} for who, table in flat.items()}
    verbs.table(mean, run.as_json) if mean else verbs.show(facts, run.as_json)


def opened(run: config.Run, ask: config.Forecast) -> tuple[xr.Dataset, xr.Dataset | None]:
    """The past, and the training data where they are known."""
    if ask.past is not None:
        return verbs.opened(ask.past), None
    ds = recipe.opened(config.need(run.data, "data"))
    return split.select(ds, ask.split), split.select(ds, "train")


def spread(model: Model, past: xr.Dataset, steps: int, wanted: int) -> list[object]:
    """Starts spread evenly over those whose history and truth are whole."""
    axis = sciddm.Outlook(model, past, 1, 1).frames.axis
    served = axis.served(model.forecaster.history, steps)
    if not served:
        raise InputError(
            f"Got a past of {len(axis.times)} times; expected {model.forecaster.history} frames, a "
            f"start and {steps} leads in a row: ask fewer steps, or name the starts."
        )
    return [axis.times[served[i]] for i in even(len(served), wanted)]


def even(count: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, wanted).round().astype(int))


def baselines(model: Model, train: xr.Dataset | None) -> dict[str, forecasters.Forecaster]:
    """Persistence, and the frames of the training data in any order."""
    found: dict[str, forecasters.Forecaster] = {"persistence": forecasters.Persistent()}
    if train is not None:
        frames = films.frames(train, model.task)
        dim = model.task.sample
        some = frames.isel({dim: even(frames.sizes[dim], 512)})
        record = films.encode(some.expand_dims("film"), model.fields)[0].transpose(0, 1)
        found["climatology"] = forecasters.Climatology.fit(record)
    return found


def pictures(
    out: Path, name: str, ens: xr.DataArray, truth: xr.DataArray | None, tables: Tables
) -> None:
    """Of one variable: scores, ranks, and the first start as a fan and as maps."""
    ours = dict(list(tables.items())[:1])
    others = dict(list(tables.items())[1:])
    if ours:
        plot.save(plot.by_lead(ours, floors=others), out / f"{name}_scores.png")
        ranks = next(iter(ours.values()))["rank_histogram"]
        plot.save(plot.ranks_by_lead(ranks), out / f"{name}_ranks.png")
    first = {d: 0 for d in ens.dims if d in ("init_time", "sample")}
    one = ens.isel(first).load()
    true = None if truth is None else truth.isel({d: 0 for d in first if d in truth.dims})
    space = [str(d) for d in one.dims if d not in ("member", "lead_time")]
    known = np.argwhere(np.isfinite(one.isel(member=0, lead_time=0).values))
    middle = known[len(known) // 2] if len(known) else ()
    point = {d: int(i) for d, i in zip(space, middle, strict=True)}
    here = None if true is None else true.isel(point)
    plot.save(plot.fan(one.isel(point), here), out / f"{name}_fan.png")
    if len(space) == 2:
        plot.save(plot.lead_maps(one, true), out / f"{name}_maps.png")


def plain(values: xr.DataArray) -> list[float | None]:
    return [None if math.isnan(v) else round(float(v), 6) for v in values.values]
