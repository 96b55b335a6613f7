"""Clouds of particles: exact as they grow, or without a gradient of the operator."""

from sciddm.particle.enkf import EnKG, EnsembleKalman
from sciddm.particle.smc import Cloud, TwistedSMC
from sciddm.particle.twist import Ancestral, Matched, Reweighted, Twist

__all__ = [
    "Ancestral",
    "Cloud",
    "EnKG",
    "EnsembleKalman",
    "Matched",
    "Reweighted",
    "Twist",
    "TwistedSMC",
]
