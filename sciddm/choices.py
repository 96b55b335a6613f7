"""What the command line calls by name: solvers and guidance rules.

The library itself takes values, never names. Every name here is a value with its usual numbers;
from Python any other numbers can be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from sciddm import pde, solve
from sciddm.denoise import Denoiser
from sciddm.draws import Rule
from sciddm.errors import InputError, nearest
from sciddm.guide import DPS, MMPS, SDA, PiGDM
from sciddm.observe import Observation
from sciddm.solve import Solver

Choice = TypeVar("Choice")


def mmps(prior: Denoiser, observation: Observation) -> Denoiser:
    """Moment matching through the network's Jacobian."""
    return MMPS(prior, observation)


def dps(prior: Denoiser, observation: Observation) -> Denoiser:
    """Gradient guidance; biased, for comparison."""
    return DPS(prior, observation)


def sda(prior: Denoiser, observation: Observation) -> Denoiser:
    """Score-based data assimilation; one number for the covariance, for comparison."""
    return SDA(prior, observation)


def pigdm(prior: Denoiser, observation: Observation) -> Denoiser:
    """Pseudo-inverse guidance; an isotropic covariance, for comparison."""
    return PiGDM(prior, observation)


SOLVERS: Mapping[str, Solver] = {
    "multistep": solve.Multistep(),
    "multistep3": solve.Multistep(order=3),
    "adams": solve.Adams(3),
    "adams4": solve.Adams(4),
    "euler": solve.Euler(),
    "ancestral": solve.Euler(eta=1.0),
    "heun": solve.Heun(),
    "singlestep": solve.Singlestep(),
    "heavy-ball": solve.HeavyBall(),
    "stochastic-adams": solve.StochasticAdams(),
    "extended": solve.ExtendedReverse(),
    "langevin": solve.Langevin(),
    "restart": solve.Restart(),
    "adaptive": solve.Adaptive(),
    "matched": solve.Matched(),
}
"""``--solver``. Orders, costs and what to expect: docs/choose.md."""

RULES: Mapping[str, Rule | None] = {
    "moments": None,
    "mmps": mmps,
    "dps": dps,
    "sda": sda,
    "pigdm": pigdm,
}
"""``--rule``; None is the default, the best that the model allows."""

EQUATIONS: Mapping[str, pde.Equation] = {
    "poisson": pde.Poisson(),
    "helmholtz": pde.Helmholtz(),
    "darcy": pde.Darcy(),
}
"""``equation`` of a config, of the benchmarks' numbers."""


def choice(flag: str, name: str, known: Mapping[str, Choice]) -> Choice:
    """The value called ``name``. Raises `InputError` with the nearest name for another."""
    if name not in known:
        raise InputError(f"Got {flag} {name!r}.{nearest(name, known)}")
    return known[name]
