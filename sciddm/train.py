"""Training a denoiser on a labelled store, on Lightning: the loop is not ours.

Everything random is a function of (seed, step): which fields, which noise levels, which noise. A
run that was killed and resumed therefore ends with the same weights, to the bit on one device.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import xarray as xr
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from sciddm.calibrate import Calibrated, Scaled, TwoPhase, calibrate, scale
from sciddm.checkpoint import SafeCheckpoints, checkpoints, newest, step_of
from sciddm.config import Train
from sciddm.data import split
from sciddm.data.codec import Codec, encoded
from sciddm.data.window import Batches
from sciddm.denoise import Context, CrossFitted, Moments, Preconditioned, denoising_loss
from sciddm.errors import InputError, RunError
from sciddm.model import Model
from sciddm.observe import Coarsen
from sciddm.random import Streams

LEVELS = 12
"""Noise levels at which the validation loss is reported."""


def fit(model: Model, ds: xr.Dataset, numbers: Train, *, resume: bool = False) -> Model:
    """Train ``model`` on the training split of ``ds``; returns it with the averaged weights.

    Checkpoints, the log (``log.jsonl``) and the best weights go to ``numbers.folder``. The
    validation split chooses the weights, and measures the covariance that guidance will use.

    Raises `InputError` for a model with nothing to train, a folder that holds a run unless
    ``resume``, one that was begun with other numbers or another network, and missing splits;
    `RunError` where the loss or the weights are not finite.
    """
    denoiser = model.diffusion.denoiser
    if not isinstance(denoiser, Preconditioned):
        raise InputError(
            f"Got a model whose denoiser is {type(denoiser).__name__}; expected Preconditioned, "
            "which has weights to train."
        )
    folder = numbers.folder
    last = newest(folder)
    if last is not None and not resume:
        raise InputError(f"{folder} holds a run already; resume it, or choose another folder.")
    dim = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    held = encoded(split.select(ds, "validation"), model.codec, dim)
    first, _ = Source(ds, model.codec, dim, numbers).at(0, 0, numbers.devices)
    check_coarse(model, first, numbers)  # refused before any work, as bad data in the line above
    folder.mkdir(parents=True, exist_ok=True)
    learner = Learner(denoiser, Source(ds, model.codec, dim, numbers), held, numbers)
    # what it says below a warning is about itself
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = pl.Trainer(
        max_steps=numbers.steps,
        limit_train_batches=numbers.steps,
        accelerator=numbers.accelerator,
        devices=numbers.devices,
        gradient_clip_val=numbers.clip,
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        plugins=[SafeCheckpoints()],
        callbacks=[Keeper(folder, numbers)],
        default_root_dir=folder,
    )
    if last is not None:
        _cut_log(folder / "log.jsonl", step_of(last))
    handler = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            # a step depends on its number alone, so there is no loader to resume
            warnings.filterwarnings("ignore", ".*resuming from a checkpoint that ended before")
            trainer.fit(learner, _loader(), ckpt_path=last)
    except SystemExit:  # what Lightning makes of an interrupt, deaf to the next one
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    trained = deepcopy(denoiser)
    trained.load_state_dict(learner.best_weights())
    if isinstance(trained.base, CrossFitted):
        trained.base = trained.base.whole
    trained.eval().requires_grad_(False)
    moments = measured(trained, model.moments, held)
    return replace(
        model,
        sampler=replace(model.diffusion, denoiser=trained),
        moments=moments,
        notes={**model.notes, "training": learner.summary()},
    )


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


class Source:
    """Batches of normalised fields by step number, each rank its own."""

    def __init__(self, ds: xr.Dataset, codec: Codec, dim: str, numbers: Train) -> None:
        self.part, self.dim = split.select(ds, "train"), dim
        self.codec, self.numbers = codec, numbers
        self._batches: Batches | None = None

    def at(self, step: int, rank: int, world: int) -> tuple[Tensor, Context]:
        """The batch (B, C, *grid) of a step on this rank, and where in the record it was."""
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


class Learner(pl.LightningModule):
    """One denoiser, its running average, and what it takes to train it."""

    best: Tensor
    waited: Tensor
    seconds: Tensor

    def __init__(
        self, denoiser: Preconditioned, source: Source, held: Tensor, numbers: Train
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.average = AveragedModel(denoiser, multi_avg_fn=get_ema_multi_avg_fn(numbers.ema))
        self.source, self.held, self.numbers = source, held, numbers
        self.measure = measure(source.codec)
        self.register_buffer("best", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("waited", torch.tensor(0))
        self.register_buffer("seconds", torch.tensor(0.0, dtype=torch.float64))
        self._since = time.monotonic()
        self._recent: list[float] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        step = self.global_step
        x, context = self.source.at(step, self.global_rank, self.trainer.world_size)
        x = rescaled(x, self.numbers, step, self.global_rank).to(self.device)
        x = coarsened(x, self.numbers, step)
        t = noise_times(self.denoiser, self.numbers, len(x), step).to(self.device)
        t = t.view(-1, *[1] * (x.ndim - 1))
        rng = Streams.of(self.numbers.seed, len(x), case=self.global_rank).at("train", step)
        loss = denoising_loss(self.denoiser, x, t, context, measure=self.measure, rng=rng).mean()
        if not bool(torch.isfinite(loss)):
            raise RunError(
                f"The loss is not finite at step {step}; the last checkpoint is kept. Lower the "
                "learning rate or look for values that are not finite in the data."
            )
        self._recent.append(float(loss.detach()))
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def settle(self, step: int) -> None:
        """After each step, before a checkpoint: the average, and a validation when it is due."""
        self.average.update_parameters(self.denoiser)
        if step % self.numbers.validation_every == 0 or step == self.numbers.steps:
            self._validate(step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["numbers"] = _numbers(self.numbers)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        begun = checkpoint.get("numbers", {})
        for key, value in _numbers(self.numbers).items():
            if begun.get(key) != value:
                raise InputError(
                    f"Got {key} = {value!r} to resume a run that was begun with "
                    f"{begun.get(key)!r}; keep its numbers, or start again in another folder."
                )
        shapes = {k: v.shape for k, v in checkpoint["state_dict"].items()}
        for key, tensor in self.state_dict().items():
            if shapes.get(key) != tensor.shape:
                raise InputError(
                    f"The run in {self.numbers.folder} trains another network ({key!r} differs); "
                    "start again in another folder."
                )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        numbers = self.numbers
        weights = [p for p in self.denoiser.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(
            weights, numbers.learning_rate, weight_decay=numbers.weight_decay
        )

        def rate(step: int) -> float:
            if step < numbers.warmup:
                return (step + 1) / numbers.warmup
            done = (step - numbers.warmup) / max(numbers.steps - numbers.warmup, 1)
            return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def best_weights(self) -> dict[str, Tensor]:
        """The averaged weights of the best validation."""
        state: dict[str, Tensor] = SafeCheckpoints().load_checkpoint(
            self.numbers.folder / "best.ckpt"
        )
        return state

    def summary(self) -> dict[str, object]:
        """Steps, seconds and the best validation loss, for the model card."""
        return {
            "steps": self.numbers.steps,
            "batch": self.numbers.batch,
            "seconds": round(float(self.seconds)),
            "validation_loss": round(float(self.best), 5),
        }

    @torch.no_grad()
    def _validate(self, step: int) -> None:
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        average = self.average.module
        assert isinstance(average, Preconditioned)
        levels = validation_losses(average, self.held[:256], self.measure)
        loss = float(levels[1].mean())
        if not math.isfinite(loss):
            raise RunError(f"The validation loss is not finite at step {step}.")
        first = self.trainer.is_global_zero
        if loss < float(self.best):
            self.best.fill_(loss)
            self.waited.zero_()
            if first:
                SafeCheckpoints().save_checkpoint(
                    dict(average.state_dict()), self.numbers.folder / "best.ckpt"
                )
        else:
            self.waited += 1
            if 0 < self.numbers.patience <= int(self.waited):
                self.trainer.should_stop = True
        line = {
            "step": step,
            "seconds": round(float(self.seconds), 1),
            "train": float(np.mean(self._recent)) if self._recent else None,
            "validation": loss,
            "log_kappa": [round(float(v), 3) for v in levels[0]],
            "by_level": [round(float(v), 5) for v in levels[1]],
        }
        self._recent.clear()
        if first:
            with open(self.numbers.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")


class Keeper(pl.Callback):
    """Settles each step and keeps the two newest states, each whole before an older one goes.

    Lightning calls a module's own hook after its callbacks: a checkpoint made by another callback
    would lack the average and the validation of its last step.
    """

    def __init__(self, folder: Path, numbers: Train) -> None:
        self.folder, self.numbers = folder, numbers

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, Learner)
        step = trainer.global_step
        pl_module.settle(step)
        if step % self.numbers.checkpoint_every and step != self.numbers.steps:
            return
        for name, weight in pl_module.denoiser.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise RunError(f"The weights {name!r} are not finite at step {step}.")
        trainer.save_checkpoint(self.folder / f"step={step}.ckpt")
        if trainer.is_global_zero:
            for old in checkpoints(self.folder)[:-2]:
                SafeCheckpoints().remove_checkpoint(old)


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


def check_coarse(model: Model, x: Tensor, numbers: Train) -> None:
    """Refuse coarse steps for fields ``x`` (B, C, *grid) that cannot be coarsened, or a network or
    base that is tied to its grid."""
    if not numbers.coarse_steps:
        return
    if model.codec.mask is not None:
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
    denoiser = model.diffusion.denoiser
    assert isinstance(denoiser, Preconditioned)
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


class _Counter(IterableDataset[int]):
    """Endless: what a step sees is a function of its number, not of a loader's state."""

    def __iter__(self) -> Iterator[int]:
        step = 0
        while True:
            yield step
            step += 1


def _loader() -> DataLoader[int]:
    return DataLoader(_Counter(), batch_size=None)


def _numbers(numbers: Train) -> dict[str, Any]:
    """The numbers that decide the weights."""
    free = ("out", "run", "accelerator", "devices", "checkpoint_every", "patience")
    return {k: v for k, v in asdict(numbers).items() if k not in free}


def _cut_log(log: Path, step: int) -> None:
    """Drop what was logged after ``step``: a resumed run logs it again."""
    if log.is_file():
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(v for v in lines if json.loads(v)["step"] <= step))
