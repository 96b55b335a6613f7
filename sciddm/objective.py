"""What is trained and what it is held to: a denoiser of fields, a forecaster of films, or a model
of series.

An objective is all that the training loop sees: batches by step number, a loss, a validation. All
kinds are functions of (seed, step) alone, so that a resumed run is the uninterrupted one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sciddm.calibrate import Calibrated, Scaled, TwoPhase, calibrate, scale
from sciddm.config import Train
from sciddm.data import items, split
from sciddm.data.codec import Codec, encoded
from sciddm.data.films import Films
from sciddm.data.panels import Panels
from sciddm.data.window import Batches
from sciddm.denoise import Context, CrossFitted, Moments, Preconditioned, denoising_loss
from sciddm.errors import InputError
from sciddm.forecasters import Forecaster, Learner
from sciddm.model import Model
from sciddm.observe import Coarsen
from sciddm.random import Streams
from sciddm.series.base import SeriesLearner, SeriesSampler
from sciddm.series.panel import Panel

LEVELS = 12
"""Noise levels at which the validation loss of a denoiser is reported."""
HELD = 256
"""The most fields or films of the validation split that each validation sees."""


class Objective(ABC):
    """What the training loop sees of a model and its data. ``module`` holds the weights."""

    module: nn.Module
    stages: tuple[float, ...] = ()
    """Shares of the training at which another stage begins: losses before and after are not
    compared."""

    @abstractmethod
    def batch(self, step: int, rank: int, world: int) -> tuple[Any, Any]:
        """What a step on this rank is trained on: a batch, and what was known beside it. Each is a
        tensor, a dataclass of tensors, or None."""

    @abstractmethod
    def loss(self, x: Any, context: Any, step: int, rank: int) -> Tensor:
        """What is minimised, (B,), of a batch and what was known beside it."""

    @abstractmethod
    def validate(self, module: nn.Module, step: int) -> dict[str, Any]:
        """What is logged of ``module``, a copy of the trained one: its loss is ``validation``."""

    @abstractmethod
    def finish(self, model: Model, trained: nn.Module) -> Model:
        """``model`` with the trained weights."""


class Denoising(Objective):
    """A `Preconditioned` denoiser on the weighted error at random noise levels.

    The covariance that guidance will use is measured on the validation split at the end.
    """

    module: Preconditioned

    def __init__(self, model: Model, ds: xr.Dataset, numbers: Train) -> None:
        denoiser = model.diffusion.denoiser
        if not isinstance(denoiser, Preconditioned):
            raise InputError(
                f"Got a model whose denoiser is {type(denoiser).__name__}; expected Preconditioned,"
                " which has weights to train."
            )
        self.module, self.codec, self.numbers = denoiser, model.fields, numbers
        self.dim = str(ds.attrs.get("sciddm_sample_dim", "sample"))
        self.held = encoded(split.select(ds, "validation"), model.fields, self.dim)
        self.part = split.select(ds, "train")
        self.measure = measure(model.fields)
        self._batches: Batches | None = None
        first, _ = self.batch(0, 0, numbers.devices)
        check_coarse(denoiser, model.fields, first, numbers)

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Context]:
        """Normalised fields (B, C, *grid), and where in the record they were."""
        if self._batches is None:
            names = [n for n in self.codec.variables if n in self.part]
            self._batches = Batches(
                self.part,
                names,
                sample_dim=self.dim,
                batch=self.numbers.batch,
                seed=self.numbers.seed,
                rank=rank,
                world=world,
            )
        where = torch.from_numpy(self._batches.index(step))
        return self.codec.encode(self._batches.at(step)), Context(index=where)

    def loss(self, x: Tensor, context: Context, step: int, rank: int) -> Tensor:
        x = coarsened(rescaled(x, self.numbers, step, rank), self.numbers, step)
        t = noise_times(self.module, self.numbers, len(x), step).to(x.device)
        t = t.view(-1, *[1] * (x.ndim - 1))
        rng = Streams.of(self.numbers.seed, len(x), case=rank).at("train", step)
        return denoising_loss(self.module, x, t, context, measure=self.measure, rng=rng)

    def validate(self, module: nn.Module, step: int) -> dict[str, Any]:
        assert isinstance(module, Preconditioned)
        levels = validation_losses(module, self.held[:HELD], self.measure)
        return {
            "validation": float(levels[1].mean()),
            "log_kappa": [round(float(v), 3) for v in levels[0]],
            "by_level": [round(float(v), 5) for v in levels[1]],
        }

    def finish(self, model: Model, trained: nn.Module) -> Model:
        assert isinstance(trained, Preconditioned)
        if isinstance(trained.base, CrossFitted):
            trained.base = trained.base.whole
        moments = measured(trained, model.moments, self.held)
        return replace(model, sampler=replace(model.diffusion, denoiser=trained), moments=moments)


class Forecasting(Objective):
    """A `forecasters.Learner` on films of the training split, by its own loss."""

    module: Learner

    def __init__(self, model: Model, ds: xr.Dataset, numbers: Train) -> None:
        learner = model.forecaster
        if not isinstance(learner, Learner):
            raise InputError(
                f"Got a model that forecasts by {type(learner).__name__}, which has no weights to "
                "train; expected one of the learned forecasters. It can be saved as it is."
            )
        if numbers.coarse_steps or numbers.amplitude:
            raise InputError(
                "Got coarse_steps or an amplitude for a forecaster; expected neither: they are of "
                "models that draw single fields. Leave them out."
            )
        self.module, self.numbers, self.stages = learner, numbers, tuple(learner.stages)
        self.model, self.part = model, split.select(ds, "train")
        held = split.select(ds, "validation")
        films = Films(held, model.fields, model.task, learner.window, model.forcings)
        self.held, self.beside = films.spread(HELD)
        self._films: Films | None = None
        self.batch(0, 0, numbers.devices)

    def batch(self, step: int, rank: int, world: int) -> tuple[Tensor, Context]:
        """Normalised films (B, C, window, *grid), and what was known beside them."""
        if self._films is None:
            self._films = Films(
                self.part,
                self.model.fields,
                self.model.task,
                self.module.window,
                self.model.forcings,
                batch=self.numbers.batch,
                seed=self.numbers.seed,
                rank=rank,
                world=world,
            )
        return self._films.at(step)

    def loss(self, x: Tensor, context: Context, step: int, rank: int) -> Tensor:
        rng = Streams.of(self.numbers.seed, len(x), case=rank).at("train", step)
        rng = rng.inside("training step", step)
        return self.module.loss(x, context, rng, step / self.numbers.steps)

    def validate(self, module: nn.Module, step: int) -> dict[str, Any]:
        assert isinstance(module, Learner)
        share = min(step / self.numbers.steps, 1 - 1e-9)
        rows, known, beside = [], self.beside.forcings, self.beside
        for j in range(0, len(self.held), 32):
            x = self.held[j : j + 32]
            forcings = None if known is None else known[j : j + 32]
            context = Context(fields=beside.fields, forcings=forcings)
            rng = Streams.of(0, len(x), case=j).inside("validation")
            rows.append(module.loss(x, context, rng, share))
        return {"validation": float(torch.cat(rows).mean())}

    def finish(self, model: Model, trained: nn.Module) -> Model:
        assert isinstance(trained, Forecaster)
        return replace(model, sampler=trained)


class Filling(Objective):
    """A `SeriesLearner` on windows of the training items with values hidden, by its own loss."""

    module: SeriesLearner

    def __init__(self, model: Model, ds: xr.Dataset, numbers: Train) -> None:
        learner = model.series
        if not isinstance(learner, SeriesLearner):
            raise InputError(
                f"Got a model that draws series by {type(learner).__name__}, which has no weights "
                "to train; expected one of the learned ones. It can be saved as it is."
            )
        if numbers.coarse_steps or numbers.amplitude:
            raise InputError(
                "Got coarse_steps or an amplitude for a model of series; expected neither: they are"
                " of models that draw single fields. Leave them out."
            )
        self.module, self.numbers, self.codec = learner, numbers, model.cells
        self.stages = tuple(learner.stages)
        every = items.of(ds)
        self.part = every.split("train")
        self.held = Panels(every.split("validation"), model.cells).spread(HELD)
        self._panels: Panels | None = None

    def batch(self, step: int, rank: int, world: int) -> tuple[Panel, None]:
        """A panel of windows."""
        if self._panels is None:
            self._panels = Panels(
                self.part, self.codec, batch=self.numbers.batch, seed=self.numbers.seed, rank=rank
            )
        return self._panels.at(step), None

    def loss(self, x: Panel, context: None, step: int, rank: int) -> Tensor:
        rng = Streams.of(self.numbers.seed, len(x), case=rank).at("train", step)
        rng = rng.inside("training step", step)
        return self.module.loss(x, rng, step / self.numbers.steps)

    def validate(self, module: nn.Module, step: int) -> dict[str, Any]:
        assert isinstance(module, SeriesLearner)
        share = min(step / self.numbers.steps, 1 - 1e-9)
        device = next(module.parameters()).device
        rows = []
        for j in range(0, len(self.held), self.numbers.batch):
            part = self.held.rows(slice(j, j + self.numbers.batch)).to(device)
            rng = Streams.of(0, len(part), case=j).inside("validation")
            rows.append(module.loss(part, rng, share))
        return {"validation": float(torch.cat(rows).mean())}

    def finish(self, model: Model, trained: nn.Module) -> Model:
        assert isinstance(trained, SeriesLearner)
        return replace(model, sampler=trained)


def of(model: Model, ds: xr.Dataset, numbers: Train) -> Objective:
    """The objective that fits the sampler of ``model``. Raises `InputError` before any work."""
    if isinstance(model.sampler, SeriesSampler):
        return Filling(model, ds, numbers)
    if isinstance(model.sampler, Forecaster):
        return Forecasting(model, ds, numbers)
    return Denoising(model, ds, numbers)


def measured(denoiser: Preconditioned, moments: Moments | None, held: Tensor) -> Moments | None:
    """The model's moments with the trained network's own errors on validation fields ``held``."""
    if isinstance(moments, TwoPhase):
        inner = calibrate(denoiser, held, moments.inner.modes, Context())
        return replace(moments, inner=inner)
    if isinstance(moments, Calibrated):
        return calibrate(denoiser, held, moments.modes, Context())
    if isinstance(moments, Scaled):
        return scale(denoiser, moments.base, held, Context())
    return moments


def noise_times(denoiser: Preconditioned, numbers: Train, batch: int, step: int) -> Tensor:
    """Stratified times (B,) whose log kappa is normal, a function of (seed, step)."""
    key = np.random.SeedSequence([numbers.seed, step, 7])
    rng = np.random.Generator(np.random.Philox(key))
    share = torch.from_numpy((np.arange(batch) + rng.random(batch)) / batch)
    log_kappa = numbers.noise_mean + numbers.noise_std * torch.special.ndtri(share)
    return denoiser.process.clock.time(log_kappa.exp()).clamp(0, 1)


def rescaled(x: Tensor, numbers: Train, step: int, rank: int) -> Tensor:
    """Fields (B, ...) times random factors of log s.d. ``amplitude``, a function of the step."""
    if numbers.amplitude == 0:
        return x
    rng = Streams.of(numbers.seed, len(x), case=rank).at("amplitude", step)
    factor = torch.exp(numbers.amplitude * rng.normal(x.new_zeros(len(x), 1)))
    return x * factor.view(-1, *[1] * (x.ndim - 1))


def coarsened(x: Tensor, numbers: Train, step: int) -> Tensor:
    """Block means of fields (B, C, *grid) in the first ``coarse_steps``, then the fields."""
    if step >= numbers.coarse_steps:
        return x
    return Coarsen((numbers.coarse,) * (x.ndim - 2)).field(x)


def check_coarse(denoiser: Preconditioned, codec: Codec, x: Tensor, numbers: Train) -> None:
    """Refuse coarse steps for fields ``x`` (B, C, *grid) that cannot be coarsened, or a network or
    base that is tied to its grid."""
    if not numbers.coarse_steps:
        return
    if codec.mask is not None:
        raise InputError(
            "Got coarse_steps for fields with missing points, whose block means are not known; "
            "expected whole fields, set coarse_steps = 0."
        )
    if min(x.shape[2:]) < 4 * numbers.coarse:
        raise InputError(
            f"Got blocks of {numbers.coarse} points on a grid {tuple(x.shape[2:])}; expected at "
            "least 4 blocks along every axis, set a smaller `coarse`."
        )
    small = Coarsen((numbers.coarse,) * (x.ndim - 2)).field(x[:1])
    t = torch.full((1, *[1] * (x.ndim - 1)), 0.5, dtype=torch.float64)
    try:
        with torch.no_grad():
            denoiser(small, t, Context(index=torch.zeros(1, dtype=torch.long)))
            denoiser.scale(t, small)
    except (InputError, RuntimeError, IndexError, ValueError) as fault:
        line = " ".join(str(fault).split())[:200]
        raise InputError(
            f"Got coarse_steps for a model that is tied to its grid ({line}); expected one whose "
            "base is a spectrum or that has none, set coarse_steps = 0."
        ) from None


def validation_losses(
    denoiser: Preconditioned, held: Tensor, measure: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(log kappa, loss) at `LEVELS` noise levels, with the same noise at every call."""
    times = denoiser.process.times(LEVELS).flip(0)
    losses = []
    for i, t in enumerate(times):
        rows = [
            denoising_loss(
                denoiser,
                x,
                t.expand(len(x)).view(-1, *[1] * (x.ndim - 1)),
                Context(),
                measure=measure,
                rng=Streams.of(0, len(x), case=j).at("validate", i),
            )
            for j, x in enumerate(held.split(64))
        ]
        losses.append(torch.cat(rows).mean())
    return denoiser.process.kappa(times).log(), torch.stack(losses)


def measure(codec: Codec) -> Tensor | None:
    """Weight of each grid value in the loss: the mask, or None where every point counts alike."""
    mask = codec.mask
    return None if mask is None else mask.float()[None]
