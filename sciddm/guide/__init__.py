"""Guidance: every rule turns a prior denoiser and an observation into a posterior denoiser.

A ``...Loop``, `ReSample` and `Resampling` are solvers around a solver, for the loops that their
authors run on x_s after the solver's step; `REDDiff` is a sampler of its own.
"""

from sciddm.guide.anchored import Anchor, linearised
from sciddm.guide.dps import DPS
from sciddm.guide.event import Event, Exceeds
from sciddm.guide.free import Blind, ClassifierFree
from sciddm.guide.kriged import Matheron, RandomisedMode
from sciddm.guide.mmps import MMPS
from sciddm.guide.moments import Conditioned, linear_posterior
from sciddm.guide.pinned import Pinned
from sciddm.guide.probability import EventProbability, event_probability
from sciddm.guide.project import HardProjection, ReSample
from sciddm.guide.pseudo import PiGDM, PiGDMLoop
from sciddm.guide.published import DiffusionPDELoop, DPSLoop, FunDPSLoop
from sciddm.guide.red import REDDiff
from sciddm.guide.replace import Replace, Resampling
from sciddm.guide.score import SDA, TMPD
from sciddm.guide.surprise import PriorFit, prior_fit, prior_fits

__all__ = [
    "DPS",
    "MMPS",
    "SDA",
    "TMPD",
    "Anchor",
    "Blind",
    "ClassifierFree",
    "Conditioned",
    "DPSLoop",
    "DiffusionPDELoop",
    "Event",
    "EventProbability",
    "Exceeds",
    "FunDPSLoop",
    "HardProjection",
    "Matheron",
    "PiGDM",
    "PiGDMLoop",
    "Pinned",
    "PriorFit",
    "REDDiff",
    "RandomisedMode",
    "ReSample",
    "Replace",
    "Resampling",
    "event_probability",
    "linear_posterior",
    "linearised",
    "prior_fit",
    "prior_fits",
]
