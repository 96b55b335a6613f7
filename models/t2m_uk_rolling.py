"""Hourly 2 m temperature over the United Kingdom, forecast by a rolling window of hours.

Draws p(what given what)
    p(t2m of the next hours | t2m of the last hours).
Process and noise
    What a regression leaves of each hour of a window (daily cycle, local stencils and tendencies,
    patterns), each on a clock of its own, variance preserving, the angle of the noise even in time;
    noise of the EOFs of that rest, measured on blocks of days that the regression did not see.
Backbone
    A film network on cosines with attention over the hours, told the hour of the day, at its start,
    where it answers zero: the noise, correlated from hour to hour, is then all that is drawn. One
    month is too short to train it: it learns the rest of the days that the regression was fitted
    to, which is smaller, and on the validation days the spread falls to 0.66 of the error (0.89
    to 1.05 without training, by the correlation) and the CRPS rises by 3 %.
Trained on
    `datasets/era5_t2m_uk.py`, fitted to 1 to 23 March 2019; the correlation was chosen on 24 to 26
    March.
Scores
    `python benchmarks/forecast.py t2m_uk`; see models/t2m_uk_rolling/card.md.
Do not use for
    Other regions, other seasons, other grids: it knows one March over 33 x 49 points.
"""

from __future__ import annotations

from functools import partial

import torch
import xarray as xr

import sciddm
from sciddm import fit, nn
from sciddm.data import split
from sciddm.data.codec import Normaliser, encoded
from sciddm.data.forcing import Forcings
from sciddm.forecasters import Rolling
from sciddm.forecasters.record import regression, unseen
from sciddm.process import VP, CosineAlpha


def build(
    ds: xr.Dataset,
    *,
    window: int = 4,
    past: int = 1,
    folds: int = 6,
    harmonics: int = 2,
    history: int = 3,
    eofs: int = 20,
    share: float = 0.4,
    shapes: int = 200,
    correlation: float = 0.4,
    widths: tuple[int, ...] = (4, 8),
    modes: tuple[int, int] = (4, 4),
    blocks: int = 1,
    steps: int = 1,
) -> sciddm.Model:
    """The whole model: the regression, and the errors of ``folds`` blocks each forecast by the
    others, are fitted here. ``shapes`` are kept of their covariance; ``correlation`` of the noise
    from an hour to the next was chosen on the validation days."""
    train = split.select(ds, "train")
    codec = Normaliser.fit(train, ("t2m",), "time", pointwise=True)
    forcings = Forcings(day=True)
    x = encoded(train, codec, "time")
    hours = torch.from_numpy(forcings.at(train.time))
    fitted = partial(regression, harmonics=harmonics, history=history, eofs=eofs, share=share)
    left = torch.cat(unseen(x, hours, fitted, 1, folds=folds))[:, :, 0]
    scale = left.square().mean([0, *range(2, left.ndim)]).sqrt()
    noise = fit.eof(left / scale.view(-1, 1, 1), shapes)
    torch.manual_seed(0)
    inputs = 1 + past + 2 * forcings.channels
    backbone = nn.FilmNet(inputs, 1, modes, widths, blocks, causal=False)
    sampler = Rolling(
        backbone, VP(noise, CosineAlpha()), fitted([(x, hours)]), scale, window, past, correlation,
        steps=steps,
    )  # fmt: skip
    task = sciddm.Task(
        sciddm.View(("t2m",)), sample="time", lead=sciddm.task.Lead(1.0, "hours"), time="time"
    )
    return sciddm.Model(task, codec, sampler, forcings=forcings)
