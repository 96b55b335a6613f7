"""Training a model of series: windows and masks by step, checkpoints, resumed to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

import sciddm as sd
from sciddm import train
from sciddm.config import Train
from sciddm.data import masks, ragged
from sciddm.data.clock import Clock
from sciddm.data.items import Item, Items, of
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series.base import SeriesLearner
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.panel import Panel


def series(count: int = 9, rows: int = 50) -> Items:
    """Independent normal values by the hour, some missing."""
    rng, time = np.random.default_rng(0), np.datetime64("2021-03-01", "ns")
    found = []
    for k in range(count):
        values = 10 + 2 * rng.standard_normal((rows, 1))
        values[rng.random((rows, 1)) < 0.2] = np.nan
        found.append(Item(f"s{k}", time + np.arange(rows) * np.timedelta64(1, "h"), values))
    return Items(("target",), tuple(found))


class Scaled(SeriesLearner):
    """The exact law with a spread and a shift that are learned by the likelihood of the cells."""

    def __init__(self, free: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.free = free

    @property
    def evaluations(self) -> float:
        return 1.0

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        noise = rng.at("x").normal(panel.time.new_zeros(len(rng.members), panel.cells))
        x = self.free.bias.double() + self.free.weight.double()[0] * noise
        return torch.where(panel.known, panel.value, x)[None]

    def loss(self, panel: Panel, rng: Streams, share: float) -> Tensor:
        shift, spread = self.free.bias.double(), self.free.weight.double().abs()[0] + 1e-6
        z = (panel.value + 0.1 * rng.normal(panel.value) - shift) / spread
        each = torch.where(panel.wanted, 0.5 * z.square() + spread.log(), 0.0)
        return each.sum(1) / panel.wanted.sum(1)


NUMBERS = Train(
    out="model", run="run", steps=40, batch=8, learning_rate=0.07, ema=0.8, checkpoint_every=10,
    validation_every=20, accelerator="cpu",
)  # fmt: skip


def learned(items: Items, regular: bool = True) -> tuple[sd.Model, xr.Dataset]:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 2.0)
    nn.init.constant_(layer.bias, 1.0)
    ds = ragged.dataset(items, ragged.Labelled(obs="" if regular else "obs"))
    splits = {"train": [0, 6], "validation": [6, 8], "test": [8, 9]}
    ds.attrs |= {"sciddm_sample_dim": "item", "sciddm_splits": splits}
    clock, law = Clock.of(items, regular=regular), masks.Share(0.2, 0.8)
    made = SeriesCodec.fit(of(ds).split("train"), clock, window=20, masks=law)
    return sd.Model(sd.Task(sd.View(("target",)), sample="item"), made, Scaled(layer)), ds


@pytest.mark.parametrize("regular", [True, False])
def test_a_resumed_training_is_the_uninterrupted_one(
    regular: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    items = series()
    whole = train.fit(*learned(items, regular), NUMBERS)
    free = whole.sampler.free  # type: ignore[union-attr]
    assert abs(float(free.bias)) < 0.3 and 0.8 < float(free.weight.abs()) < 1.3
    short = replace(NUMBERS, run="again")
    calls = {"n": 0}
    usual = Scaled.loss

    def dies(self: Scaled, panel: Panel, rng: Streams, share: float) -> Tensor:
        calls["n"] += 1
        if calls["n"] == 27:
            raise KeyboardInterrupt
        return usual(self, panel, rng, share)

    monkeypatch.setattr(Scaled, "loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train.fit(*learned(items, regular), short)
    monkeypatch.setattr(Scaled, "loss", usual)
    again = train.fit(*learned(items, regular), short, resume=True)
    for a, b in zip(whole.series.parameters(), again.series.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_model_without_weights_is_not_trained(tmp_path: Path) -> None:
    made, ds = learned(series())
    law = Mixed((Term(OrnsteinUhlenbeck(3.0), torch.zeros(1, 0), torch.ones(1)),), torch.ones(1))
    other = replace(made, sampler=GaussianSeries(law))
    with pytest.raises(InputError, match="GaussianSeries, which has no weights"):
        train.fit(other, ds, replace(NUMBERS, run=str(tmp_path / "r")))
