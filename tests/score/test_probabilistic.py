"""Proper scores by identities: brute force, closed forms, limits, and one score from another."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scoringrules
import xarray as xr

from sciddm import score
from sciddm.errors import InputError


def labelled(values: np.ndarray, *dims: str, name: str = "u") -> xr.DataArray:
    return xr.DataArray(values, dims=dims, name=name)


def pair(members: int, cells: int = 40, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    ens = labelled(rng.normal(0.2, 1.3, (members, cells)), "member", "cell")
    return ens, labelled(rng.normal(size=cells), "cell")


def brute_crps(ens: np.ndarray, truth: np.ndarray, fair: bool) -> np.ndarray:
    members = len(ens)
    pairs = members * (members - 1) if fair else members**2
    apart = sum(abs(a - b) for a in ens for b in ens)
    return sum(abs(a - truth) for a in ens) / members - apart / (2 * pairs)


@pytest.mark.parametrize("members", [2, 3, 10, 51])
@pytest.mark.parametrize("fair", [True, False])
def test_crps_is_the_double_sum(members: int, fair: bool) -> None:
    ens, truth = pair(members)
    ens[0, 3] = ens[1, 3]  # a tie
    found = score.crps(ens, truth, fair=fair, over=())
    np.testing.assert_allclose(found, brute_crps(ens.values, truth.values, fair), atol=1e-13)


@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg")])
def test_crps_equals_scoringrules(fair: bool, estimator: str) -> None:
    ens, truth = pair(17)
    theirs = scoringrules.crps_ensemble(truth.values, ens.values.T, estimator=estimator)
    np.testing.assert_allclose(score.crps(ens, truth, fair=fair, over=()), theirs, atol=1e-6)


def test_crps_of_one_member_is_its_absolute_error() -> None:
    ens, truth = pair(1)
    found = score.crps(ens, truth, fair=False)
    np.testing.assert_allclose(found, score.mae(ens, truth), rtol=1e-14)
    with pytest.raises(InputError, match="1 member; this score needs at least 2"):
        score.crps(ens, truth)


def test_fair_crps_has_the_same_mean_for_every_number_of_members() -> None:
    """And it is the score of the law: E CRPS(N(0,1), N(0,1)) = 1/sqrt(pi). Plain: times 1 + 1/M."""
    law, cells = 1 / np.sqrt(np.pi), 60_000
    rng = np.random.default_rng(4)
    truth = labelled(rng.normal(size=cells), "cell")
    for members in (2, 5, 50):
        ens = labelled(rng.normal(size=(members, cells)), "member", "cell")
        for fair, expected in ((True, law), (False, law * (1 + 1 / members))):
            each = score.crps(ens, truth, fair=fair, over=())
            error = float(each.std()) / np.sqrt(cells)
            assert abs(float(each.mean()) - expected) < 2 * error, (members, fair)
    plain = score.crps(ens.isel(member=[0, 1]), truth, fair=False)
    assert float(plain) > 1.4 * law  # so the test above can tell the two apart


def test_crps_is_proper() -> None:
    """Too narrow, too wide and shifted ensembles score worse than the right one."""
    rng = np.random.default_rng(5)
    truth = labelled(rng.normal(size=20_000), "cell")
    noise = labelled(rng.normal(size=(10, 20_000)), "member", "cell")
    right = score.crps(noise, truth, over=())
    for wrong in (0.7 * noise, 1.4 * noise, noise + 0.3):
        worse = score.crps(wrong, truth, over=()) - right
        assert float(worse.mean()) > 5 * float(worse.std()) / np.sqrt(truth.size)


def test_crps_moves_and_scales_with_its_field() -> None:
    ens, truth = pair(8)
    base = score.crps(ens, truth, over=())
    np.testing.assert_allclose(score.crps(ens + 300, truth + 300, over=()), base, atol=1e-12)
    np.testing.assert_allclose(score.crps(-2.5 * ens, -2.5 * truth, over=()), 2.5 * base)
    np.testing.assert_allclose(
        score.crps(ens.isel(member=[3, 1, 0, 2, 7, 6, 5, 4]), truth, over=()), base
    )


def test_crps_of_float32_kelvin_keeps_its_digits() -> None:
    """Errors of 1e-3 K on 300 K: the sum by ranks cancels, so it must not run on the values."""
    rng = np.random.default_rng(6)
    ens = (300 + 1e-3 * rng.normal(size=(500, 20))).astype(np.float32)
    truth = np.full(20, 300.0, np.float32)
    found = score.crps(labelled(ens, "member", "cell"), labelled(truth, "cell"), over=())
    exact = brute_crps(ens.astype(np.float64), truth.astype(np.float64), True)
    np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_crps_of_many_members_takes_no_square_array() -> None:
    """20 000 members: an (M, M) array of one cell alone would hold 3.2 GB."""
    rng = np.random.default_rng(7)
    ens = labelled(rng.normal(size=(20_000, 8)), "member", "cell")
    start = time.perf_counter()
    found = score.crps(ens, labelled(np.zeros(8), "cell"))
    assert time.perf_counter() - start < 5
    exact = (np.sqrt(2) - 1) / np.sqrt(np.pi)  # CRPS(N(0,1), 0)
    assert abs(float(found) - exact) < 5 * 0.5 / np.sqrt(20_000 * 8)


def test_gaussian_crps_equals_scoringrules_and_is_the_limit_of_ensembles() -> None:
    rng = np.random.default_rng(8)
    mean, std = rng.normal(size=12), rng.uniform(0.3, 2, 12)
    truth = rng.normal(size=12)
    args = [labelled(a, "cell") for a in (mean, std, truth)]
    closed = score.gaussian_crps(*args, over=())
    np.testing.assert_allclose(closed, scoringrules.crps_normal(truth, mean, std), atol=1e-6)
    ens = labelled(mean + std * rng.normal(size=(40_000, 12)), "member", "cell")
    gaps = score.crps(ens, args[2], over=()) - closed
    assert float(abs(gaps / std).max()) < 4 * 0.6 / np.sqrt(40_000)


def test_gaussian_crps_is_the_integral_of_the_squared_distance_of_its_law() -> None:
    from scipy.stats import norm

    z = np.linspace(-14, 14, 400_001)
    truth = 0.7
    integral = np.trapezoid((norm.cdf(z, 0.2, 1.1) - (z >= truth)) ** 2, z)
    scalars = [xr.DataArray(v) for v in (0.2, 1.1, truth)]
    np.testing.assert_allclose(score.gaussian_crps(*scalars), integral, atol=1e-4)


def test_a_gaussian_without_width_scores_its_absolute_error() -> None:
    mean, truth = labelled(np.array([1.0, 2.0]), "cell"), labelled(np.array([3.0, 1.5]), "cell")
    std = labelled(np.array([0.0, 1e-12]), "cell")
    np.testing.assert_allclose(score.gaussian_crps(mean, std, truth, over=()), [2.0, 0.5])
    with pytest.raises(InputError, match="std of 'u' is negative at index cell=1"):
        score.gaussian_crps(mean, std * [1, -1], truth)
    with pytest.raises(InputError, match="std a Dataset"):
        score.gaussian_crps(mean, std.to_dataset(), truth)
    with pytest.raises(InputError, match="in the ensemble but not in the truth"):
        score.gaussian_crps(mean.to_dataset(), std.to_dataset(name="v"), truth.to_dataset())


def test_one_climatology_serves_every_case() -> None:
    rng = np.random.default_rng(13)
    truth = labelled(rng.normal(size=(3, 4)), "time", "x").assign_coords(time=[5, 6, 7])
    mean, std = truth.mean("time"), truth.std("time")
    each = [score.gaussian_crps(mean, std, truth.isel(time=i, drop=True)) for i in range(3)]
    found = score.gaussian_crps(mean, std, truth, over="x")
    np.testing.assert_allclose(found, each)
    np.testing.assert_array_equal(found.time, truth.time)
    with pytest.raises(InputError, match="'y'"):
        score.gaussian_crps(mean.rename(x="y"), std, truth)


def test_gaussian_crps_of_datasets_takes_each_variable_with_its_own_width() -> None:
    ds = xr.Dataset({"a": ("x", [1.0, 2.0]), "b": ("x", [0.0, 1.0])})
    std = xr.Dataset({"a": ("x", [1.0, 1.0]), "b": ("x", [3.0, 3.0])})
    found = score.gaussian_crps(ds, std, ds)
    np.testing.assert_allclose(found["b"], 3 * found["a"])


@pytest.mark.parametrize("fair", [True, False])
def test_the_integral_of_brier_over_thresholds_is_the_crps(fair: bool) -> None:
    ens, truth = pair(6, cells=5, seed=9)
    edges = np.unique(np.concatenate([ens.values.ravel(), truth.values]))
    middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    # Both are constant between neighbouring values, so this sum is the integral itself.
    total = sum(
        w * score.brier(ens, truth, float(z), fair=fair, over=())
        for z, w in zip(middles, widths, strict=True)
    )
    np.testing.assert_allclose(total, score.crps(ens, truth, fair=fair, over=()), atol=1e-12)


def test_brier_by_hand() -> None:
    ens = labelled(np.array([[0.0, 2.0], [2.0, 2.0], [2.0, 3.0], [1.0, 9.0]]), "member", "cell")
    truth = labelled(np.array([1.5, 0.0]), "cell")
    np.testing.assert_allclose(score.brier(ens, truth, 1.0, fair=False, over=()), [0.25, 1.0])
    fair = score.brier(ens, truth, 1.0, over=())
    np.testing.assert_allclose(fair, [0.25 - 0.25 / 3, 1.0])
    with pytest.raises(InputError, match="threshold is nan"):
        score.brier(ens, truth, float("nan"))


def test_fair_brier_has_the_same_mean_for_every_number_of_members() -> None:
    """Members and truth above with probability q: E (q - o)^2 = q (1 - q)."""
    rng, cells, q = np.random.default_rng(10), 60_000, 0.3
    truth = labelled(rng.random(cells) < q, "cell")
    for members in (2, 5, 50):
        ens = labelled(rng.random((members, cells)) < q, "member", "cell")
        each = score.brier(ens, truth, 0.5, over=())
        assert abs(float(each.mean()) - q * (1 - q)) < 2 * float(each.std()) / np.sqrt(cells)


def vectors(members: int, seed: int = 11) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    ens = labelled(rng.normal(size=(members, 7, 3, 4)), "member", "case", "y", "x")
    return ens, labelled(rng.normal(size=(7, 3, 4)), "case", "y", "x")


@pytest.mark.parametrize(("fair", "estimator"), [(True, "fair"), (False, "nrg")])
def test_energy_score_equals_scoringrules(fair: bool, estimator: str) -> None:
    ens, truth = vectors(9)
    found = score.energy_score(ens, truth, across=("y", "x"), fair=fair, over=())
    theirs = scoringrules.es_ensemble(
        truth.values.reshape(7, 12),
        ens.transpose("case", "member", "y", "x").values.reshape(7, 9, 12),
        estimator=estimator,
    )
    np.testing.assert_allclose(found, theirs / np.sqrt(12), atol=1e-6)
    assert found.attrs["across"] == ["y", "x"]


def test_energy_score_of_one_cell_is_the_crps() -> None:
    ens, truth = vectors(9)
    one = dict(y=[1], x=[2])
    np.testing.assert_allclose(
        score.energy_score(ens.isel(one), truth.isel(one), across=("y", "x"), over=()),
        score.crps(ens.isel(one), truth.isel(one), over=("y", "x")),
        rtol=1e-12,
    )


def test_energy_score_weighs_by_area() -> None:
    """A row counted twice by area equals the row given twice."""
    ens, truth = vectors(5)
    lat = np.array([-60.0, 0.0, 60.0])
    on_sphere = dict(y="lat")
    found = score.energy_score(
        ens.rename(on_sphere).assign_coords(lat=lat), truth.rename(on_sphere).assign_coords(lat=lat)
    )
    area = np.diff(np.sin(np.deg2rad([-90, -30, 30, 90])))  # 0.5, 1, 0.5
    np.testing.assert_allclose(area, [0.5, 1, 0.5])
    twice = dict(y=[0, 1, 1, 2])
    np.testing.assert_allclose(found, score.energy_score(ens.isel(twice), truth.isel(twice)))


def test_energy_score_sees_a_wrong_correlation_that_crps_cannot() -> None:
    rng, cases = np.random.default_rng(12), 3000
    mix = np.linalg.cholesky(np.array([[1.0, 0.95], [0.95, 1.0]]))
    truth = labelled(rng.normal(size=(cases, 2)) @ mix.T, "case", "x")
    joined = labelled(rng.normal(size=(20, cases, 2)) @ mix.T, "member", "case", "x")
    apart = labelled(rng.normal(size=(20, cases, 2)), "member", "case", "x")
    energy = score.energy_score(apart, truth, across="x", over=()) - score.energy_score(
        joined, truth, across="x", over=()
    )
    assert float(energy.mean()) > 5 * float(energy.std()) / np.sqrt(cases)
    crps = score.crps(apart, truth, over="x") - score.crps(joined, truth, over="x")
    assert abs(float(crps.mean())) < 3 * float(crps.std()) / np.sqrt(cases)


def test_energy_score_needs_each_dim_once_and_two_members() -> None:
    ens, truth = vectors(3)
    with pytest.raises(InputError, match="'x' is in both"):
        score.energy_score(ens, truth, across=("y", "x"), over="x")
    with pytest.raises(InputError, match="at least 2"):
        score.energy_score(ens.isel(member=[0]), truth)


def test_a_case_of_gaps_only_scores_nan() -> None:
    ens, truth = vectors(4)
    truth = truth.where(truth.case != 2) if "case" in truth.coords else truth
    truth[2] = np.nan
    ens[:, 2] = np.nan
    found = score.energy_score(ens, truth, across=("y", "x"), over=())
    np.testing.assert_array_equal(found.isnull(), np.arange(7) == 2)


@pytest.mark.parametrize(("fair", "word"), [(True, "fair"), (False, "plain")])
def test_every_score_names_its_estimator_and_size(fair: bool, word: str) -> None:
    ens, truth = vectors(4)
    for found in (
        score.crps(ens, truth, fair=fair),
        score.brier(ens, truth, 0.1, fair=fair),
        score.energy_score(ens, truth, fair=fair),
    ):
        assert found.attrs["estimator"].startswith(word) and found.attrs["members"] == 4
