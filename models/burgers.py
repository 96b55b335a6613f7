"""Burgers' equation in space and time: a film with shocks from sparse values of it.

Draws p(what given what)
    p(velocity over space and time | values of it anywhere, with any error).
Process and noise
    Variance exploding, white noise, kappa from 0.002 to 500: on the standardised field
    (`levels=0`), or on its wavelet sub-bands, each standardised, side by side as channels of a
    coarser grid (`levels=1`: four channels on half the points along time and x).
Backbone
    Spectral operator on cosines with 3x3 local maps, conditioned on log kappa in every block. The
    two kinds differ in their first and last layer only, so their parameters are equal to 0.1 %.
    Guidance uses the network's own error covariance, measured on the validation split in the span
    of leading EOFs.
Trained on
    `datasets/burgers.py`, 10,000 films at 64 x 64 with viscosity 0.002 (shocks one or two points
    wide), of which 8,500 train: `models/burgers` the field, `models/burgers_wavelet` sub-bands.
Scores
    `python benchmarks/pde_recovery.py burgers`; see models/burgers/card.md.
Do not use for
    Other viscosities, forcings, boundaries or initial laws; other grids (the 3x3 maps and the
    sub-bands are tied to the grid spacing).
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.calibrate import Calibrated
from sciddm.data import split
from sciddm.data.bands import Wavelet
from sciddm.data.codec import Codec, Normaliser, encoded
from sciddm.denoise import Preconditioned
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion


def build(
    ds: xr.Dataset,
    *,
    levels: int = 0,
    wavelet: str = "bior2.4",
    modes: int = 16,
    width: int = 20,
    blocks: int = 3,
    eofs: int = 192,
    steps: int = 50,
) -> sciddm.Model:
    """An untrained model of the field, or of ``levels`` of sub-bands; its covariance is measured
    once the network is trained."""
    train = split.select(ds, "train")
    codec: Codec = Normaliser.fit(train, ("velocity",), "sample")
    if levels:
        codec = Wavelet.fit(train, codec, "sample", wavelet, levels)
    channels = codec.channels
    # of the details a sixth of the modes: their errors are nearly white
    counts = (eofs, *[eofs // (2 * channels)] * (channels - 1))
    eof = fit.by_channel(encoded(train, codec, "sample", limit=4096), counts)
    process = VE(clock=LogLinear(0.002, 500.0))
    torch.manual_seed(0)
    backbone = nn.SpectralOperator(channels, channels, (modes, modes), width, blocks, kernel=3)
    denoiser = Preconditioned(backbone, process)
    blank = torch.zeros(1, len(eof), len(eof))
    moments = Calibrated(process, eof.half(), torch.zeros(1), blank, torch.zeros(1, channels))
    task = sciddm.Task(sciddm.View(("velocity",)))
    return sciddm.Model(task, codec, Diffusion(denoiser, steps=steps), moments=moments)
