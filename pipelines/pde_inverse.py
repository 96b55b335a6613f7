"""From sensors to a coefficient and a solution, with a report: `sciddm run pde_inverse CONFIG`.

Reads
    The section [pde_inverse]: a saved model, a table (CSV, NetCDF) of values of either field with
    their errors, and, where it is known, a file of the truth.
Writes
    A folder: `posterior.zarr` with every member, `report.html` (one file, pictures inside), the
    pictures as PNG, `figures.json`. Beside the diffusion stands optimal interpolation with the
    Gaussian inside the model, where there is one and the equation is linear: where both agree, the
    classical answer is enough.
Costs
    Seconds to minutes on two cores: members times network evaluations.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr

import sciddm
from sciddm import choices, config, equation, plot, recipe, report, sensors, verbs
from sciddm.data import schema, store
from sciddm.data.codec import Codec
from sciddm.errors import InputError

RIGHT = "0.8 to 1.5 is right; above, the members miss their values: a wrong prior, unit or error"
CLASSICAL = "optimal interpolation"
SMALL = 1e-3  # of the right side: a residual that is rounding, not worth a picture


def main(run: config.Run) -> None:
    """Check everything, draw, measure, write the folder."""
    ask = config.need(run.pde_inverse, "pde_inverse")
    files = [ask.model, ask.observations, *([ask.truth] if ask.truth else [])]
    out = recipe.free(ask.out, run.overwrite, *files, marker="report.html")
    named = choices.choice("equation", ask.equation or "poisson", choices.EQUATIONS)
    model = sciddm.load(ask.model)
    seen = sensors.read(model.fields, ask.observations, variable=ask.variable, std=ask.std)
    truth = None if ask.truth is None else known(ask.truth, model.fields)
    own = ("coefficient", "solution", named) if ask.equation is not None else None
    law = equation.solved(model.fields) or own
    if law is not None and not {*law[:2]} <= {*model.fields.variables}:
        raise InputError(f"Got an equation; expected a model of {law[0]} and {law[1]}, drop it.")
    if len(list(seen.sights(model.fields))) > 1:
        raise InputError(f"Got several cases in {ask.observations!r}; expected one, select it.")
    post = sciddm.recover(model, seen, members=ask.members, seed=ask.seed, steps=ask.steps)
    posts = {"diffusion": post}
    try:
        posts[CLASSICAL] = sciddm.krige(model, seen, members=ask.members, seed=ask.seed)
    except InputError as reason:
        print(f"No classical row: {reason}", file=sys.stderr)
    left = None
    if law is not None:
        left = sciddm.residual(post, law[2], coefficient=law[0], solution=law[1])
    rows = figures(posts, truth)
    out.mkdir(parents=True, exist_ok=True)
    pictures = drawn(out, post, (values := xr.merge([seen.values])), truth, left)
    facts = {"report": str(out / "report.html")}
    facts |= {k: v for k, v in post.attrs.items() if k in verbs.SAID}
    facts |= {"residual": left.attrs["relative"]} if left is not None else {}
    blocks = [*words(ask, values, post, left), report.table(rows), *pictures]
    store.write(post, out / "posterior.zarr", overwrite=run.overwrite)
    (out / "figures.json").write_text(json.dumps({**facts, "rows": rows}) + "\n")
    title = f"{' and '.join(model.fields.variables)} from {Path(ask.observations).name}"
    (out / "report.html").write_text(report.page(title, blocks), encoding="utf-8")
    print(json.dumps(facts) if run.as_json else "\n".join(f"{k}: {v}" for k, v in facts.items()))


def known(path: str, codec: Codec) -> xr.Dataset:
    """The one field of each variable that is known, on the grid of the model."""
    ds = schema.open_any(path)
    there = [name for name in codec.variables if name in ds.data_vars]
    field = schema.variables(ds, there or list(codec.variables)).squeeze(drop=True).load()
    sizes = dict(zip(codec.grid.dims, codec.grid.shape, strict=True))
    if any(dict(field[name].sizes) != sizes for name in there):
        raise InputError(f"Got a truth {path!r} of sizes {dict(field.sizes)}; expected {sizes}.")
    return field


def figures(posts: dict[str, xr.Dataset], truth: xr.Dataset | None) -> dict[str, dict[str, float]]:
    """A row a variable and method: size and spread, and scores where the truth is known."""
    rows, first = {}, next(iter(posts.values()))
    for method, post in posts.items():
        scores = {} if truth is None else verbs.figures(post, truth)
        for name, field in post.data_vars.items():
            mean, spread = field.mean("member"), field.std("member", ddof=1)
            own = {"rms of mean": rms(mean), "spread": rms(spread)}
            if method != "diffusion":
                shift = mean - first[name].mean("member")
                own["shift in spreads"] = rms(shift) / max(rms(spread), 1e-300)
            rest = {k: v for k, v in scores.get(str(name), {}).items() if k != "members"}
            rows[f"{name}, {method}"] = own | rest
    return rows


def rms(field: xr.DataArray) -> float:
    return float(np.sqrt((field.astype(float) ** 2).mean()))


def words(
    ask: config.Inverse, seen: xr.Dataset, post: xr.Dataset, left: xr.DataArray | None
) -> list[str]:
    """What was asked, how the members fit, and how they hold the equation."""
    counts = [f"{int(v.notnull().sum())} values of {n}" for n, v in seen.items()]
    given = f"{', '.join(counts)}; {ask.members} members, seed {ask.seed}, model {ask.model}."
    cost = f"{post.attrs['network_evaluations']} network evaluations, {post.attrs['guidance']}."
    off = post.attrs.get("misfit_sd")
    fit = [f"Misfit of the members: {off} errors ({RIGHT})." if off else "Nothing was seen."]
    if "chi_square" in post.attrs:
        among = post.attrs["chi_square_range"]
        fit.append(f"Chi-square of the values: {post.attrs['chi_square']}; expected {among}.")
    lines = ["No equation between the fields is known."]
    if left is not None:
        size = {k: f"{v:.2e}" for k, v in left.attrs.items() if k != "long_name"}
        said = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in size.items())
        lines = [f"{left.attrs['long_name']}: {said}; relative to the right side."]
    return [
        report.text(given, cost, head="What was asked"),
        report.text(*fit, head="How the members fit"),
        report.text(*lines, head="Residual of the equation"),
        report.text(
            "Spread is a standard deviation, in the variable's units. Of two equal laws the means "
            f"are {(2 / ask.members) ** 0.5:.2f} spreads apart, by chance.",
            head="Figures",
        ),
    ]


def drawn(
    out: Path,
    post: xr.Dataset,
    seen: xr.Dataset,
    truth: xr.Dataset | None,
    left: xr.DataArray | None,
) -> list[str]:
    """A picture a variable, with its own sensors; then the residual."""
    fields = {str(n): v for n, v in post.data_vars.items()}
    if left is not None and left.attrs["relative"] > SMALL:
        fields["residual"] = left
    blocks = []
    for name, field in fields.items():
        true = truth[name] if truth is not None and name in truth else None
        mine = [v for n, v in seen.items() if n == name and v.notnull().any()]
        path = plot.save(plot.maps(field, true, mine[0] if mine else None), out / f"{name}.png")
        blocks.append(report.picture(path, f"{name}: mean, members and spread"))
    return blocks
