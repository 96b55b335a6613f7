"""Do things happen as often as they are said to: reliability diagrams and the parts of Brier.

The forecast probability of "more than a threshold" is the share ``k / M`` of members above it.
Where it was ``p``, the event should have come with frequency ``p``:

    Brier = reliability - resolution + uncertainty
          = <(p - f_p)^2> - <(f_p - f)^2> + f (1 - f)

with ``f_p`` the frequency where ``p`` was said and ``f`` the frequency of all. The sum is exact
because ``p`` takes M + 1 values and each has a bin of its own. Few members cannot be quite
reliable in this sense: where the true chance is anything between 0 and 1 alike, ``k`` of M members
means ``(k + 1) / (M + 2)``. Rank histograms do not have this fault.

References:
    Murphy, A new vector partition of the probability score, 1973,
    doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2. Broecker and Smith, Increasing the
    reliability of reliability diagrams, 2007, doi:10.1175/WAF993.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from sciddm.errors import InputError
from sciddm.score.weights import MEMBER, averaged, cell_weights, finish, label, pair


def reliability(
    ens: xr.DataArray,
    truth: xr.DataArray,
    threshold: float,
    *,
    bins: int | None = None,
    over: Sequence[str] | None = None,
) -> xr.Dataset:
    """Observed frequency by forecast probability of "more than ``threshold``", and Brier's parts.

    Args:
        ens: ``(member, *dims)`` of one variable.
        truth: ``(*dims)``.
        threshold: In the units of the field.
        bins: Groups of neighbouring numbers of members for the diagram, as even as whole numbers
            allow; one for each of 0 .. M by default. The parts are always from all M + 1.
        over: Dims to gather over; all but ``member`` by default.

    Returns:
        ``forecast`` and ``observed`` ``(bin, *remaining)``, the mean probability and the frequency
        in each bin, area-weighted, NaN in empty ones; ``count``, whole numbers of cells; and over
        the remaining dims ``brier`` (plain), ``reliability``, ``resolution``, ``uncertainty``.

    Raises:
        InputError: As :func:`sciddm.score.weights.pair`; Datasets; a threshold that is not finite,
            or a number of bins outside 2 .. M + 1.
    """
    if not (isinstance(ens, xr.DataArray) and isinstance(truth, xr.DataArray)):
        raise InputError("reliability takes one variable; pick it by name: ens['...']")
    if not np.isfinite(threshold):
        raise InputError(f"threshold is {threshold}; expected a finite number in the field's units")
    ens, truth = pair(ens, truth)
    members = ens.sizes[MEMBER]
    groups = members + 1 if bins is None else bins
    if not 2 <= groups <= members + 1:
        raise InputError(
            f"bins is {bins} for {label(ens)}; expected 2 to {members + 1} for {members} members"
        )
    dims = averaged(ens, over)
    area = cell_weights(ens)
    above = (ens > threshold).sum(MEMBER).where(truth.notnull())
    weights = (area * xr.ones_like(truth, dtype=np.float64)).where(truth.notnull(), 0.0)
    table = xr.apply_ufunc(
        _table,
        above.compute(),
        (truth > threshold).compute(),
        weights.transpose(*truth.dims).compute(),
        input_core_dims=[list(dims)] * 3,
        output_core_dims=[["k", "what"]],
        kwargs={"members": members, "axes": len(dims)},
    )
    first = (np.arange(groups) * (members + 1)) // groups
    out = _curve(table, first).assign(_parts(table))
    out = out.assign_coords({n: c for n, c in table.coords.items() if n not in out.coords})
    what = f"event: more than {threshold:g}"
    for name in out.data_vars:
        out[name] = finish(out[name], f"{name}, {what}", members, "1")
        out[name].attrs["weights"] = "none: counts" if name == "count" else area.attrs["weights"]
    return out.assign_attrs(threshold=threshold, members=members)


def _table(
    above: np.ndarray, event: np.ndarray, weights: np.ndarray, members: int, axes: int
) -> np.ndarray:
    """``(*kept, *gathered) -> (*kept, M + 1, 3)``: cells, weight, and weight of events."""
    kept = above.shape[: above.ndim - axes]
    rows = int(np.prod(kept))
    k, seen, w = (a.reshape(rows, -1) for a in (above, event, weights))
    row, column = np.nonzero(~np.isnan(k))
    where = row * (members + 1) + k[row, column].astype(np.int64)
    size, w = rows * (members + 1), w[row, column]
    parts = [np.bincount(where, v, size) for v in (np.ones_like(w), w, w * seen[row, column])]
    return np.stack(parts, -1).reshape(*kept, members + 1, 3)


def _curve(table: xr.DataArray, first: np.ndarray) -> xr.Dataset:
    members = table.sizes["k"] - 1
    values = table.transpose("k", "what", ...).values
    share = np.arange(members + 1) / members
    said = values[:, 1] * share.reshape(-1, *[1] * (values.ndim - 2))
    count, weight, event, said = (
        np.add.reduceat(v, first, axis=0) for v in (values[:, 0], values[:, 1], values[:, 2], said)
    )
    dims = ("bin", *[d for d in table.dims if d not in ("k", "what")])
    with np.errstate(invalid="ignore", divide="ignore"):
        curves = {"forecast": said / weight, "observed": event / weight}
    last = np.append(first[1:], members + 1) - 1
    coords = {
        "fewest": ("bin", first, {"long_name": "fewest members above"}),
        "most": ("bin", last, {"long_name": "most members above"}),
    }
    data = {**curves, "count": count.astype(np.int64)}
    return xr.Dataset({n: (dims, v) for n, v in data.items()}, coords)


def _parts(table: xr.DataArray) -> dict[str, xr.DataArray]:
    weight, event = table.isel(what=1), table.isel(what=2)
    members = table.sizes["k"] - 1
    p = xr.DataArray(np.arange(members + 1) / members, dims="k")
    total = weight.sum("k")
    total = total.where(total > 0)
    rate = event.sum("k") / total
    frequency = (event / weight.where(weight > 0)).fillna(rate)
    reliability = (weight * (p - frequency) ** 2).sum("k") / total
    resolution = (weight * (frequency - rate) ** 2).sum("k") / total
    uncertainty = rate * (1 - rate)
    return {
        "brier": reliability - resolution + uncertainty,
        "reliability": reliability,
        "resolution": resolution,
        "uncertainty": uncertainty,
    }
