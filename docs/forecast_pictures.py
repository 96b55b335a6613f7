"""Pictures of forecasts: fans and maps, skill by lead, turbulence, and what is seen on the way.

A picture is one function, as in `pictures.py`, which makes them:

    exact_fan         a forecast of a noisy heat equation in the band of its exact law
    exact_skill       fair CRPS and spread/skill of every engine, by lead, beside the exact law
    turbulence        Kolmogorov flow: truth, mean, spread and members by lead
    temperature       two metre temperature: the fan at one place, and maps
    along             a forecast, and the same with a few values seen on its way
    forecast_sets     frames of the data sets to forecast

Starts are of films and days that no model was trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from recovery_pictures import Figures, present, shelf, trained

import sciddm as sd
from sciddm import plot, score
from sciddm.data import split, store

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("autoregressive", "rolling", "scored", "dyffusion", "refine", "dropout", "film")
NEWEST = 10
"""Frame of a test film that forecasts start from."""


def heat(samples: int = 60, seed: int = 77) -> xr.Dataset:
    """Films of the driven heat equation that no model has seen."""
    films: xr.Dataset = shelf("datasets", "spde_heat").fields(samples, 64, seed)
    return films


def exact_fan() -> tuple[Figure, Figures]:
    """One place of one film: 64 members, the exact 90 % band, the truth."""
    films = heat(1).isel(sample=0)
    model = trained("spde_heat_autoregressive")
    past = films.isel(time=slice(NEWEST + 1))
    ens = sd.forecast(model, past, steps=20, members=64, seed=0)
    name = str(next(iter(films.data_vars)))
    law = shelf("datasets", "spde_heat").law(films)
    rows = torch.from_numpy(past[name].values[None, None]).double()
    mean = law.means(rows, 20)[0, 0, :, 20].numpy()
    std = law.variances(20).sqrt().reshape(20, -1)[:, 20 % law.variances(20)[0].numel()].numpy()
    place = {"x": 20}
    fig = plot.fan(ens[name].isel(place), films[name].isel(place), past=past[name].isel(place))
    ax, at = fig.axes[0], ens["valid_time"].values
    for sign in (-1.645, 1.645):
        (band,) = ax.plot(at, mean + sign * std, color="#b2182b", lw=1.1, ls=":")
    ax.legend([band], ["90 % of the exact law"], loc="upper left", fontsize=8)
    return fig, {"CRPS": float(score.crps(ens[name], score.at_leads(films[name], ens[name])))}


def exact_skill() -> tuple[Figure, Figures]:
    """Every engine that is trained on the driven heat equation, by lead."""
    films = heat(40)
    name = str(next(iter(films.data_vars)))
    scores: dict[str, xr.Dataset] = {}
    start = films["time"].values[NEWEST]
    for engine in ENGINES:
        if not (ROOT / "models" / f"spde_heat_{engine}").exists():
            continue
        model = trained(f"spde_heat_{engine}")
        past = films.isel(time=slice(NEWEST + 1))
        ens = sd.forecast(model, past, steps=20, members=16, seed=0, start=start)
        scores[engine] = score.by_lead(ens[name], films[name], joint=False)
    fig = plot.by_lead(scores, ("crps", "spread_skill"))
    return fig, {k: float(v["crps"].mean()) for k, v in scores.items()}


def turbulence() -> tuple[Figure, Figures]:
    """A film of Kolmogorov flow."""
    films = store.open(present(ROOT / "stores" / "kolmogorov_film64.zarr",
                               "sciddm train configs/kolmogorov_scored.toml"))  # fmt: skip
    test = split.select(films, "test").isel(sample=0)
    name = str(next(iter(films.data_vars)))
    model = trained("kolmogorov_scored")
    first = model.forecaster.history
    ens = sd.forecast(model, test.isel(time=slice(first)), steps=60, members=8, seed=0)
    truth = test[name].isel(time=slice(first, first + 60))
    chosen = [1, 9, 24, 59]
    fig = plot.lead_maps(ens[name].isel(lead_time=chosen), truth.isel(time=chosen))
    return fig, {}


def temperature() -> tuple[Figure, Figures]:
    """A day of temperature over the United Kingdom."""
    record = store.open(
        present(ROOT / "stores" / "t2m_uk.zarr", "sciddm train configs/t2m_uk.toml")
    )
    model = trained("t2m_uk_autoregressive")
    start = np.datetime64("2019-03-28T12")
    past = record.sel(time=slice(None, start))
    ens = sd.forecast(model, past, steps=24, members=50, seed=0)
    chosen = [0, 5, 11, 23]
    truth = score.at_leads(record["t2m"], ens["t2m"])
    fig = plot.lead_maps(ens["t2m"].isel(lead_time=chosen), truth.isel(lead_time=chosen))
    return fig, {}


def along() -> tuple[Figure, Figures]:
    """Free and guided forecasts of one film, as maps over lead and place."""
    films = heat(1, seed=78).isel(sample=0)
    name = str(next(iter(films.data_vars)))
    model = trained("spde_heat_film")
    past, steps = films.isel(time=slice(NEWEST + 1)), 20
    later = films[name].isel(time=slice(NEWEST + 1, NEWEST + 1 + steps))
    rng = np.random.default_rng(0)
    rows, columns = np.repeat([5, 11, 17], 4), rng.integers(0, 64, 12)
    std = 0.2 * float(films[name].std())
    at = {"time": xr.DataArray(rows, dims="value"), "x": xr.DataArray(columns, dims="value")}
    values = later.isel(at) + std * rng.standard_normal(12)
    seen = sd.Observed(values, std=std)
    free = sd.forecast(model, past, steps=steps, members=32, seed=0)[name]
    guided = sd.forecast(model, past, steps=steps, members=32, seed=0, seen=seen)[name]
    fig = Figure(figsize=(10.5, 3.4), layout="constrained")
    axes = fig.subplots(1, 5, sharey=True)
    extent = (0.0, 64.0, steps + 0.5, 0.5)
    panels = {
        "truth": later.values,
        "mean, free": free.mean("member").values,
        "mean, with 12 values": guided.mean("member").values,
        "spread, free": free.std("member").values,
        "spread, with 12 values": guided.std("member").values,
    }
    limit = float(np.abs(later.values).max())
    for ax, (title, field) in zip(axes, panels.items(), strict=True):
        spread = title.startswith("spread")
        low, high = (0.0, float(panels["spread, free"].max())) if spread else (-limit, limit)
        kind = plot.SPREAD if spread else plot.FIELD
        shown = ax.imshow(field, extent=extent, aspect="auto", vmin=low, vmax=high, cmap=kind)
        ax.set(title=title, xlabel="x (points)")
        if "12" in title:
            ax.plot(columns + 0.5, rows + 1, "o", mfc="none", mec="white", ms=5)
        if title in ("mean, with 12 values", "spread, with 12 values"):
            fig.colorbar(shown, ax=ax, shrink=0.8)
    axes[0].set_ylabel("lead (steps)")
    error = {k: float(score.crps(v.drop_vars(["x", "lead_time", "valid_time"], errors="ignore"),
                                 xr.DataArray(later.values, dims=("lead_time", "x"))))
             for k, v in {"free": free, "guided": guided}.items()}  # fmt: skip
    return fig, error


PICTURES: dict[str, Callable[[], tuple[Figure, Figures]]] = {
    f.__name__: f for f in (exact_fan, exact_skill, turbulence, temperature, along)
}
