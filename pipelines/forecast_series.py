"""Forecasts of series, scored against what came: `sciddm run forecast_series CONFIG`.

Reads
    The section [forecast_series]: a saved model of series, and a table or store of series whose
    last rows are the truth, or a split of the section [data] (made first when it is not there).
Writes
    A folder: `forecast.zarr` with every member of every start, `scores.json` beside the last value,
    the season before (of a model that knows one) and the training marginal, `forecast.png`.
Costs
    Items times starts times members times network evaluations a draw; minutes on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import sciddm
from sciddm import config, heldout, plot, recipe, verbs
from sciddm.completion import longest
from sciddm.data import items as series
from sciddm.data import ragged, store
from sciddm.data.items import Draws, Items
from sciddm.data.masks import Ahead
from sciddm.errors import InputError


def main(run: config.Run) -> None:
    """Check everything, draw, score, write the folder."""
    ask = config.need(run.forecast_series, "forecast_series")
    out = Path(ask.out)
    recipe.free(out, run.overwrite, *filter(None, (ask.model, ask.file)), marker="scores.json")
    model = sciddm.load(ask.model)
    given, train = opened(run, ask)
    most = None if model.cells.masks is None else model.cells.masks.ahead
    if most is not None and ask.steps > most:
        raise InputError(f"Got {ask.steps} steps; the model was trained on {most}: ask no more.")
    mask = Ahead(ask.steps)
    whole = heldout.last_rows(model.cells.conform(given), ask.steps, ask.starts)
    past, gone = heldout.hide(whole, mask, ask.seed)
    room = longest(model.cells)
    past, gone = heldout.cut(past, gone, room)
    whole, _ = heldout.cut(whole, gone, room)
    rows, tables = {}, {}
    for who, one in {"model": model, **heldout.floors(model, train, mask, ahead=True)}.items():
        draws = heldout.drawn(
            one, past, gone, members=ask.members, seed=ask.seed, progress=verbs.progress
        )
        if who == "model":
            written(out, draws, whole, ask.steps, run.overwrite)
        tables[who] = heldout.table(draws, whole, gone)
        for name, found in tables[who].items():
            rows[f"{name}, {who}"] = {k: float(found[k]) for k in heldout.SAID}
    facts = {"members": ask.members, "seed": ask.seed, "steps": ask.steps, "starts": ask.starts}
    scores = {who: heldout.plain(found) for who, found in tables.items()}
    (out / "scores.json").write_text(json.dumps({**facts, "scores": scores}) + "\n")
    verbs.table(rows, run.as_json)


def opened(run: config.Run, ask: config.ForecastSeries) -> tuple[Items, Items | None]:
    """The series, and those of training where they are known."""
    if ask.file is not None:
        return series.of(ask.file), None
    every = series.of(recipe.opened(config.need(run.data, "data")))
    part = every.split(ask.split)
    some = np.unique(np.linspace(0, len(part) - 1, min(ask.items, len(part))).astype(int))
    return part.only([part.items[i] for i in some]), every.split("train")


def written(out: Path, draws: Draws, whole: Items, steps: int, overwrite: bool) -> None:
    """The members of the rows to come as a store, and some items as fans after their past."""
    form = ragged.Labelled("item")
    out.mkdir(parents=True, exist_ok=True)
    coming = draws.items.only([i.rows(slice(len(i) - steps, None)) for i in draws.items])
    ds = ragged.dataset(coming, form, [v[:, -steps:] for v in draws.values])
    store.write(ds.assign_attrs(draws.attrs), out / "forecast.zarr", overwrite=overwrite)
    shown = ragged.dataset(draws.items, form, draws.values)
    plot.save(plot.series.gaps(shown, ragged.dataset(whole, form)), out / "forecast.png")
