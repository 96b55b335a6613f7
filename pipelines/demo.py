"""The whole road in a minute: a field, 3 % of it seen, 64 members, a table, a picture.

Reads
    Nothing: the shipped Poisson model and a fresh field of the solver. With ``data`` and
    ``variable``, the user's own NetCDF or zarr instead: a Gaussian prior is fitted to its first
    part and one of its last fields is recovered.
Writes
    ``posterior.zarr`` and ``posterior.png`` in the folder ``out``.
Costs
    Under a minute on two cores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import sciddm as sd
from sciddm import baseline, config, plot, recipe
from sciddm.data import schema, split, store
from sciddm.errors import InputError
from sciddm.pde.grid import laplacian

SHARE = 0.03
Methods = dict[str, Callable[[sd.Observed, int, int], xr.Dataset]]
Problem = tuple[xr.Dataset, xr.DataArray, float, str, Methods]


def main(ask: config.Demo) -> None:
    """Make the case, draw from every method, score, print, draw."""
    out = Path(ask.out)
    if ask.data is None:
        truth, values, std, target, methods = poisson(ask.seed)
    else:
        truth, values, std, target, methods = own(ask.data, str(ask.variable), ask.seed)
    seen = sd.Observed(values, std=std)
    print(f"{values.size} values of {values.name} seen, error {std:.3g}.", flush=True)
    rows: dict[str, dict[str, float]] = {}
    posteriors = {}
    for name, draw in methods.items():
        start = time.monotonic()
        post = posteriors[name] = draw(seen, ask.members, ask.seed)
        seconds = round(time.monotonic() - start, 2)
        # the prior has no misfit; NaN would be no JSON
        fit = {k: v for k, v in post.attrs.items() if k == "misfit_sd"}
        cost = {"evaluations": post.attrs["network_evaluations"], "seconds": seconds}
        rows[name] = scores(post[target], truth[target]) | fit | cost
    post = next(iter(posteriors.values()))
    rows |= {name: {"error_of_mean": e} for name, e in simple(values, truth, target).items()}
    out.mkdir(parents=True, exist_ok=True)
    store.write(post, out / "posterior.zarr", overwrite=True)
    plot.save(plot.recovery(truth[target], post[target], values), out / "posterior.png")
    if ask.as_json:
        print(json.dumps({"target": target, "members": ask.members, "rows": rows}))
    else:
        table(rows)
        print(f"\n{target} of {ask.members} members: {out}/posterior.zarr, {out}/posterior.png")


def poisson(seed: int) -> Problem:
    """A source field of no training seed; its solution is seen with an error of 1e-3."""
    trained = sd.load(recipe.find("models", "poisson").with_suffix(""))
    data = recipe.load(recipe.find("datasets", "poisson"), "datasets")
    exact = recipe.load(recipe.find("models", "poisson"), "models").exact(trained)
    truth = data.fields(1, trained.fields.grid.shape[0], 1000 + seed).isel(sample=0, drop=True)
    rng = np.random.default_rng([seed, 3])
    std = 1e-3 * float(np.sqrt((truth["solution"] ** 2).mean()))
    seen = scattered(truth["solution"], std, rng)
    models: Methods = {
        "trained network": lambda s, m, k: sd.recover(trained, s, members=m, seed=k),
        "Gaussian fitted (kriging)": lambda s, m, k: sd.krige(trained, s, members=m, seed=k),
        "exact posterior": lambda s, m, k: sd.krige(exact, s, members=m, seed=k + 1),
    }
    return truth, seen, std, "coefficient", models


def own(path: str, name: str, seed: int) -> Problem:
    """The last field of the user's file, seen with an error of 5 % of its s.d."""
    ds = schema.conform(schema.open_any(path), [name]).load()
    schema.check_field(ds)
    dim = str(ds.attrs["sciddm_sample_dim"])
    if ds.sizes[dim] < 20:
        raise InputError(
            f"{path}: {name!r} has {ds.sizes[dim]} fields along {dim!r}; expected at least 20 to "
            "fit a prior and hold one out."
        )
    ds = split.attach(ds, split.by_order(ds.sizes[dim], 0.15, 0.1), dim)
    model = recipe.load(recipe.find("models", "gaussian_fit"), "models").build(ds)
    truth = split.select(ds, "test").isel({dim: -1}, drop=True)
    std = 0.05 * float(model.fields.std[0])
    seen = scattered(truth[name], std, np.random.default_rng([seed, 4]))
    models: Methods = {
        "Gaussian prior, diffusion": lambda s, m, k: sd.recover(model, s, members=m, seed=k),
        "optimal interpolation": lambda s, m, k: sd.krige(model, s, members=m, seed=k),
        "climatology": lambda s, m, k: sd.generate(model, members=m, seed=k).assign_attrs(
            network_evaluations=0
        ),
    }
    return truth, seen, std, name, models


def scattered(field: xr.DataArray, std: float, rng: np.random.Generator) -> xr.DataArray:
    """``SHARE`` of the valid grid points at random, with Gaussian errors."""
    flat = np.flatnonzero(np.isfinite(field.values))
    at = rng.choice(flat, max(1, round(SHARE * len(flat))), replace=False)
    index = np.unravel_index(at, field.shape)
    where = {d: xr.DataArray(i, dims="station") for d, i in zip(field.dims, index, strict=True)}
    counted = {d: i for d, i in where.items() if d not in field.coords}
    return field.isel(where).assign_coords(counted) + std * rng.standard_normal(len(at))


def scores(post: xr.DataArray, truth: xr.DataArray) -> dict[str, float]:
    """What every row of the table shows; errors relative to the truth's own rms about its mean."""
    norm = float(truth.std())
    return {
        "error_of_mean": float(sd.score.rmse(post, truth)) / norm,
        "error_of_one": float(sd.score.rmse(post.isel(member=[0]), truth)) / norm,
        "fair_crps": float(sd.score.crps(post, truth)) / norm,
        "spread_skill": float(sd.score.spread_skill(post, truth)),
        "coverage_90": float(sd.score.coverage(post, truth, level=0.9)),
    }


def simple(seen: xr.DataArray, truth: xr.Dataset, target: str) -> dict[str, float]:
    """Interpolation by thin plates, then the equation where there is one; no spread."""
    field = truth[target]
    if seen.name == target:
        name, guess = "interpolation", baseline.thin_plate(seen, field)
    else:
        smooth = baseline.thin_plate(seen, field, edge=0.0)
        source = laplacian(torch.from_numpy(smooth.values)[None, None])[0, 0].numpy()
        name, guess = "interpolate, then solve", field.copy(data=source)
    return {name: float(np.sqrt(((guess - field) ** 2).mean())) / float(field.std())}


def table(rows: dict[str, dict[str, float]]) -> None:
    """Rows of figures, aligned."""
    columns = list(next(iter(rows.values())))
    print(f"\n{'':26}" + "".join(f"{c:>15}" for c in columns))
    for name, row in rows.items():
        cells = [f"{row[c]:>15.4g}" if c in row else f"{'':>15}" for c in columns]
        print(f"{name:26}" + "".join(cells))
