"""Hourly 2 m temperature over the United Kingdom, from stations, block means or a broken swath.

Draws p(what given what)
    p(t2m of an hour | points or block means of that hour, with any error).
Process and noise
    Variance exploding, white noise, kappa from 0.005 to 300.
Backbone
    Spectral operator on cosines with 3x3 local maps on a Gaussian base: the sample covariance
    tapered with distance and shrunk, chosen by the likelihood of the validation days. In training
    each hour is denoised by a base that was fitted without its block of days.
Trained on
    `datasets/era5_t2m_uk.py`, 1 to 23 March 2019; stopped on 24 to 26 March.
Scores
    `python benchmarks/t2m_uk.py`; see models/t2m_uk/card.md.
Do not use for
    Other regions, other seasons, other grids: it knows one March over 33 x 49 points.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.calibrate import Scaled
from sciddm.data import split
from sciddm.data.codec import Normaliser, encoded
from sciddm.data.geometry import distances
from sciddm.denoise import CrossFitted, Gaussian, Preconditioned
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(
    ds: xr.Dataset,
    *,
    modes: tuple[int, int] = (12, 16),
    width: int = 24,
    blocks: int = 3,
    eofs: int = 400,
    folds: int = 6,
    steps: int = 20,
) -> sciddm.Model:
    """An untrained model: the base and its cross-fitted parts are fitted here."""
    train = split.select(ds, "train")
    codec = Normaliser.fit(train, ("t2m",), "time", pointwise=True)
    x = encoded(train, codec, "time")
    held = encoded(split.select(ds, "validation"), codec, "time")
    gap = torch.from_numpy(distances(codec.grid))
    law, chosen = fit.regularised(x, held, gap, eofs)
    process = VE(clock=LogLinear(0.005, 300.0))
    zero = torch.zeros(())
    edges = [len(x) * k // folds for k in range(folds + 1)]
    parts = []
    for a, b in zip(edges, edges[1:], strict=False):
        rest = torch.cat([x[:a], x[b:]])
        part = fit.localised(rest, gap, chosen["radius"], chosen["shrinkage"], modes=eofs)
        parts.append(Gaussian(zero, part, process))
    base = Gaussian(zero, law, process)
    torch.manual_seed(0)
    backbone = nn.SpectralOperator(2, 1, modes, width, blocks, kernel=3)
    denoiser = Preconditioned(backbone, process, CrossFitted(base, parts, edges))
    moments = Scaled(base, torch.zeros(1), torch.ones(1))
    task = sciddm.Task(sciddm.View(("t2m",)), sample="time")
    sampler = Diffusion(denoiser, steps=steps)
    return sciddm.Model(task, codec, sampler, moments, notes={"chosen": chosen})
