"""Quantile losses: gluonts' own numbers, the exact law, and the CRPS in the limit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from gluonts.dataset.common import ListDataset
from gluonts.dataset.split import split
from gluonts.ev.metrics import MAE, MeanWeightedSumQuantileLoss
from gluonts.evaluation import Evaluator
from gluonts.model import evaluate_forecasts
from gluonts.model.forecast import SampleForecast
from scipy.special import ndtri

from sciddm import score
from sciddm.errors import InputError

HORIZON = 6


def series(members: int, items: int = 3, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """A biased, too narrow ensemble with ties, items of very different size, gaps in the truth."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** np.arange(items)[:, None]
    truth = size * (1 + rng.normal(size=(items, HORIZON)))
    ens = np.round(size * (1.2 + 0.7 * rng.normal(size=(members, items, HORIZON))), 1)
    truth[0, :2] = ens[0, 0, :2]
    truth[1, 3] = np.nan
    names = [f"s{i}" for i in range(items)]
    field = xr.DataArray(ens, dims=("member", "item", "time"), coords={"item": names}, name="flow")
    return field, field.isel(member=0, drop=True).copy(data=truth)


def entries(truth: xr.DataArray) -> ListDataset:
    past = np.arange(1.0, 9.0)
    rows = [
        {"start": "2020-01-01", "target": np.concatenate([past, t]), "item_id": str(n)}
        for n, t in zip(truth["item"].values, truth.values, strict=True)
    ]
    return ListDataset(rows, freq="D")


def forecasts(ens: xr.DataArray) -> Iterator[SampleForecast]:
    start = pd.Period("2020-01-09", freq="D")
    for name in ens["item"].values:
        yield SampleForecast(ens.sel(item=name).values, start, item_id=str(name))


@pytest.mark.parametrize("levels", [9, 19, 99])
@pytest.mark.parametrize("members", [1, 6, 100])
def test_the_numbers_are_those_of_evaluate_model(levels: int, members: int) -> None:
    ens, truth = series(members)
    _, template = split(entries(truth), offset=-HORIZON)
    data = template.generate_instances(HORIZON)
    at = [k / (levels + 1) for k in range(1, levels + 1)]
    metrics = [MeanWeightedSumQuantileLoss(at), MAE()]
    for axis, over in ((None, None), (1, ("time",))):
        theirs = evaluate_forecasts(forecasts(ens), test_data=data, metrics=metrics, axis=axis)
        ours = score.weighted_quantile_loss(ens, truth, levels=levels, over=over)
        mine = score.median_error(ens, truth, over=over)
        np.testing.assert_allclose(
            theirs["mean_weighted_sum_quantile_loss"], ours.values.ravel(), rtol=1e-6
        )
        np.testing.assert_allclose(theirs["MAE[0.5]"], mine.values.ravel(), rtol=1e-6)


def test_the_numbers_are_those_of_the_evaluator() -> None:
    ens, truth = series(100)
    days = pd.period_range("2020-01-01", periods=8 + HORIZON, freq="D")
    whole = [pd.Series(e["target"], days) for e in entries(truth)]
    pooled, single = Evaluator(num_workers=None)(whole, forecasts(ens))
    found = score.by_item(ens, truth)
    assert found["wql_9_pooled"] == pytest.approx(pooled["mean_wQuantileLoss"], rel=1e-6)
    columns = [f"QuantileLoss[0.{k}]" for k in range(1, 10)]
    by_item = single[columns].mean(axis=1) / single["abs_target_sum"]
    np.testing.assert_allclose(found["wql_9"], by_item, rtol=1e-6)
    np.testing.assert_allclose(found["mae_median"] * found["cells"], single["abs_error"], rtol=1e-6)


@pytest.mark.parametrize(("levels", "published"), [(9, 0.6180), (19, 0.5921), (99, 0.5704)])
def test_the_law_of_few_levels_is_above_the_crps(levels: int, published: float) -> None:
    """E QL_q(z_q, Y) = 2 phi(z_q) for Y ~ N(0, 1); the CRPS is 1 / sqrt(pi)."""
    at = np.arange(1, levels + 1) / (levels + 1)
    law = float(2 * np.mean(np.exp(-0.5 * ndtri(at) ** 2)) / math.sqrt(2 * math.pi))
    assert law == pytest.approx(published, abs=1e-3)  # a draw's, with a CRPS of 0.5648
    rng = np.random.default_rng(1)
    # members at the quantiles of a fine net: the order statistics are the exact quantiles
    net = ndtri(np.arange(0.5, 1000) / 1000)
    y = xr.DataArray(rng.normal(size=3000), dims="cell")
    ens = xr.DataArray(net, dims="member").expand_dims(cell=y.size)
    found = score.quantile_loss(ens, y, levels=levels)
    assert float(found) == pytest.approx(law, abs=0.03)
    exact = score.crps(ens, y, fair=False)
    assert float(found) / float(exact) == pytest.approx(law * math.sqrt(math.pi), rel=5e-3)
    size = float(abs(y).mean())
    weighted = score.weighted_quantile_loss(ens, y, levels=levels)
    assert float(weighted) * size == pytest.approx(float(found), rel=1e-12)


def test_many_levels_are_the_crps() -> None:
    ens, truth = series(40, items=2, seed=3)
    ens, truth = ens.isel(item=0), truth.isel(item=0)
    plain = float(score.crps(ens, truth, fair=False))
    few, many = (float(score.quantile_loss(ens, truth, levels=n)) for n in (9, 3999))
    assert many == pytest.approx(plain, rel=0.03)
    assert abs(few - plain) > abs(many - plain)


def test_names_gaps_and_datasets() -> None:
    ens, truth = series(20)
    found = score.weighted_quantile_loss(ens, truth, levels=19)
    assert (found.name, found.attrs["score"], found.attrs["left_out"]) == ("wql_19", "wql_19", 1)
    two = xr.Dataset({"flow": ens, "level": 2 * ens})
    both = score.weighted_quantile_loss(two, xr.Dataset({"flow": truth, "level": 2 * truth}))
    assert list(both.data_vars) == ["flow", "level"]
    assert float(both["level"]) == pytest.approx(float(both["flow"]))
    # what the members say where nobody knows the truth changes nothing
    other = ens.copy(data=np.where(np.isnan(truth.values), 1e6, ens.values))
    assert float(score.weighted_quantile_loss(other, truth, levels=19)) == float(found)
    with pytest.raises(InputError, match="levels is 0"):
        score.quantile_loss(ens, truth, levels=0)
    with pytest.raises(InputError, match="NaN in some members"):
        score.quantile_loss(ens.where(ens != ens[0, 2, 0]), truth)
    with pytest.raises(InputError, match="expected an ensemble with dim 'member'"):
        score.quantile_loss(truth, truth)


def test_a_calibrated_ensemble_passes_item_by_item_and_pooled() -> None:
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(20, 4, 600, 2)).cumsum(-1) * np.array([1, 5, 0.1, 2])[:, None, None]
    field = xr.DataArray(
        draws,
        dims=("member", "item", "time", "channel"),
        coords={"item": list("abcd"), "latitude": ("item", [3.0, 1.0, 2.0, 1.5])},
        name="x",
    )
    truth, ens = field.isel(member=0, drop=True).copy(), field.isel(member=slice(1, None))
    truth[0, :50] = np.nan
    found = score.by_item(ens, truth)
    assert found.attrs["left_out"] == 100 and found["cells"].values.tolist() == [1100, *[1200] * 3]
    np.testing.assert_allclose(found["coverage"], 0.9, atol=0.035)
    assert float(found["coverage_pooled"]) == pytest.approx(0.9, abs=0.02)
    np.testing.assert_allclose(found["pit_histogram_pooled"], 0.1, atol=0.02)
    np.testing.assert_allclose(found["pit_histogram"].sum("bin"), 1)
    narrow = score.by_item(ens.mean("member") + 0.3 * (ens - ens.mean("member")), truth)
    ends = narrow["pit_histogram_pooled"].isel(bin=[0, -1])
    assert float(ends.min()) > 0.25 and float(narrow["coverage_pooled"]) < 0.5
    # pooled counts cells, so it is the mean of the items weighted by their cells
    shares = found["cells"] / found["cells"].sum()
    assert float(found["crps_pooled"]) == pytest.approx(float((shares * found["crps"]).sum()))
    alone = score.energy_score(ens.isel(item=1), truth.isel(item=1), across=["channel"])
    assert float(found["energy_score"][1]) == pytest.approx(float(alone))
    with pytest.raises(InputError, match="expected items along 'series'"):
        score.by_item(ens, truth, "series")
