"""Pointwise scores against their definitions written out, and against each other."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sciddm import score
from sciddm.errors import InputError

RNG = np.random.default_rng(0)
TRUTH = xr.DataArray(RNG.normal(2, 1, (6, 8, 7)), dims=("sample", "y", "x"), name="u")


@pytest.fixture
def ens() -> xr.DataArray:
    noise = np.random.default_rng(1).normal(0.3, 1, (9, *TRUTH.shape))
    return xr.DataArray(TRUTH.values + noise, dims=("member", *TRUTH.dims), name="u")


def test_definitions(ens: xr.DataArray) -> None:
    error = ens.values.mean(axis=0) - TRUTH.values
    np.testing.assert_allclose(score.rmse(ens, TRUTH), np.sqrt((error**2).mean()))
    np.testing.assert_allclose(score.mae(ens, TRUTH), np.abs(error).mean())
    np.testing.assert_allclose(score.bias(ens, TRUTH), error.mean())
    norm = np.linalg.norm
    np.testing.assert_allclose(
        score.relative_error(ens, TRUTH), norm(error) / norm(TRUTH.values), rtol=1e-12
    )
    each = norm(error.reshape(6, -1), axis=1) / norm(TRUTH.values.reshape(6, -1), axis=1)
    np.testing.assert_allclose(score.relative_error(ens, TRUTH, over=("y", "x")), each)


def test_the_root_is_taken_after_the_average(ens: xr.DataArray) -> None:
    cases = score.rmse(ens, TRUTH, over=("y", "x"))
    np.testing.assert_allclose((cases**2).mean() ** 0.5, score.rmse(ens, TRUTH))
    assert float(cases.mean()) < float(score.rmse(ens, TRUTH))


def test_square_of_rmse_is_bias_squared_plus_variance_of_the_error(ens: xr.DataArray) -> None:
    error = ens.mean("member") - TRUTH
    whole = score.bias(ens, TRUTH) ** 2 + error.var()
    np.testing.assert_allclose(score.rmse(ens, TRUTH) ** 2, whole, rtol=1e-12)


def test_a_field_without_members_is_an_ensemble_of_one(ens: xr.DataArray) -> None:
    one = ens.isel(member=2)
    for function in (score.rmse, score.mae, score.bias, score.relative_error):
        np.testing.assert_array_equal(function(one, TRUTH), function(ens.isel(member=[2]), TRUTH))
    assert score.rmse(one, TRUTH).attrs["members"] == 1
    assert "single" in score.rmse(one, TRUTH).attrs["estimator"]


def test_members_beyond_one_lower_the_error_by_the_exchangeable_law() -> None:
    """E (mean of M - y)^2 = (1 + 1/M) s^2 when members and truth are exchangeable."""
    rng = np.random.default_rng(3)
    cells = 40_000
    for members in (1, 4, 25):
        truth = xr.DataArray(rng.normal(size=cells), dims="cell")
        ens = xr.DataArray(rng.normal(size=(members, cells)), dims=("member", "cell"))
        expected = 1 + 1 / members
        found = float(score.rmse(ens, truth)) ** 2
        assert abs(found - expected) < 4 * expected * np.sqrt(2 / cells)


def test_attrs_say_what_it_is(ens: xr.DataArray) -> None:
    warm = ens.assign_attrs(units="K")
    assert score.rmse(warm, TRUTH).attrs == {
        "estimator": "root mean square, of the ensemble mean",
        "members": 9,
        "weights": "uniform: there is no latitude coordinate",
        "units": "K",
    }
    assert score.relative_error(warm, TRUTH).attrs["units"] == "1"


def test_float32_is_averaged_in_float64() -> None:
    """300 K with errors of 1e-3 K: a float32 sum over members is 1e-4 K off."""
    noise = np.random.default_rng(4).normal(size=(997, 40, 50))
    values = (300 + 1e-3 * noise).astype(np.float32)
    truth = xr.DataArray(np.full((40, 50), 300.0, np.float32), dims=("y", "x"))
    found = score.bias(xr.DataArray(values, dims=("member", "y", "x")), truth, over=())
    np.testing.assert_allclose(found, values.astype(np.float64).mean(axis=0) - 300, atol=1e-12)
    assert found.dtype == np.float64


def test_relative_to_nothing_is_refused() -> None:
    zero = xr.zeros_like(TRUTH)
    with pytest.raises(InputError, match="zero over all of"):
        score.relative_error(zero.expand_dims(member=2) + 1, zero)
