"""Training a model on a labelled store, on Lightning: the loop is not ours.

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
from dataclasses import asdict, fields, is_dataclass, replace
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

from sciddm import objective
from sciddm.checkpoint import SafeCheckpoints, checkpoints, newest, step_of
from sciddm.config import Train
from sciddm.errors import InputError, RunError
from sciddm.model import Model
from sciddm.objective import Objective


def fit(model: Model, ds: xr.Dataset, numbers: Train, *, resume: bool = False) -> Model:
    """Train ``model`` on the training split of ``ds``; returns it with the averaged weights.

    Checkpoints, the log (``log.jsonl``) and the best weights go to ``numbers.folder``. The
    validation split chooses the weights, and measures the covariance that guidance will use.

    Raises `InputError` for a model with nothing to train, a folder that holds a run unless
    ``resume``, one that was begun with other numbers or another network, and missing splits;
    `RunError` where the loss or the weights are not finite.
    """
    folder = numbers.folder
    last = newest(folder)
    if last is not None and not resume:
        raise InputError(f"{folder} holds a run already; resume it, or choose another folder.")
    goal = objective.of(model, ds, numbers)
    folder.mkdir(parents=True, exist_ok=True)
    loop = Loop(goal, numbers)
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
            trainer.fit(loop, _loader(), ckpt_path=last)
    except SystemExit:  # what Lightning makes of an interrupt, deaf to the next one
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
    trained = deepcopy(goal.module)
    trained.load_state_dict(loop.best_weights())
    trained.eval().requires_grad_(False)
    done = goal.finish(model, trained)
    return replace(done, notes={**model.notes, "training": loop.summary()})


class Loop(pl.LightningModule):
    """What is trained, its running average, and what it takes to train it."""

    best: Tensor
    waited: Tensor
    seconds: Tensor
    stage: Tensor

    def __init__(self, goal: Objective, numbers: Train) -> None:
        super().__init__()
        self.module = goal.module
        self.average = AveragedModel(self.module, multi_avg_fn=get_ema_multi_avg_fn(numbers.ema))
        self.goal, self.numbers = goal, numbers
        self.register_buffer("best", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("waited", torch.tensor(0))
        self.register_buffer("seconds", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("stage", torch.tensor(0))
        self._since = time.monotonic()
        self._recent: list[float] = []

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        step, rank = self.global_step, self.global_rank
        x, context = self.goal.batch(step, rank, self.trainer.world_size)
        loss = self.goal.loss(_on(x, self.device), _on(context, self.device), step, rank).mean()
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
        self.average.update_parameters(self.module)
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
        weights = [p for p in self.module.parameters() if p.requires_grad]
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
        found = self.goal.validate(average, step)
        loss = found["validation"]
        if not math.isfinite(loss):
            raise RunError(f"The validation loss is not finite at step {step}.")
        stage = sum(step >= share * self.numbers.steps for share in self.goal.stages)
        if stage != int(self.stage):  # another loss: what was best before says nothing now
            self.stage.fill_(stage)
            self.best.fill_(math.inf)
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
            **found,
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
        assert isinstance(pl_module, Loop)
        step = trainer.global_step
        pl_module.settle(step)
        if step % self.numbers.checkpoint_every and step != self.numbers.steps:
            return
        for name, weight in pl_module.module.named_parameters():
            if not bool(torch.isfinite(weight).all()):
                raise RunError(f"The weights {name!r} are not finite at step {step}.")
        trainer.save_checkpoint(self.folder / f"step={step}.ckpt")
        if trainer.is_global_zero:
            for old in checkpoints(self.folder)[:-2]:
                SafeCheckpoints().remove_checkpoint(old)


def _on(part: Any, device: torch.device) -> Any:
    """A tensor, or the tensors of a dataclass, where the weights are."""
    if isinstance(part, Tensor):
        return part.to(device)
    if not is_dataclass(part) or isinstance(part, type):
        return part
    moved = {f.name: _on(getattr(part, f.name), device) for f in fields(part)}
    return type(part)(**moved)


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
