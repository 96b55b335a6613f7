"""x_t -> x_s: one kernel, solvers, grids, and the sampler that the labelled side sees."""

from sciddm.solve.exponential import Adams, HeavyBall
from sciddm.solve.forms import (
    DataForm,
    Form,
    GaussianForm,
    InKappa,
    InLogKappa,
    InTime,
    NoiseForm,
    StraightForm,
    Variable,
)
from sciddm.solve.grids import CosineGrid, Given, Grid, LogKappa, Rho, Uniform
from sciddm.solve.kernel import transition
from sciddm.solve.sampler import Diffusion, Sampler, trajectory
from sciddm.solve.singlestep import Singlestep
from sciddm.solve.solvers import Euler, Heun, History, Multistep, Solver

__all__ = [
    "Adams",
    "CosineGrid",
    "DataForm",
    "Diffusion",
    "Euler",
    "Form",
    "GaussianForm",
    "Given",
    "Grid",
    "HeavyBall",
    "Heun",
    "History",
    "InKappa",
    "InLogKappa",
    "InTime",
    "LogKappa",
    "Multistep",
    "NoiseForm",
    "Rho",
    "Sampler",
    "Singlestep",
    "Solver",
    "StraightForm",
    "Uniform",
    "Variable",
    "trajectory",
    "transition",
]
