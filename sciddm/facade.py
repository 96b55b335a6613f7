"""The verbs a user types: recover, krige, generate, forecast, refined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import xarray as xr

from sciddm import ensemble, rollout
from sciddm.denoise import Context
from sciddm.draws import InBlocks, Rule
from sciddm.ensemble import Job, Progress
from sciddm.errors import InputError
from sciddm.evidence import Evidence
from sciddm.model import Model
from sciddm.outlook import Outlook
from sciddm.random import Streams
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


def generate(
    model: Model,
    *,
    members: int = 64,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    steps: int | None = None,
    solver: Solver | None = None,
    progress: Progress = _quiet,
) -> xr.Dataset:
    """Draw new fields from the model's prior. See `recover` for the parameters."""
    return ensemble.draw(Job(model, None, members, seed, None, sizes, steps, solver), progress)


def forecast(
    model: Model,
    past: xr.Dataset | xr.DataArray,
    *,
    steps: int,
    members: int = 64,
    seed: int = 0,
    start: Any = None,  # noqa: ANN401 (a date in any form, a number, or a list of them)
    forcings: xr.Dataset | xr.DataArray | None = None,
    seen: Evidence | None = None,
    progress: Progress = _quiet,
) -> xr.Dataset:
    """Draw what follows a past: an ensemble of p(next frames | past).

    Parameters
    ----------
    model : one that forecasts, from `sciddm.load` or built by a recipe.
    past : frames of the grid and in the units of the training data, with a time axis of any
        calendar; it may reach beyond the start. Many films, as the model was trained on, are
        forecast one by one.
    steps : lead steps; how long one is says the model.
    members : size of the ensemble; the first N members of a larger one are the same members.
    start : the time to forecast from, such as "2019-03-24T12", or a list of them; None takes the
        last time of ``past``.
    forcings : what the model is told ahead (fields such as a sea surface), at the times of the past
        and of the leads; None takes it from ``past``. The calendar is known anyway.
    seen : values along the way, with their times, places and errors (see `Observed`), for a model
        of whole films (`forecasters.Film`): the draws are then of p(next frames | past, seen).

    Returns a Dataset with dims ``init_time`` (for a list of starts; else a coordinate),
    ``member``, ``lead_time`` and the grid's, and the coordinate ``valid_time``. ``lead_time`` is a
    duration, or a number with ``units`` for leads in months or years. Its attributes name the
    engine, its network evaluations a frame and member, and ``drift_mean`` and ``drift_variance``,
    those of the last frames measured by the training data.
    Raises `InputError` before any draw, and `RunError` for a member that diverged.
    """
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
