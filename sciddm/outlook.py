"""A forecast that is asked for: the model, the past, the starts, and what is known ahead, checked.

Everything a forecast reads is read when it is made, and everything that can be wrong is said then,
in one line, before any work.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciddm.assimilate import along
from sciddm.data import checks
from sciddm.data.axis import said
from sciddm.data.films import on_grid
from sciddm.data.past import TAKEN, Past, conform, forcing
from sciddm.errors import InputError
from sciddm.evidence import Evidence
from sciddm.forecasters import Film, Forecaster, Learner
from sciddm.model import Model
from sciddm.observe import Observation
from sciddm.task import Lead

ODD = 8.0
"""Training s.d. between the mean of a past and that of training from which a warning is said."""


@dataclass(frozen=True, eq=False)
class Outlook:
    """What to forecast, read and checked when it is made: `InputError` before any draw.

    model : one that forecasts. past : frames with a time axis, of the grid and in the units of the
    training data; further dims as the films of training had. steps : how many leads.
    start : a time of the past from which to forecast, or a list of them; None is the last one.
    forcings : what the model is told ahead, at the times of the past and of the leads; None looks
    for it in ``past``. seen : what is observed along the way, or None.
    """

    model: Model
    past: xr.Dataset | xr.DataArray
    steps: int
    members: int = 64
    seed: int = 0
    start: Any = None
    forcings: xr.Dataset | xr.DataArray | None = None
    seen: Evidence | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            raise InputError(
                f"Got a {type(self.model).__name__}; expected a model that forecasts (sciddm.load)."
            )
        longest = self.model.forecaster.longest
        for name, number, least in (
            ("steps", self.steps, 1),
            ("members", self.members, 1),
            ("seed", self.seed, 0),
        ):
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole or number < least:
                raise InputError(
                    f"Got {number!r} for {name}; expected a whole number of at least {least}."
                )
        if longest is not None and self.steps > longest:
            raise InputError(
                f"Got {self.steps} lead steps; this model serves {longest} of "
                f"{self.lead.step:g} {self.lead.unit}: ask no more, or take another model."
            )
        self._warn_of_the_past()
        self.known  # noqa: B018 (read and checked now)
        self.observed  # noqa: B018

    @property
    def forecaster(self) -> Forecaster:
        return self.model.forecaster

    @property
    def lead(self) -> Lead:
        if self.model.task.lead is None:
            raise InputError("This model does not say its lead step; save it with Task(lead=...).")
        return self.model.task.lead

    @cached_property
    def frames(self) -> Past:
        """The past in the layout of the training data."""
        codec, task = self.model.fields, self.model.task
        template = codec.grid.template()
        for name, attrs in codec.variables.items():
            template[name] = (codec.grid.dims, blank(codec.grid.shape), dict(attrs))
        return conform(
            self.past,
            template,
            time=task.time,
            sample=task.sample,
            step=self.lead.step,
            unit=self.lead.unit,
        )

    @cached_property
    def starts(self) -> list[int]:
        """Where on the time axis the forecasts start."""
        axis = self.frames.axis
        asked = list(np.asarray(self.start).reshape(-1)) if self.several else [self.start]
        found = [len(axis.times) - 1 if s is None else axis.find(s) for s in asked]
        if not found:
            raise InputError("Got an empty list of starts; expected at least one.")
        if len(set(found)) < len(found):
            twice = next(s for s in found if found.count(s) > 1)
            raise InputError(f"Got the start {said(axis.times[twice])} twice; name each once.")
        return found

    @property
    def several(self) -> bool:
        """Whether a list of starts was asked for."""
        kinds = (list, tuple, np.ndarray, xr.DataArray)
        many = isinstance(self.start, kinds) or type(self.start).__name__.endswith("Index")
        return many and np.ndim(self.start) == 1

    @cached_property
    def windows(self) -> np.ndarray:
        """(N, T) indices of the frames of the past of every start."""
        history = self.forecaster.history
        return np.array([self.frames.axis.window(s, history) for s in self.starts])

    @cached_property
    def pasts(self) -> Tensor:
        """(S, N, C, T, *grid) normalised, S films and N starts."""
        codec = self.model.fields
        whole = codec.finish(codec.physical(torch.zeros(1, *codec.shape)))[0]
        valid = {
            name: torch.isfinite(whole[k]).numpy()
            for k, name in enumerate(codec.variables)
            if name in self.frames.ds
        }
        arrays = self.frames.read(self.windows, valid)
        lead = next(iter(arrays.values())).shape[:3]
        flat = codec.encode({n: v.reshape(-1, *v.shape[3:]) for n, v in arrays.items()})
        return flat.reshape(*lead, *flat.shape[1:]).movedim(2, 3)

    @cached_property
    def known(self) -> tuple[Tensor, np.ndarray] | None:
        """Forcings (K, U, *grid or ones) at all times they are needed, and where in U the times of
        every start are, (N, T + steps + those a window needs beyond); None without any."""
        table, axis = self.model.forcings, self.frames.axis
        self.pasts  # noqa: B018 (wrong values of the past are said first)
        if table is None or not table.channels:
            return None
        history, learner = self.forecaster.history, self.forecaster
        spare = max(0, learner.window - history - 1) if isinstance(learner, Learner) else 0
        last = np.arange(1, self.steps + spare + 1)
        rows = [
            [*axis.times[w], *axis.ahead(s, last)]
            for w, s in zip(self.windows, self.starts, strict=True)
        ]
        times, place = _unique([t for row in rows for t in row])
        place = place.reshape(len(rows), -1)
        needed = np.zeros(len(times), bool)
        needed[place[:, : history + self.steps]] = True
        dim = self.model.task.time
        coord = xr.DataArray(times, dims=dim, coords={dim: times}, name=dim)
        given = None
        if table.fields is not None:
            told = self.past if self.forcings is None else self.forcings
            told = told.to_dataset(name=told.name) if isinstance(told, xr.DataArray) else told
            template = table.fields.grid.template()
            for name, attrs in table.fields.variables.items():
                shape = table.fields.grid.shape
                template[name] = (table.fields.grid.dims, blank(shape), dict(attrs))
            given = forcing(told, template, times, needed, axis, dim)
        values = table.at(coord, given)
        assert values is not None  # it has channels
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return on_grid(tensor[None], len(self.model.fields.grid.dims))[0], place

    @cached_property
    def observed(self) -> dict[tuple[int, int], Observation | None]:
        """What is seen along the forecast of each film and start; {} where nothing is given."""
        if self.seen is None:
            return {}
        if not isinstance(self.seen, Evidence):
            raise InputError(
                f"Got a {type(self.seen).__name__} for what is seen; expected sciddm.Observed."
            )
        if not isinstance(self.forecaster, Film):
            raise InputError(
                f"Got observations along the way for {type(self.forecaster).__name__}, which draws "
                "frame after frame; expected a model of whole films (models/forecast_film.py)."
            )
        axis, task, found = self.frames.axis, self.model.task, {}
        for film, label in enumerate(self.frames.labels):
            own = {self.frames.sample: (film, label)} if self.frames.sample else {}
            for i, s in enumerate(self.starts):
                leads = axis.ahead(s, np.arange(1, self.steps + 1))
                found[film, i] = along(
                    self.seen, self.model.fields, task.time, axis.times[s], leads, own
                )
        blind = sum(o is None for o in found.values())
        if blind:
            checks.warn(f"Nothing is observed along {blind} of {len(found)} forecasts.")
        return found

    def guided(self, film: int, start: int) -> Forecaster:
        """The forecaster of one film and start, given what is seen along the way."""
        seen = self.observed.get((film, start))
        if seen is None:
            return self.forecaster
        last = self._guided.get(seen)
        if last is None:
            assert isinstance(self.forecaster, Film)
            self._guided.clear()
            last = self._guided[seen] = self.forecaster.given(seen, self.steps)
        return last

    @cached_property
    def _guided(self) -> dict[Observation, Forecaster]:
        """The last one made: the blocks of a case share it."""
        return {}

    @property
    def cases(self) -> dict[str, int]:
        """The dims of the cases and their sizes: films, then starts."""
        films = {self.films: self.pasts.shape[0]} if self.frames.sample else {}
        return films | ({"init_time": len(self.starts)} if self.several else {})

    @property
    def films(self) -> str:
        """The dim of films in the forecast, "" where there is none."""
        return "sample" if self.frames.sample in TAKEN else self.frames.sample

    def _warn_of_the_past(self) -> None:
        mean = self.pasts.double().mean(dim=(0, 1, 3)).flatten(1).mean(1).abs()
        names, worst = list(self.model.fields.variables), int(mean.argmax())
        if float(mean[worst]) > ODD:
            where = repr(names[worst]) if len(mean) == len(names) else f"channel {worst}"
            checks.warn(
                f"The past lies {float(mean[worst]):.0f} s.d. from the training data in {where}; "
                "check its units."
            )


def _unique(times: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Rising distinct times, and where each of ``times`` is among them."""
    order = sorted(set(times))
    place = {t: i for i, t in enumerate(order)}
    values = np.empty(len(order), dtype=object)
    values[:] = order
    if isinstance(order[0], np.datetime64 | float):
        values = np.array(order)
    return values, np.array([place[t] for t in times])


def blank(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros of any shape, without memory."""
    return np.broadcast_to(np.float32(0), shape)
