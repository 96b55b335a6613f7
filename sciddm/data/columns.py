"""Columns of a table as numbers: every word that is none said with its row, no code for "missing"
taken for a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciddm.data.checks import FAR, SENTINELS
from sciddm.data.stamps import Where
from sciddm.errors import InputError

MISSING = ("", "NaN", "nan", "NA", "N/A", "<NA>", "null", "None")
"""What stands for "no value" without being declared."""

Codes = Sequence[float] | Mapping[str, Sequence[float]] | None


@dataclass(frozen=True)
class How:
    """How a source is to be read; see `items.of`."""

    item: str = ""
    time: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    variable: str = ""
    columns_are_items: bool = False
    time_format: str = ""
    step: float | None = None
    na_values: tuple[str, ...] = ()
    missing_values: Codes = None
    sort: bool = False
    keep: str = ""

    def __post_init__(self) -> None:
        if self.keep not in ("", "first", "last", "mean"):
            raise InputError(f"Got keep={self.keep!r}; expected 'first', 'last' or 'mean'.")


def codes(missing_values: Codes, name: str) -> tuple[float, ...] | None:
    """The numbers that mean "no value" in one column; None where nothing was said."""
    if isinstance(missing_values, Mapping):
        found = missing_values.get(name)
        return None if found is None else tuple(found)
    return None if missing_values is None else tuple(missing_values)


def is_number(column: Any, words: Sequence[str]) -> bool:  # noqa: ANN401
    """Whether a column holds numbers, or mostly: text with no number in it is a label."""
    series = pd.Series(column)
    if pd.api.types.is_numeric_dtype(series.dtype):
        return True
    if series.dtype.kind in "Mm" or isinstance(series.dtype, pd.DatetimeTZDtype | pd.PeriodDtype):
        return False
    filled = _filled(series, words)
    good = pd.to_numeric(filled, errors="coerce").notna().sum()
    return bool(len(filled) == 0 or 2 * good > len(filled))


def numbers(
    column: Any,  # noqa: ANN401
    name: str,
    where: Where,
    words: Sequence[str] = (),
    missing_values: Codes = None,
) -> npt.NDArray[np.float64]:
    """A column as float64, NaN where missing.

    Args:
        where: its rows in words. words: further words for "no value".
        missing_values: numbers for it; None looks for those in common use and refuses them.

    Raises:
        InputError: words among the numbers, decimal commas, infinite values, codes for missing
            data that were not declared; with the row.
    """
    series = pd.Series(column)
    kind = series.dtype.kind if isinstance(series.dtype, np.dtype) else "O"
    if kind in "Mmc" or isinstance(series.dtype, pd.DatetimeTZDtype | pd.PeriodDtype):
        raise InputError(f"The column {name!r} holds {series.dtype} values; expected real numbers.")
    if pd.api.types.is_numeric_dtype(series.dtype):
        out = series.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    else:
        out = _parsed(series, name, where, words)
    declared = codes(missing_values, name)
    for bad in declared or ():
        out[np.isclose(out, bad, rtol=1e-6, atol=0)] = np.nan
    infinite = np.isinf(out)
    if infinite.any():
        raise InputError(
            f"The column {name!r} is infinite in {where(int(np.argmax(infinite)))}; expected "
            "numbers: leave it empty where there is none."
        )
    if declared is None:
        _look_for_codes(out, name, where)
    return out


def _filled(series: pd.Series[Any], words: Sequence[str]) -> pd.Series[Any]:
    text = series.astype(str).str.strip()
    return text[~(text.isin([*MISSING, *words]) | series.isna())]


def _parsed(
    series: pd.Series[Any], name: str, where: Where, words: Sequence[str]
) -> npt.NDArray[np.float64]:
    filled = _filled(series, words)
    found = pd.to_numeric(filled, errors="coerce")
    bad = found.isna().to_numpy()
    if bad.any():
        word = str(filled.iloc[int(np.argmax(bad))])
        row = int(filled.index.get_indexer([filled.index[int(np.argmax(bad))]])[0])
        row = int(np.flatnonzero(series.index.isin(filled.index))[row])
        comma = filled[bad].str.fullmatch(r"[-+]?\d+,\d+").all()
        fix = (
            "write decimal points (pandas.read_csv(path, sep=';', decimal=','))" if comma
            else f"say na_values=({word!r},) if it means none"
        )  # fmt: skip
        raise InputError(
            f"The column {name!r} holds {word!r} in {where(row)}; expected a number: {fix}."
        )
    out = np.full(len(series), np.nan)
    out[series.index.isin(filled.index)] = found.to_numpy(dtype=np.float64)
    return out


def _look_for_codes(values: npt.NDArray[np.float64], name: str, where: Where) -> None:
    """Refuse a number in common use for missing data, far from all others."""
    full = values[np.isfinite(values)]
    if len(full) < 3:
        return
    low, high = full.min(), full.max()
    for code in (low, high):
        rest = full[full != code]
        if len(rest) == 0:
            continue
        near, span = (rest.min(), rest.max()), float(rest.max() - rest.min())
        gap = abs(code - (near[0] if code == low else near[1]))
        known = any(np.isclose(code, s, rtol=1e-6, atol=0) for s in SENTINELS)
        many = len(full) - len(rest) > 1
        suspect = (known and gap > span / FAR and (many or gap > span)) or (
            many and code != 0 and 0 < FAR * span < gap
        )
        # Records of sizes that are never negative use -1.
        usual, wide = np.quantile(rest, 0.01), np.quantile(rest, 0.99)
        lonely = code == -1 and many and near[0] >= 0 and usual + 1 > 0.1 * (wide - usual)
        if suspect or (lonely and usual > 1):
            raise InputError(
                f"The column {name!r} holds {code:.12g} {len(full) - len(rest)} times, first in "
                f"{where(int(np.argmax(values == code)))}, far from all else: a code for missing "
                f"data, it seems; say missing_values=({code:.12g},), or () if it is a measurement."
            )
