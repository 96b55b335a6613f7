"""A model: a task, a codec and a sampler. Saved as data, never as code.

A saved folder holds ``model.json`` (the tree of sciddm classes and their arguments),
``codec.json``, ``weights.safetensors``, ``card.md`` and ``manifest.json`` with the sha256 of each.
Loading checks every hash, builds only classes that sciddm exports and never unpickles.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as pack_tensors

from sciddm import saved
from sciddm.calibrate import Calibrated, Scaled, TwoPhase
from sciddm.classes import CLASSES
from sciddm.data import disk
from sciddm.data.codec import Codec
from sciddm.data.forcing import Forcings
from sciddm.data.series import SeriesCodec
from sciddm.denoise import Context, CrossFitted, Denoiser, Gaussian, Moments, Preconditioned
from sciddm.errors import InputError, nearest
from sciddm.forecasters import Forecaster
from sciddm.pde import Phases
from sciddm.series.base import SeriesSampler
from sciddm.solve import Diffusion, Solver
from sciddm.task import Task
from sciddm.tree import Encoder, decode

OF_SERIES = (
    "This model draws what series lack, not fields: use sd.impute, sd.forecast or sd.generate with "
    "a frame or a Dataset of series."
)
OF_FIELDS = (
    "This model draws fields, not series: use sd.recover, sd.generate or sd.forecast with a Dataset"
    " of fields, or load a model of series."
)

Sampler = Diffusion | Forecaster | Phases | SeriesSampler


@dataclass(frozen=True, eq=False)
class Model:
    """Draws p(target | observations): what `sciddm.recover` and `sciddm.generate` take.

    Parameters
    ----------
    task : which variables. codec : labelled fields, or series, <-> tensors. sampler : draws from
        the prior (a diffusion, or a level set), or a `Forecaster`, which draws the frames that
        follow a past, or a `SeriesSampler`, which draws what a series lacks.
    moments : the covariance that guidance uses in closed form, or None (guidance then goes through
        the network's Jacobian).
    notes : figures for people, kept as JSON (training data, time, scores).
    card : the model card, markdown.
    forcings : what a forecaster is told beside the frames, or None.
    """

    task: Task
    codec: Codec | SeriesCodec
    sampler: Sampler
    moments: Moments | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    card: str = "# A sciddm model\n"
    forcings: Forcings | None = None

    @property
    def fields(self) -> Codec:
        """The codec of fields. Raises `InputError` for a model of series."""
        if isinstance(self.codec, SeriesCodec):
            raise InputError(OF_SERIES)
        return self.codec

    @property
    def cells(self) -> SeriesCodec:
        """The codec of series. Raises `InputError` for a model of fields."""
        if not isinstance(self.codec, SeriesCodec):
            raise InputError(OF_FIELDS)
        return self.codec

    @property
    def series(self) -> SeriesSampler:
        """The sampler of series. Raises `InputError` for a model of fields."""
        if not isinstance(self.sampler, SeriesSampler):
            raise InputError(OF_FIELDS)
        return self.sampler

    @property
    def diffusion(self) -> Diffusion:
        """The diffusion of fields. Raises `InputError` for a model without one."""
        if isinstance(self.sampler, SeriesSampler):
            raise InputError(OF_SERIES)
        if isinstance(self.sampler, Forecaster):
            raise InputError(
                "This model forecasts: it draws the frames that follow a past; use sd.forecast."
            )
        if not isinstance(self.sampler, Diffusion):
            raise InputError(
                f"This model draws by {type(self.sampler).__name__}, without a network: it takes no"
                " steps, solver or rule, and has no density. Leave them out."
            )
        return self.sampler

    @property
    def forecaster(self) -> Forecaster:
        """The sampler of frames. Raises `InputError` for a model that does not forecast."""
        if isinstance(self.sampler, SeriesSampler):
            raise InputError(OF_SERIES)
        if not isinstance(self.sampler, Forecaster):
            raise InputError(
                "This model draws fields and does not forecast; use sd.recover or sd.generate, or "
                "load a model that forecasts."
            )
        return self.sampler

    @property
    def gaussian(self) -> Gaussian | None:
        """The Gaussian model inside, if there is one: the baseline of every table."""
        if not isinstance(self.sampler, Diffusion):
            return None
        known: list[object] = [
            self.sampler.denoiser,
            getattr(self.sampler.denoiser, "base", None),
            self.moments,
            getattr(self.moments, "base", None),
        ]
        return next((g for g in known if isinstance(g, Gaussian)), None)

    def at(self, sizes: Mapping[str, int]) -> Model:
        """The same model on a grid of other sizes over the same domain.

        Raises `InputError` where its codec, network or covariance is tied to the training grid.
        """
        codec = self.fields.at(self.fields.grid.resized(sizes))
        if codec.grid.shape != self.fields.grid.shape and not isinstance(self.sampler, Phases):
            blank, t = torch.zeros(1, *codec.shape), torch.tensor(0.5).double()
            try:
                with torch.no_grad():
                    self.diffusion.denoiser(blank, t, Context())
                    if self.moments is not None:
                        self.moments.covariance(t)(blank)
            except (RuntimeError, IndexError, ValueError):
                raise InputError(
                    f"This model is tied to its grid {self.fields.grid.shape}, by its network or "
                    f"by its measured covariance; got {codec.grid.shape}. Use the training grid."
                ) from None
        return replace(self, codec=codec)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folder: a new one beside it first, then swapped in whole.

        Of a cross-fitted base the part that is used in drawing is kept, not those of training.
        Raises `InputError` where it exists and ``overwrite`` is not said or it is no saved model,
        and for a model that could not be loaded again; `RunError` where the disk refuses.
        """
        folder = Path(folder)
        if folder.exists() and not overwrite:
            raise InputError(f"The folder {folder} exists; choose another or say overwrite.")
        if folder.exists() and not (folder / "model.json").is_file():
            raise InputError(f"{folder} exists and is no saved model; it is not replaced.")
        encoder = Encoder()
        tree = {
            "format": saved.FORMAT,
            "task": encoder.encode(self.task, "task"),
            "sampler": encoder.encode(_in_use(self.sampler), "sampler"),
            "moments": encoder.encode(self.moments, "moments"),
            "forcings": encoder.encode(self.forcings, "forcings"),
            "notes": dict(self.notes),
        }
        codec = {"format": saved.FORMAT, "codec": encoder.encode(self.codec, "codec")}
        for name in sorted(saved.class_names(tree) | saved.class_names(codec)):
            if name not in CLASSES:
                raise InputError(f"A model with a {name} cannot be saved.{nearest(name, CLASSES)}")
        saved.check_finite(encoder.tensors, folder)
        parts = {
            "model.json": json.dumps(tree, indent=1).encode(),
            "codec.json": json.dumps(codec, indent=1).encode(),
            "weights.safetensors": pack_tensors(encoder.tensors),
            "card.md": self.card.encode(),
        }
        manifest = {
            "format": saved.FORMAT,
            "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()},
        }
        parts["manifest.json"] = json.dumps(manifest, indent=1).encode()
        fresh = folder.with_name(folder.name + ".partial")
        with disk.one_line(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(fresh, ignore_errors=True)
            try:
                saved.write(fresh, parts)
                disk.swap(fresh, folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return folder


def _in_use(sampler: Sampler) -> Sampler:
    """The sampler without what only training needs."""
    if not isinstance(sampler, Diffusion):
        return sampler
    denoiser = sampler.denoiser
    if isinstance(denoiser, Preconditioned) and isinstance(denoiser.base, CrossFitted):
        whole = denoiser.base.whole
        return replace(sampler, denoiser=Preconditioned(denoiser.backbone, denoiser.process, whole))
    return sampler


def load(folder: str | Path) -> Model:
    """Load a saved model folder. Nothing in it is run.

    Raises `InputError` for a missing, altered or foreign file, another format version, tensors
    that are missing, extra or not finite, and classes that sciddm does not offer.
    """
    folder = Path(folder)
    parts = saved.read(folder)
    tree, codec = (
        saved.parsed(parts[name], folder / name) for name in ("model.json", "codec.json")
    )
    tensors = saved.tensors_of(parts["weights.safetensors"], folder / "weights.safetensors")
    try:
        build = [decode(tree[k], tensors, CLASSES) for k in ("task", "sampler", "moments")]
        task, sampler, moments = build
        model_codec = decode(codec["codec"], tensors, CLASSES)
        forcings = decode(tree.get("forcings"), tensors, CLASSES)
        notes, card = dict(tree.get("notes", {})), parts["card.md"].decode()
    except InputError as fault:
        raise InputError(f"{folder}: {fault}") from None
    except Exception as fault:  # whatever a description that fits no class can cause
        line = " ".join(str(fault).split())[:200]
        raise InputError(f"{folder} describes no model: {type(fault).__name__} {line}.") from None
    wanted: tuple[tuple[object, Any, str], ...] = (
        (task, Task, "Task"),
        (sampler, Sampler, "Diffusion, Forecaster, Phases or SeriesSampler"),
        (model_codec, SeriesCodec if isinstance(sampler, SeriesSampler) else Codec, "Codec"),
        (forcings, Forcings | None, "Forcings"),
    )
    for value, kind, name in wanted:
        if not isinstance(value, kind):
            raise InputError(f"{folder}: expected a {name}, got {type(value).__name__}.")
    if moments is not None and not isinstance(moments, Calibrated | Scaled | TwoPhase | Gaussian):
        raise InputError(f"{folder}: {type(moments).__name__} knows no covariance.")
    if isinstance(sampler, Diffusion) and not (
        isinstance(sampler.denoiser, Denoiser) and isinstance(sampler.solver, Solver)
    ):
        raise InputError(f"{folder}: the sampler lacks a denoiser or a solver.")
    extra = sorted(set(tensors) - (saved.tensor_names(tree) | saved.tensor_names(codec)))
    if extra:
        raise InputError(
            f"{folder / 'weights.safetensors'} holds a tensor {extra[0]!r} that the model does not "
            "name; the folder is not a whole saved model."
        )
    module = sampler.denoiser if isinstance(sampler, Diffusion) else sampler
    if isinstance(module, torch.nn.Module):
        module.eval().requires_grad_(False)
    return Model(task, model_codec, sampler, moments, notes, card, forcings)
