"""The verbs a user types: recover, krige, impute, generate, forecast, refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import xarray as xr

from sciddm import ensemble, filling, rollout
from sciddm.denoise import Context
from sciddm.draws import InBlocks, Rule
from sciddm.ensemble import Job, Progress
from sciddm.errors import InputError
from sciddm.evidence import Evidence
from sciddm.model import Model
from sciddm.outlook import Outlook
from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.solve import Solver, refine


def _quiet(done: int, total: int) -> None:
    """No progress line."""


def recover(
    model: Model,
    seen: Evidence,
    *,
    members: int = 64,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    steps: int | None = None,
    rule: Rule | None = None,
    solver: Solver | None = None,
    progress: Progress = _quiet,
) -> xr.Dataset:
    """Draw the fields behind sparse observations: an ensemble of p(field | seen).

    Parameters
    ----------
    model : from `sciddm.load`, or built by a recipe.
    seen : values, where they are and their error, see `Observed`; several are joined with ``&``.
    members : size of the ensemble; the first N members of a larger one are the same members.
    sizes : points along each grid dim, e.g. ``{"y": 128, "x": 128}``, if not the model's own.
    steps : sampler times; more cost more and change little beyond 20 to 50.
    rule : a guidance of `sciddm.guide`; None takes the best one the model allows.
    solver : one of `sciddm.solve`; None takes the model's own.

    Returns a Dataset with dim ``member`` (and the case dim); its attributes name the solver, the
    guidance, the network evaluations and ``misfit_sd``, the root mean square distance of the
    members from their observations in error s.d. (0.8-1.5 is right).
    Raises `InputError` before any draw.
    """
    return ensemble.draw(Job(model, seen, members, seed, rule, sizes, steps, solver), progress)


def krige(
    model: Model,
    seen: Evidence,
    *,
    members: int = 64,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    progress: Progress = _quiet,
) -> xr.Dataset:
    """The baseline of `recover`: optimal interpolation with the Gaussian model inside ``model``.

    Exact draws of the linear-Gaussian posterior, no network. Values that are not linear in the
    field (behind a solver) are drawn by randomised maximum likelihood, which is nearly exact where
    the operator bends little; ``guidance`` says which. Same parameters and form of result.
    Raises `InputError` for errors that are not Gaussian.
    """
    return ensemble.krige(Job(model, seen, members, seed, None, sizes), progress)


def impute(
    model: Model,
    gappy: Any,  # noqa: ANN401 (a frame, a Dataset, the path of a file, or Items)
    *,
    members: int = 64,
    seed: int = 0,
    std: Any = None,  # noqa: ANN401 (a number, one a variable, or as `Observed` takes it)
    at: Any = None,  # noqa: ANN401 (times in any form)
    levels: Sequence[float] = (),
    progress: Progress = _quiet,
) -> Any:  # noqa: ANN401
    """Fill what is missing: an ensemble of p(missing values | known values).

    Parameters
    ----------
    model : of series, or of fields.
    gappy : series with NaN, or times without rows, where they are missing: a long or wide pandas
        frame, a CSV file, an xarray Dataset, or Items of `sciddm.data.items.of`, which reads frames
        with other names. Of a model of fields: a Dataset of fields with NaN.
    members : size of the ensemble; the first N members of a larger one are the same members.
    std : error of the known values in physical units, a number or one a variable. None keeps them
        to the last digit; of fields, it takes a hundredth of their s.d., and says so.
    at : further times at which every series is wanted.
    levels : percents such as ``(90,)``: the mean, the median and the bounds of these intervals in
        the place of the members.

    Returns what came in, its form kept: a frame with a column ``member``, a Dataset with a dim
    `member`. A gap is drawn by one window of the model, given the known values around it; gaps far
    apart are drawn on their own.
    Raises `InputError` before any draw, and `RunError` for a member that diverged.
    """
    if isinstance(model.sampler, SeriesSampler):
        draws = filling.imputed(
            model, gappy, members=members, seed=seed, std=std, at=at, progress=progress
        )
        return draws.back(levels)
    if at is not None or levels:
        raise InputError("Got times or levels for a model of fields; expected neither.")
    return filling.of_fields(model, gappy, members=members, seed=seed, std=std, progress=progress)


def generate(
    model: Model,
    *,
    members: int = 64,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    steps: int | None = None,
    solver: Solver | None = None,
    length: int | None = None,
    times: Any = None,  # noqa: ANN401 (times in any form)
    progress: Progress = _quiet,
) -> xr.Dataset:
    """Draw new fields from the model's prior; see `recover` for the parameters. Of a model of
    series, new series of ``length`` rows, or at ``times``: dims (member, time)."""
    if isinstance(model.sampler, SeriesSampler):
        if sizes is not None or steps is not None or solver is not None:
            raise InputError("Got sizes, steps or a solver for a model of series; leave them out.")
        return filling.generated(
            model, members=members, seed=seed, length=length, times_of=times, progress=progress
        )
    if length is not None or times is not None:
        raise InputError("Got a length or times for a model of fields; expected neither.")
    return ensemble.draw(Job(model, None, members, seed, None, sizes, steps, solver), progress)


def forecast(
    model: Model,
    past: Any,  # noqa: ANN401 (a Dataset of frames; or series in any form)
    *,
    steps: int | None = None,
    members: int = 64,
    seed: int = 0,
    start: Any = None,  # noqa: ANN401 (a date in any form, a number, or a list of them)
    forcings: xr.Dataset | xr.DataArray | None = None,
    seen: Evidence | None = None,
    at: Any = None,  # noqa: ANN401 (times in any form)
    levels: Sequence[float] = (),
    progress: Progress = _quiet,
) -> Any:  # noqa: ANN401 (a Dataset, or a frame where series came as one)
    """Draw what follows a past: an ensemble of p(next frames | past).

    Parameters
    ----------
    model : one that forecasts, or one of series, from `sciddm.load` or built by a recipe.
    past : frames of the grid and in the units of the training data, with a time axis of any
        calendar; it may reach beyond the start. Many films, as the model was trained on, are
        forecast one by one. Of a model of series: as for `impute`; every item is forecast from
        its last value, and values that it lacks before it are no hindrance.
    steps : lead steps; how long one is says the model. Of series it may be left out: the rows
        without values at their end, which also hold what is known ahead, else all that the model
        was trained on.
    members : size of the ensemble; the first N members of a larger one are the same members.
    start : the time to forecast from, such as "2019-03-24T12", or a list of them; None takes the
        last time of ``past``.
    forcings : what the model is told ahead (fields such as a sea surface), at the times of the past
        and of the leads; None takes it from ``past``. The calendar is known anyway.
    seen : values along the way, with their times, places and errors (see `Observed`), for a model
        of whole films (`forecasters.Film`): the draws are then of p(next frames | past, seen).
    at : times to forecast, of series. levels : percents of intervals, of series, as in `impute`.

    Returns a Dataset with dims ``init_time`` (for a list of starts; else a coordinate),
    ``member``, ``lead_time`` and the grid's, and the coordinate ``valid_time``. ``lead_time`` is a
    duration, or a number with ``units`` for leads in months or years. Its attributes name the
    engine, its network evaluations a frame and member, and ``drift_mean`` and ``drift_variance``,
    those of the last frames measured by the training data. Series go back in the form they came.
    Raises `InputError` before any draw, and `RunError` for a member that diverged.
    """
    if isinstance(model, Model) and isinstance(model.sampler, SeriesSampler):
        if forcings is not None or seen is not None:
            raise InputError(
                "Got forcings or values on the way for a model of series; expected covariates as "
                "columns of the past, and known values in it (sd.impute)."
            )
        return filling.forecast(
            model, past, steps=steps, members=members, seed=seed, start=start, at=at,
            levels=levels, progress=progress,
        )  # fmt: skip
    if at is not None or levels:
        raise InputError("Got times or levels for a model of frames; expected steps.")
    if steps is None:
        raise InputError("Got no steps to forecast; expected how many leads: steps=12.")
    return rollout.draw(Outlook(model, past, steps, members, seed, start, forcings, seen), progress)


def refined(model: Model, *, steps: int, members: int = 512, seed: int = 0) -> Model:
    """The same model with the time grid on which its solver is best at ``steps`` evaluations.

    The grid is found on draws from the prior by dynamic programming against a fine trajectory, then
    by moving one time at a time (`sciddm.solve.refine`), and saved with the model. It pays at 5 to
    10 evaluations: half to nine tenths of the error of the default grid (docs/choose.md).

    Parameters
    ----------
    steps : evaluations of a draw on the new grid, 3 or more.
    members : draws that it is found on; with 64 it fits them rather than the model.

    Raises `InputError` for a solver that draws noise.
    """
    if steps < 3 or members < 2:
        raise InputError(f"Got {steps} steps and {members} members; expected at least 3 and 2.")
    sampler = model.diffusion
    shape = (members, *model.fields.shape)
    with torch.no_grad():
        x, _ = sampler.start(shape, Context(), Streams.of(seed, members))
        grid = refine(
            InBlocks(sampler.denoiser),
            sampler.solver,
            x,
            steps,
            kappa_max=sampler.highest,
            kappa_min=sampler.kappa_min,
            base=model.gaussian,
        )
    return replace(model, sampler=replace(sampler, steps=steps, grid=grid))
