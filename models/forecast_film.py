"""Forecasts from a prior over whole films: what follows, given the past and what is seen later.

Draws p(what given what)
    p(next frames | the last frames, values anywhere in space and time on the way).
Process and noise
    Variance exploding, white noise, kappa from 0.005 to 200, on films of `length` frames.
Backbone
    A Gaussian law of films fitted to the data, stationary in space and time (`fit.film_law`) or,
    with `eofs`, the leading EOFs of whole films; and a network that learns what it does not know:
    maps in space on each frame, attention along time.
    `levels` of wavelets over space and time (`wavelet`, orthonormal) make it one of sub-bands, so
    that the whole trajectory is diffused in its coefficients.
Trained on
    Any films or record without missing points; `datasets/spde_heat.py` for models/spde_heat_film.
Scores
    `python benchmarks/forecast.py assimilation`; see models/spde_heat_film/card.md. Without the
    Gaussian (`gaussian=false`, width 24, as many parameters but for the ends) sub-bands and field
    learn the heat equation alike: validation loss 0.484 and 0.492 after 300 steps, sub-bands at
    about a third of the cost a step. Beside the Gaussian neither has anything to learn there.
Do not use for
    Grids, frame steps or laws other than those it was trained on. Of fields whose law differs from
    place to place `fit.film_law` knows only the mean over places: give `eofs`, which masked fields
    need too; observations along the way then reach no further than one film.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.basis import Cosine, Periodic
from sciddm.data import films, split
from sciddm.data.codec import Normaliser
from sciddm.data.spacing import spacing
from sciddm.denoise import Gaussian, Preconditioned
from sciddm.forecasters import Film
from sciddm.process import VE, LogLinear
from sciddm.wavelet import DWT


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    length: int = 24,
    history: int = 1,
    width: int = 32,
    modes: int = 16,
    blocks: int = 2,
    levels: int = 0,
    wavelet: str = "sym4",
    gaussian: bool = True,
    eofs: int = 0,
    limit: int = 4000,
    steps: int = 24,
) -> sciddm.Model:
    """An untrained model, which is its Gaussian law; without ``gaussian`` the network knows
    nothing but the variance, and the law only guides it."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample)
    dims = codec.grid.dims
    around = all(codec.grid.period(d) is not None for d in dims)
    held = films.Films(split.select(ds, "validation"), codec, task, length).spread(256)[0]
    known = films.Films(train, codec, task, length).spread(limit)[0]
    law, chosen = (
        (fit.eof(known, eofs), {"eofs": float(eofs)})
        if eofs
        else fit.film_law(known, held, length, Periodic() if around else Cosine())
    )
    process = VE(clock=LogLinear(0.005, 200.0))
    base = Gaussian(torch.zeros(()), law, process)
    torch.manual_seed(0)
    fold = 2 ** (levels * (1 + len(dims)))
    inputs = (2 if gaussian else 1) * len(names) * fold
    backbone: torch.nn.Module = nn.FilmNet(
        inputs, len(names) * fold, (modes,) * len(dims), (width,), blocks, periodic=around,
        causal=False,
    )  # fmt: skip
    if levels:
        turns = (False, *(codec.grid.period(d) is not None for d in dims))
        backbone = nn.Subbands(backbone, DWT(wavelet, turns, levels))
    denoiser = Preconditioned(backbone, process, base if gaussian else None)
    sampler = Film(denoiser, length, history, law=None if gaussian else base, steps=steps)
    return sciddm.Model(task, codec, sampler, notes={"law": chosen})
