"""Hourly 2 m temperature over the United Kingdom, the next day at once, from the last day.

Draws p(what given what)
    p(t2m of the next 24 hours | of the last 24 hours, the hour of the day); then the next 24.
Process and noise
    Variance exploding, white noise, on what the regression leaves of all 24 hours, each in units of
    its own s.d.
Backbone
    None: 546 training hours are about 8 weathers, and what they can teach is a regression with few
    coefficients (daily cycle, local stencils shared by all points, 20 patterns) and the covariance
    of its errors in time and space, both measured across blocks of days. It is drawn exactly, the
    wider the more the mean missed over the last day.
Trained on
    `datasets/era5_t2m_uk.py`, 1 to 23 March 2019; numbers chosen across its blocks.
Scores
    `python benchmarks/forecast.py t2m_uk`; see models/t2m_uk_autoregressive/card.md.
Do not use for
    Other regions, other seasons, other grids: it knows one March over 33 x 49 points.
"""

from __future__ import annotations

from functools import partial

import torch
import xarray as xr

import sciddm
from sciddm.data import split
from sciddm.data.codec import Normaliser, encoded
from sciddm.data.forcing import Forcings
from sciddm.denoise import Gaussian
from sciddm.forecasters import Autoregressive, Factored, Pace
from sciddm.forecasters.record import regression, unseen
from sciddm.process import VE, LogLinear
from sciddm.solve import Adams, GaussianForm


def build(
    ds: xr.Dataset,
    *,
    block: int = 24,
    folds: int = 6,
    harmonics: int = 2,
    history: int = 3,
    eofs: int = 20,
    share: float = 0.4,
    swing: float = 0.35,
    shapes: int = 60,
    rank: int = 200,
) -> sciddm.Model:
    """The whole model: there is nothing left to train.

    ``history`` past frames enter the local stencils, ``eofs`` patterns the linear law that has
    ``share`` of them; ``swing`` of the width of the last daily cycle stays. The errors of ``folds``
    blocks, each forecast by the others, give the covariance: ``shapes`` in space, ``rank`` in space
    and time.
    """
    train = split.select(ds, "train")
    codec = Normaliser.fit(train, ("t2m",), "time", pointwise=True)
    forcings = Forcings(day=True)
    x = encoded(train, codec, "time")
    hours = torch.from_numpy(forcings.at(train.time))
    fitted = partial(
        regression, harmonics=harmonics, history=history, eofs=eofs, share=share, swing=swing
    )
    parts = unseen(x, hours, fitted, block, folds=folds)
    left = torch.cat(parts)
    scale = left.square().mean([0, *range(3, left.ndim)]).sqrt()
    left = left / scale.view(*scale.shape, *[1] * (left.ndim - 3))
    law = Factored.fit(left, shapes, rank)
    process = VE(clock=LogLinear(0.01, 15 * float(law.variances.max()) ** 0.5))
    base = Gaussian(torch.zeros(()), law, process)
    sampler = Autoregressive(
        base, fitted([(x, hours)]), scale, block=block, solver=Adams(1, form=GaussianForm(base)),
        steps=3, pace=Pace.fit(parts, turn=24),
    )  # fmt: skip
    task = sciddm.Task(
        sciddm.View(("t2m",)), sample="time", lead=sciddm.task.Lead(1.0, "hours"), time="time"
    )
    return sciddm.Model(task, codec, sampler, forcings=forcings)
