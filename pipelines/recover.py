"""Recover a field from a file of observations, as a config says.

Reads
    The section [recover]: a saved model and a table (CSV, NetCDF) or gridded values of what was
    seen. `sciddm recover MODEL SEEN -o OUT.zarr` does the same from flags alone.
Writes
    The posterior as zarr in `recover.out`, with dim `member`, the network evaluations and the
    misfit of the members to the observations in its attributes.
Costs
    Seconds to a minute a field on two cores: members times network evaluations.
"""

from __future__ import annotations

import json

from sciddm import config, recipe


def main(run: config.Run) -> None:
    """Load the model, read the observations, draw the members, write them."""
    ask = config.need(run.recover, "recover")
    out = recipe.free(ask.out, run.overwrite, ask.model, ask.observations)

    import sciddm
    from sciddm import sensors
    from sciddm.data import store

    model = sciddm.load(ask.model)
    seen = sensors.read(model.fields, ask.observations, variable=ask.variable, std=ask.std)
    post = sciddm.recover(model, seen, members=ask.members, seed=ask.seed, steps=ask.steps)
    store.write(post, out, overwrite=run.overwrite)
    facts = {"store": str(out), "members": ask.members, "misfit_sd": post.attrs.get("misfit_sd")}
    print(json.dumps(facts) if run.as_json else facts)
