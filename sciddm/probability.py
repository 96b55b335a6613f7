"""How probable: an event under a model, and fields that were given.

`exceedance` is the probability that a variable passes thresholds somewhere, also when no plain
ensemble would ever meet it, with draws of the fields that do. `log_prob` is the log density of
fields under the model, along the probability flow.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from sciddm import likelihood
from sciddm.data.codec import Codec, Derived, TwoValued
from sciddm.data.names import same_units
from sciddm.denoise import Gaussian, Moments
from sciddm.draws import BLOCK, InBlocks
from sciddm.errors import InputError
from sciddm.evidence import physical
from sciddm.guide import Event, event_probability
from sciddm.model import Model
from sciddm.random import Streams
from sciddm.task import Observed


def exceedance(
    model: Model,
    thresholds: xr.DataArray,
    *,
    below: bool = False,
    members: int = 256,
    seed: int = 0,
    steps: int = 32,
) -> xr.Dataset:
    """P(the variable is above its threshold at any of the places), and fields where it is.

    Parameters
    ----------
    model : from `sciddm.load`; its covariance leads the draws into the event.
    thresholds : named like a variable of the model and in its units: on grid dims, or along one dim
        of points with their coordinates, as of `sciddm.Observed`. NaN is no threshold.
    below : the event that the variable is below its threshold at any of the places instead.
        Of a variable with two values: between them, and one of them is the event.
    members : weighed paths; 256 give a relative error of a few per cent down to 1e-3.
    steps : network evaluations a path.

    Returns a Dataset of the draws (dim ``member``) with their ``weight`` in the law of the field
    given the event, and attributes ``probability``, ``standard_error`` and ``effective_members``:
    with few of these the estimate is too low more often than too high.
    Raises `InputError` for more than one case, or a model that knows no covariance; `RunError`
    where a path diverged.

    Finzi et al. ICML 2023, https://arxiv.org/abs/2306.07526; see `sciddm.guide.event_probability`.
    """
    if members < 2:
        raise InputError(f"Got {members} members; expected at least 2.")
    if not isinstance(thresholds, xr.DataArray):
        raise InputError(
            f"Got thresholds in a {type(thresholds).__name__}; expected a DataArray named like a "
            "variable of the model."
        )
    if thresholds.dtype.kind not in "fiu" or not np.isfinite(thresholds.values).any():
        raise InputError("Got no finite threshold; expected a number at one place or more.")
    thresholds = _between(thresholds, model.fields)
    sights = list(Observed(thresholds, std=1.0).sights(model.fields))
    places = sights[0].observation
    if len(sights) != 1 or places is None:
        raise InputError(f"Got thresholds of {len(sights)} cases; expected one.")
    values, limit = places.operator @ physical(model.fields), places.y
    moments: Moments | None = model.moments or model.gaussian
    if moments is None:
        raise InputError("This model knows no covariance; draw with generate and count.")
    sign = -1.0 if below else 1.0
    event = Event(lambda x: sign * (values(x) - limit.to(x)), 0.0)
    shape = (members, *model.fields.shape)
    found = event_probability(
        InBlocks(model.diffusion.denoiser),
        event,
        moments,
        torch.zeros(shape, dtype=torch.float64),
        Streams.of(seed, members),
        steps=steps,
        kappa_max=model.diffusion.kappa_max,
        kappa_min=model.diffusion.kappa_min,
    )
    number = xr.DataArray(np.arange(members), dims="member", name="member")
    ds = model.fields.decode(found.draws.float(), number)
    return ds.assign(weight=("member", found.weight.numpy())).assign_attrs(
        probability=found.probability,
        standard_error=found.standard_error,
        effective_members=round(found.effective, 1),
        event=f"{thresholds.name} {'below' if below else 'above'} its threshold at any place",
        network_evaluations=steps,
        seed=seed,
    )


def log_prob(
    model: Model, fields: xr.Dataset, *, steps: int = 64, probes: int = 16, seed: int = 0
) -> xr.DataArray:
    """Log density of ``fields`` under the model's prior, in nats, of the normalised fields.

    Differences between fields, and between models with the same normalisation, are those of the
    physical densities. The fields bear the least noise of the model's clock, so that one of two
    values has a density too; a variable that others determine is not read. Closed-form traces where
    the model is Gaussian; else ``probes`` random ones a time, with the Gaussian inside as control
    variate.

    Parameters
    ----------
    fields : the model's variables on its grid, and at most one further dim of cases.

    Returns a DataArray along the case dim, with attribute ``dimensions`` (values a field). The
    evaluations of the network are 3 ``steps`` - 2 and as many backward passes a probe.
    Raises `InputError` for fields on another grid, in other units or with gaps. See
    `sciddm.likelihood.log_prob`.
    """
    codec = model.fields
    if not isinstance(fields, xr.Dataset):
        raise InputError(f"Got fields in a {type(fields).__name__}; expected a Dataset.")
    names = [n for n in codec.variables if n in fields]
    if not names:
        raise InputError(f"Got fields without {' or '.join(map(repr, codec.variables))}.")
    each = fields[names]
    _check_fields(each, codec)
    extra = [str(d) for d in each.dims if d not in codec.grid.dims]
    dim = extra[0] if extra else "case"
    each = each if extra else each.expand_dims("case")
    order = (dim, *codec.grid.dims)
    x = codec.encode({n: each[n].transpose(*order).values for n in names})
    denoiser = model.diffusion.denoiser
    exact = isinstance(denoiser, Gaussian)
    found = []
    for first, rows in zip(range(0, len(x), BLOCK), x.split(BLOCK), strict=True):
        rng = Streams.of(seed, range(first, first + len(rows)))
        found.append(
            likelihood.log_prob(
                denoiser,
                rows.double() if exact else rows,
                steps=steps,
                probes=None if exact else probes,
                rng=rng,
                base=model.gaussian,
            )
        )
    values = torch.cat(found).numpy()
    result = xr.DataArray(values, dims=dim, name="log_density")
    if dim in each.coords:
        result = result.assign_coords({dim: each[dim]})
    attrs = {"units": "nats", "long_name": "log density of the normalised fields"}
    result = result.assign_attrs(attrs | {"dimensions": x[0].numel()})
    return result if extra else result.isel(case=0, drop=True)


def _between(thresholds: xr.DataArray, codec: Codec) -> xr.DataArray:
    """Thresholds of a variable with two values stand where draws are set to one or the other."""
    while isinstance(codec, Derived):
        codec = codec.inner
    if not isinstance(codec, TwoValued) or codec.name != thresholds.name:
        return thresholds
    outside = thresholds.values[(thresholds <= codec.low) | (thresholds >= codec.high)]
    if outside.size:
        raise InputError(
            f"Got a threshold {outside[0]:g} of {codec.name!r}, which is {codec.low:g} or "
            f"{codec.high:g}; expected one between them."
        )
    return thresholds.where(thresholds.isnull(), 0.5 * (codec.low + codec.high))


def _check_fields(fields: xr.Dataset, codec: Codec) -> None:
    """Raise `InputError` unless ``fields`` are the codec's own, on its grid and in its units."""
    grid = codec.grid
    sizes = dict(zip(grid.dims, grid.shape, strict=True))
    for name, array in fields.data_vars.items():
        extra = [d for d in array.dims if d not in grid.dims]
        same = {d: n for d, n in array.sizes.items() if d in grid.dims} == sizes
        if len(extra) > 1 or not same or set(extra) != set(fields.dims) - set(grid.dims):
            raise InputError(
                f"Got {name!r} with sizes {dict(array.sizes)}; expected {sizes} and at most one "
                "further dim, the same for every variable."
            )
        if not array.size or array.dtype.kind not in "fiu":
            raise InputError(
                f"Got {name!r} with {array.size} values of type {array.dtype}; expected numbers."
            )
        units, own = (str(a.get("units", "")) for a in (array.attrs, codec.variables[str(name)]))
        if units and own and not same_units(units, own):
            raise InputError(
                f"Got {name!r} in {units!r}, the model is in {own!r}; convert it first."
            )
    for dim in grid.dims:
        axis = fields[dim]
        if axis.dtype.kind not in "fiu":
            raise InputError(f"Got {axis.dtype} coordinates along {dim!r}; expected numbers.")
        gap = np.abs(grid.position(dim, axis.values.astype(np.float64)) - np.arange(sizes[dim]))
        if not gap.max() < 0.01:
            raise InputError(
                f"Got fields with {dim!r} from {axis.values[0]:g} to {axis.values[-1]:g}; expected "
                f"the model's own points, {grid.coords[dim][0]:g} to {grid.coords[dim][-1]:g}: "
                "assign the coordinates, sort or interpolate to them."
            )
