"""Pictures of series: gaps of real records, forecast fans, stays in intensive care, an exact law.

A picture is one function, as in `pictures.py`, which makes them:

    co2_gap           weeks of carbon dioxide that were never measured, and two months hidden
    nyc_month         a month of temperature, hidden and drawn
    etth1_fan         a day ahead of transformer temperatures and loads
    physionet_stay    vital signs between their measurements
    ou_posterior      draws of a Gaussian law at irregular times, in the band of its exact posterior

Stretches are of test splits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from recovery_pictures import Figures, present, trained

import sciddm as sd
from sciddm import plot, score
from sciddm.completion import Completion, extended
from sciddm.data import items, split, store
from sciddm.random import Streams
from sciddm.series import Panel, posterior
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term

ROOT = Path(__file__).resolve().parent.parent


def record(name: str) -> xr.Dataset:
    """A store of the repository."""
    return store.open(present(ROOT / "stores" / f"{name}.zarr", f"sciddm make {name}"))


def hidden(ds: xr.Dataset, **gap: slice) -> xr.Dataset:
    """The same with a stretch of every variable hidden."""
    inside = xr.zeros_like(ds["time"], bool)
    inside.loc[gap] = True
    return ds.where(~inside)


def crps(result: xr.Dataset, truth: xr.Dataset, gap: slice) -> Figures:
    """Fair CRPS and coverage in the gap."""
    found: Figures = {}
    for name in result.data_vars:
        ens, true = result[name].sel(time=gap), truth[name].sel(time=gap)
        seen = true.notnull()
        found[f"{name}: CRPS"] = float(score.crps(ens.where(seen, drop=True), true[seen]))
        found[f"{name}: coverage of 90 %"] = float(
            score.coverage(ens.where(seen, drop=True), true[seen])
        )
    return found


def co2_gap() -> tuple[Figure, Figures]:
    """Ten weeks of the test split, hidden."""
    ds = record("co2").load()
    truth = ds.sel(time=slice("1995-06", "2000-06"))
    gap = slice("1998-04-18", "1998-06-20")
    filled = sd.impute(trained("co2_gp"), hidden(truth, time=gap), members=100, seed=0)
    return plot.series.gaps(filled, truth, around=2.5), crps(filled, truth, gap)


def nyc_month() -> tuple[Figure, Figures]:
    """November at Kennedy airport."""
    ds = record("nyc_weather")[["temp"]].sel(item="JFK", drop=True).load()
    truth = ds.sel(time=slice("2013-10-10", "2013-12-20"))
    gap = slice("2013-11-08T00", "2013-12-07T23")
    filled = sd.impute(trained("nyc_weather_gp"), hidden(truth, time=gap), members=100, seed=0)
    return plot.series.gaps(filled, truth, around=0.3), crps(filled, truth, gap)


def etth1_fan() -> tuple[Figure, Figures]:
    """All seven variables, one start."""
    ds = split.select(record("etth1"), "test").isel(time=slice(1100, 1500)).load()
    model = trained("etth1_forecast")
    start = ds["time"].values[300]
    past = ds.sel(time=slice(None, start))
    ens = sd.forecast(model, past, steps=24, members=100, seed=0)
    fig = plot.series.forecasts(ens, ds, past=past, panels=4, context=4)
    return fig, {}


def physionet_stay() -> tuple[Figure, Figures]:
    """One stay of the test split: its four signs measured most, every half hour between."""
    model = trained("physionet2012_conditional")
    every = model.cells.conform(items.of(record("physionet2012").load()).split("test"))
    stay = max(every, key=lambda i: i.seen)
    signs = np.argsort(-np.isfinite(stay.values).sum(0), kind="stable")[:4]
    whole = extended(every.only([stay]), np.arange(stay.time[0], stay.time[-1], 0.5))
    wanted = np.isnan(whole.items[0].values)
    wanted[:, np.setdiff1d(np.arange(wanted.shape[1]), signs)] = False
    draws = Completion(model, whole, (wanted,), members=100).draw().values[0]
    names = [every.variables[c] for c in signs]
    ens = xr.Dataset(
        {n: (("member", "time"), draws[..., c], {"units": every.units.get(n, "")})
         for n, c in zip(names, signs, strict=True)},
        {"time": ("time", whole.items[0].time, {"units": every.time_units})},
    )  # fmt: skip
    return plot.series.gaps(ens, around=999), {}


def ou_posterior() -> tuple[Figure, Figures]:
    """Irregular times, a gap in the middle and no end: 200 draws and the exact 90 %."""
    rng = np.random.default_rng(2)
    time = np.sort(rng.uniform(0, 10, 160))
    blank = torch.zeros(1, 160, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    law = Mixed((Term(OrnsteinUhlenbeck(1.5), torch.zeros(1, 0).double(), one),), 0 * one)
    every = Panel(torch.from_numpy(time)[None], blank.long(), blank, blank > 1, blank == 0)
    value = GaussianSeries(law).draw(every, Streams.of(4, 1))[0]
    known = torch.from_numpy((rng.random(160) < 0.3) & ((time < 4) | ((time > 6) & (time < 8.5))))
    panel = Panel(every.time, every.channel, value, known[None], every.real)
    drawn = GaussianSeries(law).draw(panel, Streams.of(0, 200))[0].numpy()
    exact = posterior(law, panel)
    ens = xr.Dataset({"x": (("member", "time"), drawn)}, {"time": time})
    truth = xr.Dataset({"x": ("time", value[0].numpy())}, {"time": time})
    fig = plot.series.gaps(ens, truth, levels=(0.9,), around=99)
    (ax,) = fig.axes
    mean, std = exact.mean[0].numpy(), exact.std[0].numpy()
    for sign in (-1.645, 1.645):
        (line,) = ax.plot(time, mean + sign * std, color="black", lw=0.9, ls=":")
    ax.legend([line], ["90 % of the exact law"], loc="lower left", fontsize=8)
    free = ~known.numpy()
    ratio = drawn.std(0, ddof=1)[free] / std[free]
    return fig, {"spread over exact": float(np.sqrt((ratio**2).mean()))}


PICTURES: dict[str, Callable[[], tuple[Figure, Figures]]] = {
    f.__name__: f for f in (co2_gap, nyc_month, etth1_fan, physionet_stay, ou_posterior)
}
