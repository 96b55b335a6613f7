"""Training on films: windows of a record or of many films, what is known beside them, and fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from sciddm import train
from sciddm.config import Train
from sciddm.data import split
from sciddm.data.codec import Grid, Normaliser
from sciddm.data.films import Films, frames
from sciddm.data.forcing import Forcings
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Forecaster, Learner
from sciddm.model import Model
from sciddm.random import Streams
from sciddm.task import Lead, Task, View

RECORD = Task(View(("u",)), sample="time", lead=Lead(1.0, "hours"))
FILMS = Task(View(("u",)), sample="sample", lead=Lead(1.0, "1"))
NUMBERS = Train(
    out="model", run="run", steps=60, batch=8, learning_rate=0.05, ema=0.9, checkpoint_every=10,
    validation_every=5, accelerator="cpu",
)  # fmt: skip


class Linear(Learner):
    """x_{n+1} = a x_n + s z in two stages: first a by its squared error, then s by its density."""

    window, stages = 2, (0.5,)

    def __init__(self, slope: nn.Linear, spread: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.slope, self.spread = slope, spread

    @property
    def evaluations(self) -> float:
        return 1.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        x = context.past[:, :, -1]
        n = 0
        while True:
            n += 1
            z = rng.inside("frame", n).normal(x)
            x = self.imposed(self.slope.weight * x + self.spread.weight * z, context)
            yield x

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        gap = film[:, :, 1] - self.slope.weight * film[:, :, 0]
        if share < 0.5:
            return gap.square().flatten(1).mean(1)
        spread = self.spread.weight.abs() + 1e-6
        return (spread.log() + 0.5 * (gap.detach() / spread) ** 2).flatten(1).mean(1)


def weight(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, value)
    return layer


def autoregression(steps: int, rows: int, slope: float = 0.8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.zeros((rows, steps))
    x[:, 0] = rng.standard_normal(rows)
    for n in range(1, steps):
        x[:, n] = slope * x[:, n - 1] + np.sqrt(1 - slope**2) * rng.standard_normal(rows)
    return x


def record(steps: int = 400, points: int = 6) -> xr.Dataset:
    time = pd.date_range("2001-01-01", periods=steps, freq="h")
    ds = xr.Dataset(
        {"u": (("time", "x"), autoregression(steps, points).T.astype("f4"))},
        coords={"time": time, "x": np.arange(points, dtype=float)},
    )
    return split.attach(ds, {"train": [0, 240], "validation": [240, 320], "test": [320, 400]},
                        "time").assign_attrs(sciddm_sample_dim="time")  # fmt: skip


def films(count: int = 20, steps: int = 12, points: int = 6) -> xr.Dataset:
    x = autoregression(steps, count * points).reshape(count, points, steps).transpose(0, 2, 1)
    ds = xr.Dataset(
        {"u": (("sample", "time", "x"), x.astype("f4"))},
        coords={"x": np.arange(points, dtype=float), "time": np.arange(steps, dtype=float)},
    )
    return split.attach(ds, {"train": [0, 12], "validation": [12, 16], "test": [16, 20]}, "sample")


def plain(points: int = 6) -> Normaliser:
    grid = Grid(("x",), {"x": np.arange(points, dtype=float)})
    return Normaliser(grid, ("u",), {}, np.zeros((1, 1)), np.ones(1))


def model(task: Task) -> Model:
    return Model(task, plain(), Linear(weight(0.1), weight(2.0)))


@pytest.mark.parametrize(("task", "ds"), [(RECORD, record()), (FILMS, films())])
def test_windows_are_consecutive_frames_of_one_place(task: Task, ds: xr.Dataset) -> None:
    part = split.select(ds, "train")
    flat = part["u"].values.reshape(-1, 6)
    source = Films(part, plain(), task, 4, batch=5, seed=3)
    for step in range(20):
        x, _ = source.at(step)
        assert x.shape == (5, 1, 4, 6)
        for film in x[:, 0].numpy():
            at = int(np.flatnonzero((flat == film[0]).all(1))[0])
            assert np.array_equal(flat[at : at + 4], film)
            if task is FILMS:
                assert at % 12 + 4 <= 12
    again = Films(part, plain(), task, 4, batch=5, seed=3)
    assert torch.equal(again.at(17)[0], source.at(17)[0])


def test_every_start_of_a_film_is_drawn_alike() -> None:
    source = Films(split.select(films(), "train"), plain(), FILMS, 4, batch=12, seed=0)
    flat = split.select(films(), "train")["u"].values
    count = np.zeros(9)
    for step in range(60):
        for film in source.at(step)[0][:, 0].numpy():
            count[int(np.argwhere((flat == film[0]).all(-1))[0, 1])] += 1
    expected = count.sum() / 9
    assert ((count - expected) ** 2 / expected).sum() < 26  # chi-square, 8 degrees, 0.1 %


def test_no_window_crosses_a_gap_of_a_record() -> None:
    whole = split.select(record(), "train")
    ds = whole.isel(time=np.r_[0:100, 103:240]).assign_attrs(whole.attrs)
    source = Films(ds, plain(), RECORD, 6, batch=8)
    x, context = source.spread(10_000)
    assert context.index is not None
    bad = set(range(95, 100))
    assert len(x) == 237 - 5 - 5 and not bad & set(context.index.tolist())


def test_the_calendar_of_each_window_is_its_own() -> None:
    forcings = Forcings(day=True)
    source = Films(split.select(record(), "train"), plain(), RECORD, 5, forcings, batch=4)
    _, context = source.at(2)
    assert context.forcings is not None and context.index is not None
    assert context.forcings.shape == (4, 2, 5, 1)
    for row, start in zip(context.forcings, context.index.tolist(), strict=True):
        angle = 2 * np.pi * ((start + np.arange(5)) % 24) / 24
        np.testing.assert_allclose(row[0, :, 0], np.sin(angle), atol=1e-6)
        np.testing.assert_allclose(row[1, :, 0], np.cos(angle), atol=1e-6)


def test_frames_of_films_are_samples_and_a_record_is_its_own() -> None:
    flat = frames(films(), FILMS)
    assert dict(flat.sizes) == {"sample": 240, "x": 6}
    assert np.array_equal(flat["u"].values, films()["u"].values.reshape(-1, 6))
    assert frames(record(), RECORD).identical(record())


@pytest.mark.parametrize(("task", "ds"), [(RECORD, record()), (FILMS, films())])
def test_a_forecaster_is_fitted_stage_after_stage(
    task: Task, ds: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slope and spread are the least squares ones of the training films."""
    monkeypatch.chdir(tmp_path)
    numbers = replace(NUMBERS, steps=400, learning_rate=0.1, validation_every=20)
    done = train.fit(model(task), ds, numbers)
    sampler = done.sampler
    assert isinstance(sampler, Linear) and not any(p.requires_grad for p in sampler.parameters())
    x, _ = Films(split.select(ds, "train"), plain(), task, 2).spread(10_000)
    old, new = x[:, 0, 0].double(), x[:, 0, 1].double()
    slope = float((old * new).sum() / old.square().sum())
    spread = float((new - slope * old).square().mean().sqrt())
    assert abs(float(sampler.slope.weight) - slope) < 0.05
    assert abs(abs(float(sampler.spread.weight)) - spread) < 0.05
    assert done.notes["training"]["steps"] == 400


def test_a_killed_stage_resumes_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = train.fit(model(FILMS), films(), NUMBERS)
    other = replace(NUMBERS, run="other")
    loss, seen = Linear.loss, [0]

    def dies(self: Linear, *args: object) -> Tensor:
        seen[0] += 1
        if seen[0] == 50:
            raise KeyboardInterrupt
        return loss(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Linear, "loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train.fit(model(FILMS), films(), other)
    monkeypatch.setattr(Linear, "loss", loss)
    again = train.fit(model(FILMS), films(), other, resume=True)
    for a, b in zip(whole.forecaster.parameters(), again.forecaster.parameters(), strict=True):
        assert torch.equal(a, b)


class Repeat(Forecaster):
    """The last frame for ever: nothing to train."""

    evaluations = 0.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        while True:
            yield context.past[:, :, -1]


@pytest.mark.parametrize(
    ("sampler", "numbers", "ds", "said"),
    [
        (Repeat(), NUMBERS, films(), "no weights to train"),
        (None, replace(NUMBERS, coarse_steps=10), films(), "coarse_steps"),
        (None, replace(NUMBERS, amplitude=0.3), films(), "amplitude"),
        (None, NUMBERS, films(steps=1), "has 1 frames|have 1 frames"),
        (None, NUMBERS, films().rename(time="t"), "no time dim 'time'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    sampler: Forecaster | None,
    numbers: Train,
    ds: xr.Dataset,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = model(FILMS) if sampler is None else Model(FILMS, plain(), sampler)
    with pytest.raises(InputError, match=said):
        train.fit(asked, ds, numbers)
    assert not (tmp_path / "run").exists()
