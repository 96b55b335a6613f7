"""The Gaussian model of any data set: regularised EOFs, fitted in seconds, nothing trained.

Draws p(what given what)
    p(fields | points or block means of any of them), as optimal interpolation would.
Process and noise
    Variance exploding, white noise.
Backbone
    None: the closed-form Gaussian denoiser.
Trained on
    The training split. The sample covariance is tapered with distance and shrunk to a smooth law
    (small grids) or kept as EOFs with shrinkage (large ones); how much is chosen by the likelihood
    of the validation split.
Scores
    The baseline of every table.
Do not use for
    Fields that are far from Gaussian (fronts, two phases, rain), or a spread beyond the record.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm import fit
from sciddm.data import split
from sciddm.data.codec import Normaliser, encoded
from sciddm.data.geometry import distances
from sciddm.denoise import Gaussian
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(ds: xr.Dataset, *, steps: int = 20, modes: int = 400) -> sciddm.Model:
    """The fitted model on the grid of ``ds``, with its mean field."""
    names = tuple(str(n) for n in ds.data_vars)
    dim = str(ds.attrs["sciddm_sample_dim"])
    train = split.select(ds, "train")
    codec = Normaliser.fit(train, names, dim, pointwise=True)
    held = encoded(split.select(ds, "validation"), codec, dim)
    small = len(names) == 1 and held[0].numel() <= 2000
    gap = torch.from_numpy(distances(codec.grid)) if small else None
    law, chosen = fit.regularised(encoded(train, codec, dim), held, gap, modes)
    denoiser = Gaussian(torch.zeros(()), law, VE(clock=LogLinear(0.01, 1000.0)))
    task = sciddm.Task(sciddm.View(names), sample=dim)
    sampler = Diffusion(denoiser, steps=steps)
    return sciddm.Model(task, codec, sampler, moments=denoiser, notes={"chosen": chosen})
