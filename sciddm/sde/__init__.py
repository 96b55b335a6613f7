"""Stochastic differential equations on torchsde: the reverse diffusion, and linear ones."""

from sciddm.sde.reverse import Integrated, Path, Reverse, Scheme

__all__ = ["Integrated", "Path", "Reverse", "Scheme"]
