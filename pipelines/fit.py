"""Fit a model that has nothing to train, and save it: `sciddm run fit CONFIG`.

Reads
    The sections [data], [model] and [fit]. The store is made first, by the recipe of the data set,
    when it is not there; one made with other numbers is refused.
Writes
    The saved model in `fit.out`, with the recipe's card.
Costs
    What the recipe needs to look at the data once: seconds to a minute.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from sciddm import config, recipe


def main(run: config.Run) -> None:
    """Open or make the data, build the model, save it."""
    data, architecture = config.need(run.data, "data"), config.need(run.model, "model")
    section = config.need(run.fit, "fit")
    out = recipe.free(section.out, run.overwrite, data.store, marker="model.json")
    path = recipe.find("models", architecture.recipe)
    builder = recipe.load(path, "models")
    numbers = recipe.bind(builder.build, architecture.numbers, "model.numbers")
    model = builder.build(recipe.opened(data), **numbers)
    facts = (
        f"# {Path(out).name}\n\n{recipe.card(path)}\n\nThis model\n    {run.title}.\n"
        f"    Data set {data.recipe}, size {data.size}, seed {data.seed}, numbers {data.numbers}.\n"
    )
    replace(model, card=facts).save(out, overwrite=run.overwrite)
    print(json.dumps({"model": str(out)}) if run.as_json else f"{out}: saved.")
