"""Scores: labelled ensemble and truth in, labelled numbers out, each naming its estimator.

    import sciddm as sd
    sd.score.crps(ens, truth)                     # fair CRPS, averaged over everything
    sd.score.crps(ens, truth, over=("y", "x"))    # one number a case
    sd.score.by_lead(forecast, record)            # every score of a forecast along its leads
    sd.score.by_item(ens, truth)                  # every score of series, item by item and pooled

``ens`` has a dim ``member``, ``truth`` has none; both are DataArrays or both Datasets. They are
matched by coordinate value, averages are weighted by cell area, gaps must be alike.
"""

from sciddm.score.bootstrap import bootstrap
from sciddm.score.c2st import c2st
from sciddm.score.calibration import (
    chi_square,
    coverage,
    pit,
    rank_histogram,
    sbc,
    spread,
    spread_skill,
    tarp,
)
from sciddm.score.items import by_item, pit_histogram
from sciddm.score.lead import by_lead
from sciddm.score.pointwise import bias, mae, relative_error, rmse
from sciddm.score.probabilistic import brier, crps, energy_score, gaussian_crps
from sciddm.score.quantile import median_error, quantile_loss, weighted_quantile_loss
from sciddm.score.reliability import reliability
from sciddm.score.skill import acc, correlation, time_to_decorrelation
from sciddm.score.spectrum import log_spectral_distance, power_spectrum
from sciddm.score.synthetic import chronological, discriminative, nearest_training, predictive
from sciddm.score.valid import at_leads, valid_time
from sciddm.score.variogram import variogram_score
from sciddm.score.weights import cell_weights

__all__ = [
    "acc",
    "at_leads",
    "bias",
    "bootstrap",
    "brier",
    "by_item",
    "by_lead",
    "c2st",
    "cell_weights",
    "chi_square",
    "chronological",
    "correlation",
    "coverage",
    "crps",
    "discriminative",
    "energy_score",
    "gaussian_crps",
    "log_spectral_distance",
    "mae",
    "median_error",
    "nearest_training",
    "pit",
    "pit_histogram",
    "power_spectrum",
    "predictive",
    "quantile_loss",
    "rank_histogram",
    "relative_error",
    "reliability",
    "rmse",
    "sbc",
    "spread",
    "spread_skill",
    "tarp",
    "time_to_decorrelation",
    "valid_time",
    "variogram_score",
    "weighted_quantile_loss",
]
