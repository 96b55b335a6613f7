"""Seconds for 100 paths of each of 100 series of 200 hours, 24 hours ahead, as a user draws them.

One series at a time, by the conditional model: its law's posterior, what the network reads of the
past, and every evaluation of all 100 paths. The network is the transformer over steps of the size
that series models have by default, and the transformer over cells; weights make no difference to
the time. Series of one channel; and of seven, a tenth as many. Measured alone, on two threads.
"""

from __future__ import annotations

import time

import torch
from _report import Report

from sciddm.nn import SetTransformer, StepTransformer
from sciddm.random import Streams
from sciddm.series import GaussianSeries, Panel, SeriesSampler
from sciddm.series.conditional import Conditional
from sciddm.series.lagged import Seasonal, measured

SERIES, PATHS, LENGTH, HORIZON = 100, 100, 200, 24
BOUND = 60.0


def run(report: Report, quick: bool) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    count = 10 if quick else SERIES
    law, wide = law_of(1), law_of(7)
    torch.manual_seed(0)
    rows: list[tuple[str, SeriesSampler, int, int]] = [
        ("law alone", GaussianSeries(law), 1, count),
        ("transformer over steps", Conditional(steps_of(1), law, 1), 1, count),
        ("transformer over cells", Conditional(
            SetTransformer(1, 1.0, float(LENGTH), periods=(24.0,)), law, 1), 1, max(5, count // 5)),
        ("law alone", GaussianSeries(wide), 7, max(2, count // 10)),
        ("transformer over steps", Conditional(steps_of(7), wide, 7), 7, max(2, count // 10)),
    ]  # fmt: skip
    lines = []
    for name, sampler, channels, series in rows:
        seconds = spent(sampler, channels, series) * SERIES / series
        size = sum(w.numel() for w in sampler.parameters())
        lines.append({
            "sampler": name, "channels": channels, "series drawn": series,
            f"seconds for {SERIES} series": seconds, "evaluations a path": sampler.evaluations,
            "weights": size,
        })  # fmt: skip
        if name == "transformer over steps" and channels == 1:
            title = f"{PATHS} paths of {SERIES} series of {LENGTH}, {HORIZON} ahead, seconds"
            report.claim(title, seconds, 0.0, BOUND)
    report.table(f"{PATHS} paths of each series, {HORIZON} of {LENGTH + HORIZON} hours", lines)
    torch.set_num_threads(threads)


def spent(sampler: SeriesSampler, channels: int, series: int) -> float:
    """Seconds for all ``series``, after a first one that does not count."""
    panels = [panel(channels, i) for i in range(series + 1)]
    sampler.draw(panels[0], Streams.of(0, PATHS))
    begun = time.perf_counter()
    for i, one in enumerate(panels[1:]):
        sampler.draw(one, Streams.of(0, PATHS, case=i))
    return time.perf_counter() - begun


def panel(channels: int, number: int) -> Panel:
    n = LENGTH + HORIZON
    values = record(channels, number)[:n]
    at = (24.0 * number + torch.arange(n, dtype=torch.float64)).repeat(channels)
    channel = torch.arange(channels).repeat_interleave(n)
    known = (torch.arange(n) < LENGTH).repeat(channels)
    real = torch.ones_like(known)
    return Panel(
        at[None], channel[None], values.T.reshape(1, -1), known[None], real[None],
        dense=(channels, n),
    )  # fmt: skip


def record(channels: int, number: int, hours: int = 1000) -> torch.Tensor:
    """(hours, C): a day and a slow rest."""
    white = (
        Streams.of(3, 1, case=number)
        .at("hours")
        .normal(torch.zeros(1, hours, channels, dtype=torch.float64))[0]
    )
    hour = torch.arange(hours, dtype=torch.float64)[:, None]
    return (2 * torch.pi * hour / 24).sin() + 0.1 * white.cumsum(0) + 0.3 * white.flip(0)


def law_of(channels: int) -> Seasonal:
    return measured(record(channels, 0), phases=24, lags=LENGTH + HORIZON, support=700, recent=72.0)


def steps_of(channels: int) -> StepTransformer:
    """As models/series_window.py builds it by default."""
    return StepTransformer(channels, 1.0, float(LENGTH + HORIZON), width=32, periods=(24.0,))
