"""Forecasts lined up with a record, and every score by lead: identities with the single scores."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciddm import score
from sciddm.errors import InputError

HOURS = np.arange(1, 5) * np.timedelta64(6, "h")
STARTS = np.datetime64("2019-03-01", "ns") + np.arange(12) * np.timedelta64(12, "h")
LATITUDE = ("latitude", np.linspace(58, 50, 5), {"units": "degrees_north"})


def forecast(
    members: int = 8, width: float = 1.0, shift: float = 0.0, seed: int = 0
) -> tuple[xr.DataArray, xr.DataArray]:
    """Errors that grow with the root of the lead about a record of noise."""
    rng = np.random.default_rng(seed)
    time = STARTS[0] + np.arange(60) * np.timedelta64(6, "h")
    record = xr.DataArray(
        280 + rng.normal(size=(60, 5, 7)),
        dims=("time", "latitude", "longitude"),
        coords={"time": time, "latitude": LATITUDE, "longitude": np.arange(7.0)},
        name="t2m",
        attrs={"units": "K"},
    )
    frame = xr.DataArray(
        np.zeros((12, 4, 5, 7)),
        dims=("init_time", "lead_time", "latitude", "longitude"),
        coords={"init_time": STARTS, "lead_time": HOURS, **record.drop_vars("time").coords},
        name="t2m",
    )
    size = np.sqrt(np.arange(1, 5))[:, None, None]
    centre = score.at_leads(record, frame) + size * rng.normal(size=(12, 4, 5, 7))
    ens = (
        centre
        + shift
        + xr.DataArray(
            width * size * rng.normal(size=(members, 12, 4, 5, 7)), dims=("member", *frame.dims)
        )
    )
    return ens.drop_vars("valid_time").rename("t2m").assign_attrs(units="K"), record


def test_the_record_is_read_at_start_plus_lead() -> None:
    ens, record = forecast()
    found = score.at_leads(record, ens)
    assert found.dims == ("init_time", "lead_time", "latitude", "longitude")
    for i, j in ((0, 0), (3, 2), (11, 3)):
        when = STARTS[i] + HOURS[j]
        np.testing.assert_array_equal(found[i, j], record.sel(time=when))
        assert found.valid_time.values[i, j] == when
    assert score.at_leads(found, ens) is found  # at the leads already
    one = score.at_leads(record, ens.isel(init_time=4))
    np.testing.assert_array_equal(one, found[4])
    assert one.dims[0] == "lead_time"


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "standard"])
def test_leads_in_units_follow_the_calendar(calendar: str) -> None:
    months = xr.date_range("2000-01-16", periods=40, freq="MS", calendar=calendar, use_cftime=True)
    record = xr.DataArray(np.arange(40.0), dims="time", coords={"time": months})
    ens = xr.DataArray(
        np.zeros((2, 3, 4)),
        dims=("member", "init_time", "lead_time"),
        coords={
            "init_time": months[[0, 11, 26]],
            "lead_time": ("lead_time", [1, 2, 3, 12], {"units": "months"}),
        },
    )
    found = score.at_leads(record, ens)
    np.testing.assert_array_equal(found, [[1, 2, 3, 12], [12, 13, 14, 23], [27, 28, 29, 38]])
    years = ens.isel(lead_time=[0]).assign_coords(lead_time=("lead_time", [1], {"units": "years"}))
    np.testing.assert_array_equal(score.at_leads(record, years)[:, 0], [12, 23, 38])


def test_days_on_a_model_calendar_and_steps_without_units() -> None:
    days = xr.date_range("2000-02-27", periods=6, calendar="noleap", use_cftime=True)
    record = xr.DataArray(np.arange(6.0), dims="time", coords={"time": days})
    ens = xr.DataArray(
        np.zeros((2, 2)),
        dims=("member", "lead"),
        coords={
            "lead": ("lead", [1, 2], {"units": "days"}),
            "init": cftime.DatetimeNoLeap(2000, 2, 27),
        },
    )
    np.testing.assert_array_equal(score.at_leads(record, ens), [1, 2])
    assert score.valid_time(ens).values[1] == cftime.DatetimeNoLeap(2000, 3, 1)
    # Model time: 0.1 + 0.2 is not 0.3 and is found.
    steps = xr.DataArray(np.arange(9.0), dims="time", coords={"time": 0.1 * np.arange(9)})
    film = xr.DataArray(
        np.zeros((2, 3)),
        dims=("member", "lead_time"),
        coords={"init_time": 0.1, "lead_time": [0.1, 0.2, 0.5]},
    )
    np.testing.assert_array_equal(score.at_leads(steps, film), [2, 3, 6])


def test_a_valid_time_that_is_given_is_believed() -> None:
    ens, record = forecast()
    when = score.valid_time(ens) + np.timedelta64(6, "h")
    moved = score.at_leads(record, ens.assign_coords(valid_time=when))
    np.testing.assert_array_equal(moved[0, 0], record[2])


LATE = r"03-06T00:00:00 .init_time=2019-03-05T00:00:00, lead_time=1 days 00:00:00.*12 of 48 valid"
REFUSED = {
    "a record that ends early": (lambda e, r: (e, r[:20]), LATE),
    "no leads": (
        lambda e, r: (e.rename(lead_time="steps"), r),
        "one of leads, such as 'lead_time'",
    ),
    "no units": (lambda e, r: (e.assign_coords(lead_time=[1, 2, 3, 4]), r), "None do not add up"),
    "calendars": (lambda e, r: (e, r.convert_calendar("noleap")), "expected one calendar"),
    "no record": (lambda e, r: (e, r.isel(time=0)), "expected a time axis"),
    "no starts": (lambda e, r: (e.drop_vars("init_time"), r), "'valid_time', or 'init_time'"),
    "two variables": (lambda e, r: (e.to_dataset(), r.to_dataset()), "takes one variable"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_lined_up_is_refused(case: str) -> None:
    change, said = REFUSED[case]
    with pytest.raises(InputError, match=said):
        ens, record = change(*forecast())
        score.by_lead(ens, record)


def test_every_score_by_lead_is_the_score_of_that_lead() -> None:
    """Fields of one size count alike, so the single scores over all but the lead are these."""
    ens, record = forecast()
    space = ("latitude", "longitude")
    normal = record.mean("time")
    found = score.by_lead(
        ens, record, thresholds=(280.0, 281.0), climatology=normal, spectral=("longitude",)
    )
    truth = score.at_leads(record, ens)
    over = ("init_time", *space)
    expected = {
        "crps": score.crps(ens, truth, over=over),
        "rmse": score.rmse(ens, truth, over=over),
        "mae": score.mae(ens, truth, over=over),
        "bias": score.bias(ens, truth, over=over),
        "spread": score.spread(ens, over=over),
        "spread_skill": score.spread_skill(ens, truth, over=over),
        "coverage": score.coverage(ens, truth, 0.9, over=over),
        "energy_score": score.energy_score(ens, truth, across=space, over=("init_time",)),
        "variogram_score": score.variogram_score(
            ens, truth, across=space, reach=2, over=("init_time",)
        ),
        "correlation": score.correlation(ens, truth, across=space, over=("init_time",)),
        "correlation_members": score.correlation(
            ens, truth, across=space, members=True, over=("init_time",)
        ).mean("member"),
        "acc": score.acc(ens, truth, normal, across=space, over=("init_time",)),
        "log_spectral_distance": score.log_spectral_distance(
            ens, truth, ("longitude",), over=("init_time", "latitude")
        ),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, err_msg=name)
        assert found[name].dims == ("lead_time",), name
        assert found[name].attrs["estimator"] and found[name].attrs["members"] == 8, name
    brier = score.brier(ens, truth, 281.0, over=over)
    np.testing.assert_allclose(found.brier.sel(threshold=281.0), brier, rtol=1e-10)
    counts = found.rank_histogram
    assert counts.dims == ("rank", "lead_time") and (counts.sum("rank") == 12 * 35).all()
    assert found.attrs["cases"] == 12 and found.attrs["members"] == 8
    assert found.crps.attrs["estimator"] == "fair CRPS" and found.crps.attrs["units"] == "K"
    assert found.crps.attrs["weights"] == "cell area from latitude 'latitude'"
    assert set(found.data_vars) == {*expected, "brier", "rank_histogram"}


def test_a_right_forecast_passes_and_wrong_ones_do_not() -> None:
    right = score.by_lead(*forecast(20), joint=False, block=2)
    assert (abs(right.spread_skill - 1) < 0.06).all() and (abs(right.coverage - 0.9) < 0.03).all()
    np.testing.assert_allclose(right.rmse, np.sqrt(1.05 * np.arange(1, 5)), rtol=0.1)
    assert float(score.chi_square(right.rank_histogram.sum("lead_time"), bins=7)) > 1e-3
    inside = (right.spread_skill_low < right.spread_skill) & (
        right.spread_skill < right.spread_skill_high
    )
    assert inside.all() and (right.crps_low < right.crps_high).all()
    assert "blocks of 2" in right.crps_low.attrs["interval"]
    for width, shift in ((0.5, 0.0), (2.0, 0.0), (1.0, 1.0)):
        wrong = score.by_lead(*forecast(20, width, shift), joint=False)
        assert (wrong.crps > right.crps).all()
        assert (abs(wrong.coverage - 0.9) > 0.03).any()
        assert float(score.chi_square(wrong.rank_histogram.sum("lead_time"), bins=7)) < 1e-6
        assert ((wrong.spread_skill < 0.9) | (wrong.spread_skill > 1.5)).any()


def test_films_and_series_and_lazy_arrays_are_scored_too() -> None:
    rng = np.random.default_rng(3)
    films = xr.DataArray(
        rng.normal(size=(6, 10, 4)),
        dims=("sample", "time", "x"),
        coords={"time": 0.5 * np.arange(10), "sample": np.arange(100, 106)},
        name="u",
    )
    ens = xr.DataArray(
        rng.normal(size=(5, 6, 3, 4)),
        dims=("member", "sample", "lead_time", "x"),
        coords={"init_time": 1.0, "lead_time": [0.5, 1.0, 1.5], "sample": np.arange(100, 106)},
        name="u",
    )
    found = score.by_lead(ens, films, block=1)
    truth = (
        films.isel(time=[3, 4, 5]).rename(time="lead_time").assign_coords(lead_time=[0.5, 1.0, 1.5])
    )
    expected = score.crps(ens, truth, over=("sample", "x"))
    np.testing.assert_allclose(found.crps, expected, rtol=1e-10)
    assert found.attrs["cases"] == 6 and "over sample" in found.crps_low.attrs["interval"]
    lazy = score.by_lead(ens.chunk(lead_time=1), films.chunk(time=2), block=1)
    xr.testing.assert_allclose(lazy, found)
    series = score.by_lead(ens.isel(x=0), films.isel(x=0))
    np.testing.assert_allclose(
        series.crps, score.crps(ens.isel(x=0), truth.isel(x=0), over=("sample",)), rtol=1e-10
    )
    assert "correlation" not in series
    with pytest.raises(InputError, match="one start; a bootstrap needs several"):
        score.by_lead(ens.isel(sample=0), films.isel(sample=0), block=1)
    with pytest.raises(InputError, match="two members or more"):
        score.by_lead(ens[:1], films)


def test_a_climatology_along_time_is_read_at_the_valid_times() -> None:
    ens, record = forecast()
    moving = record + 0.3
    found = score.by_lead(ens, record, climatology=moving, joint=False)
    truth = score.at_leads(record, ens)
    mean = ens.mean("member")
    a, w = mean - truth - 0.3, score.cell_weights(ens)
    b = -0.3 * xr.ones_like(a)
    space = ("latitude", "longitude")
    expected = (a * b * w).sum(space) / np.sqrt((a**2 * w).sum(space) * (b**2 * w).sum(space))
    np.testing.assert_allclose(found.acc, expected.mean("init_time"), rtol=1e-8)
    assert pd.api.types.is_timedelta64_dtype(found.lead_time.values)


def test_leads_scored_together_or_one_by_one_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from sciddm.score import lead

    ens, record = forecast()
    numbers = {"thresholds": (280.0,), "climatology": record, "spectral": ("longitude",)}
    whole = score.by_lead(ens, record, block=2, **numbers)
    monkeypatch.setattr(lead, "TOGETHER", 1)
    apart = score.by_lead(ens, record, block=2, **numbers)
    xr.testing.assert_allclose(whole, apart, rtol=1e-10)
    assert {n: v.attrs for n, v in whole.items()} == {n: v.attrs for n, v in apart.items()}
