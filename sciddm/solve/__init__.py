"""x_t -> x_s: one kernel, solvers, grids, and the sampler that the labelled side sees."""

from sciddm.solve.adaptive import Adaptive
from sciddm.solve.early import Early
from sciddm.solve.exponential import Adams, HeavyBall
from sciddm.solve.forms import (
    DataForm,
    Form,
    GaussianForm,
    InKappa,
    InLogKappa,
    InTime,
    NoiseForm,
    RotationForm,
    StraightForm,
    Variable,
)
from sciddm.solve.grids import CosineGrid, Given, Grid, LogKappa, Rho, Uniform
from sciddm.solve.kernel import transition
from sciddm.solve.langevin import Langevin
from sciddm.solve.matched import Fluctuating, Matched
from sciddm.solve.placing import align, refine
from sciddm.solve.restart import Restart
from sciddm.solve.sampler import Diffusion, Sampler, trajectory
from sciddm.solve.singlestep import Singlestep
from sciddm.solve.solvers import Euler, Heun, History, Multistep, Solver
from sciddm.solve.stochastic import (
    Band,
    Constant,
    Dial,
    ExtendedReverse,
    NoiseFunction,
    Power,
    StochasticAdams,
    Stretched,
)

__all__ = [
    "Adams",
    "Adaptive",
    "Band",
    "Constant",
    "CosineGrid",
    "DataForm",
    "Dial",
    "Diffusion",
    "Early",
    "Euler",
    "ExtendedReverse",
    "Fluctuating",
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
    "Langevin",
    "LogKappa",
    "Matched",
    "Multistep",
    "NoiseForm",
    "NoiseFunction",
    "Power",
    "Restart",
    "Rho",
    "RotationForm",
    "Sampler",
    "Singlestep",
    "Solver",
    "StochasticAdams",
    "StraightForm",
    "Stretched",
    "Uniform",
    "Variable",
    "align",
    "refine",
    "trajectory",
    "transition",
]
