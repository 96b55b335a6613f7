"""What each verb of the command line does: check its input, call the library, write, print.

A verb takes the parsed flags, says `InputError` before any work, and writes one output. The
libraries behind it are imported inside, so that the command answers ``--help`` at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciddm import config, recipe
from sciddm.errors import InputError, nearest

SAID = (
    "solver",
    "steps",
    "network_evaluations",
    "guidance",
    "seed",
    "misfit_sd",
    "chi_square",
    "chi_square_range",
)
"""Attributes of a posterior that a verb prints."""

if TYPE_CHECKING:
    import xarray as xr


def demo(args: argparse.Namespace) -> None:
    """Hand the flags to ``pipelines/demo.py`` as a `config.Demo`."""
    if (args.data is None) != (args.variable is None):
        raise InputError("Got one of --data and --variable, expected both or neither.")
    if args.data is not None and not Path(args.data).exists():
        raise InputError(f"Got --data {args.data!r}, no such file; check the path.")
    flags = {
        "out": args.out or "runs/demo",
        "data": args.data,
        "variable": args.variable,
        "members": args.members,
        "seed": args.seed,
        # The default folder belongs to the demo: a second run needs no flag.
        "overwrite": args.overwrite or args.out is None,
        "as_json": args.json,
    }
    if Path(flags["out"]).exists() and not flags["overwrite"]:
        raise InputError(f"Got output {args.out!r}, which exists; say --overwrite to replace it.")
    recipe.load(recipe.find("pipelines", "demo"), "pipelines").main(
        config.checked(config.Demo, flags)
    )


def make(args: argparse.Namespace) -> None:
    """Make a data set with the recipe's ``make``, at the size and numbers of the flags."""
    if args.resume and args.overwrite:
        raise InputError("Got --resume and --overwrite, expected one of them.")
    flags = {
        "recipe": str(recipe.find("datasets", args.dataset)),
        "store": args.store,
        "size": args.size,
        "seed": args.seed,
        "numbers": _numbers(args.set),
    }
    ds = recipe.make(
        config.checked(config.Data, flags),
        overwrite=args.overwrite,
        workers=args.workers,
        resume=args.resume,
    )
    sizes = {str(dim): int(size) for dim, size in ds.sizes.items()}
    variables = [str(name) for name in ds.data_vars]
    show({"store": args.store, "variables": variables, "sizes": sizes}, args.json)


def train(args: argparse.Namespace) -> None:
    """``pipelines/train.py`` on a config."""
    _pipeline(args, "train")


def run(args: argparse.Namespace) -> None:
    """Any pipeline of the shelf on a config."""
    _pipeline(args, args.pipeline)


def _pipeline(args: argparse.Namespace, name: str) -> None:
    path = recipe.find("configs", args.config)
    run = config.read(path, resume=args.resume, overwrite=args.overwrite)
    changes: dict[str, object] = {"as_json": args.json}
    if args.store is not None:
        changes["data"] = config.changed(config.need(run.data, "data"), {"store": args.store})
    if args.out is not None:
        own = Path(name).stem
        section = vars(run)[own] if own in config.SECTIONS else None
        changes[own] = config.changed(config.need(section, own), {"out": args.out})
    run = config.changed(run, changes)
    recipe.load(recipe.find("pipelines", name), "pipelines").main(run)


def recover(args: argparse.Namespace) -> None:
    out = recipe.free(args.out, args.overwrite, args.model, args.seen)
    import sciddm
    from sciddm import choices, sensors
    from sciddm.data import store

    solver = args.solver and choices.choice("--solver", args.solver, choices.SOLVERS)
    rule = args.rule and choices.choice("--rule", args.rule, choices.RULES)
    model = sciddm.load(args.model)
    seen = sensors.read(
        model.fields,
        args.seen,
        variable=args.variable,
        std=args.std,
        freedom=args.freedom,
        limits=(args.low, args.high),
    )
    post = sciddm.recover(
        model,
        seen,
        members=args.members,
        seed=args.seed,
        steps=args.steps,
        rule=rule,
        solver=solver,
        progress=progress,
    )
    show(_written(post, store.write(post, out, overwrite=args.overwrite)), args.json)


def generate(args: argparse.Namespace) -> None:
    out = recipe.free(args.out, args.overwrite, args.model)
    import sciddm
    from sciddm import choices
    from sciddm.data import store

    solver = args.solver and choices.choice("--solver", args.solver, choices.SOLVERS)
    model = sciddm.load(args.model)
    new = sciddm.generate(
        model,
        members=args.members,
        seed=args.seed,
        steps=args.steps,
        solver=solver,
        length=args.length,
        progress=progress,
    )
    show(_written(new, store.write(new, out, overwrite=args.overwrite)), args.json)


def refine(args: argparse.Namespace) -> None:
    """A copy of the model whose sampler has the grid that is best at so many evaluations."""
    out = recipe.free(args.out, args.overwrite, args.model, marker="model.json")
    import sciddm

    model = sciddm.load(args.model)
    found = sciddm.refined(model, steps=args.steps, members=args.members, seed=args.seed)
    found.save(out, overwrite=args.overwrite)
    levels = [round(v, 5) for v in vars(found.diffusion.grid)["kappas"]]
    show({"model": str(out), "steps": args.steps, "noise_levels": levels}, args.json)


def exceed(args: argparse.Namespace) -> None:
    """The probability that a variable passes its threshold at any of the places in a table."""
    out = None
    if args.out is not None:
        out = recipe.free(args.out, args.overwrite, args.model, args.thresholds)
    import sciddm
    from sciddm.data import stations, store

    model = sciddm.load(args.model)
    known = [args.variable] if args.variable else list(model.task.target.variables)
    table = stations.read(args.thresholds, [args.variable] if args.variable else [])
    names = [name for name in known if name in table.data_vars]
    if len(names) != 1:
        raise InputError(
            f"Got {args.thresholds!r} with thresholds of {names or 'no variable'}; expected one "
            f"of {', '.join(known)}."
        )
    found = sciddm.exceedance(
        model,
        table[names[0]],
        below=args.below,
        members=args.members,
        seed=args.seed,
        steps=args.steps,
    )
    names = ["event", "probability", "standard_error", "effective_members", "network_evaluations"]
    facts = {name: found.attrs[name] for name in names} | {"members": args.members}
    if out is not None:
        facts["store"] = str(store.write(found, out, overwrite=args.overwrite))
    show(facts, args.json)


def density(args: argparse.Namespace) -> None:
    """The log density of every case in a store or file under a model."""
    import sciddm

    model = sciddm.load(args.model)
    found = sciddm.log_prob(
        model, opened(args.fields), steps=args.steps, probes=args.probes, seed=args.seed
    )
    values = found.values.reshape(-1).tolist()
    show(
        {
            "log_density": [round(v, 4) for v in values],
            "units": found.attrs["units"],
            "dimensions": found.attrs["dimensions"],
        },
        args.json,
    )


def score(args: argparse.Namespace) -> None:
    """Print the scores of an ensemble, a row a variable, or of a forecast, a row a lead."""
    from sciddm import leads

    forecast = opened(args.ensemble)
    if leads.is_forecast(forecast):
        leads.score(args, forecast, opened(args.truth))
        return
    if args.block is not None:
        raise InputError(f"Got --block for {args.ensemble!r}, expected a forecast with leads.")
    ens, truth, names = _compared(args.ensemble, args.truth, args.variable)
    table(figures(ens[names], truth[names], args.level), args.json)


def figures(ens: xr.Dataset, truth: xr.Dataset, level: float = 0.9) -> dict[str, dict[str, float]]:
    """The scores of each variable of ``truth``, averaged over every dim, with the ensemble size."""
    from sciddm import score

    rows = {
        "rmse": score.rmse(ens, truth),
        "relative_error": score.relative_error(ens, truth),
        "crps": score.crps(ens, truth),
        "spread_skill": score.spread_skill(ens, truth),
        f"coverage_{round(100 * level)}": score.coverage(ens, truth, level=level),
    }
    members = float(ens.sizes["member"])
    return {
        str(name): {row: float(value[name]) for row, value in rows.items()} | {"members": members}
        for name in truth.data_vars
    }


def table(rows: Mapping[str, Mapping[str, float]], as_json: bool) -> None:
    """Figures as aligned columns, a row a variable, or as one JSON object."""
    if as_json:
        print(json.dumps(rows))
        return
    width = max(map(len, rows))
    heads = list(next(iter(rows.values())))
    print(" ".join([" " * width, *(f"{head:>16}" for head in heads)]))
    for name, row in rows.items():
        print(" ".join([f"{name:<{width}}", *(f"{row[head]:>16.5g}" for head in heads)]))


def plot(args: argparse.Namespace) -> None:
    """Maps of one case of a field, or fans: along a dim, over the gaps of series; by lead."""
    out = recipe.free(args.out, args.overwrite, args.ensemble, marker=None)
    from sciddm import leads, plot

    ens = opened(args.ensemble)
    if plot.series.drawn(ens) and args.kind is None and args.at is None:
        names = [*map(str, ens.data_vars)] if args.variable is None else _chosen(ens, args.variable)
        ens = ens[[*names, *({"row_size"} & {*ens.data_vars} - {*names})]]
        truth = None if args.truth is None else opened(args.truth)
        plot.save(plot.series.draw(ens, truth), out)
        show({"picture": str(out), "variable": names[0]}, args.json)
        return
    if leads.is_forecast(ens):
        truth = None if args.truth is None else opened(args.truth)
        name = leads.plot(args, ens, truth, out)
        show({"picture": str(out), "variable": name}, args.json)
        return
    if args.kind is not None or args.at is not None:
        raise InputError(f"Got --kind or --at for {args.ensemble!r}, expected a forecast.")
    if args.truth is None:
        truth = None
        names = _chosen(ens, args.variable)
    else:
        ens, truth, names = _compared(args.ensemble, args.truth, args.variable)
    field = ens[names[0]].squeeze(drop=True)
    true = None if truth is None else truth[names[0]].squeeze(drop=True)
    dims = [str(dim) for dim in field.dims if dim != "member"]
    if len(dims) > 2:
        if args.case >= field.sizes[dims[0]]:
            raise InputError(f"Got --case {args.case}, expected below {field.sizes[dims[0]]}.")
        field = field.isel({dims[0]: args.case})
        true = true if true is None or dims[0] not in true.dims else true.isel({dims[0]: args.case})
    draw = plot.fan if len(dims) == 1 else plot.maps
    plot.save(draw(field, true), out)
    show({"picture": str(out), "variable": names[0]}, args.json)


def card(args: argparse.Namespace) -> None:
    folder = Path(args.model)
    if (folder / "card.md").is_file():
        print((folder / "card.md").read_text(encoding="utf-8").rstrip())
        return
    if folder.is_dir():
        raise InputError(f"Got {args.model!r}, expected a saved model; it has no card.md.")
    print(recipe.card(recipe.find("models", args.model)))


def verify(args: argparse.Namespace) -> int:
    path = Path(args.path)
    if not path.exists():
        raise InputError(f"Got {args.path!r}, no such store or model; check the path.")
    if (path / "model.json").exists():
        import sciddm

        sciddm.load(path)
        problems: list[str] = []
    else:
        from sciddm.data import store

        problems = store.verify(path)
    if args.json:
        print(json.dumps({"path": args.path, "whole": not problems, "problems": problems}))
    else:
        print("\n".join(problems) if problems else f"{args.path} is whole.")
    return 1 if problems else 0


def _compared(ensemble: str, truth: str, variable: str | None) -> tuple[Any, Any, list[str]]:
    """An ensemble, the truth at its cases, and the variables that are compared."""
    ens, full = opened(ensemble), opened(truth)
    if "member" not in ens.dims:
        raise InputError(f"Got {ensemble!r} with dims {tuple(ens.dims)}, expected one 'member'.")
    shared = [str(name) for name in ens.data_vars if name in full.data_vars]
    if not shared:
        hint = nearest(", ".join(map(str, ens.data_vars)), map(str, full.data_vars))
        raise InputError(f"Got {truth!r} without a variable of {ensemble!r}.{hint}")
    names = _chosen(ens[shared], variable)
    # The truth is taken at the cases of the ensemble; one case may be a scalar coordinate.
    fewer = [d for d in full.dims if d in ens.coords and ens[d].size < full.sizes[d]]
    case = {d: ens[d] for d in fewer}
    try:
        return ens, full[names].sel(case), names
    except KeyError:
        at = {str(d): c.values.tolist() for d, c in case.items()}
        raise InputError(f"Got {truth!r}, which has no values at {at} of {ensemble!r}.") from None


def opened(path: str) -> xr.Dataset:
    """A store of ours, refused when it is not whole, or any other file of fields."""
    from sciddm.data import schema, store

    ours = Path(path, "sciddm.json").is_file()
    return store.open(path) if ours else schema.open_any(path)


def _chosen(ds: xr.Dataset, variable: str | None) -> list[str]:
    names = [str(name) for name in ds.data_vars]
    if variable is None:
        return names
    if variable not in names:
        hint = nearest(variable, names)
        raise InputError(f"Got --variable {variable!r}, which is not there.{hint}")
    return [variable]


def _numbers(pairs: Sequence[str]) -> dict[str, object]:
    """``name=value`` pairs, values as in TOML (``3``, ``1e-3``, ``true``, ``["a"]``), else text."""
    numbers: dict[str, object] = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign or not name.isidentifier():
            raise InputError(f"Got --set {pair!r}, expected name=value; for example samples=100.")
        try:
            numbers[name] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            numbers[name] = text
    return numbers


def _written(ds: xr.Dataset, path: Path) -> dict[str, object]:
    """What a posterior says about itself: where, how many, at what cost, how well it fits."""
    facts: dict[str, object] = {"store": str(path), "members": int(ds.sizes["member"])}
    for name in SAID:
        if name in ds.attrs:
            facts[name] = ds.attrs[name]
    return facts


def progress(done: int, total: int) -> None:
    """A line that counts blocks of members, for a person who watches."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\r{done} of {total} blocks drawn", end=end, file=sys.stderr, flush=True)


def show(facts: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
    else:
        print("\n".join(f"{name}: {value}" for name, value in facts.items()))
