"""The verb ``sciddm forecast``: from the file of a past to a store of the frames that follow."""

from __future__ import annotations

import argparse
from pathlib import Path

from sciddm import recipe, series_verbs, verbs
from sciddm.errors import InputError, nearest

SAID = (
    "engine",
    "guidance",
    "network_evaluations",
    "lead_step",
    "seed",
    "drift_mean",
    "drift_variance",
)
"""Attributes of a forecast that are printed."""
STEPS = 12
"""Lead steps where the command does not say, of a model that serves any number."""


def forecast(args: argparse.Namespace) -> None:
    """Stream a forecast to ``--out``, and print what it says about itself."""
    if args.resume and args.overwrite:
        raise InputError("Got --resume and --overwrite, expected one of them.")
    if args.std is not None and args.seen is None:
        raise InputError("Got --std without --seen, whose error it is; expected both.")
    inputs = [args.model, args.past, *(f for f in (args.forcings, args.seen) if f)]
    marker = None if series_verbs.table(Path(args.out)) else "zarr.json"
    out = Path(args.out)
    if not args.resume:
        recipe.free(out, args.overwrite, *inputs, marker=marker)
    import sciddm
    from sciddm import rollout, sensors
    from sciddm.data.convention import LAYOUTS

    if args.names is not None and args.names not in LAYOUTS:
        raise InputError(f"Got --names {args.names!r}.{nearest(args.names, LAYOUTS)}")
    model = sciddm.load(args.model)
    if series_verbs.of_series(model):
        series_verbs.forecast(args, model)
        return
    _only_of_series(args)
    start = args.start
    if start is not None and len(start) == 1 and args.names is None:
        start = start[0]
    past = verbs.opened(args.past)
    if start is None and args.names is not None:  # both conventions have a dim of starts
        start = [None]
    job = sciddm.Outlook(
        model,
        past,
        steps=args.steps or model.forecaster.longest or STEPS,
        members=args.members,
        seed=args.seed,
        start=start,
        forcings=verbs.opened(args.forcings) if args.forcings else None,
        seen=(
            sensors.along(model.fields, model.task.time, args.seen, std=args.std)
            if args.seen
            else None
        ),
    )
    ds = rollout.run(
        job,
        out,
        resume=args.resume,
        overwrite=args.overwrite,
        layout=LAYOUTS[args.names] if args.names else lambda ds: ds,
        progress=verbs.progress,
    )
    facts = {"store": str(out), "starts": len(job.starts), "members": args.members}
    facts |= {"leads": job.steps, **{name: ds.attrs[name] for name in SAID if name in ds.attrs}}
    verbs.show(facts, args.json)


def _only_of_series(args: argparse.Namespace) -> None:
    """Refuse flags of series for a model of frames."""
    for flag in ("item", "time", "target", "time_format", "sort", "keep", "missing", "interval",
                 "members_out"):  # fmt: skip
        if getattr(args, flag) not in (None, False):
            name = flag.replace("_", "-")
            raise InputError(f"Got --{name} for a model of frames, expected a model of series.")
    if series_verbs.table(Path(args.out)):
        raise InputError(f"Got the table {args.out!r} for frames, expected OUT.zarr.")
