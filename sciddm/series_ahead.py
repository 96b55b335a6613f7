"""The usual model of regular series that are to be forecast: a network about a seasonal law.

What a frequency says is known before any data: the clock, and the periods of the calendar. The law
and the scales are fitted to the items, the network is trained afterwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pandas.tseries.frequencies import to_offset

from sciddm.data.clock import Clock
from sciddm.data.items import Items
from sciddm.data.masks import Ahead
from sciddm.data.measure import Centred
from sciddm.data.panels import Panels
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError
from sciddm.model import Model
from sciddm.nn.sets import SetTransformer
from sciddm.series.conditional import Conditional
from sciddm.series.fitting import fitted, guess
from sciddm.series.kernel import Intercept, OrnsteinUhlenbeck, Product, Season
from sciddm.task import Task, View

PERIODS = {
    "h": (24.0, 168.0),
    "D": (7.0,),
    "B": (7.0,),
    "min": (1440.0,),
    "ME": (12.0,),
    "QE": (4.0,),
}
"""Periods of a calendar in steps: days and weeks of hours, weeks of days, days of minutes, years of
months; of business days in days."""
CALENDAR = {"ME": "months", "QE": "months", "YE": "years"}


@dataclass(frozen=True)
class Setting:
    """What a model is asked to forecast: ``horizon`` rows after ``context``, at ``freq``."""

    freq: str
    horizon: int
    context: int
    seed: int = 0

    @property
    def periods(self) -> tuple[float, ...]:
        """In steps; of business days, whose steps are days, in days."""
        offset = to_offset(self.freq)
        found = PERIODS.get(offset.name.split("-")[0], ())
        return tuple(p / offset.n for p in found if p > 2 * offset.n)

    def clock(self, items: Items) -> Clock:
        """Equal steps, those of the calendar where they are months or years; business days are
        days without equal steps."""
        kind = to_offset(self.freq).name.split("-")[0]
        return Clock.of(items, CALENDAR.get(kind, ""), regular=kind != "B")


Build = Callable[[Items, Setting], Model]


def usual(items: Items, setting: Setting, *, law_steps: int = 100) -> Model:
    """The model that is trained where none is given: innovations of a seasonal Gaussian law.

    The law (a season that changes, red noise, a level, a white rest) is fitted by likelihood to
    windows of the items, each about its own mean and in its own s.d.; the network adds what is not
    Gaussian. Business days are cells in days with nothing at weekends.
    """
    clock = setting.clock(items)
    step = 1.0 if clock.step is None else clock.step
    window = setting.context + setting.horizon
    codec = SeriesCodec.fit(
        items, clock, window=window, item=Centred(), masks=Ahead(setting.horizon)
    )
    periods = tuple(step * p for p in setting.periods)
    level = OrnsteinUhlenbeck(step * setting.horizon)
    seasons = [p for p in periods if p <= step * setting.context][:1]
    terms = [Product((Season(p), OrnsteinUhlenbeck(10 * p))) for p in seasons]
    panels = Panels(items, codec, batch=16, seed=setting.seed)
    start = guess(
        panels.at(0), codec.channels, [*terms, level, Intercept()], rank=min(codec.channels - 1, 2)
    )
    law = fitted(start, panels.at, steps=law_steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        backbone = SetTransformer(
            codec.channels, step, step * window, width=32, periods=periods,
            covariates=codec.told, static=len(codec.static),
        )  # fmt: skip
    sampler = Conditional(backbone, law, codec.channels)
    return Model(Task(View(items.variables)), codec, sampler)


def named(freq: str) -> str:
    """The frequency by the name that pandas has for it now. Raises `InputError` for no name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of old names, which are understood
            return str(to_offset(freq).freqstr)
    except ValueError:
        raise InputError(
            f"Got the frequency {freq!r}; expected one of pandas, such as 'h', 'D' or 'ME'."
        ) from None
