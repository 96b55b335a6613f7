"""Gaps of series, filled, and scored where they were hidden: `sciddm run impute_series CONFIG`.

Reads
    The section [impute_series]: a saved model of series, and a table or store with gaps, or what to
    hide of a split of the section [data] (made first when it is not there).
Writes
    A folder: `filled.zarr` with every member, `gaps.png`, the longest gaps as fans, and, where
    values were hidden, `scores.json` beside a line between neighbours and the training marginal.
Costs
    Items times windows times members times network evaluations a draw; minutes on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import sciddm
from sciddm import config, heldout, plot, recipe, verbs
from sciddm.completion import Completion
from sciddm.data import items as series
from sciddm.data import ragged, store
from sciddm.data.items import Draws, Items
from sciddm.data.masks import Blocks, Mask, Share


def main(run: config.Run) -> None:
    """Check everything, hide, draw, score, write the folder."""
    ask = config.need(run.impute_series, "impute_series")
    out = Path(ask.out)
    recipe.free(
        out, run.overwrite, *filter(None, (ask.model, ask.file)), marker="filled.zarr/zarr.json"
    )
    model = sciddm.load(ask.model)
    given, train = opened(run, ask)
    whole = model.cells.conform(given)
    mask = hidden(ask)
    if mask is None:
        draws = Completion(model, whole, None, ask.members, ask.seed).draw(verbs.progress)
        written(out, draws, None, run.overwrite)
        facts = {"store": str(out / "filled.zarr"), "items": len(draws.items)}
        verbs.show(facts | {"members": ask.members, **draws.attrs}, run.as_json)
        return
    gappy, gone = heldout.hide(whole, mask, ask.seed)
    rows, tables = {}, {}
    for who, one in {"model": model, **heldout.floors(model, train, mask, ahead=False)}.items():
        draws = heldout.drawn(
            one, gappy, gone, members=ask.members, seed=ask.seed, progress=verbs.progress
        )
        if who == "model":
            written(out, draws, whole, run.overwrite)
        tables[who] = heldout.table(draws, whole, gone)
        for name, found in tables[who].items():
            rows[f"{name}, {who}"] = {k: float(found[k]) for k in heldout.SAID}
    facts = {"members": ask.members, "seed": ask.seed, "hidden": str(mask)}
    scores = {who: heldout.plain(found) for who, found in tables.items()}
    (out / "scores.json").write_text(json.dumps({**facts, "scores": scores}) + "\n")
    verbs.table(rows, run.as_json)


def opened(run: config.Run, ask: config.ImputeSeries) -> tuple[Items, Items | None]:
    """The series, and those of training where they are known."""
    if ask.file is not None:
        return series.of(ask.file), None
    every = series.of(recipe.opened(config.need(run.data, "data")))
    part = every.split(ask.split)
    some = np.unique(np.linspace(0, len(part) - 1, min(ask.items, len(part))).astype(int))
    return part.only([part.items[i] for i in some]), every.split("train")


def hidden(ask: config.ImputeSeries) -> Mask | None:
    """What is hidden, or None where the file has its own gaps."""
    if ask.share is not None:
        return Share(ask.share, ask.share)
    return None if ask.rows is None else Blocks(ask.rows, ask.rows)


def written(out: Path, draws: Draws, whole: Items | None, overwrite: bool) -> None:
    """The members as a store, and the longest gaps as a picture."""
    form = ragged.Labelled("item")
    ds = ragged.dataset(draws.items, form, draws.values).assign_attrs(draws.attrs)
    out.mkdir(parents=True, exist_ok=True)
    store.write(ds, out / "filled.zarr", overwrite=overwrite)
    truth = None if whole is None else ragged.dataset(whole, form)
    plot.save(plot.series.gaps(ds, truth), out / "gaps.png")
