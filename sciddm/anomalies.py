"""How strange stretches of series are, with labels: a score for each window, at its last time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sciddm.completion import longest
from sciddm.data.checks import warn
from sciddm.data.items import Item, Items, of
from sciddm.data.series import SeriesCodec, stacked
from sciddm.errors import InputError
from sciddm.model import Model
from sciddm.series.anomaly import Anomaly, DiffusionTime, Surprise
from sciddm.series.law import Law
from sciddm.series.prior import FunctionPrior

ROWS = 64
"""Rows of a window where neither the user nor the model says how many."""
BATCH = 16
"""Windows that are scored together."""

Progress = Callable[[int, int], None]


def anomaly(
    model: Model,
    series: Any,  # noqa: ANN401 (a frame, a Dataset, a path, or Items)
    *,
    rows: int | None = None,
    every: int | None = None,
    against: Any = None,  # noqa: ANN401
    neighbours: int = 5,
    progress: Progress = lambda done, total: None,
) -> Any:  # noqa: ANN401
    """How strange each stretch of a series is; the larger, the stranger.

    Parameters
    ----------
    model : of series, with a law or a diffusion of functions: the score is -log p a value, in nats,
        of the known values of a window in normalised units; gaps and errors of times are no
        hindrance. With ``against`` only its codec is used.
    series : in any form, as for `sciddm.impute`.
    rows : of a window; default the model's, or 64. every : rows from one window to the next;
        default a quarter of a window.
    against : series without anomalies, such as those of training: the score is then the estimated
        diffusion time of whole windows, the variance of the noise that would take the nearest
        ``neighbours`` of these windows there. Windows with gaps have no such score.

    Returns ``anomaly`` at the last time of each window, in the form the series came.
    Raises `InputError` for a model without a density, and series shorter than a window.
    """
    codec, items = model.cells, of(series)
    size = rows or codec.window or min(ROWS, longest(codec))
    if size < 2 or (every is not None and every < 1):
        raise InputError(f"Got windows of {size} rows, {every} apart; expected 2 or more, and 1.")
    codec = replace(codec, window=size)
    ready = codec.conform(items)
    scorer = _density(model) if against is None else _near(codec, of(against), neighbours)
    step = every or max(1, size // 4)
    cuts = [(k, a) for k, i in enumerate(ready) for a in range(0, len(i) - size + 1, step)]
    short = [i.name for i in ready if len(i) < size]
    if not cuts:
        raise InputError(f"No item has {size} rows; expected longer series, or fewer rows.")
    if short:
        warn(f"{len(short)} of {len(ready)} items have fewer than {size} rows and are skipped: "
             f"{', '.join(map(repr, short[:5]))}{', ..' if len(short) > 5 else ''}.")  # fmt: skip
    scores = np.full(len(cuts), np.nan)
    whole = against is not None
    parts = [ready.items[k].rows(slice(a, a + size)) for k, a in cuts]
    fit = [j for j, p in enumerate(parts) if (np.isfinite(p.values).all() if whole else p.seen)]
    for done in range(0, len(fit), BATCH):
        some = fit[done : done + BATCH]
        scores[some] = scored(codec, scorer, [parts[j] for j in some])
        progress(min(done + BATCH, len(fit)), len(fit))
    return _back(items, ready, cuts, scores, size)


def scored(codec: SeriesCodec, scorer: Anomaly, parts: list[Item]) -> np.ndarray:
    """(B,) of windows."""
    seen = [np.isfinite(p.values) for p in parts]
    panel = stacked([codec.coded(p, s, s) for p, s in zip(parts, seen, strict=True)])
    with torch.no_grad():
        return np.asarray(scorer(panel).double())


def _density(model: Model) -> Anomaly:
    sampler = model.series
    if isinstance(sampler, FunctionPrior):
        return Surprise(sampler)
    law = getattr(sampler, "law", None)
    if not isinstance(law, Law):
        raise InputError(
            f"Got a model that draws by {type(sampler).__name__}, which has no density; expected "
            "one with a law, or series without anomalies: against=..."
        )
    return Surprise(law)


def _near(codec: SeriesCodec, items: Items, neighbours: int) -> Anomaly:
    if codec.clock.step is None:
        raise InputError("Got `against` for a model of irregular times; expected a regular one.")
    size, found = codec.window or ROWS, []
    for item in codec.conform(items):
        for a in range(len(item) - size + 1):
            part = item.rows(slice(a, a + size))
            if np.isfinite(part.values).all():
                found.append(codec.encode(part).panel.value[0])
    if not found:
        raise InputError(f"No stretch of {size} rows of `against` is whole; expected some.")
    return DiffusionTime(torch.stack(found), neighbours)


def _back(
    items: Items, ready: Items, cuts: list[tuple[int, int]], scores: np.ndarray, size: int
) -> Any:  # noqa: ANN401
    found = []
    for k, item in enumerate(ready):
        mine = [j for j, (which, _) in enumerate(cuts) if which == k]
        if mine:
            ends = [cuts[j][1] + size - 1 for j in mine]
            found.append(Item(item.name, item.time[ends], scores[mine][:, None]))
    out = replace(
        items, variables=("anomaly",), items=tuple(found), covariates=(), static=(),
        units={"anomaly": "1"}, attrs={"rows": size},
    )  # fmt: skip
    return out if items.form is None else out.back()
