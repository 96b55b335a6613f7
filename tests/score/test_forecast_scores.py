"""Scores of forecasts: closed forms for Gaussians, propriety, invariances, and agreement."""

from __future__ import annotations

import numpy as np
import pytest
import scoringrules
import xarray as xr
from scipy.stats import norm

from sciddm import score
from sciddm.errors import InputError


def gaussian(
    members: int, cases: int, correlation: float = 0.8, seed: int = 0, cells: int = 6
) -> tuple[xr.DataArray, xr.DataArray]:
    """Members with neighbours so alike, and a truth with neighbours alike by 0.8."""
    rng = np.random.default_rng(seed)

    def draw(rho: float, *shape: int) -> np.ndarray:
        apart = np.abs(np.arange(cells)[:, None] - np.arange(cells))
        return rng.normal(size=(*shape, cells)) @ np.linalg.cholesky(rho**apart).T

    truth = xr.DataArray(draw(0.8, cases), dims=("sample", "x"), name="u", attrs={"units": "K"})
    return xr.DataArray(draw(correlation, members, cases), dims=("member", "sample", "x")).rename(
        "u"
    ).assign_attrs(units="K"), truth


# The variogram score.


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("fair", "estimator"), [(False, "nrg"), (True, "fair")])
def test_variogram_score_is_scoringrules_mean_over_pairs(
    power: float, fair: bool, estimator: str
) -> None:
    ens, truth = gaussian(9, 7)
    found = score.variogram_score(ens, truth, across=("x",), power=power, fair=fair, over=())
    members_then_cells = ens.transpose("sample", "member", "x").values
    theirs = scoringrules.vs_ensemble(
        truth.values, members_then_cells, p=power, estimator=estimator
    )
    np.testing.assert_allclose(found, theirs / (6 * 5), rtol=1e-6)
    name = "fair variogram score" if fair else "plain variogram score"
    assert found.attrs["estimator"].startswith(name)
    assert found.attrs["units"] == {0.5: "K", 1.0: "(K)^2", 2.0: "(K)^4"}[power]


def test_fair_variogram_score_does_not_depend_on_the_number_of_members() -> None:
    """Two Gaussian cells apart by d: E|X_i - X_j|^2 = d, and its square error var = 2 d^2 in all:
    (E - o)^2 has the mean 2 d^2 with o = |y_i - y_j|^2."""
    expected = 2 * (2 * (1 - 0.8)) ** 2
    for members in (2, 5, 40):
        ens, truth = gaussian(members, 40_000, cells=2)
        fair = float(score.variogram_score(ens, truth, across=("x",), power=2.0))
        plain = float(score.variogram_score(ens, truth, across=("x",), power=2.0, fair=False))
        assert abs(fair - expected) < 0.05 * expected
        np.testing.assert_allclose(plain, (1 + 1 / members) * expected, rtol=0.05)


def test_variogram_score_is_lowest_for_the_law_of_the_truth_and_sees_correlations() -> None:
    scores = {
        rho: float(score.variogram_score(*gaussian(30, 2000, rho), across=("x",)))
        for rho in (0.0, 0.5, 0.8, 0.95)
    }
    assert min(scores, key=scores.__getitem__) == 0.8
    assert scores[0.0] > 1.3 * scores[0.8] and scores[0.95] > 1.05 * scores[0.8]
    crps = {rho: float(score.crps(*gaussian(30, 2000, rho))) for rho in (0.0, 0.8)}
    assert abs(crps[0.0] / crps[0.8] - 1) < 0.03  # the CRPS does not


def test_variogram_score_forgets_a_common_shift_and_scales_with_the_field() -> None:
    ens, truth = gaussian(5, 4)
    base = score.variogram_score(ens, truth, across=("x",), over=())
    moved = score.variogram_score(ens + 3, truth - 2, across=("x",), over=())
    np.testing.assert_allclose(moved, base, rtol=1e-9)
    np.testing.assert_allclose(
        score.variogram_score(4 * ens, 4 * truth, across=("x",), over=()), 4 * base, rtol=1e-9
    )


def test_variogram_score_within_reach_is_the_mean_over_the_near_pairs() -> None:
    rng = np.random.default_rng(1)
    ens = xr.DataArray(rng.normal(size=(6, 4, 5)), dims=("member", "y", "x"))
    truth = xr.DataArray(rng.normal(size=(4, 5)), dims=("y", "x"))
    cells = [(j, i) for j in range(4) for i in range(5)]
    brute = []
    for a in cells:
        for b in cells:
            if a != b and max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= 2:
                size = np.sqrt(np.abs(ens.values[:, *a] - ens.values[:, *b]))
                error = (size.mean() - np.sqrt(abs(truth.values[a] - truth.values[b]))) ** 2
                brute.append(error - size.var(ddof=1) / 6)
    found = score.variogram_score(ens, truth, reach=2)
    np.testing.assert_allclose(found, np.mean(brute), rtol=1e-10)


def test_variogram_score_weighs_pairs_by_both_areas_and_leaves_out_land() -> None:
    rng = np.random.default_rng(2)
    latitude = xr.DataArray([0.0, 40.0, 80.0], dims="latitude", attrs={"units": "degrees_north"})
    ens = xr.DataArray(
        rng.normal(size=(3, 3)), dims=("member", "latitude"), coords={"latitude": latitude}
    )
    truth = ens[0] * 0.5
    area = score.cell_weights(ens).values
    size = np.sqrt(np.abs(ens.values[:, :, None] - ens.values[:, None]))
    error = (size.mean(0) - np.sqrt(np.abs(truth.values[:, None] - truth.values))) ** 2
    weights = area[:, None] * area * (1 - np.eye(3))
    found = score.variogram_score(ens, truth.drop_vars("member", errors="ignore"), fair=False)
    np.testing.assert_allclose(found, (weights * error).sum() / weights.sum(), rtol=1e-10)
    land = latitude > 60
    masked = score.variogram_score(ens.where(~land), truth.where(~land), fair=False)
    np.testing.assert_allclose(masked, error[0, 1], rtol=1e-10)


# Reliability.


def chances(members: int, cells: int = 200_000) -> tuple[xr.DataArray, xr.DataArray]:
    """Calibrated members about a centre that changes: events are as frequent as they are said."""
    rng = np.random.default_rng(3)
    centre = rng.normal(0, 1.2, cells)
    truth = xr.DataArray(centre + rng.normal(size=cells), dims="cell")
    return xr.DataArray(centre + rng.normal(size=(members, cells)), dims=("member", "cell")), truth


def test_the_parts_add_up_to_the_brier_score() -> None:
    ens, truth = chances(7, 500)
    found = score.reliability(ens, truth, 0.4)
    plain = score.brier(ens, truth, 0.4, fair=False)
    np.testing.assert_allclose(found.brier, plain, rtol=1e-12)
    total = found.reliability - found.resolution + found.uncertainty
    np.testing.assert_allclose(total, plain, rtol=1e-12)
    rate = float((truth > 0.4).mean())
    np.testing.assert_allclose(found.uncertainty, rate * (1 - rate))
    assert int(found["count"].sum()) == 500
    coarse = score.reliability(ens, truth, 0.4, bins=3)
    assert coarse.sizes["bin"] == 3 and coarse.most.values[-1] == 7
    np.testing.assert_allclose(coarse.brier, plain, rtol=1e-12)
    share = (coarse["count"] * coarse.forecast).sum() / 500
    np.testing.assert_allclose(share, (ens > 0.4).mean())


def test_many_calibrated_members_are_reliable_and_wrong_ones_are_not() -> None:
    ens, truth = chances(100, 60_000)
    right = score.reliability(ens, truth, 0.5, bins=10)
    np.testing.assert_allclose(right.observed, right.forecast, atol=0.03)
    assert float(right.reliability) < 0.002
    narrow = ens.mean("member") + 0.4 * (ens - ens.mean("member"))
    over = score.reliability(narrow, truth, 0.5, bins=10)
    assert float(over.reliability) > 5 * float(right.reliability)
    # Over-confident: less than said where much was said, more where little was.
    assert float(over.observed[-1] - over.forecast[-1]) < -0.05
    assert float(over.observed[0] - over.forecast[0]) > 0.03
    shifted = score.reliability(ens + 0.5, truth, 0.5)
    assert float(shifted.reliability) > 5 * float(right.reliability)


def test_few_members_mean_less_than_their_share() -> None:
    """Chances alike in (0, 1): k of M members means (k + 1) / (M + 2)."""
    rng = np.random.default_rng(4)
    chance, cells = rng.random(200_000), 200_000
    truth = xr.DataArray(1.0 * (rng.random(cells) < chance), dims="cell")
    ens = xr.DataArray(1.0 * (rng.random((4, cells)) < chance), dims=("member", "cell"))
    found = score.reliability(ens, truth, 0.5)
    np.testing.assert_allclose(found.observed, (np.arange(5) + 1) / 6, atol=0.01)


def test_reliability_keeps_leads_weighs_by_area_and_leaves_out_land() -> None:
    rng = np.random.default_rng(5)
    latitude = ("latitude", [0.0, 60.0], {"units": "degrees_north"})
    ens = xr.DataArray(
        rng.normal(size=(4, 3, 2, 50)),
        dims=("member", "lead_time", "latitude", "x"),
        coords={"latitude": latitude, "lead_time": [1, 2, 3]},
    )
    truth = ens[0] * 1.1
    found = score.reliability(ens, truth, 0.2, over=("latitude", "x"))
    assert found.forecast.dims == ("bin", "lead_time") and found.brier.dims == ("lead_time",)
    brier = score.brier(ens, truth, 0.2, fair=False, over=("latitude", "x"))
    np.testing.assert_allclose(found.brier, brier, rtol=1e-12)
    north = ens.latitude > 30
    land = score.reliability(ens.where(~north), truth.where(~north), 0.2)
    assert int(land["count"].sum()) == 150
    np.testing.assert_allclose(land.brier, score.brier(ens[:, :, 0], truth[:, 0], 0.2, fair=False))


# Correlations.


def test_correlation_of_signal_and_noise() -> None:
    """Truth s + e, members s + e' with variances 1 and q: the mean of M correlates by
    1 / sqrt((1 + q)(1 + q / M)), one member by 1 / (1 + q)."""
    rng = np.random.default_rng(6)
    cells, members, q = 40_000, 4, 0.5
    s = rng.normal(size=cells)
    truth = xr.DataArray(3 + s + np.sqrt(q) * rng.normal(size=cells), dims="x")
    ens = xr.DataArray(s + np.sqrt(q) * rng.normal(size=(members, cells)), dims=("member", "x"))
    expected = 1 / np.sqrt((1 + q) * (1 + q / members))
    np.testing.assert_allclose(score.correlation(ens, truth), expected, atol=0.01)
    each = score.correlation(ens, truth, members=True)
    assert each.dims == ("member",)
    np.testing.assert_allclose(each, 1 / (1 + q), atol=0.02)
    np.testing.assert_allclose(each[0], np.corrcoef(ens.values[0], truth.values)[0, 1], rtol=1e-10)
    straight = score.correlation(2 + 3 * truth, truth)
    np.testing.assert_allclose(straight, 1.0)
    np.testing.assert_allclose(score.correlation(-truth, truth), -1.0)
    assert np.isnan(score.correlation(0 * truth, truth))


def test_correlations_are_taken_case_by_case() -> None:
    """A season that both share is no skill within a field."""
    rng = np.random.default_rng(7)
    season = xr.DataArray(np.linspace(-10, 10, 200), dims="sample")
    truth = season + xr.DataArray(rng.normal(size=(200, 50)), dims=("sample", "x"))
    guess = season + xr.DataArray(rng.normal(size=(200, 50)), dims=("sample", "x"))
    assert float(score.correlation(guess, truth)) > 0.9
    assert abs(float(score.correlation(guess, truth, across=("x",)))) < 0.05
    by_case = score.correlation(guess, truth, across=("x",), over=())
    theirs = [np.corrcoef(a, b)[0, 1] for a, b in zip(guess.values, truth.values, strict=True)]
    np.testing.assert_allclose(by_case, theirs, atol=1e-12)


def test_acc_takes_anomalies_and_does_not_centre_them() -> None:
    rng = np.random.default_rng(8)
    latitude = ("latitude", np.linspace(-80, 80, 9), {"units": "degrees_north"})
    normal = xr.DataArray(
        rng.normal(size=9), dims="latitude", coords={"latitude": latitude}, name="u"
    )
    anomaly = xr.DataArray(rng.normal(0.5, 1, (20, 9)), dims=("sample", "latitude"))
    truth = (anomaly + normal).rename("u")
    noise = xr.DataArray(rng.normal(size=(3, 20, 9)), dims=("member", "sample", "latitude"))
    ens = (noise + truth).rename("u")
    w = score.cell_weights(normal).values
    a, b = (ens.mean("member") - normal).values, (truth - normal).values
    expected = (a * b * w).sum(1) / np.sqrt((a**2 * w).sum(1) * (b**2 * w).sum(1))
    found = score.acc(ens, truth, normal, across=("latitude",), over=())
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(
        score.acc(ens, truth, normal, across=("latitude",)), expected.mean(), rtol=1e-10
    )
    # A forecast of the climatology itself has none; one of the truth has all.
    assert np.isnan(score.acc(0 * truth + normal, truth, normal))
    np.testing.assert_allclose(score.acc(truth, truth, normal), 1.0)
    with pytest.raises(InputError, match="has a dim 'dayofyear' that the truth lacks"):
        score.acc(ens, truth, normal.expand_dims(dayofyear=2))


def curve(values: list[float], lead: object, units: str = "days") -> xr.DataArray:
    return xr.DataArray(
        values, dims="lead_time", coords={"lead_time": ("lead_time", lead, {"units": units})}
    )


def test_time_to_decorrelation_is_where_the_line_crosses() -> None:
    lead = [2.0, 4.0, 8.0]
    found = score.time_to_decorrelation(curve([0.95, 0.9, 0.7], lead))
    np.testing.assert_allclose(found, 6.0)
    assert found.attrs["units"] == "days"
    # Within the first lead, from 1 at lead 0; the first fall counts, not the last.
    np.testing.assert_allclose(score.time_to_decorrelation(curve([0.6, 0.9, 0.2], lead)), 1.0)
    assert np.isposinf(score.time_to_decorrelation(curve([0.9, 0.9, 0.8], lead)))
    assert np.isnan(score.time_to_decorrelation(curve([0.9, np.nan, 0.5], lead)))
    np.testing.assert_allclose(score.time_to_decorrelation(curve([0.5, 0.2], [0.0, 1.0])), 0.0)
    hours = np.array([6, 12], "timedelta64[h]").astype("timedelta64[ns]")
    found = score.time_to_decorrelation(curve([0.9, 0.6], hours), level=0.75)
    np.testing.assert_allclose(found, 9.0)
    assert found.attrs["units"] == "hours"
    with pytest.raises(InputError, match="do not rise"):
        score.time_to_decorrelation(curve([0.9, 0.6], [2.0, 1.0]))


def test_time_to_decorrelation_of_an_exponential() -> None:
    """rho^lead falls below 0.8 at log 0.8 / log rho, to the error of straight lines."""
    lead = np.arange(1, 60) * 0.25
    rho = xr.DataArray([0.9, 0.8, 0.97], dims="member")
    values = rho ** curve(lead.tolist(), lead)
    found = score.time_to_decorrelation(values)
    assert found.dims == ("member",)
    np.testing.assert_allclose(found, np.log(0.8) / np.log(rho), rtol=1e-2)


# The bootstrap.


def ar1(rows: int, n: int, phi: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.empty((rows, n))
    x[:, 0] = rng.normal(size=rows) / np.sqrt(1 - phi**2)
    for i in range(1, n):
        x[:, i] = phi * x[:, i - 1] + rng.normal(size=rows)
    return x


def covered(block: int, stationary: bool = False, phi: float = 0.6) -> float:
    """How often the interval holds the true mean, 0, of 300 records of 400 starts."""
    series = xr.DataArray(ar1(300, 400, phi, 9), dims=("record", "init_time"))
    ends = score.bootstrap(series, block=block, draws=300, stationary=stationary, seed=1)
    return float(((ends[0] <= 0) & (ends[1] >= 0)).mean())


def test_block_intervals_hold_the_mean_of_dependent_starts_and_plain_ones_do_not() -> None:
    """Nominal 0.9; the variance of the mean is (1 + phi)/(1 - phi) = 4 times the independent one,
    so blocks of one cover 2 Phi(1.645 / 2) - 1 = 0.59."""
    assert abs(covered(20) - 0.88) < 0.05
    assert abs(covered(20, stationary=True) - 0.87) < 0.05
    assert abs(covered(1) - (2 * norm.cdf(1.645 / 2) - 1)) < 0.08
    assert abs(covered(1, phi=0.0) - 0.9) < 0.05


def test_resamples_are_addressed_and_count_every_start_once_on_average() -> None:
    from sciddm.score.bootstrap import resamples

    for stationary in (False, True):
        counts = resamples(30, 4, 4000, stationary=stationary, seed=2)
        assert (counts.sum(1) == 30).all()
        np.testing.assert_allclose(counts.mean(0), 1.0, atol=0.12)
        again = resamples(30, 4, 10, stationary=stationary, seed=2)
        np.testing.assert_array_equal(counts[:10], again)
    # Whole circular blocks: a start and its neighbour are drawn together 3 times of 4.
    joint = (counts[:, 0] * counts[:, 1]).mean()
    assert joint > 1.4


def test_a_statistic_of_means_is_resampled_whole() -> None:
    """The ratio of two scores that swing together is known better than either."""
    rng = np.random.default_rng(10)
    common = np.exp(ar1(1, 200, 0.7, 11)[0])
    parts = xr.Dataset(
        {
            "a": ("init_time", common),
            "b": ("init_time", 0.5 * common * (1 + 0.01 * rng.normal(size=200))),
        }
    )
    mean = score.bootstrap(parts, block=10, seed=3)
    ratio = score.bootstrap(parts, block=10, seed=3, statistic=lambda m: m["b"] / m["a"])
    assert float(mean.a[1] - mean.a[0]) > 0.2
    assert float(ratio[1] - ratio[0]) < 0.005 and float(ratio[0]) < 0.5 < float(ratio[1])
    assert "circular block bootstrap over init_time, blocks of 10" in mean.a.attrs["interval"]


def test_gaps_in_a_score_are_left_out() -> None:
    values = xr.DataArray([1.0, np.nan, 1.0, 1.0], dims="init_time")
    np.testing.assert_allclose(score.bootstrap(values, block=1), 1.0)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"block": 3}, "a block of 3 starts of 4"),
        ({"block": 0}, "a block of 0"),
        ({"block": 1, "dim": "init"}, "no dim 'init' of starts.*Did you mean 'init_time'"),
        ({"block": 1, "level": 90}, "level 90"),
    ],
)
def test_bootstrap_refuses(numbers: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        score.bootstrap(xr.DataArray(np.ones(4), dims="init_time"), **numbers)


def test_given_cell_areas_are_the_weights_on_any_grid() -> None:
    area = xr.DataArray([[1.0, 3.0]], dims=("j", "i"), attrs={"standard_name": "cell_area"})
    ens = xr.DataArray([[[1.0, 2.0]]], dims=("member", "j", "i"), coords={"area": area})
    truth = xr.zeros_like(ens[0])
    found = score.mae(ens, truth)
    np.testing.assert_allclose(found, (1 * 1 + 3 * 2) / 4)
    assert found.attrs["weights"] == "cell area 'area'"
    np.testing.assert_allclose(score.energy_score(ens, truth, fair=False), np.sqrt(13 / 4))
