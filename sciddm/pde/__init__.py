"""Grids, solvers and random fields for the partial differential equations of the benchmarks."""

from __future__ import annotations

from sciddm.pde.elliptic import Darcy, Helmholtz, Poisson
from sciddm.pde.navier_stokes import NavierStokes
from sciddm.pde.random_field import GaussianField, PeriodicField

__all__ = [
    "Darcy",
    "GaussianField",
    "Helmholtz",
    "NavierStokes",
    "PeriodicField",
    "Poisson",
]
