"""Stochastic differential equations on torchsde: the reverse diffusion, and linear ones."""

from sciddm.sde.linear import LinearSDE, critically_damped
from sciddm.sde.reverse import Integrated, Path, Reverse, Scheme

__all__ = ["Integrated", "LinearSDE", "Path", "Reverse", "Scheme", "critically_damped"]
