"""Forecasts under the names of other packages, and back without a loss."""

from __future__ import annotations

import cftime
import numpy as np
import pytest
import xarray as xr

from sciddm.data.convention import (
    from_climpred,
    from_weatherbench2,
    to_climpred,
    to_weatherbench2,
)
from sciddm.errors import InputError


def forecast(leads: object, lead_attrs: dict[str, str], inits: object = None) -> xr.Dataset:
    init = np.array(["2019-03-01", "2019-03-02T06"], "M8[ns]") if inits is None else inits
    lead = np.asarray(leads)
    valid = (
        init[:, None] + lead
        if lead.dtype.kind == "m"
        else np.broadcast_to(init[:, None], (2, len(lead)))
    )
    values = np.random.default_rng(0).normal(size=(2, 3, len(lead), 2, 4)).astype("f4")
    time = {"standard_name": "time", "long_name": "time that is forecast"}
    return xr.Dataset(
        {"t2m": (("init_time", "member", "lead_time", "lat", "lon"), values, {"units": "K"})},
        {"init_time": ("init_time", init, {"standard_name": "forecast_reference_time"}),
         "member": ("member", np.arange(3), {"standard_name": "realization"}),
         "lead_time": ("lead_time", lead, {"standard_name": "forecast_period"} | lead_attrs),
         "valid_time": (("init_time", "lead_time"), valid, time),
         "lat": ("lat", [50.0, 52.0], {"units": "degrees_north"}),
         "lon": ("lon", [0.0, 1.0, 2.0, 3.0], {"units": "degrees_east"})},
        {"engine": "Rolling"},
    )  # fmt: skip


HOURS = forecast(np.array([6, 12, 18], "m8[h]").astype("m8[ns]"), {})


@pytest.mark.parametrize("member", ["realization", "number"])
def test_weatherbench_2_and_back_is_the_same(member: str) -> None:
    other = to_weatherbench2(HOURS, member=member)
    order = ("time", member, "prediction_timedelta", "latitude", "longitude")
    assert other["t2m"].dims == order and other.attrs == HOURS.attrs
    back = from_weatherbench2(other)
    xr.testing.assert_identical(back.rename(latitude="lat", longitude="lon"), HOURS)
    bare = from_weatherbench2(other.drop_vars("valid_time").drop_attrs())
    xr.testing.assert_equal(bare["valid_time"], back["valid_time"])
    assert bare["init_time"].attrs["standard_name"] == "forecast_reference_time"


@pytest.mark.parametrize(("hours", "units", "counts"), [
    ([6, 12, 18], "hours", [6, 12, 18]), ([24, 48, 72], "days", [1, 2, 3]),
    ([0.5, 1, 1.5], "minutes", [30, 60, 90]),
])  # fmt: skip
def test_climpred_and_back_is_the_same(hours: list[float], units: str, counts: list[int]) -> None:
    ds = forecast((np.array(hours) * 3600e9).astype("m8[ns]"), {})
    other = to_climpred(ds)
    assert other["t2m"].dims == ("init", "member", "lead", "lat", "lon")
    assert other["lead"].attrs["units"] == units and other["lead"].values.tolist() == counts
    assert other["lead"].dtype.kind == "i"
    xr.testing.assert_identical(from_climpred(other), ds)
    xr.testing.assert_equal(from_climpred(other.drop_vars("valid_time")), ds)


def test_months_of_a_model_calendar_go_to_climpred_alone() -> None:
    inits = np.array([cftime.Datetime360Day(2000, 1, 16), cftime.Datetime360Day(2000, 7, 16)])
    ds = forecast([1, 2, 3], {"units": "months"}, inits)
    assert to_climpred(ds)["lead"].attrs["units"] == "months"
    xr.testing.assert_identical(from_climpred(to_climpred(ds)), ds)
    with pytest.raises(InputError, match="durations"):
        to_weatherbench2(ds)


def test_one_start_becomes_a_dim() -> None:
    one = HOURS.isel(init_time=1)
    for other, name, back in [(to_weatherbench2(one), "time", from_weatherbench2),
                              (to_climpred(one), "init", from_climpred)]:  # fmt: skip
        assert other["t2m"].dims[0] == name and other.sizes[name] == 1
        ours = (
            back(other).rename(latitude="lat", longitude="lon") if name == "time" else back(other)
        )
        xr.testing.assert_identical(ours, HOURS.isel(init_time=[1]))


def test_what_is_no_forecast_is_refused() -> None:
    plain = forecast([0.1, 0.2], {"units": "1"})
    for call in (
        lambda: to_weatherbench2(HOURS.drop_vars("member")),
        lambda: to_weatherbench2(HOURS, member="ensemble"),
        lambda: to_climpred(plain),
        lambda: from_climpred(HOURS),
        lambda: from_climpred(to_climpred(HOURS).assign_coords(lead=[1, 2, 3])),
        lambda: to_climpred(forecast(np.array([1, 2], "m8[ns]"), {})),
    ):
        with pytest.raises(InputError) as fault:
            call()
        assert "\n" not in str(fault.value)
