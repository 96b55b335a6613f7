"""Kolmogorov flow at 64 x 64: 200 frames of every engine, as weather and as climate.

Test films that no model was trained on. The weather is scored by the fair CRPS and by the frame at
which the correlation with the truth falls below 0.8; what lies beyond is held to the climate: the
energy and the enstrophy of every frame of every member to the range that they have in the 52
training films, in half-ranges about its middle (1 is the edge, 2 is allowed), and the spectrum of
the last quarter of the frames to that of the truth, over the shells 1 to 21 that the solver
resolves. The truth has nothing beyond them; what a network puts there is given as a share of the
variance.

Rows of the solver are the floor: the equation itself from the stored frame (float32), and from one
with an error of 1 % of the s.d. in every resolved mode.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report

import sciddm as sd
from sciddm import recipe
from sciddm.data.films import static
from sciddm.denoise import Context
from sciddm.forecasters import Refine
from sciddm.model import Model
from sciddm.pde import Kolmogorov
from sciddm.random import Streams

ROOT = Path(__file__).resolve().parents[2]
GRID, SPACING, HISTORY, RESOLVED = 64, 0.2, 4, 21
TRAINED, TEST = 0, 56
"""The first training film and the first test film of the data set at its small size."""
ENERGY, ENSTROPHY = (0.322, 0.925), (2.59, 10.92)
"""Lowest and highest in any frame of the 52 training films, of the vorticity in its own units."""
LEADS = (1, 5, 10, 20, 40)
STABLE = ("scored",)
"""The engines that claim to be stable; the others are shown as they are."""
CHEAP = "rolling"
"""The engine that claims at most two evaluations a frame."""
RANGES, DECIBEL = 2.0, 3.0


@dataclass(frozen=True)
class Truth:
    """Vorticity: ``past`` (case, HISTORY, y, x), the ``frames`` that follow, and some films of the
    training split, ``known`` (film, time, y, x)."""

    past: np.ndarray
    frames: xr.DataArray
    known: np.ndarray


@dataclass(frozen=True)
class Forecast:
    """(member, case, lead, y, x), and what it took."""

    frames: np.ndarray
    evaluations: float | None = None
    seconds: float | None = None


def run(report: Report, quick: bool) -> None:
    """200 frames, 5 films, 4 members; --quick has 40 frames, 2 films and 2 members."""
    count, length, members = (2, 40, 2) if quick else (5, 200, 4)
    film = films(TEST, count, HISTORY + length)
    truth = Truth(
        film[:, :HISTORY], labelled(film[:, HISTORY:]), films(TRAINED, 1 if quick else 4, 240)
    )
    weather, climate = {}, {}
    for name, forecast in forecasts(truth, members):
        weather[name] = scores(forecast, truth)
        climate[name] = behaviour(forecast, truth)
    title = f"Kolmogorov flow, {length} frames of {SPACING:g}, {count} films, {members} members"
    for what, rows in (("CRPS and correlation", weather), ("climate", climate)):
        report.table(f"{title}: {what}", [{"forecast": n, **r} for n, r in rows.items()])
    for name in STABLE:
        if name not in climate:
            report.claim(f"Kolmogorov {name}: models/kolmogorov_{name} is there", 0, 1, 1)
            continue
        row = climate[name]
        report.claim(f"Kolmogorov {name}: share of frames finite", row["finite"], 1, 1)
        report.claim(f"Kolmogorov {name}: energy and enstrophy in ranges of the truth",
                     max(row["energy"], row["enstrophy"]), 0, RANGES)  # fmt: skip
        report.claim(f"Kolmogorov {name}: log-spectral distance at the end, dB",
                     row["spectrum_db"], 0, DECIBEL)  # fmt: skip
    if CHEAP in climate:
        cost = float(weather[CHEAP]["evaluations"] or 0)
        report.claim(f"Kolmogorov {CHEAP}: evaluations a frame", cost, 1, 2)
        report.claim(f"Kolmogorov {CHEAP}: share of frames finite", climate[CHEAP]["finite"], 1, 1)


def films(first: int, count: int, frames: int) -> np.ndarray:
    """Films of the data set, made here: the same bytes as in its store."""
    made = recipe.load(ROOT / "datasets" / "kolmogorov_film.py", "datasets")
    ds = made.fields(count, GRID, start=first, frames=frames)
    return np.asarray(ds["vorticity"].values)


def labelled(values: np.ndarray) -> xr.DataArray:
    """(member,) case, lead, y, x with leads in frames and cells in turns of the torus."""
    dims = ("member", "case", "lead_time", "y", "x")[-values.ndim :]
    leads = np.arange(1, values.shape[-3] + 1)
    axis = np.arange(GRID) / GRID
    coords = {"lead_time": ("lead_time", leads, {"units": "1"}), "y": axis, "x": axis}
    return xr.DataArray(values, coords, dims, name="vorticity")


def forecasts(truth: Truth, members: int) -> Iterator[tuple[str, Forecast]]:
    """Every row of the tables by name: the engines, then baselines, then the floor."""
    cases, length = truth.frames.shape[:2]
    for folder in sorted((ROOT / "models").glob("kolmogorov_*/model.json")):
        model = sd.load(folder.parent)
        name = folder.parent.name.removeprefix("kolmogorov_")
        yield name, rollout(model, truth, members)
        if isinstance(model.sampler, Refine):
            one = model.sampler
            one = Refine(one.denoiser, one.mean, one.scale, one.history, 0, one.least)
            yield "one-step mean", rollout(replace(model, sampler=one), truth, 1)
    newest = truth.past[:, -1:]
    yield "persistence", Forecast(np.repeat(newest, length, axis=1)[None])
    rng = np.random.Generator(np.random.Philox(0))
    flat = truth.known.reshape(-1, GRID, GRID)
    drawn = rng.integers(0, len(flat), (members, cases, length))
    yield "climatology", Forecast(flat[drawn])
    yield "solver", solver(newest, length, 1, 0.0)
    yield "solver, 1 % off", solver(newest, length, members, 0.01)


def rollout(model: Model, truth: Truth, members: int) -> Forecast:
    """All members of all cases side by side."""
    cases, length = truth.frames.shape[:2]
    flat = truth.past.reshape(-1, GRID, GRID)
    past = model.codec.encode({"vorticity": flat}).unflatten(0, (cases, -1)).transpose(1, 2)
    rng = Streams(0, tuple(range(cases)) * members, tuple(np.repeat(range(members), cases)))
    beside = static(model.forcings)
    beside = None if beside is None else beside.expand(len(rng.cases), *beside.shape[1:])
    context = Context(past=past.repeat(members, 1, 1, 1, 1), fields=beside)
    start = time.perf_counter()
    frames = []
    for frame in islice(model.forecaster.frames(context, rng), length):
        frames.append(model.codec.physical(frame)[:, 0].numpy())
    seconds = (time.perf_counter() - start) / (cases * members * length)
    values = np.stack(frames, axis=1).reshape(members, cases, length, GRID, GRID)
    return Forecast(values, model.forecaster.evaluations, seconds)


def solver(newest: np.ndarray, length: int, members: int, error: float) -> Forecast:
    """The equation itself from ``newest`` (case, 1, y, x) with an error in units of the s.d."""
    flow = Kolmogorov(reynolds=100.0, drag=0.1, mode=4, amplitude=1.0, step=0.8 / GRID)
    w = torch.from_numpy(newest).double().repeat(members, 1, 1, 1)
    noise = torch.fft.rfft2(Streams.of(1, len(w)).normal(w))
    ky, kx = torch.fft.fftfreq(GRID, 1 / GRID), torch.fft.rfftfreq(GRID, 1 / GRID)
    kept = (ky.abs()[:, None] <= RESOLVED) & (kx <= RESOLVED)
    rough = torch.fft.irfft2(noise * kept, s=(GRID, GRID))
    start = time.perf_counter()
    times = [SPACING * n for n in range(1, length + 1)]
    frames = flow.trajectory(w + error * w.std() * rough / rough.std(), times)[:, 0].numpy()
    seconds = (time.perf_counter() - start) / (len(w) * length)
    return Forecast(frames.reshape(members, -1, length, GRID, GRID), None, seconds)


def scores(forecast: Forecast, truth: Truth) -> dict[str, float | int | str | None]:
    """Fair CRPS (the absolute error of a single member) and spread over skill by lead, frames until
    the correlation is below 0.8."""
    ens, members = labelled(forecast.frames), len(forecast.frames)
    single = members == 1
    row: dict[str, float | int | str | None] = {
        "estimator": "absolute error" if single else "fair CRPS",
        "members": members,
        "evaluations": forecast.evaluations,
        "seconds": forecast.seconds,
    }
    space, fine = ("case", "y", "x"), np.isfinite(forecast.frames).all((0, 1, 3, 4))
    for lead in (n for n in LEADS if n <= len(fine)):
        at = {"lead_time": lead - 1}
        score = None
        if fine[lead - 1]:
            score = float(
                sd.score.crps(ens[:, :, lead - 1], truth.frames.isel(at), fair=not single)
            )
        row[f"crps_{lead}"] = score
    for lead in (5, 20):
        e, t = ens[:, :, lead - 1], truth.frames[:, lead - 1]
        known = fine[lead - 1] and not single
        row[f"spread_skill_{lead}"] = float(sd.score.spread_skill(e, t)) if known else None
    whole = xr.where(np.isfinite(ens), ens, 0.0)
    for whose, every in (("members", True), ("mean", False)):
        c = sd.score.correlation(whole, truth.frames, across=space[1:], members=every, over=())
        frames = sd.score.time_to_decorrelation(c.clip(-1, 1), level=0.8, dim="lead_time")
        row[f"to_0.8_{whose}"] = float(np.minimum(frames, len(fine)).mean())
    return row


def behaviour(forecast: Forecast, truth: Truth) -> dict[str, float]:
    """How far energy and enstrophy leave the range of the training films, and the spectrum of the
    last quarter of the frames."""
    values = forecast.frames
    fine = np.isfinite(values).all((-2, -1))
    last = values.shape[2] - values.shape[2] // 4
    row = {"finite": float(fine.mean())}
    for name, of, (low, high) in (("energy", energy, ENERGY), ("enstrophy", enstrophy, ENSTROPHY)):
        middle, half = (high + low) / 2, (high - low) / 2
        off = np.abs(of(np.where(fine[..., None, None], values, 0.0)) - middle) / half
        row[name] = float(np.where(fine, off, math.inf).max())
    ours, theirs = (power(v[..., last:, :, :]) for v in (values, truth.frames.values))
    decibel = 10 * np.log10(ours[1 : RESOLVED + 1] / theirs[1 : RESOLVED + 1])
    row["spectrum_db"] = float(np.sqrt((decibel**2).mean()))
    row["finest_db"] = float(decibel[RESOLVED // 2 :].mean())
    row["percent_beyond_21"] = 100 * beyond(values[..., last:, :, :])
    return row


def enstrophy(w: np.ndarray) -> np.ndarray:
    """Half the mean square of vorticity (..., y, x)."""
    return 0.5 * np.square(w, dtype=np.float64).mean((-2, -1))


def energy(w: np.ndarray) -> np.ndarray:
    """Half the mean square of the velocity whose curl is ``w`` (..., y, x)."""
    k = np.fft.fftfreq(GRID, 1 / GRID)
    square = k[:, None] ** 2 + k**2
    square[0, 0] = math.inf
    flat = w.reshape(-1, GRID, GRID)
    each = [(np.abs(np.fft.fft2(f)) ** 2 / square).sum() / (2 * GRID**4) for f in flat]
    return np.array(each).reshape(w.shape[:-2])


def power(w: np.ndarray) -> np.ndarray:
    """Mean power of a mode in shells 0, 1, 2, ... of all fields (..., y, x)."""
    field = xr.DataArray(w.reshape(-1, GRID, GRID), dims=("field", "y", "x"))
    return np.asarray(sd.score.power_spectrum(field, ("y", "x"), periodic=True).mean("field"))


def beyond(w: np.ndarray) -> float:
    """The share of the variance in modes that the solver does not resolve."""
    k = np.abs(np.fft.fftfreq(GRID, 1 / GRID))
    out = np.maximum(k[:, None], k) > RESOLVED
    flat = w.reshape(-1, GRID, GRID)[::5]
    each = np.stack([np.abs(np.fft.fft2(f)) ** 2 for f in flat]).mean(0)
    return float(each[out].sum() / each.sum())
