"""The Burgers data sets: conservation, the initial law, fronts, and bytes that stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciddm import recipe
from sciddm.errors import InputError

RECIPE = recipe.load(Path(__file__).parents[2] / "datasets" / "burgers.py", "datasets")


@pytest.fixture(scope="module")
def sharp() -> xr.DataArray:
    ds: xr.Dataset = RECIPE.fields(48, 64, viscosity=0.002)
    return ds["velocity"].astype("f8")


def test_the_mean_stays_and_the_energy_only_falls(sharp: xr.DataArray) -> None:
    # on the solver's points the mean stays to rounding; one point in eight sees shocks coarsely
    np.testing.assert_allclose(sharp.mean("x"), 0, atol=2e-3)
    np.testing.assert_allclose(sharp.sel(time=slice(0, 0.2)).mean("x"), 0, atol=1e-4)
    energy = (sharp**2).mean(("sample", "x"))
    assert (energy.diff("time") < 0).all()


def test_the_initial_law_is_the_published_codes() -> None:
    u = RECIPE.fields(512, 32, viscosity=0.2)["velocity"].isel(time=0).astype("f8")
    n = np.arange(1, 13)
    variance = 2 * 49**2 * (4 * np.pi**2 * n**2 + 49) ** -2.5
    half = (np.abs(np.fft.rfft(u.values, axis=1)[:, 1:13]) ** 2).mean(0) / 32**2 * 2
    # 1,024 draws of each: five standard errors
    np.testing.assert_allclose(half, variance, rtol=5 * np.sqrt(2 / 1024))


def test_fronts_stand_where_the_velocity_falls_and_are_sharp_at_low_viscosity(
    sharp: xr.DataArray,
) -> None:
    end = sharp.isel(time=-1)
    step = end.roll(x=-1) - end
    span = end.max("x") - end.min("x")
    assert float((-step.min("x") / span).median()) > 0.3
    assert (step.max("x") < 0.5 * -step.min("x")).all()
    mild = RECIPE.fields(16, 64)["velocity"].isel(time=-1)
    fall = -(mild.roll(x=-1) - mild).min("x") / (mild.max("x") - mild.min("x"))
    assert float(fall.median()) < 0.2


def test_a_sample_is_the_same_whatever_else_is_made(sharp: xr.DataArray) -> None:
    some = RECIPE.fields(5, 64, start=30, viscosity=0.002)["velocity"]
    np.testing.assert_array_equal(some, sharp.isel(sample=slice(30, 35)))
    other = RECIPE.fields(2, 64, seed=1, viscosity=0.002)["velocity"]
    assert float(np.abs(other - sharp.isel(sample=[0, 1])).max()) > 0.1


def test_another_grid_sees_the_same_waves(sharp: xr.DataArray) -> None:
    # 3 divides 63: every time of the coarser film is one of the finer's
    fine = sharp.isel(time=slice(None, None, 21))
    coarse = RECIPE.fields(16, 4, viscosity=0.002)["velocity"]
    np.testing.assert_allclose(
        coarse, fine.isel(sample=slice(16), x=slice(None, None, 16)), atol=2e-5
    )


@pytest.mark.parametrize("numbers", [{"viscosity": 0.0}, {"viscosity": 2.0}, {"grid": 3}])
def test_numbers_without_a_meaning_are_refused(numbers: dict[str, float], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grid=.* and viscosity="):
        RECIPE.make(tmp_path / "store.zarr", **numbers)
    assert not (tmp_path / "store.zarr").exists()
