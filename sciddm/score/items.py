"""Series scored as forecasters do: every score item by item, and pooled over all of them.

    table = score.by_item(ens, truth)       # ens (member, item, time, channel)
    table["wql_9"].sel(item="a"), table["wql_9_pooled"]

Cells that nobody knows are left out and counted. Items count by their cells in a pooled score, so
the pooled number of a weighted loss is not the mean of those of the items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciddm.errors import InputError, nearest
from sciddm.score.calibration import coverage, pit
from sciddm.score.probabilistic import crps, energy_score
from sciddm.score.quantile import known, median_error, weighted_quantile_loss
from sciddm.score.weights import label


def by_item(
    ens: xr.DataArray,
    truth: xr.DataArray,
    dim: str = "item",
    *,
    levels: Sequence[int] = (9, 19),
    level: float = 0.9,
    channel: str | None = "channel",
    bins: int = 10,
    seed: int = 0,
) -> xr.Dataset:
    """Fair CRPS, weighted quantile losses, error of the median, coverage and PIT histogram.

    Args:
        ens: ``(member, dim, *dims)``, two members or more.
        truth: ``(dim, *dims)``; NaN where it is not known.
        dim: The dim of items.
        levels: Numbers of levels of the weighted quantile losses.
        level: Of the coverage.
        channel: Dim of the vectors of the energy score; where there is none, no energy score.
        bins: Of the PIT histogram.
        seed: Of ties and of the randomised PIT.

    Returns:
        Each score along ``dim``, and ``<score>_pooled`` over everything: ``crps``,
        ``wql_<levels>``, ``mae_median``, ``coverage``, ``pit_histogram (bin)`` as shares, and
        ``energy_score`` with several channels. ``cells`` counts what was scored, ``left_out`` what
        was not. Each names its estimator.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`, no such dim, or no bins.
    """
    if dim not in ens.dims:
        raise InputError(
            f"{label(ens)} has dims {tuple(ens.dims)}; expected items along {dim!r}."
            f"{nearest(dim, map(str, ens.dims))}"
        )
    if bins < 2:
        raise InputError(f"bins is {bins}; expected 2 or more, such as 10")
    gaps = truth.isnull()
    e, t = known(ens, truth, least=2)
    # without coordinates: stations of several latitudes are items that count alike
    e, t = e.drop_vars(list(e.coords)), t.drop_vars(list(t.coords))
    inside = [str(d) for d in t.dims if d != dim]
    found = xr.Dataset()
    for end, over in (("", inside), ("_pooled", [dim, *inside])):
        found[f"crps{end}"] = crps(e, t, over=over)
        for count in levels:
            found[f"wql_{count}{end}"] = weighted_quantile_loss(e, t, levels=count, over=over)
        found[f"mae_median{end}"] = median_error(e, t, over=over)
        found[f"coverage{end}"] = coverage(e, t, level, over=over)
        if channel in inside and t.sizes[channel] > 1:
            rest = [d for d in over if d != channel]
            found[f"energy_score{end}"] = energy_score(e, t, across=[channel], over=rest)
        found[f"pit_histogram{end}"] = pit_histogram(e, t, bins=bins, seed=seed, over=over)
    found["cells"] = t.notnull().sum(inside).assign_attrs(long_name="cells scored", units="1")
    coords = [c for c in ens.coords.values() if set(c.dims) == {dim}]
    found = found.assign_coords({str(c.name): c.variable for c in coords})
    return found.assign_attrs(
        variable=label(ens).strip("'"), members=e.sizes["member"], left_out=int(gaps.sum()),
        level=level,
    )  # fmt: skip


def pit_histogram(
    ens: xr.DataArray,
    truth: xr.DataArray,
    *,
    bins: int = 10,
    seed: int = 0,
    over: Sequence[str] | None = None,
) -> xr.DataArray:
    """Shares of the PIT values in ``bins`` equal bins of (0, 1); flat, 1/bins each, when right.

    The values are :func:`sciddm.score.pit`'s. Cells where the truth is NaN are left out.

    Returns:
        ``(bin, *remaining)`` with the centres of the bins; NaN where no cell is left.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`.
    """
    e, t = known(ens, truth)
    values = pit(e, t, seed=seed)
    dims = [str(d) for d in values.dims] if over is None else list(over)
    cell = (values * bins).clip(0, bins - 1e-9)
    where = xr.DataArray(np.arange(bins), dims="bin")
    inside = ((cell >= where) & (cell < where + 1)).sum(dims)
    count = values.notnull().sum(dims)
    share = (inside / count.where(count > 0)).transpose("bin", ...)
    share = share.assign_coords(bin=("bin", (np.arange(bins) + 0.5) / bins, {"units": "1"}))
    return share.assign_attrs(values.attrs | {"estimator": f"PIT histogram, {bins} bins"})
