"""Forecasts of films or records by PDE-Refiner: a prediction, refined at ever smaller amplitudes.

Draws p(what given what)
    p(next frames | the last frames), frame after frame; the spread is too small by construction.
Process and noise
    Variance exploding, white noise: the prediction, then `steps` refinements at noise that falls
    to `least` of a change from frame to frame. Trained on recent frames with noise (`noised`).
Backbone
    Spectral operator with 3x3 local maps (of several `widths` a U-Net), Fourier modes and circular
    padding where every space axis of the data has a `period`, cosines elsewhere; it gives the
    change from the newest frame in units of its s.d., and the noise where that is small.
Trained on
    Any films or record; `datasets/kolmogorov_film.py` for models/kolmogorov_refine.
Scores
    `python benchmarks/forecast.py kolmogorov`; see models/kolmogorov_refine/card.md.
Do not use for
    Probabilities: members spread far less than they err. Leads or grids other than those it was
    trained on.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm import nn
from sciddm.data import films, split
from sciddm.data.codec import Codec, Normaliser
from sciddm.data.spacing import spacing
from sciddm.denoise import Preconditioned
from sciddm.forecasters import Refine
from sciddm.forecasters.mean import Persistence
from sciddm.process import VE, LogLinear

FILMS = 16


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    history: int = 1,
    widths: tuple[int, ...] = (32,),
    modes: int = 12,
    blocks: int = 4,
    steps: int = 3,
    least: float = 1e-3,
    noised: float = 0.0,
) -> sciddm.Model:
    """An untrained model: the s.d. of a change is measured here, and the network starts at zero, so
    that its forecast is persistence."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample)
    dims = codec.grid.dims
    torch.manual_seed(0)
    backbone = network(
        (1 + history) * len(names), len(names), (modes,) * len(dims), widths, blocks,
        all(codec.grid.period(d) is not None for d in dims),
    )  # fmt: skip
    process = VE(clock=LogLinear(0.5 * least, 1000.0))
    sampler = Refine(
        Preconditioned(backbone, process), Persistence(), changes(train, codec, task), history,
        steps=steps, least=least, noised=noised,
    )  # fmt: skip
    return sciddm.Model(task, codec, sampler)


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
        return nn.UNet(inputs, outputs, modes, tuple(widths), blocks, periodic)
    return nn.SpectralOperator(
        inputs, outputs, modes, widths[0], blocks, kernel=3, periodic=periodic
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
