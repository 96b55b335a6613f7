"""Forecasts of films or records by an ensemble that is trained on its own CRPS.

Draws p(what given what)
    p(next frames | the last frames), frame after frame, each member on its own.
Process and noise
    None: a member is one evaluation of the network on fresh noise a frame, white on the grid
    (`noises`) or a few numbers that condition every layer (`vector`). Trained on the fair CRPS of a
    few members, later on over frames that each member made of its own.
Backbone
    Spectral operator with 3x3 local maps (of several `widths` a U-Net), Fourier modes and circular
    padding where every space axis of the data has a `period`, cosines elsewhere; it gives the
    change from the newest frame in units of its s.d.
Trained on
    Any films or record; `datasets/kolmogorov_film.py` for models/kolmogorov_scored.
Scores
    `python benchmarks/forecast.py kolmogorov`; see models/kolmogorov_scored/card.md.
Do not use for
    Leads or grids other than those it was trained on; laws whose cells must be right together where
    one cell alone says little: the score it learns from sees cells one by one.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm import nn
from sciddm.data import films, split
from sciddm.data.codec import Codec, Normaliser
from sciddm.data.forcing import Forcings
from sciddm.data.spacing import spacing
from sciddm.forecasters import Band, Scored
from sciddm.forecasters.mean import Persistence

FILMS = 16


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    band: int = 0,
    history: int = 1,
    widths: tuple[int, ...] = (32,),
    modes: int = 12,
    blocks: int = 4,
    noises: int = 2,
    vector: int = 0,
    members: int = 2,
    alpha: float = 1.0,
    unroll: int = 3,
    turn: float = 0.6,
    static: tuple[str, ...] = (),
) -> sciddm.Model:
    """An untrained model: the s.d. of a change is measured here, and the network starts at zero, so
    that its forecast is persistence. ``static`` names what never changes and is told to it."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample)
    dims = codec.grid.dims
    beside = np.stack([ds[n].transpose(*dims).values for n in static]) if static else None
    forcings = Forcings(static=beside, names=tuple(static)) if static else None
    torch.manual_seed(0)
    backbone = network(
        noises + history * len(names) + len(static), len(names), (modes,) * len(dims), widths,
        blocks, all(codec.grid.period(d) is not None for d in dims), vector,
    )  # fmt: skip
    sampler = Scored(
        backbone, Persistence(), changes(train, codec, task), history, noises, vector,
        members=members, alpha=alpha, unroll=unroll, turn=turn,
        boundary=Band(band) if band else None,
    )  # fmt: skip
    return sciddm.Model(task, codec, sampler, forcings=forcings)


def network(
    inputs: int,
    outputs: int,
    modes: tuple[int, ...],
    widths: tuple[int, ...],
    blocks: int,
    periodic: bool,
    scalars: int,
) -> torch.nn.Module:
    """A spectral operator of one width, or a U-Net of several, finest first."""
    if len(widths) > 1:
        return nn.UNet(inputs, outputs, modes, tuple(widths), blocks, periodic, scalars)
    return nn.SpectralOperator(
        inputs, outputs, modes, widths[0], blocks, kernel=3, periodic=periodic, scalars=scalars
    )


def changes(train: xr.Dataset, codec: Codec, task: sciddm.Task) -> torch.Tensor:
    """The s.d. (C, 1, ...) of a normalised frame less the one before it, of up to `FILMS` films."""
    parts = [train]
    if task.sample != task.time:
        index = np.unique(np.linspace(0, train.sizes[task.sample] - 1, FILMS).astype(int))
        parts = [train.isel({task.sample: i}) for i in index]
    order = (task.time, *codec.grid.dims)
    arrays = [{n: p[n].transpose(*order).values for n in task.target.variables} for p in parts]
    change = torch.cat([codec.encode(a).diff(dim=0) for a in arrays])
    return change.square().mean([0, *range(2, change.ndim)], keepdim=True)[0].sqrt()
