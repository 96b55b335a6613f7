"""Forecasts of films or records by one network with dropout left on: the plain ensemble.

Draws p(what given what)
    p(next frames | the last frames), frame after frame or in blocks, each member one sub-network.
Process and noise
    None: a member draws a mask once, which drops the same channels all along its forecast. With
    `dropout = 0` the forecast is one, the base of `sciddm.forecasters.Perturbed`.
Backbone
    Spectral operator with 3x3 local maps, Fourier modes and circular padding where every space axis
    of the data has a `period`, cosines elsewhere; it gives what a linear mean (`linear`), or the
    newest frame, does not know.
Trained on
    Any films or record, on the mean absolute error; first `datasets/spring_mesh.py`, whose fixed
    row is `known = "fixed"`.
Scores
    `python benchmarks/forecast.py spring_mesh exact_law`.
Do not use for
    Spread that is to be trusted: it is a baseline. Lead steps or grids other than the trained ones.
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
from sciddm.forecasters import Boundary, Dropout, Linear, Mean, Persistence
from sciddm.forecasters.fitting import best_linear, left_over

FILMS = 200


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    known: str = "",
    linear: bool = False,
    ahead: int = 1,
    history: int = 1,
    dropout: float = 0.1,
    draws: int = 1,
    width: int = 32,
    modes: int = 8,
    blocks: int = 3,
    day: bool = False,
    year: bool = False,
) -> sciddm.Model:
    """An untrained model: its mean is fitted here, the network starts small. ``known`` names a
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
    inner = network(len(names), seen, codec.grid, width, modes, blocks)
    mask = None if static is None else torch.from_numpy(static != 0).expand(codec.shape).clone()
    sampler = Dropout(
        nn.Dropped(inner, dropout) if dropout else inner, ahead, history, draws, mean, scale,
        None if mask is None else Boundary(mask),
    )  # fmt: skip
    some = day or year or known
    return sciddm.Model(task, codec, sampler, forcings=forcings if some else None)


def network(
    channels: int,
    seen: int,
    grid: sciddm.data.codec.Grid,
    width: int,
    modes: int,
    blocks: int,
) -> torch.nn.Module:
    """A spectral operator whose last layer starts small, so that masks come through at once."""
    out = nn.SpectralOperator(
        channels + seen, channels, (modes,) * len(grid.dims), width, blocks, kernel=3,
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
