"""Navier-Stokes behind a prior on its initial field: the recipes, and recovery by one anchor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm import draws, recipe
from sciddm.denoise import Gaussian
from sciddm.guide import anchored
from sciddm.model import Model
from sciddm.observe import Observation
from sciddm.pde import NavierStokes

ROOT = Path(__file__).parents[1]
SIDE, POINTS = 24, 30


@pytest.fixture(scope="module")
def fields() -> xr.Dataset:
    return recipe.load(ROOT / "datasets" / "navier_stokes.py", "datasets").fields(40, SIDE)


@pytest.fixture(scope="module")
def model(fields: xr.Dataset) -> Model:
    shelf = recipe.load(ROOT / "models" / "navier_stokes.py", "models")
    return shelf.exact(shelf.build(fields, modes=4, width=4, blocks=1))


def observed(fields: xr.Dataset, variable: str, noise: float = 1e-3) -> sd.Observed:
    truth = fields.isel(sample=39, drop=True)[variable]
    rng = np.random.default_rng(3)
    row, column = np.divmod(rng.choice(SIDE**2, POINTS, replace=False), SIDE)
    at = {"x": xr.DataArray(row, dims="station"), "y": xr.DataArray(column, dims="station")}
    std = noise * float(np.sqrt((truth**2).mean()))
    return sd.Observed(truth.isel(at) + std * rng.standard_normal(POINTS), std=std)


def test_the_data_set_solves_the_equation_and_has_its_law(fields: xr.Dataset) -> None:
    initial = torch.from_numpy(fields["initial"].values).double()[:, None]
    final = NavierStokes(step=0.01)(initial)[:, 0].numpy()
    # float32 of what is stored, and the step of 0.05
    assert float(np.abs(final - fields["final"].values).max()) < 1e-6
    k = 2 * np.pi * np.fft.fftfreq(SIDE, 1 / SIDE)
    k2 = (k[:, None] ** 2 + k**2)[1:4, 0]
    power = np.abs(np.fft.fft2(fields["initial"].values)[:, 1:4, 0]) ** 2 / SIDE**4
    expected = 2 * 7.0**3 * (k2 + 49) ** -2.5
    assert np.abs(power.mean(0) / expected - 1).max() < 0.6
    assert fields["x"].attrs["period"] == 1.0


def test_samples_have_the_same_bytes_in_any_block(fields: xr.Dataset) -> None:
    shelf = recipe.load(ROOT / "datasets" / "navier_stokes.py", "datasets")
    part = shelf.fields(2, SIDE, start=5)
    xr.testing.assert_identical(fields.isel(sample=slice(5, 7)).drop_attrs(), part.drop_attrs())
    assert not np.array_equal(shelf.fields(1, SIDE, seed=1)["initial"], fields["initial"][:1])


def test_points_of_either_variable_are_recovered(model: Model, fields: xr.Dataset) -> None:
    truth = fields.isel(sample=39, drop=True)
    for seen, wanted in (("initial", "final"), ("final", "initial")):
        post = sd.recover(model, observed(fields, seen), members=16, steps=16)
        assert 0.8 < post.attrs["misfit_sd"] < 1.3
        assert 5 < post.attrs["chi_square"] < 60
        error = float(((post[wanted].mean("member") - truth[wanted]) ** 2).mean())
        spread = float(post[wanted].var("member", ddof=1).mean())
        assert 0.3 < error / spread < 3
        w = torch.from_numpy(post["initial"].values).double()[:, None]
        assert np.abs(NavierStokes()(w)[:, 0].numpy() - post["final"].values).max() < 1e-5


@pytest.mark.parametrize("noise", [1e-5, 0.15])
def test_members_lie_from_their_values_as_the_errors_say(
    model: Model, fields: xr.Dataset, noise: float
) -> None:
    """What is left of X at the last noise level bends too, by 30 of the smaller errors here."""
    post = sd.recover(model, observed(fields, "final", noise), members=16, steps=16)
    assert 0.8 < post.attrs["misfit_sd"] < 1.3


def test_kriging_behind_the_solver_agrees_with_the_flow(model: Model, fields: xr.Dataset) -> None:
    seen = observed(fields, "final")
    post, kriged = sd.recover(model, seen, members=64, steps=16), sd.krige(model, seen, members=64)
    assert kriged.attrs["guidance"] == "randomised maximum likelihood"
    assert 0.8 < kriged.attrs["misfit_sd"] < 1.3
    a, b = post["initial"], kriged["initial"]
    gap = (a.mean("member") - b.mean("member")) / b.std("member")
    assert float(np.sqrt((gap**2).mean())) < 0.35  # two means of 64 differ by 0.18
    ratio = a.var("member").mean() / b.var("member").mean()
    assert 0.8 < float(ratio) < 1.25


def test_sensors_of_the_first_variable_never_run_the_solver(
    model: Model, fields: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    call = NavierStokes.__call__
    monkeypatch.setattr(NavierStokes, "__call__", lambda s, x: (runs.append(len(x)), call(s, x))[1])
    sd.recover(model, observed(fields, "initial"), members=16, steps=8)
    assert len(runs) <= 3  # what is checked before, and the members
    both = observed(fields, "initial") & observed(fields, "final")
    runs.clear()
    assert sd.recover(model, both, members=16, steps=8).attrs["misfit_sd"] < 1.5
    assert len(runs) > 8


def test_an_anchor_that_does_not_serve_is_moved_to_the_members(
    model: Model, fields: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the prior mean, without chords, miss; made again at the members they fit."""

    def lazy(prior: Gaussian, seen: Observation, like: torch.Tensor) -> anchored.Anchor:
        x = torch.zeros_like(like)
        return anchored.Anchor(x, seen.value(x), seen.operator.rows(x).double(), x, 0.0)

    monkeypatch.setattr(draws, "linearised", lazy)
    monkeypatch.setattr(anchored, "NEAR", 1e9)
    seen = observed(fields, "final", 1e-4)
    whole = sd.recover(model, seen, members=16, steps=8).attrs["misfit_sd"]
    monkeypatch.setattr(draws, "MISFIT", 1e9)
    once = sd.recover(model, seen, members=16, steps=8).attrs["misfit_sd"]
    assert whole < 0.5 * once
