"""Forecasts of films or records by a window of frames that rolls on, one evaluation a frame.

Draws p(what given what)
    p(next frames | the last frames, and forcings and static fields where the data have them).
Process and noise
    Innovations of the frames of a window, each on a clock of its own, variance preserving, the
    angle of the noise even in time. The noise has the covariance of the innovations: their spectrum
    where every space axis has a `period` and the grid is large, else their leading EOFs.
Backbone
    A film network: maps in space conditioned on the noise level of each frame, attention over the
    frames. It corrects a Gaussian forecast: an untrained model is the mean (persistence, or a
    linear inverse model of `linear` EOFs) and noise of the covariance of what the mean left over.
Trained on
    Any films or record; `datasets/spde_heat.py` for models/spde_heat_rolling.
Scores
    `python benchmarks/forecast.py`; see models/spde_heat_rolling/card.md.
Do not use for
    Leads or grids other than those it was trained on.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import sciddm
from sciddm import fit, nn
from sciddm.basis import Periodic
from sciddm.covariance import Covariance, Spectral
from sciddm.data import films, split
from sciddm.data.codec import Codec, Normaliser
from sciddm.data.forcing import Forcings
from sciddm.forecasters import Emphasis, Linear, Mean, Persistence, Rolling, linear_inverse
from sciddm.process import VP, CosineAlpha

UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days", "": "1"}


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    window: int = 4,
    past: int = 1,
    linear: int = 0,
    order: int = 1,
    ridge: float = 0.0,
    eofs: int = 200,
    widths: tuple[int, ...] = (32,),
    modes: int = 12,
    blocks: int = 3,
    causal: bool = False,
    correlation: float = 0.0,
    steps: int = 1,
    startup: float = 0.2,
    emphasis: tuple[float, ...] = (),
    pointwise: bool = False,
    day: bool = False,
    year: bool = False,
) -> sciddm.Model:
    """An untrained model: its mean and the covariance of what that leaves over are fitted here.
    ``emphasis`` is (mean, s.d.) of the log noise levels that the loss looks at."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(sciddm.View(names), sample=sample, lead=lead(ds[time]), time=time)
    codec = Normaliser.fit(films.frames(train, task), names, sample, pointwise=pointwise)
    forcings = Forcings(day, year) if day or year else None
    known = 0 if forcings is None else 2 * forcings.channels
    periods = [codec.grid.period(d) for d in codec.grid.dims]
    length = min(24, train.sizes[time])
    x, _ = films.Films(train, codec, task, length).spread(1024)
    mean: Mean = Persistence()
    if linear:
        mean = Linear(linear_inverse(x, linear, order=order, ridge=ridge))
    scale, noise = left(x, mean, periods, eofs)
    torch.manual_seed(0)
    c = len(names)
    backbone = nn.FilmNet(
        c * (1 + past) + known, c, (modes,) * len(periods), tuple(widths), blocks,
        periodic=None not in periods, causal=causal,
    )  # fmt: skip
    sampler = Rolling(
        backbone, VP(noise, CosineAlpha()), mean, scale, window, past, correlation, steps=steps,
        startup=startup, emphasis=Emphasis(*emphasis) if emphasis else None,
    )  # fmt: skip
    return sciddm.Model(task, codec, sampler, forcings=forcings)


def left(
    x: Tensor, mean: Mean, periods: list[float | None], eofs: int
) -> tuple[Tensor, Covariance]:
    """The s.d. (C,) of what ``mean`` leaves over in films (N, C, T, *grid), and the covariance of
    it in these units, of variance 1."""
    h = mean.history
    gaps = []
    for n in range(h, x.shape[2]):
        gaps.append(x[:, :, n] - mean(x[:, :, n - h : n], sciddm.denoise.Context(), 1))
    gap = torch.cat(gaps)
    scale = gap.square().mean([0, *range(2, gap.ndim)]).sqrt()
    gap = gap / scale.view(-1, *[1] * (gap.ndim - 2))
    if None in periods or gap[0].numel() <= eofs:
        return scale, fit.eof(gap, eofs)
    lengths = tuple(float(p) for p in periods if p is not None)
    return scale, Spectral(fit.spectrum(gap, Periodic(), lengths), lengths)


def lead(axis: xr.DataArray) -> sciddm.task.Lead:
    """The step of a time axis: in hours on dates, else in the units of its numbers."""
    step = axis.values[1] - axis.values[0]
    if isinstance(step, np.timedelta64):
        return sciddm.task.Lead(float(step / np.timedelta64(1, "h")), "hours")
    unit = str(axis.attrs.get("units", "1"))
    return sciddm.task.Lead(round(float(step), 9), UNITS.get(unit, unit))
