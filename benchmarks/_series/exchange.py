"""Exchange rates, 30 days of trade ahead: does a model any harm beside a bootstrap random walk?

The floor resamples the last 60 changes of the logarithm, their mean taken off. Windows follow one
another through the last fifth of the record (1990 to 2016), which nothing was fitted to; the last
five of them are the published protocol, too few to tell methods apart. ``wql_9`` is the quantile
loss of 9 levels over the sum of |y|: of each rate, averaged over the eight; and of all pooled. CRPS
is fair, in units of each rate's s.d. in the test, averaged over the eight. Members are of one
window and rate; three seeds of draws.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
from _report import Report
from _series.classical import Smoothing
from _series.windows import ROOT, Found, Window, ahead, drawn, panels, record, said

import sciddm as sd
from sciddm.series import SeriesSampler
from sciddm.series.baselines import Floor, Held, Walk, pooled, spread

HORIZON, CONTEXT, TRAIN, TEST, END = 30, 150, 4552, 6070, 7588
WALK = "bootstrap random walk, 60 days"


def run(report: Report, quick: bool) -> None:
    seeds, members = (1, 200) if quick else (3, 300)
    model = sd.load(ROOT / "models" / "exchange_rate")
    codec = model.cells
    with tempfile.TemporaryDirectory() as folder:
        item = codec.conform(record("exchange_rate", folder)).items[0]
    last = END - HORIZON * 5
    whole = [*range(last - HORIZON, TEST - 1, -HORIZON * (4 if quick else 1))][::-1]
    five = range(last, END, HORIZON)
    before = np.linspace(CONTEXT, TRAIN - HORIZON, 60).astype(int)
    past = panels([ahead(item, int(s), CONTEXT, HORIZON) for s in before], codec)
    leads = tuple(float(lead) + 0.5 for lead in range(1, HORIZON))
    samplers: dict[str, SeriesSampler] = {
        "exchange_rate": model.series,
        WALK: Walk(60),
        "bootstrap random walk, 120 days": Walk(120),
        "naive": Floor(Held()),
        "naive + residuals by lead": Floor(Held(), pooled(Held(), past, leads)),
        "naive + Gaussian residual by lead": Floor(Held(), spread(Held(), past, leads)),
    }
    for name, starts in (("test", [*whole, *five]), ("last five", [*five])):
        cases = [ahead(item, s, CONTEXT, HORIZON) for s in starts]
        rows = samplers
        if name == "last five" and not quick:
            rows = samplers | {"exponential smoothing": Smoothing()}
        found = scored(rows, cases, codec, members, seeds)
        title = (
            f"Exchange rates, {HORIZON} days ahead, {name}: {len(cases)} windows, {members} "
            f"members, {seeds} seeds"
        )
        table(report, title, found, samplers)
        mine, floor = found["exchange_rate"], found[WALK]
        for kind, k in (("mean of rates", 0), ("pooled", 1)):
            ratio = np.mean([f.wql()[k] for f in mine]) / np.mean([f.wql()[k] for f in floor])
            report.claim(f"exchange_rate over the walk, {name}, wql_9, {kind}", ratio, 0.0, 1.03)
        ratio = np.mean([f.crps() for f in mine]) / np.mean([f.crps() for f in floor])
        report.claim(f"exchange_rate over the walk, {name}, CRPS", float(ratio), 0.0, 1.03)


def scored(
    samplers: Mapping[str, SeriesSampler],
    cases: Sequence[Window],
    codec: sd.data.series.SeriesCodec,
    members: int,
    seeds: int,
) -> dict[str, list[Found]]:
    return {
        name: [drawn(s, codec, cases, members, seed) for seed in range(seeds)]
        for name, s in samplers.items()
    }


def table(
    report: Report,
    title: str,
    found: Mapping[str, Sequence[Found]],
    samplers: Mapping[str, SeriesSampler],
) -> None:
    """One line a method; ratios to the walk."""
    floor = found[WALK]
    lines = []
    for name, of in found.items():
        (crps, error), (base, _) = (said([f.crps() for f in x]) for x in (of, floor))
        (mean, _), (mean0, _) = (said([f.wql()[0] for f in x]) for x in (of, floor))
        (pool, _), (pool0, _) = (said([f.wql()[1] for f in x]) for x in (of, floor))
        lines.append({
            "method": name, "fair CRPS": crps, "s.e.": error, "CRPS over": crps / base,
            "wql_9": mean, "over": mean / mean0, "wql_9 pooled": pool, "pooled over": pool / pool0,
            "coverage 90 %": said([f.coverage() for f in of])[0],
            "spread/skill": said([f.ratio() for f in of])[0],
            "evaluations": samplers[name].evaluations if name in samplers else 0,
        })  # fmt: skip
    report.table(title, lines)
