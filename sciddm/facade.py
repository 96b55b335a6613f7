"""The verbs a user types: recover, krige, generate."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr

from sciddm import ensemble
from sciddm.ensemble import Job, Progress, Rule
from sciddm.model import Model
from sciddm.solve import Solver
from sciddm.task import Observed


def _quiet(done: int, total: int) -> None:
    """No progress line."""


def recover(
    model: Model,
    seen: Observed,
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
    seen : values, where they are and their error, see `Observed`.
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
    seen: Observed,
    *,
    members: int = 64,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    progress: Progress = _quiet,
) -> xr.Dataset:
    """The baseline of `recover`: optimal interpolation with the Gaussian model inside ``model``.

    Exact draws of the linear-Gaussian posterior, no network. Same parameters and form of result.
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
