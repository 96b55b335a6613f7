"""Poisson's equation: the coefficient and the solution from sparse values of either.

Draws p(what given what)
    p(coefficient, solution | points of either or both, with any error). The prior is on the
    coefficient; the five-point solver makes the solution, so every member is exactly consistent.
Process and noise
    Variance exploding, white noise, kappa from 0.01 to 1000.
Backbone
    Spectral operator on cosines with 1x1 local maps (resolution-free), on a Gaussian base with a
    Matern-like density fitted to the training coefficients by Whittle's likelihood.
Trained on
    `datasets/poisson.py`, size small: 9,000 fields at 64 x 64.
Scores
    `python benchmarks/poisson_floor.py`; see models/poisson/card.md.
Do not use for
    Coefficients of another law, other boundary values, other domains than the unit square.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.basis import Cosine
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.data import split
from sciddm.data.codec import Derived, Normaliser, encoded
from sciddm.denoise import Gaussian, Preconditioned
from sciddm.pde import Poisson
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(
    ds: xr.Dataset,
    *,
    modes: int = 12,
    width: int = 24,
    blocks: int = 3,
    steps: int = 32,
    base: bool = True,
) -> sciddm.Model:
    """An untrained model: the base is fitted here, the network starts at zero."""
    train = split.select(ds, "train")
    inner = Normaliser.fit(train, ("coefficient",), "sample")
    attrs = {k: v for k, v in ds["solution"].attrs.items() if isinstance(v, str)}
    codec = Derived(inner, "solution", attrs, Poisson())
    fields = encoded(train, inner, "sample")
    density = ZeroMean(fit.power_law(fields, Cosine(), (1.0, 1.0)))
    process = VE(clock=LogLinear(0.01, 1000.0))
    prior = Gaussian(torch.zeros(()), Spectral(density, (1.0, 1.0), Cosine()), process)
    torch.manual_seed(0)
    backbone = nn.SpectralOperator(2 if base else 1, 1, (modes, modes), width, blocks)
    denoiser = Preconditioned(backbone, process, prior if base else None)
    task = sciddm.Task(sciddm.View(("coefficient", "solution")))
    return sciddm.Model(task, codec, Diffusion(denoiser, steps=steps), moments=prior)


def exact(trained: sciddm.Model) -> sciddm.Model:
    """``trained`` with the true prior of the data set in the place of its network: the floor."""
    codec = trained.codec
    if not isinstance(codec, Derived) or not isinstance(codec.inner, Normaliser):
        raise sciddm.InputError("Got another model; expected one built by this recipe.")
    # the data set: (k^2 + tau^2)^(-alpha) with tau = 3, alpha = 2, scale tau^(alpha - 1), mean 0
    inner = replace(codec.inner, mean=np.zeros_like(codec.inner.mean))
    law = ZeroMean(PowerLaw(2.0, 3.0, 3.0 / float(inner.std[0])))
    prior = Gaussian(
        torch.zeros(()), Spectral(law, (1.0, 1.0), Cosine()), trained.diffusion.denoiser.process
    )
    sampler = Diffusion(prior, steps=20)
    return replace(trained, codec=replace(codec, inner=inner), sampler=sampler, moments=prior)
