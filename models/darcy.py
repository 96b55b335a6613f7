"""Two-phase Darcy flow: permeability and pressure from sparse values of either.

Draws p(what given what)
    p(coefficient, solution | points of either or both, with any error).
Process and noise
    Variance exploding, white noise on standardised fields, kappa from 0.002 to 500.
Backbone
    Spectral operator on cosines with 3x3 local maps, conditioned on log kappa in every block.
    Guidance uses the network's own error covariance, measured on the validation split in the span
    of the data's leading EOFs.
Trained on
    `datasets/darcy.py`, 30,000 pairs at 64 x 64, of which 27,000 train.
Scores
    `python benchmarks/darcy.py` and `python benchmarks/pde_recovery.py darcy`; see
    models/darcy/card.md. From values of the solution, Gauss-Newton on the level set without a
    network (`sciddm.pde.Interface`) has about half of the wrong cells: take it where the two phases
    and their statistics are known, and this model for values of both fields at once.
Do not use for
    Other phases than 3 and 12, other sources or boundary values, other grids (the 3x3 maps are
    tied to the grid spacing).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.calibrate import Calibrated, TwoPhase
from sciddm.data import split
from sciddm.data.codec import Normaliser, TwoValued, encoded
from sciddm.denoise import Preconditioned
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(
    ds: xr.Dataset,
    *,
    modes: int = 16,
    width: int = 32,
    blocks: int = 4,
    eofs: tuple[int, int] = (160, 96),
    steps: int = 50,
) -> sciddm.Model:
    """An untrained model; its covariance is measured once the network is trained."""
    names = ("coefficient", "solution")
    train = split.select(ds, "train")
    codec = replace(Normaliser.fit(train, names, "sample"), edges={"solution": 0.0})
    eof = fit.by_channel(encoded(train, codec, "sample", limit=4096), eofs)
    process = VE(clock=LogLinear(0.002, 500.0))
    torch.manual_seed(0)
    backbone = nn.SpectralOperator(2, 2, (modes, modes), width, blocks, kernel=3)
    denoiser = Preconditioned(backbone, process)
    blank = torch.zeros(1, len(eof), len(eof))
    measured = Calibrated(process, eof.half(), torch.zeros(1), blank, torch.zeros(1, 2))
    two = TwoValued(codec, "coefficient", 3.0, 12.0)
    low, high = ((v - float(codec.mean[0].ravel()[0])) / float(codec.std[0]) for v in (3.0, 12.0))
    moments = TwoPhase(measured, 0, low, high)
    task = sciddm.Task(sciddm.View(names))
    return sciddm.Model(task, two, Diffusion(denoiser, steps=steps), moments=moments)
