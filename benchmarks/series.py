"""Series at the floor: irregular, gappy and regular ones beside exact laws and plain baselines.

Scores are fair CRPS and quantile losses with their level count, on series, times or days that no
model was trained on; three seeds, mean and standard error. The parts run side by side, two at a
time, those that measure time by themselves. The whole takes at most an hour on 2 cores, with
--quick at most 8 minutes.

    python benchmarks/series.py [--quick] [--json] [PART ...]

    exact           Ornstein-Uhlenbeck and Matern 3/2 at irregular times, whose posterior is known
    neural_process  draws of a Gaussian process at few irregular times, a network beside the oracle
    etth1           transformer temperatures and loads: a day ahead, and hidden hours
    exchange        exchange rates, a month ahead, beside the random walk that nobody beats
    physionet       vital signs of stays in intensive care, a tenth of the values hidden
    gaps            carbon dioxide and New York's weather: hidden blocks of a day to a month
    gluonts         the same numbers through gluonts, beside DeepAR
    cost            seconds for 100 paths of 100 series
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from _parts import Benchmark  # noqa: E402

PARTS = ("physionet", "exact", "etth1", "gaps", "neural_process", "exchange", "gluonts")
ALONE = ("cost",)

if __name__ == "__main__":
    Benchmark("series", "_series", PARTS, ALONE).main(__doc__ or "")
