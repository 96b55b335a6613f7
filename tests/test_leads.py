"""The verbs score and plot on forecasts: the numbers of the library, in every usual naming."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciddm import cli, score
from sciddm.data import convention

START = np.datetime64("2019-03-27T00", "ns")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[xr.Dataset, xr.Dataset]:
    """A forecast of two variables from three starts, and the record, as files."""
    rng = np.random.default_rng(0)
    time = START + np.arange(30) * np.timedelta64(6, "h")
    coords = {"y": np.arange(5.0), "x": np.arange(6.0)}
    record = xr.Dataset(
        {
            name: (("time", "y", "x"), rng.normal(size=(30, 5, 6)), {"units": unit})
            for name, unit in (("t2m", "K"), ("sp", "Pa"), ("orography", "m"))
        },
        {"time": time, **coords},
    )
    lead = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("timedelta64[ns]")
    dims = ("member", "init_time", "lead_time", "y", "x")
    ens = xr.Dataset(
        {
            name: (dims, rng.normal(size=(10, 3, 4, 5, 6)), {"units": unit})
            for name, unit in (("t2m", "K"), ("sp", "Pa"))
        },
        {
            "member": np.arange(10), "init_time": time[[4, 6, 8]], "lead_time": lead,
            "valid_time": (("init_time", "lead_time"), time[[4, 6, 8]][:, None] + lead), **coords,
        },
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    record.to_netcdf("record.nc", engine="h5netcdf")
    ens.to_netcdf("ens.nc", engine="h5netcdf")
    return ens, record


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert cli.main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("names", ["ours", *convention.LAYOUTS])
def test_score_prints_a_row_a_lead_as_the_library_says(
    here: tuple[xr.Dataset, xr.Dataset], capsys: pytest.CaptureFixture[str], names: str
) -> None:
    ens, record = here
    if names != "ours":
        convention.LAYOUTS[names](ens).to_netcdf("ens.nc", engine="h5netcdf")
    facts = said(capsys, "score", "ens.nc", "record.nc", "--level", "0.5")
    assert facts["members"] == 10 and facts["cases"] == 3 and facts["lead_units"] == "h"
    assert facts["estimator"] == "fair CRPS" and set(facts["scores"]) == {"t2m", "sp"}
    for name, rows in facts["scores"].items():
        truth = score.at_leads(record[name], ens[name])
        over = ("init_time", "y", "x")
        assert [row["lead"] for row in rows] == [6.0, 12.0, 18.0, 24.0]
        for key, value in {
            "crps": score.crps(ens[name], truth, over=over),
            "rmse": score.rmse(ens[name], truth, over=over),
            "spread_skill": score.spread_skill(ens[name], truth, over=over),
            "coverage_50": score.coverage(ens[name], truth, 0.5, over=over),
        }.items():
            np.testing.assert_allclose([row[key] for row in rows], value, rtol=1e-6)


def test_score_as_text_and_with_intervals(
    here: tuple[xr.Dataset, xr.Dataset], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["score", "ens.nc", "record.nc", "--variable", "sp"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("sp [Pa]: fair CRPS, 10 members, 3 cases, weights: uniform")
    assert lines[1].split()[:4] == ["lead", "[h]", "crps", "rmse"] and len(lines) == 2 + 4
    facts = said(capsys, "score", "ens.nc", "record.nc", "--block", "1")
    for row in facts["scores"]["t2m"]:
        assert row["crps_low"] <= row["crps"] <= row["crps_high"]


@pytest.mark.parametrize("kind", ["fan", "maps", "spectra", "ranks", "skill", "spread"])
def test_every_kind_of_picture_is_drawn(
    here: tuple[xr.Dataset, xr.Dataset], capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    argv = ["plot", "ens.nc", "--truth", "record.nc", "--kind", kind, "-o", f"{kind}.png"]
    facts = said(capsys, *argv)
    assert facts == {"picture": f"{kind}.png", "variable": "t2m"}
    assert Path(f"{kind}.png").read_bytes().startswith(b"\x89PNG")


def test_a_fan_is_of_the_place_or_of_the_mean(
    here: tuple[xr.Dataset, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sciddm import plot

    ens, record = here
    drawn: list[tuple[xr.DataArray, ...]] = []
    fan = plot.fan

    def watched(field: xr.DataArray, truth: xr.DataArray, past: xr.DataArray) -> object:
        drawn.append((field, truth, past))
        return fan(field, truth, past=past)

    monkeypatch.setattr(plot, "fan", watched)
    argv = ["plot", "ens.nc", "--truth", "record.nc", "--kind", "fan", "--case", "1"]
    assert cli.main([*argv, "-o", "a.png"]) == 0
    assert cli.main([*argv, "--at", "y=2.2", "x=4", "-o", "b.png"]) == 0
    mean, place = drawn
    one = ens.t2m.isel(init_time=1)
    np.testing.assert_allclose(mean[0], one.mean(("y", "x")))
    np.testing.assert_allclose(place[0], one.isel(y=2, x=4))
    np.testing.assert_allclose(place[1], record.t2m[:, 2, 4])
    assert place[2].time.values[-1] == one.init_time.values and place[2].size == 7


def test_films_are_scored_at_their_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    monkeypatch.chdir(tmp_path)
    films = xr.Dataset(
        {"u": (("sample", "time", "x"), rng.normal(size=(9, 6, 8)))},
        {
            "sample": np.arange(9), "time": 0.1 * np.arange(6),
            "x": ("x", np.arange(8.0), {"period": 8.0}),
        },
    )  # fmt: skip
    ens = xr.Dataset(
        {"u": (("sample", "member", "lead_time", "x"), rng.normal(size=(2, 5, 3, 8)))},
        {
            "sample": [7, 3], "init_time": 0.1, "x": np.arange(8.0),
            "lead_time": ("lead_time", 0.1 * np.arange(1, 4), {"units": "1"}),
            "valid_time": ("lead_time", 0.1 * np.arange(2, 5)),
        },
    )  # fmt: skip
    films.to_netcdf("films.nc", engine="h5netcdf")
    ens.to_netcdf("ens.nc", engine="h5netcdf")
    rows = said(capsys, "score", "ens.nc", "films.nc")["scores"]["u"]
    truth = films.u.sel(sample=[7, 3]).isel(time=[2, 3, 4]).rename(time="lead_time")
    truth = truth.assign_coords(lead_time=ens.lead_time)
    expected = score.crps(ens.u.drop_vars("valid_time"), truth, over=("sample", "x"))
    np.testing.assert_allclose([row["crps"] for row in rows], expected, rtol=1e-6)
    for kind in ("fan", "spectra"):
        argv = ["plot", "ens.nc", "--truth", "films.nc", "--kind", kind, "-o", f"{kind}.png"]
        assert cli.main(argv) == 0
    films.isel(sample=slice(0, 5)).to_netcdf("few.nc", engine="h5netcdf")
    assert cli.main(["score", "ens.nc", "few.nc"]) == 2
    assert "The truth lacks some 'sample'" in capsys.readouterr().err


BAD = {
    "kind": (["plot", "ens.nc", "--kind", "fann", "-o", "x.png"], "Did you mean 'fan'"),
    "no truth": (["plot", "ens.nc", "--kind", "ranks", "-o", "x.png"], "without --truth"),
    "place": (["plot", "ens.nc", "--kind", "fan", "--at", "z=1", "-o", "x.png"], "NAME=VALUE"),
    "case": (["plot", "ens.nc", "--case", "3", "-o", "x.png"], "expected below 3"),
    "variable": (["score", "ens.nc", "record.nc", "--variable", "t2n"], "Did you mean 't2m'"),
    "block": (["score", "ens.nc", "record.nc", "--block", "2"], "from 1 to 1"),
    "early": (["score", "ens.nc", "short.nc"], "which the truth lacks (2 of 12 valid times"),
    "no leads": (["plot", "record.nc", "--kind", "fan", "-o", "x.png"], "expected a forecast"),
    "no forecast": (["score", "still.nc", "record.nc", "--block", "1"], "expected a forecast"),
    "other truth": (["score", "ens.nc", "other.nc"], "without a variable of 'ens.nc'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_one_line_and_write_nothing(
    here: tuple[xr.Dataset, xr.Dataset], capsys: pytest.CaptureFixture[str], case: str
) -> None:
    ens, record = here
    argv, said = BAD[case]
    for name, ds in {
        "short.nc": record.isel(time=slice(0, 11)),
        "other.nc": record[["orography"]],
        "still.nc": ens.isel(lead_time=0, drop=True),
    }.items():
        if name in argv:
            ds.to_netcdf(name, engine="h5netcdf")
    assert cli.main(argv) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1
    assert not Path("x.png").exists()
