"""Rows of statsmodels: state-space models that fill gaps, and exponential smoothing ahead.

Each channel is a series of its own here, on a dense panel. Parameters are fitted once, on training
values; a series that is to be completed only passes the filter and the smoother.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.statespace.sarimax import SARIMAX
from statsmodels.tsa.statespace.structural import UnobservedComponents
from torch import Tensor

from sciddm.random import Streams
from sciddm.series import Panel, SeriesSampler

Spec = Callable[[np.ndarray], Any]
"""A state-space model of values (n,), NaN where missing."""


def components(period: float, harmonics: int = 2, level: str = "llevel", ar: int = 1) -> Spec:
    """Level (or trend), a cycle of ``period`` steps, autoregression and a rest."""

    def made(values: np.ndarray) -> Any:  # noqa: ANN401
        season = [{"period": period, "harmonics": harmonics}]
        return UnobservedComponents(values, level, freq_seasonal=season, autoregressive=ar)

    return made


def arima(order: tuple[int, int, int]) -> Spec:
    """ARIMA with a mean, by the Kalman smoother over what is missing."""

    def made(values: np.ndarray) -> Any:  # noqa: ANN401
        trend = "c" if order[1] == 0 else "n"
        return SARIMAX(values, order=order, trend=trend, simple_differencing=False)

    return made


class Smoother(SeriesSampler):
    """Draws of the marginal law of every missing value, given those before and after it."""

    evaluations = 0.0

    def __init__(self, spec: Spec, parameters: Sequence[np.ndarray]) -> None:
        super().__init__()
        self.spec, self.parameters = spec, parameters

    @staticmethod
    def fit(spec: Spec, series: Sequence[np.ndarray], iterations: int = 60) -> Smoother:
        """The likeliest parameters of each channel, by its training values (n,)."""
        found = []
        for values in series:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(spec(values).fit(disp=0, maxiter=iterations).params)
        return Smoother(spec, found)

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        assert panel.dense is not None
        members = len(rng.members) // len(panel)
        mean, std = panel.value.double().clone(), torch.zeros_like(panel.time)
        for i in range(len(panel)):
            for c in range(panel.dense[0]):
                cells = slice(c * panel.dense[1], (c + 1) * panel.dense[1])
                wanted = panel.wanted[i, cells]
                if bool(wanted.any()):
                    known = torch.where(panel.known[i, cells], panel.value[i, cells].double(),
                                        torch.nan)  # fmt: skip
                    centre, spread = self._smoothed(known.numpy(), self.parameters[c])
                    mean[i, cells] = torch.where(wanted, centre, mean[i, cells])
                    std[i, cells] = torch.where(wanted, spread, 0.0)
        white = rng.at("smoother").normal(mean.repeat_interleave(members, 0))
        out = mean[:, None] + std[:, None] * white.unflatten(0, (-1, members))
        return torch.where(panel.real[:, None], out, 0.0)

    def _smoothed(self, known: np.ndarray, parameters: np.ndarray) -> tuple[Tensor, Tensor]:
        """Mean and s.d. (n,) of the values, with their rest."""
        model = self.spec(known)
        found = model.smooth(parameters)
        design, rest = model.ssm["design"][0], float(np.squeeze(model.ssm["obs_cov"]))
        start = np.squeeze(np.asarray(model.ssm["obs_intercept"]))
        if design.ndim == 1:
            design = design[:, None]
        mean = (design * found.smoothed_state).sum(0) + start
        design = np.broadcast_to(design, found.smoothed_state.shape)
        spread = np.einsum("it,ijt,jt->t", design, found.smoothed_state_cov, design) + rest
        return torch.from_numpy(mean), torch.from_numpy(np.sqrt(np.maximum(spread, 0.0)))


class Smoothing(SeriesSampler):
    """Exponential smoothing with additive errors, trend and season, fitted to each series' own
    past; its paths are simulated. For what lies after the last known value."""

    evaluations = 0.0

    def __init__(self, period: int | None = None, damped: bool = True) -> None:
        super().__init__()
        self.period, self.damped = period, damped

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        assert panel.dense is not None
        members = len(rng.members) // len(panel)
        out = panel.value.double()[:, None].repeat(1, members, 1)
        for i in range(len(panel)):
            for c in range(panel.dense[0]):
                first = c * panel.dense[1]
                known = panel.known[i, first : first + panel.dense[1]]
                start = int(torch.nonzero(known)[-1]) + 1
                past = panel.value[i, first : first + start].double().numpy().copy()
                past[~known[:start].numpy()] = np.nan
                past = np.interp(np.arange(start), np.flatnonzero(np.isfinite(past)),
                                 past[np.isfinite(past)])  # fmt: skip
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    found = ETSModel(
                        past, "add", "add", self.damped, "add" if self.period else None,
                        seasonal_periods=self.period,
                    ).fit(disp=False, maxiter=100)  # fmt: skip
                    seed = np.random.default_rng([rng.seed, rng.cases[i * members], c])
                    paths = found.simulate(
                        panel.dense[1] - start, anchor="end", repetitions=members, rng=seed
                    )
                ahead = torch.from_numpy(np.asarray(paths).reshape(-1, members).T.copy())
                out[i, :, first + start : first + panel.dense[1]] = ahead
        return torch.where(panel.real[:, None], out, 0.0)
