"""Train, validation and test: whole stretches of the sample dim, never drawn at random.

Neighbouring hours are nearly copies of each other, so a random split tests on what it trained on.
A split here is a half-open index range along the sample dim, the splits follow one another, and
between two of them a gap of samples can be left out. They travel with the data as the attribute
``sciddm_splits``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from sciddm.data.names import find
from sciddm.errors import InputError, nearest

Splits = dict[str, list[int]]
"""Name to ``[start, stop)``, as stored."""


def by_order(n: int, validation: float = 0.1, test: float = 0.1, gap: int = 0) -> Splits:
    """The last ``test`` share of ``n`` samples, ``validation`` before it, the rest to train.

    For samples in no order (PDE solutions, each from its own seed) and for trajectories or
    members where the sample dim counts them.

    Args:
        gap: samples left out between two splits.

    Raises:
        InputError: shares that leave a split empty.
    """
    if not (0.0 < validation < 1.0 and 0.0 < test < 1.0):
        raise InputError(
            f"Shares validation={validation} and test={test}; expected each between 0 and 1."
        )
    last = n - round(n * test)
    middle = last - round(n * validation)
    return _ranges(n, middle, last, gap)


def by_time(ds: xr.Dataset, dim: str = "", *, validation: str, test: str, gap: int = 0) -> Splits:
    """Train before the date ``validation``, validation from there to ``test``, test to the end.

    Args:
        dim: the time dim; default the one found by CF attributes.
        validation, test: first dates, such as ``"2019-03-24"`` or ``"2019-03-24T12"``, read in
            the calendar of the data.
        gap: steps left out at the end of train and of validation.

    Raises:
        InputError: no dates along the dim, dates that cannot be read, or an empty split.
    """
    dim = dim or find(ds, "time") or ""
    if dim not in ds.dims or dim not in ds.indexes:
        raise InputError(f"No time dim {dim!r}.{nearest(dim, map(str, ds.dims))}")
    index = ds.indexes[dim]
    first, last = str(index[0]), str(index[-1])
    starts = []
    for name, date in (("validation", validation), ("test", test)):
        try:
            start = int(index.get_slice_bound(date, "left"))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{name}={date!r} is no date on {dim!r}, which runs from {first} to {last}; "
                "expected one such as '2019-03-24'."
            ) from error
        if not 0 < start < index.size:
            raise InputError(
                f"{name}={date!r} leaves nothing on one side; {dim!r} runs from {first} to {last}."
            )
        starts.append(start)
    return _ranges(index.size, starts[0], starts[1], gap)


def _ranges(n: int, middle: int, last: int, gap: int) -> Splits:
    if gap < 0:
        raise InputError(f"gap={gap}; expected 0 or more samples.")
    splits = {"train": [0, middle - gap], "validation": [middle, last - gap], "test": [last, n]}
    for name, (start, stop) in splits.items():
        if stop <= start:
            raise InputError(
                f"The {name} split is empty ({n} samples, validation from {middle}, test from "
                f"{last}, gap {gap}); expected at least one sample in each."
            )
    return splits


def attach(ds: xr.Dataset, splits: Mapping[str, list[int]], sample_dim: str = "") -> xr.Dataset:
    """The Dataset with its splits written into its attributes.

    Raises:
        InputError: ranges outside the dim or over one another.
    """
    dim = sample_dim or str(ds.attrs.get("sciddm_sample_dim", ""))
    if dim not in ds.dims:
        raise InputError(f"No sample dim {dim!r}.{nearest(dim, map(str, ds.dims))}")
    _check(splits, ds.sizes[dim], dim)
    plain = {str(name): [int(r[0]), int(r[1])] for name, r in splits.items()}
    return ds.assign_attrs(sciddm_sample_dim=dim, sciddm_splits=plain)


def read(ds: xr.Dataset) -> Splits:
    """The splits that a Dataset carries; {} where it has none.

    Raises:
        InputError: ranges that cannot be.
    """
    splits = ds.attrs.get("sciddm_splits")
    if not splits:
        return {}
    dim = str(ds.attrs.get("sciddm_sample_dim", ""))
    if dim not in ds.dims:
        raise InputError(
            f"The attribute sciddm_sample_dim says {dim!r}.{nearest(dim, map(str, ds.dims))}"
        )
    _check(splits, ds.sizes[dim], dim)
    return {str(name): [int(r[0]), int(r[1])] for name, r in splits.items()}


def select(ds: xr.Dataset, name: str) -> xr.Dataset:
    """One split, lazily: the samples of its range and nothing else.

    The result says what it is: ``sciddm_split`` is the name and ``sciddm_range`` the range in the
    whole, in place of ``sciddm_splits``.

    Raises:
        InputError: no such split.
    """
    splits = read(ds)
    if name not in splits:
        taken = ds.attrs.get("sciddm_split")
        already = f" This is already the {taken!r} split." if taken else ""
        raise InputError(f"No split {name!r}.{already}{nearest(name, splits)}")
    start, stop = splits[name]
    dim, ragged = str(ds.attrs["sciddm_sample_dim"]), row_sizes(ds)
    out = ds.isel({dim: slice(start, stop)})
    if ragged and ds[ragged[0]].dims == (dim,):
        ends = np.concatenate([[0], np.cumsum(ds[ragged[0]].values)])
        out = out.isel({ragged[1]: slice(int(ends[start]), int(ends[stop]))})
    attrs = {k: v for k, v in ds.attrs.items() if k != "sciddm_splits"}
    out.attrs = {**attrs, "sciddm_split": name, "sciddm_range": [start, stop]}
    return out


def row_sizes(ds: xr.Dataset) -> tuple[str, str] | None:
    """Where items of a Dataset stand one after another (CF contiguous ragged arrays): the variable
    that counts the rows of each, and the dim of the rows. None for other Datasets."""
    for name, variable in ds.variables.items():
        dim = str(variable.attrs.get("sample_dimension", ""))
        if dim in ds.dims and variable.ndim == 1:
            return str(name), dim
    return None


def _check(splits: Mapping[str, list[int]], n: int, dim: str) -> None:
    taken = np.zeros(n, bool)
    for name, bounds in splits.items():
        start, stop = (int(b) for b in bounds) if len(bounds) == 2 else (0, 0)
        if not 0 <= start < stop <= n:
            raise InputError(
                f"Split {name!r} is {list(bounds)}; expected [start, stop) within the {n} samples "
                f"of {dim!r}."
            )
        if taken[start:stop].any():
            raise InputError(
                f"Split {name!r} [{start}, {stop}) shares samples with another; expected splits "
                "apart: what is trained on cannot test."
            )
        taken[start:stop] = True
