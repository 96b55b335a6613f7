"""A member is the same whatever is drawn with it: counted in bytes, for every saved forecaster.

Forecasts from past frames of the model's own law (its mean and spread, coloured in space): more
members, more starts, a store that is streamed, and two processes are each held against one plain
call.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report

import sciddm as sd
from sciddm import rollout
from sciddm.model import Model
from sciddm.outlook import Outlook

MODELS = Path(__file__).resolve().parents[2] / "models"
HOURS = np.datetime64("2019-03-27", "ns") + np.arange(96) * np.timedelta64(1, "h")
MEMBERS, STEPS = 21, 6


def forecasters() -> list[str]:
    """Names of the saved models that forecast fields."""
    leads = [p.parent for p in MODELS.glob("*/model.json") if '"lead": {' in p.read_text()]
    series = '"class": "SeriesCodec"'
    return sorted(p.name for p in leads if series not in (p / "codec.json").read_text())


def past(model: Model, frames: int) -> xr.Dataset:
    """``frames`` of red noise along time, of the size of the training data."""
    codec, lead = model.fields, model.task.lead
    assert lead is not None
    rng = np.random.default_rng(0)
    x = rng.standard_normal((frames, *codec.shape))
    for n in range(1, frames):
        x[n] = 0.9 * x[n - 1] + np.sqrt(1 - 0.81) * x[n]
    dates = HOURS[:frames] if lead.unit == "hours" else lead.step * np.arange(frames)
    time = xr.DataArray(dates, dims=model.task.time, name=model.task.time)
    return codec.decode(torch.from_numpy(x).float(), time)


def drawn(name: str, start: int, members: int, steps: int) -> np.ndarray:
    """Members of one forecast as raw numbers, in a process of its own."""
    model = sd.load(MODELS / name)
    record = past(model, model.forecaster.history + 2)
    at = record[model.task.time].values[start]
    ens = sd.forecast(model, record, steps=steps, members=members, seed=7, start=at)
    return np.asarray(ens.to_array().values)


def differ(a: np.ndarray, b: np.ndarray) -> int:
    """Bytes that are not the same; all of them where shapes differ."""
    if a.shape != b.shape:
        return a.nbytes
    return int((a.view(np.uint8) != b.view(np.uint8)).sum())


def line(name: str, members: int) -> dict[str, object]:
    """One model: bytes that differ from the plain call, by what else was drawn."""
    model = sd.load(MODELS / name)
    steps = min(STEPS, model.forecaster.longest or STEPS)
    record = past(model, model.forecaster.history + 2)
    times = record[model.task.time].values
    first = model.forecaster.history - 1
    plain = drawn(name, first, members, steps)
    several = sd.forecast(
        model, record, steps=steps, members=members, seed=7, start=list(times[first:])
    )
    with tempfile.TemporaryDirectory() as folder:
        job = Outlook(model, record, steps, members, 7, times[first])
        stored = np.asarray(rollout.run(job, Path(folder) / "ens.zarr").to_array().values)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context) as pool:
        each = list(pool.map(drawn, [name] * 2, (first, first + 1), [members] * 2, [steps] * 2))
    one = np.asarray(several.isel(init_time=0).to_array().values)
    two = np.asarray(several.isel(init_time=1).to_array().values)
    return {
        "model": name,
        "fewer members": differ(drawn(name, first, 3, steps), plain[:, :3]),
        "fewer leads": differ(drawn(name, first, members, 2), plain[:, :, :2]),
        "several starts": differ(one, plain),
        "streamed to a store": differ(stored, plain),
        "two processes": differ(each[0], plain) + differ(each[1], two),
        "members": members,
        "leads": steps,
        "evaluations": model.forecaster.evaluations,
    }


def run(report: Report, quick: bool) -> None:
    """Every saved forecaster, or two of them."""
    names = forecasters()
    rows = [line(name, 5 if quick else MEMBERS) for name in (names[:2] if quick else names)]
    report.table("Bytes of a member that differ, by what else was drawn", rows)
    words = ("fewer members", "fewer leads", "several starts", "streamed to a store")
    for word in (*words, "two processes"):
        total = sum(int(str(row[word])) for row in rows)
        report.claim(f"members: bytes that differ, {word}", total, 0, 0)
    report.claim("members: models that were tried", len(rows), 1, np.inf)
