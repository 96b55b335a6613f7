"""Observations along a forecast on the labelled road: their times, places and cases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import sciddm as sd
from sciddm import cli
from sciddm.assimilate import along
from sciddm.basis import Periodic
from sciddm.covariance import PowerLaw
from sciddm.data.checks import DataWarning
from sciddm.data.codec import Grid, Normaliser
from sciddm.data.filmed import Filmed
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.evidence import Evidence
from sciddm.forecasters import Film, Forecaster
from sciddm.pde import StochasticHeat
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Multistep
from sciddm.spacetime import SpaceTime, markov
from sciddm.task import Lead

POINTS, LEADS = 8, 5
HEAT = StochasticHeat(2 * math.pi, 0.03, 0.2, 0.6, PowerLaw(1.0, 3.0, 2.5))
X = 2 * math.pi * np.arange(POINTS) / POINTS
GRID = Grid(("x",), {"x": X}, {"x": {"period": 2 * math.pi}})
CODEC = Normaliser(GRID, ("u",), {"u": {"units": "K"}}, np.array([[3.0]]), np.array([2.0]))


def law(frames: int) -> SpaceTime:
    step, noise = HEAT.transition(POINTS, 1.0)
    parts = (v[:, None, None].to(torch.complex128) for v in (HEAT.stationary(POINTS), step, noise))
    return markov(*parts, frames, (POINTS,), Periodic())


def model(lead: Lead, sample: str = "time") -> sd.Model:
    base = Gaussian(torch.zeros(()), law(LEADS + 1), VE(clock=LogLinear(0.005, 500.0)))
    task = sd.Task(sd.View(("u",)), sample=sample, lead=lead)
    return sd.Model(task, CODEC, Film(base, LEADS + 1, steps=30))


HOURS = np.datetime64("2020-01-01T00", "ns") + np.arange(20) * np.timedelta64(6, "h")


def record(times: np.ndarray = HOURS, seed: int = 0) -> xr.Dataset:
    film = HEAT.films(1, POINTS, len(times), 1.0, seed=seed)[0].numpy()
    values = (3 + 2 * film).astype(np.float32)
    coords = {"time": times, "x": ("x", X, {"period": 2 * math.pi})}
    return xr.Dataset({"u": (("time", "x"), values, {"units": "K"})}, coords)


def seen(when: list[np.datetime64], where: list[float], values: list[float]) -> sd.Observed:
    at = {"time": ("place", np.array(when, "M8[ns]")), "x": ("place", np.array(where))}
    array = xr.DataArray(np.array(values), dims="place", coords=at, name="u")
    return sd.Observed(array, std=0.3)


START = HOURS[9]
DAYS = Lead(6, "hours")
SEEN = seen(
    [HOURS[11], HOURS[11] + np.timedelta64(3, "h"), HOURS[14], HOURS[9], HOURS[19]],
    [X[2], 0.5 * (X[4] + X[5]), X[7] + 0.1, X[0], X[0]],
    [5.0, 1.5, 3.4, 40.0, 40.0],  # the last two are not of this forecast
)


def test_the_members_have_the_law_of_the_smoother() -> None:
    draws = sd.forecast(model(DAYS), record(), steps=LEADS, members=512, start=START, seen=SEEN)
    past = (record().u.sel(time=START).values - 3) / 2
    size = (LEADS + 1) * POINTS
    unit = torch.eye(size, dtype=torch.float64)
    cov = law(LEADS + 1)(unit.view(size, 1, -1, POINTS)).flatten(1).numpy()
    rows = np.zeros((POINTS + 3, LEADS + 1, POINTS))
    rows[np.arange(POINTS), 0, np.arange(POINTS)] = 1
    rows[POINTS, 2, 2] = 1
    rows[POINTS + 1, 2:4, 4:6] = 0.25
    share = 0.1 / X[1]
    rows[POINTS + 2, 5, [7, 0]] = 1 - share, share
    a = rows.reshape(len(rows), -1)
    y = np.concatenate([past, (np.array([5.0, 1.5, 3.4]) - 3) / 2])
    noise = np.diag([1e-8] * POINTS + [0.15**2] * 3)
    gain = cov @ a.T @ np.linalg.inv(a @ cov @ a.T + noise)
    mean = (gain @ y).reshape(LEADS + 1, POINTS)[1:]
    std = np.sqrt(np.diag(cov - gain @ a @ cov)).reshape(LEADS + 1, POINTS)[1:]
    found = (draws.u.transpose("member", "lead_time", "x").values - 3) / 2
    assert np.abs((found.mean(0) - mean) / std).max() < 4.5 / math.sqrt(512)
    np.testing.assert_allclose(found.std(0) / std, 1, atol=0.17)
    assert draws.attrs["guidance"].startswith("moment matching")
    assert draws.u.attrs["units"] == "K"


def test_the_first_members_of_more_are_the_same_and_nothing_seen_is_the_free_forecast() -> None:
    few, many = (
        sd.forecast(model(DAYS), record(), steps=LEADS, members=n, start=START, seen=SEEN)
        for n in (3, 150)
    )
    np.testing.assert_array_equal(few.u, many.u.sel(member=few.member))
    none = seen([HOURS[2]], [X[0]], [4.0])
    with pytest.warns(DataWarning, match="Nothing is observed along 1 of 1"):
        blind = sd.forecast(model(DAYS), record(), steps=3, members=2, start=START, seen=none)
    free = sd.forecast(model(DAYS), record(), steps=3, members=2, start=START)
    np.testing.assert_array_equal(blind.u, free.u)


def test_every_form_of_the_same_values_is_the_same_observation() -> None:
    """Scattered values, stations that report at several times, and a grid with gaps."""
    places, values = X[[1, 6]], np.array([[4.0, 2.0], [5.0, np.nan]])
    when = HOURS[[10, 13]]
    stations = xr.DataArray(
        values, dims=("time", "station"), name="u",
        coords={"time": when, "x": ("station", places)},
    )  # fmt: skip
    grid = xr.DataArray(values, dims=("time", "x"), coords={"time": when, "x": places}, name="u")
    points = seen([when[0], when[0], when[1]], [*places, places[0]], [4.0, 2.0, 5.0])
    spread = sd.Observed(grid.transpose("x", "time"), std=xr.full_like(grid, 0.3))
    draws = [
        sd.forecast(model(DAYS), record(), steps=LEADS, members=4, start=START, seen=s).u
        for s in (points, sd.Observed(stations, 0.3), sd.Observed(grid, 0.3), spread)
    ]
    for other in draws[1:]:
        np.testing.assert_allclose(other, draws[0], atol=5e-3)


@pytest.mark.filterwarnings("ignore:The last frames")
def test_several_starts_and_films_take_their_own_values() -> None:
    starts = list(HOURS[[4, 9]])
    both = sd.forecast(model(DAYS), record(), steps=LEADS, members=4, start=starts, seen=SEEN)
    for when in starts:
        one = sd.forecast(model(DAYS), record(), steps=LEADS, members=4, start=when, seen=SEEN)
        np.testing.assert_array_equal(both.u.sel(init_time=when), one.u)
    numbers = np.arange(7.0)
    films = xr.concat([record(numbers, 0), record(numbers, 1)], "sample").assign_coords(
        sample=[3, 8]
    )
    values = xr.DataArray(
        [[1.0, np.nan], [np.nan, 7.0]], dims=("sample", "time"), name="u",
        coords={"sample": [3, 8], "time": [2.0, 4.0], "x": X[3]},
    )  # fmt: skip
    at = sd.Observed(values.expand_dims(x=[X[3]]), std=0.1)
    film = model(Lead(), "sample")
    drawn = sd.forecast(film, films, steps=LEADS, members=4, start=0.0, seen=at).u
    assert abs(float(drawn.sel(sample=3).isel(lead_time=1, x=3).mean()) - 1) < 0.2
    assert abs(float(drawn.sel(sample=8).isel(lead_time=3, x=3).mean()) - 7) < 0.2


def test_joined_evidence_and_another_dtype_of_time() -> None:
    first, second = (
        seen([HOURS[11]], [X[2]], [5.0]), seen([HOURS[12]], [X[5]], [1.0]),
    )  # fmt: skip
    both = seen([HOURS[11], HOURS[12]], [X[2], X[5]], [5.0, 1.0])
    leads = HOURS[10:15]
    joined = along(first & second, CODEC, "time", START, leads)
    whole = along(both, CODEC, "time", START, leads)
    assert joined is not None and whole is not None
    x = torch.randn(2, 1, LEADS, POINTS, generator=torch.manual_seed(0))
    torch.testing.assert_close(joined.value(x), whole.value(x))
    torch.testing.assert_close(joined.y, whole.y)
    want = (3 + 2 * torch.stack([x[:, 0, 1, 2], x[:, 0, 2, 5]], dim=1)) / 0.3
    torch.testing.assert_close(whole.value(x), want)


def test_a_model_of_films_is_smoothed_by_recover() -> None:
    """Time as an axis of the field: the past and what is seen later are pieces of evidence."""
    times = np.arange(LEADS + 1.0)
    grid = Grid(("time", "x"), {"time": times, "x": X}, {"x": {"period": 2 * math.pi}})
    codec = Normaliser(
        grid, ("u",), {"u": {"units": "K"}}, np.full((1, 1, 1), 3.0), np.array([2.0])
    )
    base = Gaussian(torch.zeros(()), law(LEADS + 1), VE(clock=LogLinear(0.005, 500.0)))
    film = sd.Model(sd.Task(sd.View(("u",))), codec, Diffusion(base, Multistep(), 30), moments=base)
    first = record(times).u.isel(time=[0])
    later = xr.DataArray(
        [5.0, 1.5, 3.4], dims="place", name="u",
        coords={"time": ("place", [2.0, 2.5, 5.0]), "x": ("place", [X[2], X[4], X[7]])},
    )  # fmt: skip
    seen = sd.Observed(first, std=1e-3) & sd.Observed(later, std=0.3)
    found = sd.recover(film, seen, members=192).u
    forecaster = model(Lead(), "sample")
    same = sd.forecast(
        forecaster, first, steps=LEADS, members=192, seen=sd.Observed(later, std=0.3)
    ).u
    np.testing.assert_allclose(found.isel(time=0).values - first.values, 0, atol=0.01)
    ahead = found.isel(time=slice(1, None))
    error = 2 * np.hypot(ahead.std("member"), same.std("member").values) / math.sqrt(192)
    gap = np.abs(ahead.mean("member").values - same.mean("member").values)
    assert float((gap / error).max()) < 2.5
    np.testing.assert_allclose(ahead.std("member"), same.std("member"), rtol=0.4)


def test_a_codec_of_films_is_its_frames() -> None:
    codec = Filmed(CODEC, "time", np.arange(1.0, 4.0))
    values = 3 + np.arange(2 * 3 * POINTS, dtype=float).reshape(2, 3, POINTS)
    x = codec.encode({"u": values})
    assert x.shape == (2, *codec.shape) == (2, 1, 3, POINTS)
    np.testing.assert_allclose(codec.finish(codec.physical(x))[:, 0], values, rtol=1e-6)
    for n in range(3):
        torch.testing.assert_close(x[:, :, n], CODEC.encode({"u": values[:, n]}))
    assert codec.grid.dims == ("time", "x") and codec.grid.period("x") is not None
    assert codec.at(codec.grid).shape == codec.shape


@pytest.mark.parametrize("dated", [True, False])
def test_the_command_line_reads_a_table_of_times_and_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dated: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    lead = DAYS if dated else Lead()
    model(lead).save("model")
    times = HOURS if dated else np.arange(20.0)
    past = record(times)
    past.to_netcdf("past.nc", engine="h5netcdf")
    when = times[[11, 14]]
    rows = [f"{str(t)[:19]},{x},{v}" for t, x, v in zip(when, X[[2, 7]], (5.0, 3.4), strict=True)]
    Path("seen.csv").write_text("\n".join(["time,x,u", *rows]) + "\n")
    start = str(times[9])[:13] if dated else "9"
    line = ["forecast", "model", "past.nc", "-o", "out.zarr", "--steps", "5", "--members", "2"]
    assert cli.main([*line, "--start", start, "--seen", "seen.csv", "--std", "0.3"]) == 0
    at = {"time": ("place", when), "x": ("place", X[[2, 7]])}
    values = xr.DataArray([5.0, 3.4], dims="place", coords=at, name="u")
    same = sd.forecast(
        model(lead), past, steps=5, members=2, start=times[9], seen=sd.Observed(values, 0.3)
    )
    found = xr.open_zarr("out.zarr")
    np.testing.assert_allclose(found.u, same.u, atol=1e-5)
    assert cli.main([*line, "--std", "0.3", "--overwrite"]) == 2


class Other(Evidence):
    def sights(self, codec):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        raise AssertionError

    scalars = {}  # type: ignore[assignment]

    def identity(self):  # type: ignore[no-untyped-def] # noqa: ANN201
        yield b""


class Still(Forecaster):
    evaluations = 0.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        while True:
            yield context.past[:, :, -1]


def test_what_cannot_be_seen_along_a_forecast_is_refused() -> None:
    def run(what: object, lead: Lead = DAYS) -> None:
        sd.forecast(model(lead), record(), steps=LEADS, members=1, start=START, seen=what)  # type: ignore[arg-type]

    with pytest.raises(InputError, match=r"expected sciddm\.Observed"):
        run(3.0)
    with pytest.raises(InputError, match="expected values seen"):
        run(Other())
    timeless = xr.DataArray([1.0], dims="place", coords={"x": ("place", [X[1]])}, name="u")
    with pytest.raises(InputError, match="has no times"):
        run(sd.Observed(timeless, 0.1))
    plain = timeless.assign_coords(time=("place", [2.0]))
    with pytest.raises(InputError, match="one kind and calendar"):
        run(sd.Observed(plain, 0.1))
    with pytest.warns(DataWarning, match="and the first lead; they are"):
        run(seen([START + np.timedelta64(1, "h"), HOURS[12]], [X[0], X[0]], [3.0, 3.0]))
    task = sd.Task(sd.View(("u",)), sample="time", lead=DAYS)
    with pytest.raises(InputError, match="draws frame after frame"):
        stays = sd.Model(task, CODEC, Still())
        sd.forecast(stays, record(), steps=2, members=1, start=START, seen=SEEN)
