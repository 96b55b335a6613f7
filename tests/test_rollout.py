"""Forecasts with labels: the exact law in the user's units, dates and names, to the bit however
they are drawn, and every bad input in one line."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import sciddm
from sciddm import outlook, rollout
from sciddm.data.codec import Grid, Normaliser
from sciddm.data.forcing import Forcings
from sciddm.denoise import Context
from sciddm.errors import InputError, RunError
from sciddm.forecasters import Forecaster, LinearGaussian
from sciddm.model import Model
from sciddm.random import Streams
from sciddm.task import Lead, Task, View

LAT, LON = np.array([50.0, 52.5, 55.0]), np.array([-2.5, 0.0, 2.5, 5.0])
MEAN, STD, RHO = 280.0, 5.0, 0.9


class Walk(Forecaster):
    """x <- rho x + network's own constant + noise; forcings and static fields are added."""

    def __init__(self, net: nn.Module, rho: float = RHO, noise: float = 0.1, history: int = 1,
                 longest: int | None = None) -> None:  # fmt: skip
        nn.Module.__init__(self)
        self.net, self.rho, self.noise, self.history, self.longest = (
            net,
            rho,
            noise,
            history,
            longest,
        )

    @property
    def evaluations(self) -> float:
        return 1.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        x, n, last = context.past[:, :, -1], 0, context.past.shape[2]
        while self.longest is None or n < self.longest:
            n += 1
            z = rng.inside("frame", n).at("step").normal(x)
            x = self.rho * x + self.noise * z + self.net(x)
            if context.fields is not None:
                x = x + context.fields
            if context.forcings is not None:
                x = x + context.forcings[:, :, last + n - 1].mean(1, keepdim=True)
            yield x


class Net(nn.Module):
    """A convolution with a given kernel, (1, 1, 3, 3) or (1, 1, 3)."""

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        fold = torch.conv1d if self.kernel.ndim == 3 else torch.conv2d
        return fold(x, self.kernel, padding=1)


def quiet(dims: int = 2) -> nn.Module:
    """Whose answer is small, but not nothing."""
    draws = torch.Generator().manual_seed(0)
    return Net(0.02 * torch.randn((1, 1, *[3] * dims), generator=draws))


def model(forecaster: Forecaster, lead: Lead | None = None, **more: Any) -> Model:
    grid = Grid(
        ("latitude", "longitude"),
        {"latitude": LAT, "longitude": LON},
        {"latitude": {"units": "degrees_north"}, "longitude": {"units": "degrees_east"}},
    )
    codec = Normaliser(
        grid,
        ("t2m",),
        {"t2m": {"units": "K", "long_name": "temperature"}},
        np.full((1, 1, 1), MEAN),
        np.array([STD]),
        more.pop("valid", None),
    )
    task = Task(View(("t2m",)), "time", lead or Lead(6.0, "hours"), "time")
    return Model(task, codec, forecaster, **more)  # fmt: skip


def record(times: object = None, count: int = 40) -> xr.Dataset:
    when = pd.date_range("2019-03-01", periods=count, freq="6h").values if times is None else times
    values = np.random.default_rng(1).normal(MEAN, STD, (len(when), 3, 4)).astype("f4")
    return xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values, {"units": "K"})},
        {"time": ("time", when, {"standard_name": "time"}),
         "latitude": ("latitude", LAT, {"units": "degrees_north"}),
         "longitude": ("longitude", LON, {"units": "degrees_east"})},
    )  # fmt: skip


def linear() -> LinearGaussian:
    """Two patterns with damped, mixing coefficients and their own noise."""
    modes = torch.linalg.qr(torch.randn(12, 2, generator=torch.Generator().manual_seed(3)).double())
    a = torch.tensor([[0.8, 0.3], [-0.2, 0.7]], dtype=torch.float64)
    q = torch.tensor([[0.05, 0.01], [0.01, 0.08]], dtype=torch.float64)
    return LinearGaussian(modes[0].T.reshape(2, 1, 3, 4), a[None], q, torch.zeros(()).double())


def law(forecaster: LinearGaussian, frame: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of every value at leads 1 to ``steps``, by the recursion, in kelvin."""
    e = forecaster.modes.reshape(2, 12).numpy()
    a, q = forecaster.transition[0].numpy(), forecaster.noise.numpy()
    z, p, means, variances = e @ ((frame.reshape(-1) - MEAN) / STD), np.zeros((2, 2)), [], []
    for _ in range(steps):
        z, p = a @ z, a @ p @ a.T + q
        means.append(MEAN + STD * (e.T @ z).reshape(3, 4))
        variances.append(STD**2 * np.diag(e.T @ p @ e).reshape(3, 4))
    return np.array(means), np.array(variances)


def test_a_saved_model_forecasts_the_exact_law_in_kelvin_with_its_dates(tmp_path: Path) -> None:
    forecaster, past = linear(), record()
    model(forecaster).save(tmp_path / "m")
    loaded, members = sciddm.load(tmp_path / "m"), 4096
    ens = sciddm.forecast(loaded, past, steps=5, members=members, seed=2, start="2019-03-05T12")
    assert ens["t2m"].dims == ("member", "lead_time", "latitude", "longitude")
    mean, variance = law(forecaster, past["t2m"].sel(time="2019-03-05T12").values, 5)
    off = (ens["t2m"].mean("member") - mean) / np.sqrt(variance / members)
    assert float(abs(off).max()) < 4.5 and float((off**2).mean()) < 1.6
    ratio = ens["t2m"].var("member", ddof=1) / variance
    assert float(abs(ratio - 1).max()) < 5 * math.sqrt(2 / members)
    start = np.datetime64("2019-03-05T12")
    assert ens["init_time"].item() == start.astype("M8[ns]").item()
    assert (ens["lead_time"].values == np.arange(1, 6) * np.timedelta64(6, "h")).all()
    assert (ens["valid_time"].values == start + np.arange(1, 6) * np.timedelta64(6, "h")).all()
    assert ens["t2m"].attrs["units"] == "K" and ens["latitude"].attrs["units"] == "degrees_north"
    said = {"engine": "LinearGaussian", "lead_step": "6 hours", "seed": 2, "past_frames": 1}
    assert said.items() <= ens.attrs.items() and ens.attrs["network_evaluations"] == 0
    late = (ens["t2m"].isel(lead_time=-1) - MEAN) / STD
    assert ens.attrs["drift_mean"] == [pytest.approx(float(late.mean()), abs=1e-3)]
    assert ens.attrs["drift_variance"] == [pytest.approx(float(late.var()), abs=1e-3)]


def test_a_member_is_the_same_whatever_is_drawn_with_it(tmp_path: Path) -> None:
    """To the bit: fewer members, other starts beside it, fewer leads, another order of starts."""
    job = model(Walk(quiet(), history=2))
    past, starts = record(), ["2019-03-02", "2019-03-04T06", "2019-03-07T18"]
    whole = sciddm.forecast(job, past, steps=6, members=150, seed=5, start=starts)["t2m"]
    assert whole.dims[:3] == ("init_time", "member", "lead_time")
    for kept, part in [
        (whole, sciddm.forecast(job, past, steps=2, members=3, seed=5, start=starts[::-1])),
        (whole[1], sciddm.forecast(job, past, steps=6, members=70, seed=5, start=starts[1])),
        (whole[2:], sciddm.forecast(job, past, steps=1, members=1, seed=5, start=starts[2:])),
        (whole[2], sciddm.forecast(job, past.isel(time=slice(None, 28)), steps=3, members=20,
                                   seed=5)),
    ]:  # fmt: skip
        a, b = xr.align(kept, part["t2m"], join="inner")
        assert a.sizes == part["t2m"].sizes and (a.values == b.values).all()
    apart = whole.isel(member=0) - whole.isel(member=1)
    assert float(abs(apart).min(["latitude", "longitude"]).min()) > 0
    noise = [(whole[i, :, 0] - whole[i, :, 0].mean("member")).values.ravel() for i in (0, 1)]
    assert abs(np.corrcoef(noise)[0, 1]) < 0.1  # starts have noise of their own


def films(count: int = 3) -> xr.Dataset:
    values = np.random.default_rng(2).normal(0, 1, (count, 5, 8)).astype("f4")
    return xr.Dataset(
        {"u": (("sample", "time", "x"), values, {"units": "1"})},
        {"x": ("x", np.arange(8) / 8, {"period": 1.0}), "time": np.arange(5) * 0.1},
    )


def film_model() -> Model:
    grid = Grid(("x",), {"x": np.arange(8) / 8}, {"x": {"period": 1.0}})
    codec = Normaliser(grid, ("u",), {"u": {"units": "1"}}, np.zeros((1, 1)), np.ones(1))
    task = Task(View(("u",)), "sample", Lead(0.1, "1"), "time")
    return Model(task, codec, Walk(quiet(1), history=2))


def test_every_film_is_forecast_and_one_alone_is_the_same() -> None:
    many = sciddm.forecast(film_model(), films(), steps=4, members=5, start=[0.2, 0.4])["u"]
    assert dict(many.sizes) == {"sample": 3, "init_time": 2, "member": 5, "lead_time": 4, "x": 8}
    assert many["lead_time"].values.tolist() == [0.1, 0.2, 0.3, 0.4]
    assert np.allclose(many["valid_time"].values[1], [0.5, 0.6, 0.7, 0.8])
    for film in range(3):
        one = films().assign_coords(sample=np.arange(3)).isel(sample=film)
        alone = sciddm.forecast(film_model(), one, steps=4, members=5, start=0.4)["u"]
        assert alone.dims == ("member", "lead_time", "x")
        assert (alone.values == many.isel(sample=film, init_time=1).values).all()


def middles(kind: str, count: int) -> Any:
    if kind == "numpy":
        begin = (np.datetime64("1990-01") + np.arange(count + 1)).astype("M8[h]")
        return (begin[:-1] + np.diff(begin) / 2).astype("M8[ns]")
    return np.array([cftime.Datetime360Day(1990 + m // 12, m % 12 + 1, 16) for m in range(count)])


@pytest.mark.parametrize("kind", ["numpy", "360_day"])
def test_months_are_counted_on_their_calendar(kind: str) -> None:
    past = record(middles(kind, 30))
    job = model(Walk(quiet(), history=3), Lead(1.0, "months"))
    ens = sciddm.forecast(job, past, steps=14, members=2, start=["1990-03", "1990-11"])
    want = middles(kind, 40)
    assert (ens["valid_time"].values[0] == want[3:17]).all()
    assert (ens["valid_time"].values[1] == want[11:25]).all()
    assert ens["lead_time"].values.tolist() == list(range(1, 15))
    assert ens["lead_time"].attrs["units"] == "months"


def test_the_users_names_order_and_convention_come_back() -> None:
    """Latitude falling, longitudes from 0 to 360, other names and dim order: the same numbers."""
    past = record()
    want = sciddm.forecast(model(Walk(quiet())), past, steps=3, members=4)["t2m"]
    east = past.assign_coords(longitude=LON % 360).sortby("longitude")
    other = east.isel(latitude=slice(None, None, -1)).transpose("longitude", "time", "latitude")
    other = other.rename(latitude="lat", longitude="lon", time="t")
    other = other.assign_coords(height=2.0, area=(("lat", "lon"), np.ones((3, 4))))
    got = sciddm.forecast(model(Walk(quiet())), other, steps=3, members=4)
    assert got["t2m"].dims == ("member", "lead_time", "lat", "lon")
    assert got["lat"].values.tolist() == LAT[::-1].tolist() and got["height"] == 2.0
    assert got["lon"].values.tolist() == [0.0, 2.5, 5.0, 357.5]
    assert got["area"].dims == ("lat", "lon")
    assert (got["t2m"].values == want.values[:, :, ::-1][..., [1, 2, 3, 0]]).all()


def test_land_is_nan_again_and_not_asked_for() -> None:
    valid = np.ones((1, 3, 4), bool)
    valid[0, 1, 1:3] = False
    past = record().where(xr.DataArray(valid[0], dims=("latitude", "longitude")))
    past["t2m"].attrs["units"] = "K"
    ens = sciddm.forecast(model(Walk(quiet()), valid=valid), past, steps=3, members=4)
    assert (np.isnan(ens["t2m"].values) == ~valid[0]).all()
    past["t2m"][-1, 0, 0] = np.nan
    with pytest.raises(InputError, match="'t2m' is NaN or infinite at time=2019-03-10 18"):
        sciddm.forecast(model(Walk(quiet()), valid=valid), past, steps=3)


def test_static_fields_and_forcings_reach_their_frames() -> None:
    """x_n = static + the day's angles + a field of the very time that is forecast."""
    past = record(count=60)
    codec = model(Walk(quiet())).codec
    assert isinstance(codec, Normaliser)
    level = replace(codec, names=("level",), attrs={"level": {"units": "m"}},
                    mean=np.zeros((1, 1, 1)), std=np.array([2.0]))  # fmt: skip
    static = np.random.default_rng(5).normal(size=(1, 3, 4)).astype("f4")
    known = Forcings(day=True, fields=level, static=static)
    zero = Net(torch.zeros(1, 1, 3, 3))
    job = model(Walk(zero, rho=0.0, noise=0.0), Lead(12.0, "hours"), forcings=known)
    high = np.random.default_rng(6).normal(size=(60, 3, 4)).astype("f4")
    ahead = past.assign(level=(past["t2m"].dims, high, {"units": "m"}))[["level"]]
    starts = ["2019-03-02", "2019-03-03T18"]
    ens = sciddm.forecast(job, past, steps=4, members=2, start=starts, forcings=ahead)
    for i, start in enumerate(starts):
        first = int(np.flatnonzero(past["time"].values == np.datetime64(start))[0])
        for n in range(1, 5):
            hour = past["time"].dt.hour.values[first + 2 * n] / 24 * 2 * np.pi
            told = high[first + 2 * n] / 2 + math.sin(hour) + math.cos(hour)
            want = MEAN + STD * (static[0] + told / 3)
            assert np.allclose(ens["t2m"].values[i, :, n - 1], want, atol=1e-3)
    inside = past.assign(level=ahead["level"])
    again = sciddm.forecast(job, inside, steps=4, members=2, start=starts)
    assert (again["t2m"].values == ens["t2m"].values).all()
    with pytest.raises(InputError, match="'level' is missing"):
        sciddm.forecast(job, past, steps=4)
    with pytest.raises(InputError, match="have no values at 2019-03-16"):
        sciddm.forecast(job, past, steps=30, start="2019-03-02", forcings=ahead)


def same(a: xr.Dataset, b: xr.Dataset) -> None:
    assert a.attrs.keys() - {"job"} == b.attrs.keys() - {"job"}
    xr.testing.assert_identical(a.drop_attrs().load(), b.drop_attrs().load())


def test_what_is_streamed_is_what_is_drawn(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rollout, "PIECE_BYTES", 4 * 128 * 12 * 3)  # three leads a piece
    job = sciddm.Outlook(model(Walk(quiet(), history=2)), record(), 20, 150, 1,
                         ["2019-03-02", "2019-03-04"])  # fmt: skip
    ds = sciddm.ensemble.run(job, tmp_path / "a.zarr")
    whole = rollout.draw(job)
    same(ds, whole)
    late = (whole["t2m"][:, :, -2:] - MEAN) / STD
    for drawn in (ds, whole):
        assert drawn.attrs["drift_mean"] == [pytest.approx(float(late.mean()), abs=2e-4)]
    assert rollout.chunks(job) == {"init_time": 1, "member": 128, "lead_time": 3}
    assert ds["t2m"].encoding["chunks"] == (1, 128, 3, 3, 4)
    few = sciddm.Outlook(job.model, record(), 2, 40, 1, ["2019-03-02", "2019-03-04", "2019-03-06"])
    assert rollout.chunks(few)["init_time"] == 3
    same(rollout.run(few, tmp_path / "b.zarr"), rollout.draw(few))
    again = rollout.run(job, tmp_path / "a.zarr", resume=True)
    same(again, whole)
    with pytest.raises(InputError, match="another job"):
        rollout.run(replace(job, seed=2), tmp_path / "a.zarr", resume=True)
    with pytest.raises(InputError, match="exists"):
        rollout.run(job, tmp_path / "a.zarr")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, "{tests}")
    import test_rollout as t
    from sciddm import rollout
    rollout.PIECE_BYTES = 4 * 128 * 12 * 3
    def stop(done, total):
        if done == {at}:
            os.kill(os.getpid(), signal.SIGKILL)
    rollout.run(t.long_job(), Path("{store}"), resume=True, progress=stop)
"""


def long_job() -> outlook.Outlook:
    starts = ["2019-03-02", "2019-03-04"]
    return outlook.Outlook(model(Walk(quiet(), history=2)), record(), 10, 150, 1, starts)


def test_a_killed_run_goes_on_to_the_bit(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(rollout, "PIECE_BYTES", 4 * 128 * 12 * 3)
    store = tmp_path / "a.zarr"
    code = textwrap.dedent(KILLED).format(tests=Path(__file__).parent, store=store, at=6)
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, capture_output=True)
    assert done.returncode == -signal.SIGKILL and not store.exists()
    with pytest.raises(InputError, match="say resume"):
        rollout.run(long_job(), store)
    seen = []
    ds = rollout.run(long_job(), store, resume=True, progress=lambda k, n: seen.append((k, n)))
    assert seen[-1] == (16, 16)
    whole = rollout.draw(long_job())
    same(ds, whole)
    assert ds.attrs["drift_variance"] == whole.attrs["drift_variance"]


def refused(words: str, *args: Any, **more: Any) -> None:
    with pytest.raises(InputError, match=words) as fault:
        sciddm.forecast(*args, **{"steps": 2, "members": 2, **more})
    assert "\n" not in str(fault.value)


def test_bad_input_is_said_in_one_line_before_any_work(monkeypatch: Any) -> None:
    def never(*args: object) -> None:
        raise AssertionError("work was done")

    good, past = model(Walk(quiet(), history=3, longest=8)), record()
    monkeypatch.setattr(Walk, "walk", never)
    refused("nearest is 2019-03-02T06:00", good, past, start="2019-03-02T07")
    refused("begins at 2019-03-01; take a later start", good, past, start="2019-03-01T06")
    gap = past.isel(time=[*range(20), *range(21, 40)])
    refused("No frame at 2019-03-06: a gap", good, gap, start="2019-03-06T12")
    refused("'latitude' has 2 points; expected 3", good, past.isel(latitude=[0, 1]))
    refused("another grid", good, past.assign_coords(latitude=LAT + 1))
    celsius = past.copy()
    celsius["t2m"] = past["t2m"].assign_attrs(units="degC")
    refused("is in 'degC'; expected 'K': convert it", good, celsius)
    refused("Got 9 lead steps; this model serves 8 of 6 hours", good, past, steps=9)
    for name, number in [("steps", 0), ("members", 0), ("members", 2.5), ("seed", -1)]:
        refused(f"{number} for {name}", good, past, **{name: number})
    nan = past.copy(deep=True)
    nan["t2m"][-2, 1, 2] = np.nan
    refused("NaN or infinite at time=2019-03-10 12:00:00, latitude=52.5, longitude=2.5", good, nan)
    sciddm.Outlook(good, nan, 2, start="2019-03-05")  # where nothing is missing
    refused("no variable of the model", good, past.rename(t2m="2t"))
    refused("no time dim", good, past.isel(time=-1, drop=True))
    refused("expected a Dataset", good, np.zeros(3))
    refused("twice", good, past, start=["2019-03-05", "2019-03-05T00"])
    refused("empty list", good, past, start=[])
    refused("too many", good, past.expand_dims(level=[1, 2]))
    refused("expected a model", Walk(quiet()), past)
    refused("expected dates", good, past.assign_coords(time=np.arange(40.0)))
    plain = replace(good, task=replace(good.task, lead=None))
    refused("does not say its lead", plain, past)


def test_a_model_of_fields_and_one_of_forecasts_are_not_taken_for_each_other() -> None:
    fields = sciddm.load(Path(__file__).parents[1] / "models" / "poisson")
    refused("does not forecast; use sd.recover", fields, record())
    for verb in (sciddm.generate, sciddm.refined):
        with pytest.raises(InputError, match=r"use sd\.forecast"):
            verb(model(Walk(quiet())), **({"steps": 5} if verb is sciddm.refined else {}))
    with pytest.raises(InputError, match=r"use sd\.forecast"):
        sciddm.recover(model(Walk(quiet())), sciddm.Observed(record()["t2m"][-1], std=1.0))


class Blows(Walk):
    """Member 7 is 10^4 times too large from its third frame on, or infinite."""

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        hit = torch.tensor([m == 7 for m in rng.members]).view(-1, 1, 1, 1)
        for n, x in enumerate(super().walk(context, rng), start=1):
            yield torch.where(hit & (n > 2), x * (1e4 if self.rho > 0.5 else torch.inf), x)


@pytest.mark.parametrize("rho", [0.9, 0.4])
def test_a_member_that_diverged_is_named_and_nothing_is_kept(rho: float, tmp_path: Path) -> None:
    job = outlook.Outlook(
        model(Blows(quiet(), rho)), record(), 6, 8, 0, ["2019-03-02", "2019-03-03"]
    )
    for work in (lambda: rollout.draw(job), lambda: rollout.run(job, tmp_path / "a.zarr")):
        with pytest.raises(RunError, match=r"Member 7 of the start 2019-03-02 diverged at lead "
                                           r"step 3 \(2019-03-02T18:00\)"):  # fmt: skip
            work()
    assert not (tmp_path / "a.zarr").exists()
    sciddm.forecast(job.model, record(), steps=6, members=7)  # the others are sound


def test_what_is_far_from_training_is_warned_of() -> None:
    job = model(Walk(quiet()))
    cold = record() - 273.15
    cold["t2m"].attrs = {}
    with pytest.warns(UserWarning) as said:
        sciddm.forecast(job, cold, steps=1, members=1)
    words = [str(warning.message) for warning in said]
    assert any("55 s.d. from the training data in 't2m'" in line for line in words)
    assert any("'t2m' has no units; expected 'K'" in line for line in words)
    with pytest.warns(UserWarning, match="last frames lie far"):
        sciddm.forecast(model(Walk(quiet(), noise=5.0)), record(), steps=4, members=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sciddm.forecast(job, record(), steps=4, members=4)
