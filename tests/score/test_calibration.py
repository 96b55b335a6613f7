"""Calibration scores: exact for exchangeable members of any number, and awake to wrong ones.

A right sampler must pass and three wrong ones (half the spread, twice the spread, shifted) must
fail, each at the stated p-value; seeds are fixed.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import chisquare, kstest

from sciddm import score
from sciddm.errors import InputError

CELLS = 20_000


def ensemble(
    members: int, seed: int = 0, width: float = 1.0, shift: float = 0.0, cells: int = CELLS
) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(seed)
    centre = rng.normal(280, 5, cells)
    truth = xr.DataArray(centre + rng.normal(size=cells), dims="cell", name="u")
    noise = rng.normal(size=(members, cells))
    return xr.DataArray(centre + shift + width * noise, dims=("member", "cell"), name="u"), truth


WRONG = {"narrow": (0.5, 0.0), "wide": (2.0, 0.0), "shifted": (1.0, 0.3)}


@pytest.mark.parametrize("members", [2, 3, 10, 50])
def test_spread_over_skill_is_one_for_exchangeable_members(members: int) -> None:
    ens, truth = ensemble(members)
    found = float(score.spread_skill(ens, truth))
    # relative s.e. of the root of a mean of squares, of errors and (smaller) of variances
    error = np.sqrt(2 / CELLS) / 2 * np.sqrt(1 + 1 / (members - 1))
    assert abs(found - 1) < 3 * error
    uncorrected = found * np.sqrt(members / (members + 1))
    assert members > 30 or abs(uncorrected - 1) > 3 * error  # the correction is what makes it so


@pytest.mark.parametrize(("case", "ratio"), [("narrow", 0.5), ("wide", 2.0), ("shifted", 1.0)])
def test_spread_over_skill_of_wrong_members(case: str, ratio: float) -> None:
    width, shift = WRONG[case]
    ens, truth = ensemble(100, width=width, shift=shift)
    skill = np.sqrt(1 + shift**2 + width**2 / 100)
    expected = width * np.sqrt(101 / 100) / skill
    assert abs(float(score.spread_skill(ens, truth)) - expected) < 0.02 * ratio


def test_spread_skill_is_the_ratio_of_its_parts() -> None:
    ens, truth = ensemble(7)
    parts = np.sqrt(8 / 7) * score.spread(ens) / score.rmse(ens, truth)
    np.testing.assert_allclose(score.spread_skill(ens, truth), parts, rtol=1e-12)
    np.testing.assert_allclose(score.spread(ens) ** 2, ens.values.var(axis=0, ddof=1).mean())


def test_spread_of_one_member_is_refused() -> None:
    ens, truth = ensemble(1)
    for call in (
        lambda: score.spread_skill(ens, truth),
        lambda: score.spread(ens),
        lambda: score.coverage(ens, truth),
    ):
        with pytest.raises(InputError, match="1 member; this score needs at least 2"):
            call()


def test_no_error_and_no_spread_is_nan_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    truth = xr.DataArray([1.0, 2.0, 3.0], dims="cell")
    ens = truth.expand_dims(member=2).copy()
    ens[:, 1] = [1.0, 3.0]
    ens[:, 2] = [4.0, 4.0]
    np.testing.assert_array_equal(score.spread_skill(ens, truth, over=()), [np.nan, np.inf, 0.0])
    assert not len(recwarn)


@pytest.mark.parametrize("members", [2, 8, 19, 64, 199])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_coverage_is_the_level_for_exchangeable_members_of_any_number(
    members: int, level: float
) -> None:
    ens, truth = ensemble(members, seed=1)
    found = float(score.coverage(ens, truth, level))
    assert abs(found - level) < 3 * np.sqrt(level * (1 - level) / CELLS)


def test_interpolated_quantiles_would_not_cover() -> None:
    """The reason for fractional ranks: 64 members, numpy's quantiles, 0.872 instead of 0.9."""
    ens, truth = ensemble(64, seed=1)
    low, high = np.quantile(ens.values, [0.05, 0.95], axis=0)
    inside = np.mean((low <= truth.values) & (truth.values <= high))
    assert abs(inside - 0.9 * 63 / 65) < 3 * np.sqrt(0.09 / CELLS)
    assert inside < 0.88


def test_coverage_is_that_of_order_statistics_where_ranks_are_whole() -> None:
    """19 members, 0.9: between the smallest and the largest."""
    ens, truth = ensemble(19, seed=2, width=0.8)
    inside = (truth > ens.min("member")) & (truth < ens.max("member"))
    np.testing.assert_allclose(score.coverage(ens, truth, 0.9), inside.mean(), rtol=1e-12)


@pytest.mark.parametrize(("case", "share"), [("narrow", 0.589), ("wide", 0.999), ("shifted", 0.88)])
def test_coverage_of_wrong_members(case: str, share: float) -> None:
    """In the limit: P(|y| < 1.645 width) and so on."""
    width, shift = WRONG[case]
    ens, truth = ensemble(199, width=width, shift=shift)
    assert abs(float(score.coverage(ens, truth)) - share) < 0.01


def test_coverage_shares_ties() -> None:
    """All equal: the truth may stand anywhere, so it is covered with the level itself."""
    flat = xr.DataArray(np.zeros(4), dims="cell")
    np.testing.assert_allclose(score.coverage(flat.expand_dims(member=10), flat, 0.8), 0.8)
    with pytest.raises(InputError, match="level is 90"):
        score.coverage(flat.expand_dims(member=10), flat, 90)


@pytest.mark.parametrize("members", [1, 5, 63])
def test_rank_histogram_is_flat_for_exchangeable_members(members: int) -> None:
    ens, truth = ensemble(members)
    counts = score.rank_histogram(ens, truth)
    assert counts.dims == ("rank",) and counts.sizes["rank"] == members + 1
    assert int(counts.sum()) == CELLS
    assert float(score.chi_square(counts)) > 1e-4


@pytest.mark.parametrize("case", WRONG)
def test_rank_histogram_flags_wrong_members(case: str) -> None:
    width, shift = WRONG[case]
    ens, truth = ensemble(20, width=width, shift=shift, cells=2000)
    counts = score.rank_histogram(ens, truth)
    assert float(score.chi_square(counts)) < 1e-4
    ends, middle = counts.values[[0, -1]].sum() / 2, counts.values[8:13].mean()
    assert {"narrow": ends > 3 * middle, "wide": ends < middle / 3, "shifted": True}[case]
    if case == "shifted":
        assert counts.values[0] > 1.5 * counts.values[-1]  # members too high: truth ranks low


def test_every_rank_is_where_it_belongs() -> None:
    ens = xr.DataArray(np.arange(4.0)[:, None] * np.ones(5), dims=("member", "cell"))
    truth = xr.DataArray([-1.0, 0.5, 1.5, 2.5, 9.0], dims="cell")
    np.testing.assert_array_equal(score.rank_histogram(ens, truth), np.ones(5))
    np.testing.assert_array_equal(score.rank_histogram(ens, truth, over=()), np.eye(5))


def test_ties_fall_at_random_but_repeatably() -> None:
    flat = xr.DataArray(np.zeros(5000), dims="cell")
    ens = flat.expand_dims(member=4)
    counts = score.rank_histogram(ens, flat)
    assert chisquare(counts.values).pvalue > 1e-4
    xr.testing.assert_identical(counts, score.rank_histogram(ens, flat, seed=0))
    assert not counts.equals(score.rank_histogram(ens, flat, seed=1))


def test_ties_break_alike_however_the_field_is_transposed_or_chunked() -> None:
    rng = np.random.default_rng(6)
    values = rng.integers(0, 3, (4, 20, 30)).astype(float)
    ens = xr.DataArray(values, dims=("member", "time", "x"))
    truth = xr.DataArray(rng.integers(0, 3, (20, 30)).astype(float), dims=("time", "x"))
    once = score.pit(ens, truth)
    np.testing.assert_array_equal(score.pit(ens.transpose("x", "time", "member"), truth).T, once)
    np.testing.assert_array_equal(score.pit(ens.chunk(time=7, member=2), truth), once)


def test_histograms_count_along_the_asked_dims_and_skip_gaps() -> None:
    ens, truth = ensemble(4, cells=600)
    ens = ens.values.reshape(4, 20, 30)
    ens[:, 3, :7] = np.nan
    cube = xr.DataArray(ens, dims=("member", "time", "x"))
    flat = xr.DataArray(
        np.where(np.isnan(ens[0]), np.nan, truth.values.reshape(20, 30)), dims=("time", "x")
    )
    counts = score.rank_histogram(cube, flat, over="x")
    assert counts.dims == ("rank", "time")
    np.testing.assert_array_equal(counts.sum("rank"), np.where(np.arange(20) == 3, 23, 30))
    xr.testing.assert_equal(counts.sum("time"), score.rank_histogram(cube, flat))


def test_chi_square_equals_scipy_also_in_groups_and_for_land() -> None:
    counts = xr.DataArray(
        np.array([[30, 0], [42, 0], [25, 0], [38, 0], [33, 0]]), dims=("rank", "cell"), name="u"
    )
    found = score.chi_square(counts)
    np.testing.assert_allclose(found, [chisquare([30, 42, 25, 38, 33]).pvalue, np.nan], rtol=1e-10)
    grouped = score.chi_square(counts, bins=2)  # ranks 0-1 and 2-4
    total = 168
    expected = chisquare([72, 96], [total * 2 / 5, total * 3 / 5]).pvalue
    np.testing.assert_allclose(grouped[0], expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("counts", "bins", "said"),
    [
        (xr.DataArray(np.ones(9), dims="rnk"), None, "Did you mean 'rnk'"),
        (xr.DataArray(np.ones(9), dims="rank"), 10, "2 to 9"),
        (xr.DataArray(np.array([1, 1, 0, 0]), dims="rank"), None, "2 counts for 4 bins"),
        (xr.DataArray(np.zeros(4), dims="rank"), None, "0 counts"),
    ],
)
def test_chi_square_of_too_little_is_refused(
    counts: xr.DataArray, bins: int | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        score.chi_square(counts, bins=bins)


def test_pit_is_uniform_when_right_and_not_when_wrong() -> None:
    for members in (1, 7, 60):
        assert kstest(score.pit(*ensemble(members)).values, "uniform").pvalue > 1e-4
    for width, shift in WRONG.values():
        wrong = score.pit(*ensemble(20, width=width, shift=shift, cells=2000))
        assert kstest(wrong.values, "uniform").pvalue < 1e-4


def test_pit_holds_the_rank() -> None:
    ens, truth = ensemble(9, cells=500)
    ranks = np.floor(score.pit(ens, truth) * 10)
    np.testing.assert_array_equal(ranks, (ens < truth).sum("member"))


def posterior(
    cases: int, members: int, seed: int = 3, width: float = 1.0, apart: bool = False
) -> tuple[xr.DataArray, xr.DataArray]:
    """Exact linear-Gaussian posterior of 4 correlated cells, seen once with noise 1.

    ``apart`` keeps every marginal and loses the correlations.
    """
    rng = np.random.default_rng(seed)
    at = np.arange(4.0)
    prior = np.exp(-abs(at[:, None] - at) / 10)
    gain = prior @ np.linalg.inv(prior + np.eye(4))
    left = prior - gain @ prior
    truth = rng.normal(size=(cases, 4)) @ np.linalg.cholesky(prior).T
    seen = truth + rng.normal(size=(cases, 4))
    root = np.diag(np.sqrt(np.diag(left))) if apart else np.linalg.cholesky(left)
    draws = seen @ gain.T + width * rng.normal(size=(members, cases, 4)) @ root.T
    return (
        xr.DataArray(draws, dims=("member", "case", "x"), name="u"),
        xr.DataArray(truth, dims=("case", "x"), name="u"),
    )


def test_sbc_passes_exact_draws_and_flags_wrong_ones() -> None:
    right = score.sbc(*posterior(1000, 99), "case")
    assert right.dims == ("x",) and float(right.min()) > 1e-4 / 4
    for width in (0.8, 1.25):
        assert float(score.sbc(*posterior(1000, 99, width=width), "case").min()) < 1e-4
    ens, truth = posterior(1000, 99)
    assert float(score.sbc(ens + 0.3 * ens.std("member").mean(), truth, "case").min()) < 1e-4


def test_sbc_of_a_function_sees_what_marginals_cannot() -> None:
    ens, truth = posterior(1000, 99, apart=True)
    assert float(score.sbc(ens, truth, "case").min()) > 1e-4 / 4
    assert float(score.sbc(ens.diff("x").isel(x=0), truth.diff("x").isel(x=0), "case")) < 1e-4


def test_tarp_lies_on_the_diagonal_when_right() -> None:
    curve = score.tarp(*posterior(1000, 200), "case")
    assert curve.attrs["max_error"] < 0.062  # 0.1 % of right samplers exceed it
    np.testing.assert_array_equal(curve[[0, -1]], [0.0, 1.0])
    assert bool((curve.diff("credibility") >= 0).all())


@pytest.mark.parametrize(("width", "apart"), [(0.5, False), (2.0, False), (1.0, True)])
def test_tarp_flags_wrong_widths_and_wrong_correlations(width: float, apart: bool) -> None:
    curve = score.tarp(*posterior(3000, 100, width=width, apart=apart), "case")
    assert curve.attrs["max_error"] > 1.95 / np.sqrt(3000)


def test_tarp_flags_a_shift() -> None:
    ens, truth = posterior(1000, 100)
    assert score.tarp(ens + ens.std("member").mean(), truth, "case").attrs["max_error"] > 0.062


def test_tarp_by_hand_with_given_references() -> None:
    """One cell, reference 0: the share of members nearer to 0 than the truth is."""
    ens = xr.DataArray([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], dims=("member", "case"))
    truth = xr.DataArray([0.5, 9.0], dims="case")
    curve = score.tarp(ens, truth, "case", references=xr.zeros_like(truth), points=5)
    np.testing.assert_array_equal(curve, [0.0, 0.5, 0.5, 0.5, 1.0])
    with pytest.raises(InputError, match="one case"):
        score.tarp(ens.isel(case=[0]), truth.isel(case=[0]), "case")
    with pytest.raises(InputError, match="'cse'"):
        score.tarp(ens, truth, "cse")


def test_datasets_and_attrs() -> None:
    ens, truth = ensemble(5, cells=100)
    both = xr.Dataset({"u": ens, "v": -ens}), xr.Dataset({"u": truth, "v": -truth})
    counts = score.rank_histogram(*both)
    np.testing.assert_array_equal(counts["v"], counts["u"][::-1])
    assert counts["u"].attrs["members"] == 5
    assert counts["u"].attrs["weights"] == "none: counts of cells"
    assert set(score.chi_square(counts).data_vars) == {"u", "v"}
    np.testing.assert_allclose(score.coverage(*both)["u"], score.coverage(*both)["v"])
    for found in (score.spread_skill(ens, truth), score.coverage(ens, truth)):
        assert found.attrs["members"] == 5 and found.attrs["units"] == "1"
