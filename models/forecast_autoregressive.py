"""Forecasts of films or records, frame by frame: a diffusion of what a linear model leaves over.

Draws p(what given what)
    p(next frames | the last frames), one frame or block of frames at a time.
Process and noise
    Variance exploding, white noise, on the residual of the linear inverse model in units of its
    s.d.; a few steps that are exact for the Gaussian base and integrate the network's correction.
Backbone
    Spectral operator with 3x3 local maps (a U-Net with more than one width) that sees the last
    frames and the calendar, Fourier modes and circular padding where every space axis of the data
    has a `period`, cosines elsewhere, on a Gaussian base with the EOFs of the residual. Untrained
    it is the linear Gaussian forecast.
Trained on
    Any films or record; `datasets/spde_heat.py` for models/spde_heat_autoregressive.
Scores
    `python benchmarks/forecast.py exact_law`; see models/spde_heat_autoregressive/card.md.
Do not use for
    Leads or grids other than those it was trained on; a record with a trend that leaves its range.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.data import films, split
from sciddm.data.codec import Codec, Normaliser
from sciddm.data.forcing import Forcings
from sciddm.data.spacing import spacing
from sciddm.denoise import Gaussian, Preconditioned
from sciddm.forecasters import Autoregressive, Band, Linear
from sciddm.forecasters.fitting import best_linear, left_over, left_unseen
from sciddm.process import VE, LogLinear
from sciddm.solve import Adams, GaussianForm

VALUES = 2 << 24
"""Values of the training films that statistics are taken from, at most."""


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    pointwise: bool = False,
    order: int = 1,
    seen: int = 1,
    block: int = 1,
    eofs: int = 400,
    shrinkage: float = 0.0,
    folds: int = 5,
    widths: tuple[int, ...] = (32,),
    modes: int = 12,
    blocks: int = 3,
    noised: float = 0.0,
    band: int = 0,
    steps: int = 8,
    level_mean: float = 0.0,
    level_std: float = 1.6,
    day: bool = False,
    year: bool = False,
) -> sciddm.Model:
    """An untrained model: mean and base are fitted here, the network starts at zero.

    ``order`` past frames enter the linear mean, ``seen`` the network, which is told the hour
    (``day``) and the season (``year``); ``eofs`` and ``shrinkage`` are of the base, fitted to what
    the mean leaves of each of ``folds`` parts that it did not see (1: of all that it saw).
    """
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample, pointwise=pointwise)
    x, held = (cut(part, codec, task) for part in (train, split.select(ds, "validation")))
    law, chosen = best_linear(x, held, order=order)
    if folds > 1:
        left = left_unseen(
            x, block=block, folds=folds, limit=enough(x), modes=int(chosen["modes"]),
            ridge=chosen["ridge"], order=order,
        )  # fmt: skip
    else:
        left = left_over(x, Linear(law), block, enough(x))
    scale = left.square().mean([0, *range(3, left.ndim)]).sqrt()
    left = (left / scale.view(*scale.shape, *[1] * (left.ndim - 3))).flatten(1, 2)
    prior = fit.eof(left, eofs, shrinkage)
    top = max(20.0, 15 * math.sqrt(float(prior.variances[0])))  # 0.2 % of the largest EOF is left
    process = VE(clock=LogLinear(0.01, top))
    base = Gaussian(torch.zeros(()), prior, process)
    forcings = Forcings(day, year) if day or year else None
    known = 0 if forcings is None else (seen + block) * forcings.channels
    channels, dims = len(names) * block, codec.grid.dims
    torch.manual_seed(0)
    backbone = network(
        2 * channels + seen * len(names) + known, channels, (modes,) * len(dims), tuple(widths),
        blocks, all(codec.grid.period(d) is not None for d in dims),
    )  # fmt: skip
    sampler = Autoregressive(
        Preconditioned(backbone, process, base), Linear(law), scale, seen, block,
        Band(band) if band else None, noised,
        solver=Adams(2, form=GaussianForm(base)), steps=steps,
        level_mean=level_mean, level_std=level_std,
    )  # fmt: skip
    return sciddm.Model(task, codec, sampler, notes={"linear mean": chosen}, forcings=forcings)


def network(
    inputs: int,
    outputs: int,
    modes: tuple[int, ...],
    widths: tuple[int, ...],
    blocks: int,
    periodic: bool,
) -> torch.nn.Module:
    """A spectral operator of one width, or a U-Net of several, finest first."""
    if len(widths) > 1:
        return nn.UNet(inputs, outputs, modes, widths, blocks, periodic)
    return nn.SpectralOperator(
        inputs, outputs, modes, widths[0], blocks, kernel=3, periodic=periodic
    )


def cut(part: xr.Dataset, codec: Codec, task: sciddm.Task) -> torch.Tensor:
    """Films (N, C, T, *grid) of a split, without those that are more than `VALUES` hold."""
    if task.sample != task.time:
        each = part.sizes[task.time] * math.prod(codec.shape)
        count = part.sizes[task.sample]
        index = np.unique(np.linspace(0, count - 1, min(count, max(2, VALUES // each))).astype(int))
        return films.encode(part.isel({task.sample: index}).transpose(task.sample, ...), codec)
    begins = films.starts(part, task.time, 2)  # a gap ends a stretch
    stretches = np.split(begins, np.flatnonzero(np.diff(begins) > 1) + 1)
    length = min(len(s) + 1 for s in stretches if len(s) + 1 >= 0.1 * len(begins))
    pieces = []
    for stretch in stretches:
        for first in range(stretch[0], stretch[-1] + 3 - length, length):
            piece = part.isel({task.time: slice(first, first + length)})
            pieces.append(films.encode(piece.expand_dims("film"), codec))
    return torch.cat(pieces)


def enough(x: torch.Tensor) -> int:
    """How many residuals a covariance is taken from: many where it is small."""
    return 200_000 if x[0, :, 0].numel() <= 512 else 3000
