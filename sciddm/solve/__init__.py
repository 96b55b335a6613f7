"""x_t -> x_s: one kernel, a few solvers, and the sampler that the labelled side sees."""

from sciddm.solve.grids import Grid, LogKappa
from sciddm.solve.kernel import transition
from sciddm.solve.sampler import Diffusion, Sampler, trajectory
from sciddm.solve.solvers import Euler, Heun, History, Multistep, Solver

__all__ = [
    "Diffusion",
    "Euler",
    "Grid",
    "Heun",
    "History",
    "LogKappa",
    "Multistep",
    "Sampler",
    "Solver",
    "trajectory",
    "transition",
]
