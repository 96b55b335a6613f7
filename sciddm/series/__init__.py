"""Series as functions of physical time: one law, drawn at any cells, given any others.

=========================  ============================================================
`Panel`                    cells of B series: time, channel, value, which are known
`SeriesSampler`            draws the cells that are not known
`Law`, `posterior`         a Gaussian law of all cells, and its exact posterior
`GaussianSeries`           exact draws of any such law; `MarkovSeries` of an OU one, at cost m
`fitted`                   the likeliest law of a form
`FunctionPrior`            an unconditional diffusion, conditioned afterwards by a `Rule`
=========================  ============================================================
"""

from sciddm.series.anomaly import DiffusionTime, Surprise, TimeNet
from sciddm.series.base import SeriesLearner, SeriesSampler
from sciddm.series.fitting import fitted, maximum_likelihood
from sciddm.series.gp import GaussianSeries
from sciddm.series.law import Law, Posterior, log_prob, posterior
from sciddm.series.markov import MarkovSeries
from sciddm.series.panel import Panel
from sciddm.series.prior import FunctionPrior
from sciddm.series.refine import Refined
from sciddm.series.rules import Matching, Reconstruction, Replacement, SelfGuidance
from sciddm.series.targets import Correction, Direct, Spectrum

__all__ = [
    "Correction",
    "DiffusionTime",
    "Direct",
    "FunctionPrior",
    "GaussianSeries",
    "Law",
    "MarkovSeries",
    "Matching",
    "Panel",
    "Posterior",
    "Reconstruction",
    "Refined",
    "Replacement",
    "SelfGuidance",
    "SeriesLearner",
    "SeriesSampler",
    "Spectrum",
    "Surprise",
    "TimeNet",
    "fitted",
    "log_prob",
    "maximum_likelihood",
    "posterior",
]
