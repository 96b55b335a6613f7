"""An unconditional diffusion of series as functions of time: one model fills, forecasts and makes.

Draws p(what given what)
    p(series) at any times; conditioned when it is asked, without training for a task: gaps, times
    to come, new series.
Process and noise
    Variance preserving, its noise a Gaussian process in physical time at each series' own times:
    the law of the data by maximum likelihood (`white`: noise of that size, independent from value
    to value). Untrained the model is that law, exactly. Known values enter by moment matching with
    the law's covariance.
Backbone
    `LongConv` on regular windows, `TrendSeason` where its parts are asked for (`modes`), and a
    `SetTransformer` over cells at irregular times; `steps` evaluations a draw.
Trained on
    Any data set of series, windows of all values: `datasets/cir.py` for its test.
Scores
    `python -m pytest tests/series/test_prior.py`: exact for a Gaussian law; a conditional model
    (models/series_conditional.py) is the stronger one where what is known never changes its kind.
Do not use for
    More than about 1000 values at a time: the law costs their cube.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm import series_law
from sciddm.data import items
from sciddm.data.clock import Clock
from sciddm.data.masks import Share
from sciddm.data.measure import Centred, Log, Scale
from sciddm.data.series import SeriesCodec
from sciddm.nn import LongConv, SetTransformer, TrendSeason, Unconditional
from sciddm.series import Direct, FunctionPrior, GaussianSeries, Matching, Spectrum
from sciddm.series.kernel import Mixed
from sciddm.task import Lead, Task, View


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    logs: tuple[str, ...] = (),
    regular: bool = False,
    unit: str = "",
    window: int = 0,
    centred: bool = False,
    seasons: bool = False,
    rank: int = 1,
    fit_steps: int = 150,
    white: bool = False,
    periods: tuple[float, ...] = (),
    modes: int = 0,
    width: int = 32,
    blocks: int = 3,
    steps: int = 20,
    corrections: int = 0,
    noise_mean: float = -0.5,
    noise_std: float = 1.5,
    seed: int = 0,
) -> sciddm.Model:
    """The likeliest law of the training items, with a network that is silent until trained.

    ``regular`` takes the steps of the data for granted, in windows of ``window`` rows (0: the
    longest item), each ``centred`` and scaled by what is known of it; ``unit`` is that of dates.
    With ``modes`` the network answers by a trend and so many modes of a season for each block, and
    is held to their spectrum. ``periods`` are told to it. ``corrections`` of the law's covariance
    by the network's Jacobian are for draws, see `sciddm.series.Matching`.
    """
    every = items.of(ds, target=variables)
    train = every.split("train")
    clock = Clock.of(train, unit, regular=regular)
    rows = window or (max(map(len, train)) if regular else 0)
    item: Scale | None = Centred() if centred else None
    codec = SeriesCodec.fit(
        train, clock, window=rows or None, item=item, masks=Share(1.0, 1.0),
        warps=tuple(Log() if n in logs else None for n in train.variables) if logs else (),
    )  # fmt: skip
    fitted = series_law.model(
        train, clock, codec, periods=None if seasons else (), held=every.split("validation"),
        rank=rank, steps=fit_steps,
    ).sampler  # fmt: skip
    assert isinstance(fitted, GaussianSeries) and isinstance(fitted.law, Mixed)
    noise = Mixed((), torch.ones(codec.channels, dtype=torch.float64)) if white else None
    inputs, covariates, static = 2 if white else 1, codec.told, len(codec.static)
    torch.manual_seed(seed)
    net: torch.nn.Module
    if regular and modes:
        net = TrendSeason(
            inputs, codec.channels, width, blocks, modes=modes, periods=periods,
            covariates=covariates, static=static,
        )  # fmt: skip
    elif regular:
        net = LongConv(
            inputs, codec.channels, width, blocks, periods=periods, covariates=covariates,
            static=static,
        )  # fmt: skip
    else:
        numbers = [clock.numbers(i.time) for i in train if len(i) > 1]
        span = max(float(t[-1] - t[0]) for t in numbers)
        gap = min(float(t[-1] - t[0]) / len(t) for t in numbers)
        net = Unconditional(SetTransformer(
            codec.channels, gap, span, width, readers=1, writers=blocks, periods=periods,
            covariates=covariates, static=static,
        ))  # fmt: skip
    prior = FunctionPrior(
        fitted.law, net, noise, Matching(steps, corrections), Direct() if modes else None,
        Spectrum() if modes else None, noise_mean=noise_mean, noise_std=noise_std,
        channels=codec.channels,
    )  # fmt: skip
    lead = None if clock.step is None or not clock.dated else Lead(clock.step, clock.unit)
    return sciddm.Model(Task(View(codec.names), sample="item", lead=lead), codec, prior)
