"""Guidance: every rule turns a prior denoiser and an observation into a posterior denoiser."""

from sciddm.guide.dps import DPS
from sciddm.guide.mmps import MMPS
from sciddm.guide.moments import Conditioned, linear_posterior
from sciddm.guide.replace import Replace

__all__ = ["DPS", "MMPS", "Conditioned", "Replace", "linear_posterior"]
