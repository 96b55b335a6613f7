"""Grids, solvers and random fields for the partial differential equations of the benchmarks."""

from __future__ import annotations

from sciddm.pde.darcy_spline import DarcySpline
from sciddm.pde.elliptic import Darcy, Helmholtz, Poisson
from sciddm.pde.interface import Interface, Seen
from sciddm.pde.level_set import LevelSet
from sciddm.pde.navier_stokes import Kolmogorov, NavierStokes
from sciddm.pde.neumann import NeumannPoisson
from sciddm.pde.obstacle import ObstacleFlow
from sciddm.pde.periodic import Advection, Burgers, GrayScott, Heat, KuramotoSivashinsky
from sciddm.pde.phases import Phases
from sciddm.pde.random_field import GaussianField, PeriodicField
from sciddm.pde.residual import Equation, Residual, Solved, ring
from sciddm.pde.stochastic import StochasticHeat

__all__ = [
    "Advection",
    "Burgers",
    "Darcy",
    "Equation",
    "DarcySpline",
    "GaussianField",
    "GrayScott",
    "Heat",
    "Helmholtz",
    "Interface",
    "Kolmogorov",
    "KuramotoSivashinsky",
    "LevelSet",
    "NavierStokes",
    "NeumannPoisson",
    "ObstacleFlow",
    "PeriodicField",
    "Phases",
    "Poisson",
    "Residual",
    "Seen",
    "Solved",
    "StochasticHeat",
    "ring",
]
