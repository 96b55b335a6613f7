"""Series as functions of physical time: one law, drawn at any cells, given any others.

=========================  ============================================================
`Panel`                    cells of B series: time, channel, value, which are known
`SeriesSampler`            draws the cells that are not known
`Law`, `posterior`         a Gaussian law of all cells, and its exact posterior
=========================  ============================================================
"""

from sciddm.series.base import SeriesLearner, SeriesSampler
from sciddm.series.law import Law, Posterior, log_prob, posterior
from sciddm.series.panel import Panel

__all__ = ["Law", "Panel", "Posterior", "SeriesLearner", "SeriesSampler", "log_prob", "posterior"]
