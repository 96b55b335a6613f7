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
import xarray as xr

import sciddm as sd
from sciddm import config, plot, recipe
from sciddm.data import schema, split, store
from sciddm.errors import InputError

SHARE = 0.03


def main(ask: config.Demo) -> None:
    """Make the case, draw from every method, score, print, draw."""
    out = Path(ask.out)
    if ask.data is None:
        truth, seen, target, models = poisson(ask.seed)
    else:
        truth, seen, target, models = own(ask.data, str(ask.variable), ask.seed)
    print(f"{int(np.isfinite(seen.values).sum())} values of {seen.values.name} seen.", flush=True)
    rows, posteriors = {}, {}
    for name, draw in models.items():
        start = time.monotonic()
        post = draw(seen, ask.members, ask.seed)
        seconds = time.monotonic() - start
        posteriors[name] = post
        rows[name] = scores(post[target], truth[target]) | {
            "misfit_sd": post.attrs["misfit_sd"],
            "evaluations": post.attrs["network_evaluations"],
            "seconds": round(seconds, 2),
        }
    post = next(iter(posteriors.values()))
    rows |= {name: {"error_of_mean": e} for name, e in simple(seen, truth, target).items()}
    out.mkdir(parents=True, exist_ok=True)
    store.write(post, out / "posterior.zarr", overwrite=True)
    figure = plot.recovery(truth[target], post[target], seen.values)
    plot.save(figure, out / "posterior.png")
    if ask.as_json:
        print(json.dumps({"target": target, "members": ask.members, "rows": rows}))
        return
    table(rows)
    print(f"\n{target} of {ask.members} members: {out}/posterior.zarr, {out}/posterior.png")


def poisson(seed: int) -> tuple[xr.Dataset, sd.Observed, str, dict[str, Callable]]:
    """A new source field and its solution; the solution is seen with an error of 1e-3."""
    folder = recipe.find("models", "poisson").with_suffix("")
    trained = sd.load(folder)
    data = recipe.load(recipe.find("datasets", "poisson"), "datasets")
    exact = recipe.load(recipe.find("models", "poisson"), "models").exact(trained)
    # a seed of its own: the training fields have seed 0
    truth = data.fields(1, trained.codec.grid.shape[0], 1000 + seed).isel(sample=0, drop=True)
    rng = np.random.default_rng([seed, 3])
    std = 1e-3 * float(np.sqrt((truth["solution"] ** 2).mean()))
    seen = scattered(truth["solution"], std, rng)
    models = {
        "trained network": lambda s, m, k: sd.recover(trained, s, members=m, seed=k),
        "Gaussian fitted (kriging)": lambda s, m, k: sd.krige(trained, s, members=m, seed=k),
        "exact posterior": lambda s, m, k: sd.krige(exact, s, members=m, seed=k + 1),
    }
    return truth, seen, "coefficient", models


def own(path: str, name: str, seed: int) -> tuple[xr.Dataset, sd.Observed, str, dict[str, Callable]]:
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
    std = 0.05 * float(model.codec.std[0])
    seen = scattered(truth[name], std, np.random.default_rng([seed, 4]))
    models = {
        "Gaussian prior, diffusion": lambda s, m, k: sd.recover(model, s, members=m, seed=k),
        "optimal interpolation": lambda s, m, k: sd.krige(model, s, members=m, seed=k),
        "climatology": lambda s, m, k: sd.generate(model, members=m, seed=k).assign_attrs(
            misfit_sd=float("nan"), network_evaluations=0
        ),
    }
    return truth, seen, name, models


def scattered(field: xr.DataArray, std: float, rng: np.random.Generator) -> sd.Observed:
    """``SHARE`` of the valid grid points at random, with Gaussian errors."""
    flat = np.flatnonzero(np.isfinite(field.values))
    at = rng.choice(flat, max(1, round(SHARE * len(flat))), replace=False)
    index = np.unravel_index(at, field.shape)
    where = {d: xr.DataArray(i, dims="station") for d, i in zip(field.dims, index, strict=True)}
    values = field.isel(where)
    return sd.Observed(values + std * rng.standard_normal(len(at)), std=std)


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


def simple(seen: sd.Observed, truth: xr.Dataset, target: str) -> dict[str, float]:
    """Interpolation by thin plates, then the equation where there is one; no spread."""
    from scipy.interpolate import RBFInterpolator

    from sciddm.pde import grid as pde

    field, values = truth[target], seen.values
    dims = [str(d) for d in field.dims]
    mesh = np.stack(np.meshgrid(*[truth[d] for d in dims], indexing="ij"), -1).reshape(-1, len(dims))
    where, known = np.stack([values[d] for d in dims], 1), values.values
    if values.name != target:  # the solution vanishes on the boundary
        ring = mesh[((mesh == mesh.min(0)) | (mesh == mesh.max(0))).any(1)]
        inside = ~((where == mesh.min(0)) | (where == mesh.max(0))).any(1)
        where = np.concatenate([where[inside], ring])
        known = np.concatenate([known[inside], np.zeros(len(ring))])
    smooth = RBFInterpolator(where, known, smoothing=1e-9)(mesh).reshape(field.shape)
    name = "interpolation"
    if values.name != target:
        import torch

        smooth = pde.laplacian(torch.from_numpy(smooth)[None, None])[0, 0].numpy()
        name = "interpolate, then solve"
    gap = xr.zeros_like(field) + smooth - field
    return {name: float(np.sqrt((gap**2).mean())) / float(field.std())}


def table(rows: dict[str, dict[str, float]]) -> None:
    """Rows of figures, aligned."""
    columns = list(next(iter(rows.values())))
    print(f"\n{'':26}" + "".join(f"{c:>15}" for c in columns))
    for name, row in rows.items():
        cells = [f"{row[c]:>15.4g}" if c in row else f"{'':>15}" for c in columns]
        print(f"{name:26}" + "".join(cells))
