"""gluonts: a model of series as its Estimator and Predictor; imported only where it is used.

    from sciddm.gluonts import DiffusionEstimator

    predictor = DiffusionEstimator(freq="h", prediction_length=24).train(dataset)
    forecasts = predictor.predict(test_data.input)       # SampleForecast, lazily and in order
    predictor.serialize(Path("folder"))                  # sciddm's own format: nothing is run

The entries of a dataset become items with dates, and draws of items become forecasts; between the
two everything is what `sciddm.forecast` does with a frame, so the numbers are the same. A model
that was trained otherwise serves too: `DiffusionPredictor(sd.load(..), "h", 24)`.

Alexandrov et al. GluonTS: probabilistic and neural time series modeling in Python. JMLR 21, 2020.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from gluonts.model.estimator import Estimator
from gluonts.model.forecast import SampleForecast
from gluonts.model.predictor import Predictor
from pandas.tseries.frequencies import to_offset

from sciddm import filling, train
from sciddm import model as models
from sciddm.config import Train
from sciddm.data import ragged
from sciddm.data.checks import warn
from sciddm.data.items import Item, Items, long_enough
from sciddm.errors import InputError
from sciddm.model import Model
from sciddm.series.base import SeriesLearner
from sciddm.series_ahead import Build, Setting, named, usual

Entry = dict[str, Any]


class DiffusionEstimator(Estimator):
    """Trains a model of series on a gluonts dataset.

    Parameters
    ----------
    freq : of pandas or gluonts, old and new names alike ("h", "H", "D", "B", "M", "ME", "15min").
    prediction_length : rows of a forecast. context_length : rows before it that the model reads;
        default three seasons or twice the forecast, what is more. lead_time : rows between.
    variables : names of the target's rows, so that frames and Datasets can be given to the model.
    num_feat_dynamic_real, num_feat_static_real : numbers of each that entries have.
    steps, batch_size, lr : of the training. seed : of training and draws.
    build : another untrained model of the items, in place of `usual`; one without weights is
        returned as it is.

    Missing target values (NaN) are not filled in. Categories and past-only features are not read.
    """

    def __init__(
        self,
        freq: str,
        prediction_length: int,
        context_length: int | None = None,
        *,
        lead_time: int = 0,
        variables: tuple[str, ...] = ("target",),
        num_feat_dynamic_real: int = 0,
        num_feat_static_real: int = 0,
        steps: int = 1000,
        batch_size: int = 16,
        lr: float = 2e-3,
        seed: int = 0,
        build: Build = usual,
    ) -> None:
        super().__init__(lead_time=lead_time)
        self.freq, self.prediction_length = named(freq), prediction_length
        self.variables, self.build = tuple(variables), build
        self.num_feat_dynamic_real = num_feat_dynamic_real
        self.num_feat_static_real = num_feat_static_real
        self.steps, self.batch_size, self.lr, self.seed = steps, batch_size, lr, seed
        horizon = lead_time + prediction_length
        bare = Setting(self.freq, horizon, 2 * horizon, seed)
        season = min(bare.periods, default=0.0)
        self.context_length = context_length or max(2 * horizon, round(3 * season))
        self.setting = replace(bare, context=self.context_length)

    def train(
        self, training_data: Iterable[Entry], validation_data: Iterable[Entry] | None = None
    ) -> DiffusionPredictor:
        """Train on all windows of the series but those of the last forecast of each, which choose
        the weights; with ``validation_data`` on all, and the last ones there choose.

        Raises `InputError` for entries that `Entries.item` refuses, and where no series is long
        enough or all are constant."""
        given = self._items(training_data, "training")
        window = self.context_length + self.setting.horizon
        if validation_data is not None:
            later = self._items(validation_data, "validation")
            part, held = given, later.only([i.rows(slice(-window, None)) for i in later])
        else:
            part, held = _held(given, window, self.setting.horizon)
        model = self.build(part, self.setting)
        if isinstance(model.sampler, SeriesLearner):
            model = self._fitted(model, part, held)
        return DiffusionPredictor(
            model, self.freq, self.prediction_length, self.lead_time, self.seed
        )

    def _items(self, dataset: Iterable[Entry], what: str) -> Items:
        entries = Entries(
            self.freq,
            self.variables,
            tuple(f"feat_dynamic_real_{k}" for k in range(self.num_feat_dynamic_real)),
            tuple(f"feat_static_real_{k}" for k in range(self.num_feat_static_real)),
        )
        items, unread = [], set()
        for number, entry in enumerate(dataset):
            items.append(entries.item(entry, number))
            unread |= entries.unread(entry)
        if not items:
            raise InputError(f"The {what} data holds no series; expected at least one entry.")
        if unread:
            warn(
                f"The {what} data holds {', '.join(sorted(unread))}, which are not read; real "
                "features are, where the estimator is told their numbers (num_feat_static_real)."
            )
        names = [i.name for i in items]
        if len(set(names)) < len(names):  # several windows of one series
            items = [replace(i, name=f"{i.name} #{n}") for n, i in enumerate(items)]
        return varied(long_enough(entries.items(items), self.context_length, self.setting.horizon))

    def _fitted(self, model: Model, part: Items, held: Items) -> Model:
        later = [replace(i, name=f"{i.name} (validation)") for i in held]
        splits = {
            "train": [0, len(part)],
            "validation": [len(part), len(part) + len(later)],
        }
        both = replace(part, items=(*part, *later), attrs={"sciddm_splits": splits})
        with tempfile.TemporaryDirectory() as folder:
            numbers = Train(
                out=str(Path(folder) / "model"), run=str(Path(folder) / "run"), steps=self.steps,
                batch=self.batch_size, learning_rate=self.lr, warmup=min(100, self.steps // 10),
                ema=min(0.999, 1 - 10 / max(self.steps, 20)), checkpoint_every=self.steps,
                validation_every=max(1, self.steps // 5), seed=self.seed, accelerator="cpu",
            )  # fmt: skip
            return train.fit(model, ragged.dataset(both), numbers)


class DiffusionPredictor(Predictor):
    """Forecasts of a model of series, from one that was trained here or any other.

    Parameters
    ----------
    model : of series. freq : of the entries. prediction_length, lead_time : rows.
    seed : of the draws, which depend on it, on the name of the item and on its times alone.
    """

    def __init__(
        self, model: Model, freq: str, prediction_length: int, lead_time: int = 0, seed: int = 0
    ) -> None:
        super().__init__(prediction_length=prediction_length, lead_time=lead_time)
        self.model, self.freq, self.seed = model, named(freq), seed
        codec = model.cells
        self.entries = Entries(self.freq, codec.names, codec.covariates, codec.static)

    def predict(self, dataset: Iterable[Entry], num_samples: int = 100) -> Iterator[SampleForecast]:
        """A forecast an entry, drawn when it is asked for, in the order of the dataset.

        Raises `InputError` for an entry without values, of another frequency or number of
        channels, or whose features do not reach over the forecast.
        """
        ahead = self.lead_time + self.prediction_length
        for number, entry in enumerate(dataset):
            item = self.entries.item(entry, number, ahead)
            samples = self._drawn(item, ahead, num_samples)[:, -self.prediction_length :]
            yield SampleForecast(
                samples[..., 0] if np.ndim(entry["target"]) == 1 else samples,
                entry["start"] + (len(item) - self.prediction_length),
                item_id=entry.get("item_id"),
            )

    def _drawn(self, item: Item, ahead: int, members: int) -> np.ndarray:
        """(M, ahead, C)."""
        # of business days the times to come are those of the calendar, not equal steps
        at = item.time[-ahead:] if self.model.cells.clock.step is None else None
        draws, _ = filling.ahead(
            self.model, self.entries.items([item]), steps=ahead, members=members, seed=self.seed,
            start=item.time[-ahead - 1], at=at,
        )  # fmt: skip
        return draws.values[0]

    def serialize(self, path: Path) -> None:
        """Into a folder that exists: gluonts' own note of the class, and a saved model."""
        super().serialize(path)
        said = {
            "freq": self.freq, "prediction_length": self.prediction_length,
            "lead_time": self.lead_time, "seed": self.seed,
        }  # fmt: skip
        (path / "predictor.json").write_text(json.dumps(said))
        self.model.save(path / "model", overwrite=(path / "model").exists())

    @classmethod
    def deserialize(cls, path: Path) -> DiffusionPredictor:
        """What `serialize` wrote. Raises `InputError` as `sciddm.load`."""
        try:
            said = json.loads((Path(path) / "predictor.json").read_text())
            numbers = [int(said[k]) for k in ("prediction_length", "lead_time", "seed")]
            freq = str(said["freq"])
        except (OSError, ValueError, KeyError, TypeError) as fault:
            raise InputError(f"{path} holds no saved predictor: {fault}.") from None
        return cls(models.load(Path(path) / "model"), freq, *numbers)


@dataclass(frozen=True)
class Entries:
    """Entries of a gluonts dataset as items, with names for the rows of their arrays."""

    freq: str
    variables: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    static: tuple[str, ...] = ()

    def item(self, entry: Entry, number: int, ahead: int = 0) -> Item:
        """One entry with ``ahead`` empty rows after its last one.

        Raises `InputError`: other frequency, channels or features, infinite values, or nothing
        known before rows that are to be drawn.
        """
        name = str(entry.get("item_id") or number)
        start = entry["start"]
        if not isinstance(start, pd.Period) or start.freq != to_offset(self.freq):
            got = start.freqstr if isinstance(start, pd.Period) else type(start).__name__
            raise InputError(
                f"Item {name!r} starts at a period of {got!r}; the model was made for {self.freq!r}"
                ": give the dataset that freq, or train again."
            )
        target = np.atleast_2d(np.asarray(entry["target"], dtype=np.float64)).T
        if target.shape[1] != len(self.variables):
            raise InputError(
                f"Item {name!r} has {target.shape[1]} channels; expected {len(self.variables)}: "
                f"{', '.join(self.variables)}."
            )
        if np.isinf(target).any():
            row = int(np.argwhere(np.isinf(target))[0, 0])
            raise InputError(
                f"Item {name!r}: row {row} is infinite; expected numbers, NaN where missing."
            )
        if ahead and not np.isfinite(target).any():
            raise InputError(
                f"Item {name!r} has {len(target)} rows and no value; expected at least one to "
                "forecast from: leave the item out."
            )
        rows = len(target) + ahead
        values = np.concatenate([target, np.full((ahead, target.shape[1]), np.nan)])
        return Item(
            name, times(start, rows), values, self._dynamic(entry, name, rows),
            self._static(entry, name),
        )  # fmt: skip

    def unread(self, entry: Entry) -> set[str]:
        """Features of an entry that no item has."""
        read = {"feat_dynamic_real"} if self.covariates else set()
        read |= {"feat_static_real"} if self.static else set()
        return {k for k in entry if k.startswith(("feat_", "past_feat_"))} - read

    def items(self, items: Iterable[Item]) -> Items:
        """Those of `item` together."""
        return Items(self.variables, tuple(items), self.covariates, self.static)

    def _dynamic(self, entry: Entry, name: str, rows: int) -> np.ndarray | None:
        if not self.covariates:
            return None
        found = np.asarray(entry.get("feat_dynamic_real", np.empty((0, rows))), dtype=np.float64)
        found = np.atleast_2d(found)
        if found.shape[0] != len(self.covariates) or found.shape[1] < rows:
            raise InputError(
                f"Item {name!r} has feat_dynamic_real of shape {found.shape}; expected "
                f"({len(self.covariates)}, {rows}), known over the forecast too."
            )
        if not np.isfinite(found[:, :rows]).all():
            k, row = (int(i) for i in np.argwhere(~np.isfinite(found[:, :rows]))[0])
            raise InputError(
                f"Item {name!r}: feat_dynamic_real {k} is missing in row {row}; expected a number "
                "at every time, those to be forecast too."
            )
        return np.ascontiguousarray(found[:, :rows].T)

    def _static(self, entry: Entry, name: str) -> np.ndarray | None:
        if not self.static:
            return None
        found = np.asarray(entry.get("feat_static_real", ()), dtype=np.float64).ravel()
        if len(found) != len(self.static):
            raise InputError(
                f"Item {name!r} has {len(found)} static features; expected {len(self.static)}."
            )
        return found


def varied(items: Items) -> Items:
    """Items that are not constant; the others are named in a warning, for they teach nothing.

    Raises `InputError` where none is left."""
    still = [i.name for i in items if len(np.unique(i.values[np.isfinite(i.values)])) < 2]
    if not still:
        return items
    line = f"{len(still)} of {len(items)} items are constant: {', '.join(map(repr, still[:5]))}"
    if len(still) == len(items):
        raise InputError(f"{line}; expected some that vary to train on.")
    warn(f"{line}; they are left out of training.")
    return items.only([i for i in items if i.name not in set(still)])


def times(start: pd.Period, rows: int) -> np.ndarray:
    """(rows,) datetime64[ns]: the first instant of each period."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of periods of business days
        found = pd.period_range(start, periods=rows, freq=start.freq).to_timestamp()
    return np.asarray(found.values.astype("datetime64[ns]"))


def _held(items: Items, window: int, ahead: int) -> tuple[Items, Items]:
    """Items without their last forecast, and their last windows; the same where all are short."""
    long = [i for i in items if len(i) >= window + ahead and i.rows(slice(-ahead, None)).seen]
    held = items.only([i.rows(slice(-window, None)) for i in long or items])
    if not long:
        return items, held
    cut = {i.name for i in long}
    return items.only([i.rows(slice(-ahead)) if i.name in cut else i for i in items]), held
