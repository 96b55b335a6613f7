"""Regular items as one record of normalised rows, for laws that are measured from it."""

from __future__ import annotations

import numpy as np

from sciddm.data.items import Items
from sciddm.data.measure import Numbers
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError


def joined(items: Items, codec: SeriesCodec, phases: int = 1, apart: int = 0) -> Numbers:
    """(n, C): items one after another as the codec sees them, NaN where there is no value.

    Rows of NaN part two items, ``apart`` of them or more, so that row i of the record is always at
    phase i of a period of ``phases`` steps, counted from the origin of the codec's clock.
    Raises `InputError` for a codec without a regular step, or one that scales each window.
    """
    step = codec.clock.step
    if step is None or codec.item is not None:
        raise InputError(
            "Got a codec without a regular step, or one that scales each window by itself; "
            "expected a regular clock and no scale of items."
        )
    parts: list[Numbers] = []
    rows = 0
    for item in codec.conform(items):
        first = round(float(codec.clock.numbers(item.time[:1])[0]) / step)
        least = apart if parts else 0
        gap = least + (first - rows - least) % phases
        values = item.values.astype(np.float64)
        for c, warp in enumerate(codec.warps):
            if warp is not None:
                values[:, c] = warp.forward(values[:, c])
        parts += [np.full((gap, codec.channels), np.nan), (values - codec.mean) / codec.std]
        rows += gap + len(item)
    return np.concatenate(parts)
