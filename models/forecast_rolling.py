"""Forecasts of films or records by a window of frames that rolls on, one evaluation a frame.

Draws p(what given what)
    p(next frames | the last frames, and forcings and static fields where the data have them).
Process and noise
    Innovations of the frames of a window, each on a clock of its own, variance preserving, the
    angle of the noise even in time. The noise has the covariance of the innovations: their spectrum
    where every space axis has a `period` and the grid is large, else their leading EOFs.
Backbone
    A film network: maps in space conditioned on the noise level of each frame, attention over the
    frames. It corrects a Gaussian forecast: an untrained model is the mean (persistence, or with
    `linear` a linear inverse model) and noise of the covariance of what the mean leaves over.
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
from sciddm.data.spacing import spacing
from sciddm.forecasters import Band, Emphasis, Linear, Mean, Persistence, Rolling
from sciddm.forecasters.fitting import best_linear, left_over
from sciddm.process import VP, CosineAlpha

VALUES = 2 << 24
"""Values of the training films that statistics are taken from, at most."""


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    window: int = 4,
    past: int = 1,
    linear: bool = False,
    order: int = 1,
    eofs: int = 200,
    widths: tuple[int, ...] = (32,),
    modes: int = 12,
    blocks: int = 3,
    causal: bool = False,
    correlation: float = 0.0,
    steps: int = 1,
    startup: float = 0.2,
    band: int = 0,
    emphasis: tuple[float, ...] = (),
    pointwise: bool = False,
    day: bool = False,
    year: bool = False,
    static: tuple[str, ...] = (),
) -> sciddm.Model:
    """An untrained model: its mean and the covariance of what that leaves over are fitted here.
    ``emphasis`` is (mean, s.d.) of the log noise levels that the loss looks at, ``static`` names
    what never changes and is told to the network."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample, pointwise=pointwise)
    dims = codec.grid.dims
    beside = np.stack([ds[n].transpose(*dims).values for n in static]) if static else None
    table = Forcings(day, year, static=beside, names=tuple(static))
    forcings = table if day or year or static else None
    periods = [codec.grid.period(d) for d in dims]
    x = cut(train, codec, task)
    mean: Mean = Persistence()
    notes = {}
    if linear:
        held = cut(split.select(ds, "validation"), codec, task)
        law, notes["linear mean"] = best_linear(x, held, order=order)
        mean = Linear(law)
    scale, noise = left(x, mean, periods, eofs)
    torch.manual_seed(0)
    c = len(names)
    backbone = nn.FilmNet(
        c * (1 + past) + len(static) + 2 * table.channels, c, (modes,) * len(periods),
        tuple(widths), blocks, periodic=None not in periods, causal=causal,
    )  # fmt: skip
    sampler = Rolling(
        backbone, VP(noise, CosineAlpha()), mean, scale, window, past, correlation, steps=steps,
        startup=startup, emphasis=Emphasis(*emphasis) if emphasis else None,
        boundary=Band(band) if band else None,
    )  # fmt: skip
    return sciddm.Model(task, codec, sampler, notes=notes, forcings=forcings)


def left(
    x: Tensor, mean: Mean, periods: list[float | None], eofs: int
) -> tuple[Tensor, Covariance]:
    """The s.d. (C,) of what ``mean`` leaves over in films (N, C, T, *grid), and the covariance of
    it in these units, of variance 1."""
    gap = left_over(x, mean, limit=200_000 if x[0, :, 0].numel() <= 512 else 3000)[:, :, 0]
    scale = gap.square().mean([0, *range(2, gap.ndim)]).sqrt()
    gap = gap / scale.view(-1, *[1] * (gap.ndim - 2))
    if None in periods or gap[0].numel() <= eofs:
        return scale, fit.eof(gap, eofs)
    lengths = tuple(float(p) for p in periods if p is not None)
    return scale, Spectral(fit.spectrum(gap, Periodic(), lengths), lengths)


def cut(part: xr.Dataset, codec: Codec, task: sciddm.Task) -> Tensor:
    """Films (N, C, T, *grid) of a split: whole ones, or stretches of one record without a gap."""
    if task.sample == task.time:
        length = min(24, part.sizes[task.time])
        return films.Films(part, codec, task, length).spread(part.sizes[task.time] // 8)[0]
    each = part.sizes[task.time] * int(np.prod(codec.shape))
    count = part.sizes[task.sample]
    index = np.unique(np.linspace(0, count - 1, min(count, max(2, VALUES // each))).astype(int))
    return films.encode(part.isel({task.sample: index}).transpose(task.sample, ...), codec)
