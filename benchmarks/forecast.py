"""Forecasts at the floor: every engine beside the exact law, its rivals and the plain baselines.

Scores are fair CRPS and unbiased spread/skill by lead, on starts that no model was trained on. The
parts run side by side, two at a time. The whole takes at most an hour on 2 cores, with --quick at
most 8 minutes; --sign writes the tables into the cards of the models.

    python benchmarks/forecast.py [--quick] [--json] [--sign] [PART ...]

    exact_law     a linear stochastic equation whose forecast law is known at every lead
    spring_mesh   a mesh of springs, every engine trained here with one budget
    t2m_uk        hourly temperature over the United Kingdom, the last five days
    kolmogorov    turbulence at 64 x 64 for 200 frames: drift, spectra, decorrelation
    assimilation  observations along the way, beside the exact smoother
    members       a member is the same in any ensemble, batch, store and number of starts
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _parts import Benchmark  # noqa: E402

PARTS = ("spring_mesh", "kolmogorov", "exact_law", "t2m_uk", "assimilation", "members")
MODELS = ("spde_heat_autoregressive", "spde_heat_film")

if __name__ == "__main__":
    Benchmark("forecast", "_forecast", PARTS, signed=MODELS).main(__doc__ or "")
