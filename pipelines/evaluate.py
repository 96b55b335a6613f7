"""Score a saved model on held-out fields seen at random points: `sciddm run evaluate CONFIG`.

Reads
    The sections [data] and [evaluate]: a store, a saved model, the variable that is observed, the
    share of its points and their error.
Writes
    One JSON file, `evaluate.out`: for each variable the scores of the ensemble over all cases and,
    beside them, the CRPS of climatology (mean and spread of the training split, cell by cell).
Costs
    One recovery a case: seconds to a minute on two cores, members times network evaluations.
"""

from __future__ import annotations

import json

import numpy as np

from sciddm import config, recipe


def main(run: config.Run) -> None:
    """Observe each case at its own random points, recover it, score all cases together."""
    ask, data = config.need(run.evaluate, "evaluate"), config.need(run.data, "data")
    out = recipe.free(ask.out, run.overwrite, ask.model, data.store, marker=None)

    import sciddm
    from sciddm import score, verbs
    from sciddm.data import schema, split

    model, ds = sciddm.load(ask.model), recipe.opened(data)
    observed = schema.variables(ds, [ask.variable])[ask.variable]
    dim = ds.attrs["sciddm_sample_dim"]
    train, held = split.select(ds, "train"), split.select(ds, ask.split)
    std = ask.std or (ask.relative_std or 0.0) * float(train[ask.variable].std())
    cases = np.unique(np.linspace(0, held.sizes[dim] - 1, ask.cases).round().astype(int))
    truth = held.isel({dim: cases})[list(model.task.target.variables)].load()
    field = truth[observed.name].transpose(dim, ...)
    values = np.full(field.shape, np.nan)
    for row, case in enumerate(cases):
        rng = np.random.default_rng([ask.seed, case])
        known = np.flatnonzero(np.isfinite(field.values[row]))  # land is not observed
        at = rng.choice(known, max(1, round(ask.share * known.size)), replace=False)
        values[row].flat[at] = field.values[row].flat[at] + std * rng.standard_normal(at.size)
    seen = sciddm.Observed(field.copy(data=values), std=std)
    post = sciddm.recover(model, seen, members=ask.members, seed=ask.seed, steps=ask.steps)
    rows = verbs.figures(post, truth)
    normal = train[list(rows)]
    plain = score.gaussian_crps(normal.mean(dim), normal.std(dim), truth)
    rows = {name: {**row, "crps_climatology": float(plain[name])} for name, row in rows.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"cases": len(cases), "std": std, "scores": rows}) + "\n")
    verbs.table(rows, run.as_json)
