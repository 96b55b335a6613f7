"""The level set on the labelled road: exact given the coefficient, members given the solution."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm import ensemble, recipe, solve
from sciddm.data import split
from sciddm.footprint import Disc
from sciddm.guide import DPS
from sciddm.pde import Darcy, Interface, Phases, Seen
from sciddm.random import Streams

ROOT = Path(__file__).parents[1]
SIZE = 16


@pytest.fixture(scope="module")
def darcy() -> xr.Dataset:
    ds = recipe.load(ROOT / "datasets" / "darcy.py").fields(240, SIZE)
    return split.attach(ds, {"train": [0, 200], "validation": [200, 220], "test": [220, 240]})


@pytest.fixture(scope="module")
def model(darcy: xr.Dataset) -> sd.Model:
    build = recipe.load(ROOT / "models" / "darcy_level_set.py").build
    made: sd.Model = build(darcy, coarse=16, modes=10)
    return made


def nodes(field: xr.DataArray, count: int, seed: int = 0) -> xr.DataArray:
    index = np.random.default_rng(seed).choice(field.size, count, replace=False)
    row, column = np.divmod(index, field.sizes["x"])
    return field.isel(y=xr.DataArray(row, dims="station"), x=xr.DataArray(column, dims="station"))


def law(model: sd.Model) -> Phases:
    assert isinstance(model.sampler, Phases)
    return model.sampler


def test_values_of_the_coefficient_give_the_exact_draws(model: sd.Model, darcy: xr.Dataset) -> None:
    """The same draws as the Gibbs sweeps of the tensor side, and the solver's solutions of them."""
    truth = darcy.isel(sample=230)
    seen = nodes(truth["coefficient"], 20)
    post = sd.recover(model, sd.Observed(seen, std=1e-3), members=16, seed=4)
    flat = np.ravel_multi_index(
        tuple(np.rint(seen[d].values * (SIZE - 1)).astype(int) for d in ("y", "x")), (SIZE, SIZE)
    )
    order = np.argsort(flat)
    level = law(model).law
    g = level.given(
        torch.from_numpy(flat[order].copy()),
        torch.from_numpy(seen.values[order].astype(float)),
        torch.zeros(16, 1, SIZE, SIZE),
        Streams.of(4, 16),
    )
    assert np.array_equal(post["coefficient"].values, level(g)[:, 0].numpy())
    assert np.array_equal(nodes(post["coefficient"][0], 20).values, seen.values)
    exact = Darcy()(level(g).double())[:, 0].numpy()
    np.testing.assert_allclose(post["solution"].values, exact, rtol=1e-4, atol=1e-6)
    assert post.attrs["misfit_sd"] == 0 and post.attrs["network_evaluations"] == 0


def test_what_is_not_seen_follows_the_arcsine_law(model: sd.Model) -> None:
    """Two cells of the prior agree in sign with (2 / pi) arcsin of their latent correlation."""
    new = sd.generate(model, members=1600, seed=2)["coefficient"].values
    signs = np.where(new > 7.5, 1.0, -1.0).reshape(1600, -1)
    one = torch.zeros(SIZE * SIZE, 1, SIZE, SIZE, dtype=torch.float64)
    one.view(SIZE * SIZE, -1).fill_diagonal_(1.0)
    cov = law(model).law.latent(one).flatten(1).numpy()
    rho = cov / np.sqrt(np.outer(np.diagonal(cov), np.diagonal(cov)))
    want = 2 / math.pi * np.arcsin(np.clip(rho, -1, 1))
    pairs = np.random.default_rng(0).integers(0, SIZE * SIZE, (400, 2))
    got = (signs[:, pairs[:, 0]] * signs[:, pairs[:, 1]]).mean(0)
    gap = (got - want[pairs[:, 0], pairs[:, 1]]) * math.sqrt(1600)
    assert np.abs(gap).max() < 4.5 and (gap**2).mean() < 1.6


def test_values_of_the_solution_give_the_members_of_the_interface(
    model: sd.Model, darcy: xr.Dataset
) -> None:
    """The labelled road adds nothing, and its members fit values on and between the nodes."""
    truth = darcy.isel(sample=231)
    place = np.random.default_rng(5).uniform(0.1, 0.9, (30, 2))
    at = {d: xr.DataArray(place[:, i], dims="station") for i, d in enumerate(("y", "x"))}
    std = 0.03 * float(darcy["solution"].std())
    clean = truth["solution"].astype(float).interp(at)
    values = clean + std * np.random.default_rng(6).standard_normal(30)
    post = sd.recover(model, sd.Observed(values, std=std), members=16, seed=7)
    assert 0.7 < post.attrs["misfit_sd"] < 1.5
    seen = Seen(
        torch.from_numpy(place), torch.from_numpy(values.values), torch.full((30,), std).double()
    )
    problem = Interface(law(model).law, SIZE, 16, 10)
    w = problem.draw(seen, problem.mode(seen), Streams.of(7, 16))
    same = post["coefficient"].values == problem.coefficient(w).numpy()
    assert same.mean() > 0.995  # positions are found from weights, to rounding
    wrong = ((post["coefficient"].mean("member") > 7.5) != (truth["coefficient"] > 7.5)).mean()
    assert float(wrong) < 0.5 * 0.5


def test_the_same_law_on_a_finer_grid(model: sd.Model, darcy: xr.Dataset) -> None:
    """Values at nodes of the coarse grid are nodes of one of twice less one."""
    seen = nodes(darcy["coefficient"].isel(sample=232), 12)
    fine = 2 * SIZE - 1
    post = sd.recover(
        model, sd.Observed(seen, std=1e-3), members=3, seed=0, sizes={"y": fine, "x": fine}
    )
    at = {d: seen[d] for d in ("y", "x")}
    got = post["coefficient"].sel(at, method="nearest", tolerance=1e-9)
    assert post.sizes["x"] == fine and bool((got == seen.drop_vars(["y", "x"])).all())


def test_saved_streamed_and_several_cases(
    model: sd.Model, darcy: xr.Dataset, tmp_path: Path
) -> None:
    again = sd.load(model.save(tmp_path / "model"))
    part = darcy["coefficient"].isel(sample=slice(220, 223))
    seen = sd.Observed(part.where(part["y"] < 0.4), std=1e-3)
    direct = sd.recover(model, seen, members=18, seed=1)
    stored = ensemble.run(ensemble.Job(again, seen, 18, 1), tmp_path / "post.zarr")
    xr.testing.assert_equal(direct.drop_attrs(), stored.load().drop_attrs())
    assert direct.sizes["sample"] == 3 and direct.sizes["member"] == 18


def doubled(seen: xr.DataArray) -> xr.DataArray:
    both = xr.concat([seen, 15.0 - seen], "station")
    return both


BAD = {
    "both fields": ("one of them", lambda t: sd.Observed(nodes(t["coefficient"], 5), std=1e-3)
                    & sd.Observed(nodes(t["solution"], 5), std=1e-3)),
    "between nodes": ("between the nodes", lambda t: sd.Observed(
        nodes(t["coefficient"], 5).assign_coords(x=("station", np.linspace(0.11, 0.72, 5))),
        std=1e-3)),
    "means": ("not at points", lambda t: sd.Observed(
        nodes(t["solution"], 5).drop_vars(["x", "y"]), std=1e-3,
        footprint=Disc({"y": np.full(5, 0.5), "x": np.linspace(0.3, 0.7, 5)}, 0.2))),
    "large errors": ("phase is certain", lambda t: sd.Observed(
        nodes(t["coefficient"], 5), std=2.0)),
    "gross errors": ("Gaussian ones", lambda t: sd.Observed(
        nodes(t["solution"], 5), std=1e-3, freedom=4.0)),
    "two phases at a place": ("both phases", lambda t: sd.Observed(
        doubled(nodes(t["coefficient"], 5)), std=1e-3)),
}  # fmt: skip


@pytest.mark.parametrize(("said", "seen"), BAD.values(), ids=BAD.keys())
def test_what_the_level_set_cannot_serve_is_refused(
    said: str, seen: object, model: sd.Model, darcy: xr.Dataset
) -> None:
    with pytest.raises(sd.InputError, match=said):
        sd.recover(model, seen(darcy.isel(sample=230)), members=2)  # type: ignore[operator]


def test_what_only_a_network_has_is_refused(model: sd.Model, darcy: xr.Dataset) -> None:
    seen = sd.Observed(nodes(darcy["solution"].isel(sample=230), 5), std=1e-3)
    for asked in ({"steps": 10}, {"solver": solve.Euler()}, {"rule": DPS}):
        with pytest.raises(sd.InputError, match="without a network"):
            sd.recover(model, seen, members=2, **asked)  # type: ignore[arg-type]
    with pytest.raises(sd.InputError, match="no Gaussian"):
        sd.krige(model, seen, members=2)
    with pytest.raises(sd.InputError, match="does not forecast"):
        _ = model.forecaster
    with pytest.raises(sd.InputError, match="two values"):
        recipe.load(ROOT / "models" / "darcy_level_set.py").build(
            darcy.assign(coefficient=darcy["solution"])
        )
