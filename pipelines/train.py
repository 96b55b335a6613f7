"""Train a model on a store and save it: the verb `sciddm train CONFIG`.

Reads
    The sections [data], [model] and [train]. The store is made first, by the recipe of the data
    set, when it is not there; one made with other numbers is refused.
Writes
    The saved model in `train.out`; checkpoints and the log in `train.run`. After an interruption
    the same command with --resume goes on, to the same weights.
Costs
    What the first line of the config says: minutes to about an hour on two cores.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sciddm import config, recipe
from sciddm.errors import InputError


def main(run: config.Run) -> None:
    """Open or make the data, build the model, fit it, save it."""
    data, architecture = config.need(run.data, "data"), config.need(run.model, "model")
    section = config.need(run.train, "train")
    again = run.resume or run.overwrite
    out = recipe.free(section.out, again, data.store, marker="model.json")
    if section.folder.exists() and not again:
        raise InputError(
            f"Got run folder {str(section.folder)!r}, which exists; say --resume to go on from its "
            "last checkpoint or --overwrite to start again."
        )
    builder = recipe.load(recipe.find("models", architecture.recipe), "models")
    numbers = recipe.bind(builder.build, architecture.numbers, "model.numbers")
    ds = recipe.opened(data)
    model = builder.build(ds, **numbers)
    if run.overwrite:
        for old in section.folder.glob("*.ckpt"):
            shutil.rmtree(old)
        (section.folder / "log.jsonl").unlink(missing_ok=True)

    from sciddm.data.series import SeriesCodec
    from sciddm.train import fit

    model = fit(model, ds, section, resume=run.resume)
    series = isinstance(model.codec, SeriesCodec)
    model = replace(model, card=card(run, model.notes["training"], series=series))
    model.save(out, overwrite=again)
    facts = {"model": str(out), "run": str(section.folder), "steps": section.steps}
    print(json.dumps(facts) if run.as_json else f"{out}: saved after {section.steps} steps.")


def card(run: config.Run, facts: Mapping[str, object], *, series: bool = False) -> str:
    """The recipe's card, and how these weights came about."""
    batch, loss = ("windows", "loss") if series else ("fields", "weighted denoising loss")
    data, architecture = config.need(run.data, "data"), config.need(run.model, "model")
    section = config.need(run.train, "train")
    text = recipe.card(recipe.find("models", architecture.recipe))
    name = Path(section.out).name
    return (
        f"# {name}\n\n{text}\n\nThese weights\n"
        f"    {run.title}.\n"
        f"    Data set {data.recipe}, size {data.size}, seed {data.seed}, numbers {data.numbers}.\n"
        f"    `sciddm train configs/{name}.toml`: {facts['steps']} steps of {facts['batch']} "
        f"{batch}, {facts['seconds']} s on the machine that made them;\n"
        f"    {loss} on the validation split {facts['validation_loss']}.\n"
    )
