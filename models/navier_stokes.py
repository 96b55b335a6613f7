"""Two-dimensional flow on the torus: the first and the last vorticity from points of either.

Draws p(what given what)
    p(initial, final | points of either or both, with any error). The prior is on the initial
    vorticity; the solver makes the final one, so every member is exactly consistent.
Process and noise
    Variance exploding, white noise, kappa from 0.01 to 1000.
Backbone
    Spectral operator on Fourier modes with 1x1 local maps (resolution-free), on a Gaussian base
    with a power-law density fitted to the training fields by Whittle's likelihood.
Trained on
    `datasets/navier_stokes.py`, size small: 9,000 fields at 64 x 64. Only `initial` is used.
Scores
    `python benchmarks/pde_recovery.py navier_stokes`; see models/navier_stokes/card.md.
Do not use for
    Other viscosities, times, forcings or domains than the unit torus; initial fields of another
    law.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.basis import Periodic
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.data import split
from sciddm.data.codec import Derived, Normaliser, encoded
from sciddm.denoise import Gaussian, Preconditioned
from sciddm.pde import NavierStokes
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(
    ds: xr.Dataset,
    *,
    modes: int = 12,
    width: int = 24,
    blocks: int = 3,
    steps: int = 32,
) -> sciddm.Model:
    """An untrained model: the base is fitted here, the network starts at zero."""
    train = split.select(ds, "train")
    inner = Normaliser.fit(train, ("initial",), "sample")
    attrs = {k: v for k, v in ds["final"].attrs.items() if isinstance(v, str)}
    codec = Derived(inner, "final", attrs, NavierStokes())
    fields = encoded(train, inner, "sample")
    density = ZeroMean(fit.power_law(fields, Periodic(), (1.0, 1.0)))
    process = VE(clock=LogLinear(0.01, 1000.0))
    prior = Gaussian(torch.zeros(()), Spectral(density, (1.0, 1.0), Periodic()), process)
    torch.manual_seed(0)
    backbone = nn.SpectralOperator(2, 1, (modes, modes), width, blocks, periodic=True)
    denoiser = Preconditioned(backbone, process, prior)
    task = sciddm.Task(sciddm.View(("initial", "final")))
    return sciddm.Model(task, codec, Diffusion(denoiser, steps=steps), moments=prior)


def exact(trained: sciddm.Model) -> sciddm.Model:
    """``trained`` with the true prior of the data set in the place of its network."""
    codec = trained.codec
    if not isinstance(codec, Derived) or not isinstance(codec.inner, Normaliser):
        raise sciddm.InputError("Got another model; expected one built by this recipe.")
    # the data set: scale^2 (k^2 + tau^2)^(-alpha), alpha 2.5, tau 7, scale 2^(1/2) tau^(alpha - 1)
    inner = replace(codec.inner, mean=np.zeros_like(codec.inner.mean))
    law = ZeroMean(PowerLaw(2.5, 7.0, math.sqrt(2.0) * 7.0**1.5 / float(inner.std[0])))
    prior = Gaussian(
        torch.zeros(()), Spectral(law, (1.0, 1.0), Periodic()), trained.diffusion.denoiser.process
    )
    sampler = Diffusion(prior, steps=20)
    return replace(trained, codec=replace(codec, inner=inner), sampler=sampler, moments=prior)
