"""The exact model of `datasets/gaussian_field.py`: nothing is trained, everything is known.

Draws p(what given what)
    p(field | any linear observations of it), exactly.
Process and noise
    Variance exploding, white noise.
Backbone
    None: the closed-form Gaussian denoiser of the data's own spectrum (cosine basis).
Trained on
    Nothing. ``alpha`` and ``tau`` are those of the data set.
Scores
    The floor of every table: see `benchmarks/poisson_floor.py`.
Do not use for
    Data that are not this Gaussian field.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm.basis import Cosine
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.data import split
from sciddm.data.codec import Normaliser
from sciddm.denoise import Gaussian
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(ds: xr.Dataset, *, alpha: float = 2.0, tau: float = 3.0, steps: int = 20) -> sciddm.Model:
    """The exact model on the grid of ``ds``, normalised by its training split."""
    name = str(next(iter(ds.data_vars)))
    dim = str(ds.attrs["sciddm_sample_dim"])
    codec = Normaliser.fit(split.select(ds, "train"), (name,), dim)
    # the field's own scale, in units of the normaliser; its mean is zero by construction
    scale = tau ** (alpha - 1) / float(codec.std[0])
    prior = Spectral(ZeroMean(PowerLaw(alpha, tau, scale)), (1.0, 1.0), Cosine())
    mean = torch.tensor(-float(codec.mean.ravel()[0]) / float(codec.std[0]))
    denoiser = Gaussian(mean, prior, VE(clock=LogLinear(0.01, 1000.0)))
    task = sciddm.Task(sciddm.View((name,)), sample=dim)
    return sciddm.Model(task, codec, Diffusion(denoiser, steps=steps), moments=denoiser)
