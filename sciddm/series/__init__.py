"""Series as functions of physical time: one law, drawn at any cells, given any others.

=========================  ============================================================
`Panel`                    cells of B series: time, channel, value, which are known
`SeriesSampler`            draws the cells that are not known
`Law`, `posterior`         a Gaussian law of all cells, and its exact posterior
`GaussianSeries`           exact draws of any such law; `MarkovSeries` of an OU one, at cost m
`fitted`                   the likeliest law of a form
=========================  ============================================================
"""

from sciddm.series.base import SeriesLearner, SeriesSampler
from sciddm.series.fitting import fitted, maximum_likelihood
from sciddm.series.gp import GaussianSeries
from sciddm.series.law import Law, Posterior, log_prob, posterior
from sciddm.series.markov import MarkovSeries
from sciddm.series.panel import Panel

__all__ = [
    "GaussianSeries",
    "Law",
    "MarkovSeries",
    "Panel",
    "Posterior",
    "SeriesLearner",
    "SeriesSampler",
    "fitted",
    "log_prob",
    "maximum_likelihood",
    "posterior",
]
