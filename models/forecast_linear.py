"""The linear inverse model of any films or record: fitted in seconds, nothing trained.

Draws p(what given what)
    p(next frames | the last frames), each frame the last ones through fitted matrices, and noise.
Process and noise
    None: a Gaussian law with closed moments at every lead. What lies outside the EOFs is red noise.
Backbone
    None. EOFs of the frames, least squares from frame to frame; how many EOFs, and how much of a
    ridge, is what errs least on the validation split.
Trained on
    Any films or record; `datasets/ou_modes.py`, whose law is of its kind.
Scores
    The classical baseline of every table: see `python benchmarks/forecast.py exact_law`.
Do not use for
    Fronts, waves that break, values with a bound: its law has no shape but a Gaussian's. Its own
    training frames, which a fit knows too well; a record with a trend that leaves its range.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm.data import films, split
from sciddm.data.codec import Codec, Normaliser
from sciddm.data.spacing import spacing
from sciddm.forecasters.fitting import best_linear


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    time: str = "time",
    pointwise: bool = True,
    order: int = 1,
    modes: tuple[int, ...] = (5, 10, 20, 40, 80, 160),
    ridges: tuple[float, ...] = (0.0, 0.003, 0.03, 0.3),
    count: int = 1000,
) -> sciddm.Model:
    """The fitted model; ``order`` is how many frames it looks back on. Of films it takes ``count``
    at most; a record is taken whole."""
    train = split.select(ds, "train")
    names = tuple(variables) or tuple(str(n) for n, v in ds.data_vars.items() if time in v.dims)
    sample = str(ds.attrs.get("sciddm_sample_dim", "sample"))
    task = sciddm.Task(
        sciddm.View(names), sample=sample, lead=sciddm.task.Lead(*spacing(ds[time])), time=time
    )
    codec = Normaliser.fit(films.frames(train, task), names, sample, pointwise=pointwise)
    x, held = (some(p, codec, task, count) for p in (train, split.select(ds, "validation")))
    law, chosen = best_linear(x, held, order=order, modes=modes, ridges=ridges)
    return sciddm.Model(task, codec, law, notes={"chosen": chosen})


def some(part: xr.Dataset, codec: Codec, task: sciddm.Task, count: int) -> torch.Tensor:
    """Films (N, C, T, *grid) of a split: a record is one."""
    if task.sample == task.time:
        return films.encode(part.expand_dims("film"), codec)
    have = part.sizes[task.sample]
    index = np.unique(np.linspace(0, have - 1, min(have, count)).astype(int))
    return films.encode(part.isel({task.sample: index}).transpose(task.sample, ...), codec)
