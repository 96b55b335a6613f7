"""Forecasts of films or records by DYffusion: blocks of frames drawn along physical time.

Draws p(what given what)
    p(next frames | the last frames), block after block, each member on its own; any real lead.
Process and noise
    None of diffusion's: between the last frame and the last of a block stands an interpolator, and
    a forecaster stands in the denoiser's place. A member draws channels of white noise, or with
    `dropout` masks, once a block; both networks are trained on the fair CRPS of two draws.
Backbone
    Two spectral operators with 3x3 local maps, Fourier modes and circular padding where every space
    axis of the data has a `period`, cosines elsewhere; they give what a linear mean (`linear`), or
    the newest frame, does not know.
Trained on
    Any films or record; first `datasets/spring_mesh.py`, whose fixed row is `known = "fixed"`.
Scores
    `python benchmarks/forecast.py spring_mesh exact_law`.
Do not use for
    Time steps or grids other than those it was trained on; noise that is new in every frame, of
    which the frames of a block show too little.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm import nn
from sciddm.data import films, split
from sciddm.data.codec import Normaliser
from sciddm.data.forcing import Forcings
from sciddm.data.spacing import spacing
from sciddm.forecasters import Boundary, DYffusion, Linear, Mean, Persistence
from sciddm.forecasters.fitting import best_linear, left_over

FILMS = 200


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    known: str = "",
    linear: bool = False,
    ahead: int = 4,
    history: int = 1,
    noise: int = 2,
    dropout: float = 0.0,
    draws: int = 2,
    width: int = 32,
    modes: int = 8,
    blocks: int = 3,
    extra: int = 0,
    stride: int = 1,
    refine: bool = True,
    held: bool = False,
    share: float = 0.3,
    day: bool = False,
    year: bool = False,
) -> sciddm.Model:
    """An untrained model: its mean is fitted here, the networks start small. ``known`` names a
    coordinate on the grid that is not 0 where values never change."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample)
    mean: Mean = Persistence()
    x = films.encode(few(train, task), codec)
    if linear:
        mean = Linear(
            best_linear(x, films.encode(few(split.select(ds, "validation"), task), codec))[0]
        )
    left = left_over(x, mean, ahead, 4000)[:, :, -1]
    scale = left.square().mean([0, *range(2, left.ndim)], keepdim=True)[0].sqrt()
    static = ds[known].transpose(*codec.grid.dims).values[None] if known else None
    forcings = Forcings(day, year, static=static, names=(known,) if known else ())
    seen = len(names) * max(history, mean.history) + bool(known)
    seen += (max(history, mean.history) + ahead) * forcings.channels
    torch.manual_seed(0)
    pair = [network(len(names), noise, seen, codec.grid, width, modes, blocks) for _ in range(2)]
    if dropout:
        pair = [nn.Dropped(n, dropout) for n in pair]
    mask = None if static is None else torch.from_numpy(static != 0).expand(codec.shape).clone()
    sampler = DYffusion(
        pair[0], pair[1], ahead, history, noise, mean, scale, extra, stride, refine, draws, share,
        held, None if mask is None else Boundary(mask),
    )  # fmt: skip
    some = day or year or known
    return sciddm.Model(task, codec, sampler, forcings=forcings if some else None)


def network(
    channels: int,
    noise: int,
    seen: int,
    grid: sciddm.data.codec.Grid,
    width: int,
    modes: int,
    blocks: int,
) -> torch.nn.Module:
    """A spectral operator whose last layer starts small, so that noise comes through at once."""
    out = nn.SpectralOperator(
        channels + noise + seen, channels, (modes,) * len(grid.dims), width, blocks, kernel=3,
        periodic=all(grid.period(d) is not None for d in grid.dims),
    )  # fmt: skip
    torch.nn.init.normal_(out.head.weight, std=0.1 / width**0.5)
    return out


def few(part: xr.Dataset, task: sciddm.Task) -> xr.Dataset:
    """Up to `FILMS` films of a split, or the longest stretch of its record without a gap."""
    if task.sample == task.time:
        begins = films.starts(part, task.time, 2)
        stretches = np.split(begins, np.flatnonzero(np.diff(begins) > 1) + 1)
        longest = max(stretches, key=len)
        return part.isel({task.time: slice(longest[0], longest[-1] + 2)}).expand_dims("film")
    count = part.sizes[task.sample]
    index = np.unique(np.linspace(0, count - 1, min(count, FILMS)).astype(int))
    return part.isel({task.sample: index}).transpose(task.sample, task.time, ...)
