r"""Error laws p(y | z) of a value y about its true value z = A(x).

========================  ==========================================  =============================
law                       for                                         tilted moments
========================  ==========================================  =============================
`Gaussian(variance)`      instruments of known error                  closed form
`StudentT(scale, df)`     gross errors among the values               quadrature over the scale
`Poisson(exposure)`       counts                                      quadrature
`Censored(variance, ..)`  values known only to lie beyond a limit     closed form
========================  ==========================================  =============================

Guidance asks one thing of a law: the mean and variance of N(z; m, v) p(y | z), its ``tilted``
moments, from which a Gaussian site follows (`sciddm.guide.sites`). ``chi_square`` is a square that
has mean one at the truth, so the misfit means the same for every law.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, section 3.6 and eq. 3.58.
Lange, Little, Taylor. Robust statistical modeling using the t distribution. JASA 1989, section 2
(the t as a scale mixture). https://doi.org/10.1080/01621459.1989.10478852
Tobin. Estimation of relationships for limited dependent variables. Econometrica 1958 (censoring).
https://doi.org/10.2307/1907382
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.observe.tilted import hazard, log_normal, root, unimodal

LOG_2PI = math.log(2 * math.pi)


class Noise(ABC):
    """p(y | z), y and z of shape (B, n) or (n,). Values are independent unless `whitening` says
    otherwise."""

    @abstractmethod
    def check(self, y: Tensor) -> None:
        """Raise `InputError` for values that the law cannot give, or parameters of a wrong shape
        or range."""

    @abstractmethod
    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """log p(y | z) of all n values, (B,), float64."""

    @abstractmethod
    def chi_square(self, y: Tensor, z: Tensor) -> Tensor:
        """A squared error for each value, (B, n), float64, of mean one under p(y | z)."""

    @abstractmethod
    def tilted(self, y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance (B, n) of z ~ N(mean, variance) given y, all float64."""

    def whitening(self, n: int) -> Tensor | None:
        """W (n, n), float64, such that the errors of W y are independent; None for the identity."""
        return None

    def whitened(self) -> Noise:
        """The law of W y."""
        return self


@dataclass(frozen=True, eq=False)
class Gaussian(Noise):
    """y ~ N(z, variance): a scalar, (n,), or a full (n, n) covariance. Positive."""

    variance: Tensor

    def check(self, y: Tensor) -> None:
        n = y.shape[-1]
        if self.variance.shape not in ((), (n,), (n, n)):
            raise InputError(
                f"Got an error variance of shape {tuple(self.variance.shape)} for {n} values; "
                f"expected a scalar, ({n},) or ({n}, {n})."
            )
        _positive(self.variance.diagonal() if self.variance.ndim == 2 else self.variance)
        if self.variance.ndim == 2:
            fault = torch.linalg.cholesky_ex(self.variance.double())[1]
            if int(fault) or not torch.allclose(self.variance, self.variance.T):
                raise InputError(
                    "A full error variance is no covariance; expected a symmetric positive "
                    "definite matrix."
                )

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        chol = self._factor(y.shape[-1])
        log_det = 2 * chol.diagonal().log().sum()
        square = self.chi_square(y, z).sum(1)
        return -0.5 * (square + log_det + y.shape[-1] * LOG_2PI)

    def chi_square(self, y: Tensor, z: Tensor) -> Tensor:
        gap = (y - z).double()
        white = torch.linalg.solve_triangular(self._factor(y.shape[-1]).to(gap), gap.T, upper=False)
        return white.T.square()

    def tilted(self, y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        error = self.variance.to(mean)
        total = variance + error
        return mean + variance / total * (y - mean), variance * error / total

    def whitening(self, n: int) -> Tensor | None:
        if self.variance.ndim < 2:
            return None
        unit = torch.eye(n, dtype=torch.float64, device=self.variance.device)
        return torch.linalg.solve_triangular(self._factor(n), unit, upper=False)

    def whitened(self) -> Noise:
        return Gaussian(torch.ones((), dtype=torch.float64)) if self.variance.ndim == 2 else self

    def _factor(self, n: int) -> Tensor:
        v = self.variance.double()
        return torch.linalg.cholesky(v if v.ndim == 2 else torch.diag(v.expand(n)))


@dataclass(frozen=True, eq=False)
class StudentT(Noise):
    """y = z + scale T with T of Student's law: gross errors are expected, and lose their pull.

    Parameters
    ----------
    scale : s, a scalar or (n,), positive; the s.d. of the ordinary errors.
    df : degrees of freedom, positive; 2 to 6 for real instruments. As df grows the law is Gaussian.
    """

    scale: Tensor
    df: float = 4.0

    def check(self, y: Tensor) -> None:
        _matches(self.scale, y, "scale")
        _positive(self.scale)
        if not 0 < self.df < math.inf:
            raise InputError(
                f"Got {self.df} degrees of freedom; expected a positive number (2 to 6 is usual)."
            )

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        scale = self.scale.to(z).double()
        law = torch.distributions.StudentT(self.df, z.double(), scale, validate_args=False)
        return law.log_prob(y.double()).sum(1)

    def chi_square(self, y: Tensor, z: Tensor) -> Tensor:
        """(df + 1) r^2 / (df + r^2), r = (y - z) / scale: r^2 with the weight of Lange et al., eq.
        6; never above df + 1."""
        square = ((y - z).double() / self.scale.to(z).double()).square()
        return (self.df + 1) * square / (self.df + square)

    def tilted(self, y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        # y | z, w ~ N(z, s^2 / w), w ~ Gamma(df / 2, df / 2): a trapezium in log w
        error, half = self.scale.to(mean).square(), 0.5 * self.df
        gap = y - mean
        spread = 8 / math.sqrt(half)
        low = -(21 / half + spread) - torch.log1p(gap.square() / (error * self.df))
        high = math.log1p(40 / half + spread)
        nodes = torch.linspace(0, 1, 160).to(mean).view(-1, *[1] * mean.ndim)
        log_w = low + (high - low) * nodes
        noise = error * torch.exp(-log_w)
        log_weight = half * (log_w - log_w.exp()) + log_normal(gap, variance + noise)
        weight = torch.softmax(log_weight, dim=0)
        pull = variance / (variance + noise) * gap
        first = (weight * pull).sum(0)
        rest = (weight * (variance * noise / (variance + noise) + (pull - first).square())).sum(0)
        return mean + first, rest


@dataclass(frozen=True, eq=False)
class Poisson(Noise):
    """Counts y ~ Poisson(rate), rate = exposure exp(z), or exposure z where not ``log_rate``.

    Parameters
    ----------
    exposure : positive, a scalar or (n,): time, area or volume that was counted.
    log_rate : whether the operator gives the logarithm of the rate, or the rate itself, which is
        then positive.
    """

    exposure: Tensor
    log_rate: bool = True

    def check(self, y: Tensor) -> None:
        _matches(self.exposure, y, "exposure")
        _positive(self.exposure)
        if bool((y < 0).any()) or bool((y != y.round()).any()):
            raise InputError(
                "A count is negative or no integer; expected 0, 1, 2, ... (numbers in a volume or "
                "time, not rates)."
            )

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        y, z = y.double(), z.double()
        log_rate = self.exposure.to(z).log() + (z if self.log_rate else z.clamp_min(0).log())
        # no count where there is no rate
        power = torch.where(y > 0, y * log_rate, torch.zeros_like(log_rate))
        log_p = power - log_rate.exp() - torch.lgamma(y + 1)
        if not self.log_rate:
            log_p = torch.where(z < 0, torch.full_like(log_p, -math.inf), log_p)
        return log_p.sum(1)

    def chi_square(self, y: Tensor, z: Tensor) -> Tensor:
        """(y - rate)^2 / rate, Pearson's."""
        z = z.double()
        rate = self.exposure.to(z) * (z.exp() if self.log_rate else z)
        rate = rate.clamp_min(1e-12)
        return (y.double() - rate).square() / rate

    def tilted(self, y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        exposure = self.exposure.to(mean)
        y = y.expand_as(mean)
        if self.log_rate:
            guess = torch.maximum(mean, (y.clamp_min(1e-3) / exposure).log())

            def slope(z: Tensor) -> Tensor:
                return y - exposure * z.exp() - (z - mean) / variance

            def log_p(z: Tensor) -> Tensor:
                return y * z - exposure * z.exp() - (z - mean).square() / (2 * variance)

            return unimodal(log_p, root(slope, guess, variance.sqrt()), variance.sqrt())

        half = 0.5 * (mean - exposure * variance)
        far = torch.sqrt(half.square() + variance * y)
        mode = torch.where(half > 0, half + far, variance * y / (far - half).clamp_min(1e-300))

        def log_density(z: Tensor) -> Tensor:
            log_p = torch.xlogy(y, z) - exposure * z - (z - mean).square() / (2 * variance)
            return torch.where(z < 0, torch.full_like(log_p, -math.inf), log_p)

        return unimodal(log_density, mode, variance.sqrt())


@dataclass(frozen=True, eq=False)
class Censored(Noise):
    """y = z + e with e ~ N(0, variance), clipped to [low, high]: a value at a limit is known only
    to lie there or beyond (detection limits, saturation).

    Parameters
    ----------
    variance : a scalar or (n,), positive.
    low, high : limits, scalars or (n,); None for no limit.
    """

    variance: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    def check(self, y: Tensor) -> None:
        _matches(self.variance, y, "variance")
        _positive(self.variance)
        for limit in (self.low, self.high):
            if limit is not None:
                _matches(limit, y, "limit")
                if bool(limit.isnan().any()):
                    raise InputError("A limit is not a number; give None for no limit.")
        if self.low is not None and self.high is not None and bool((self.low >= self.high).any()):
            raise InputError("Got a lower limit that is not below the upper one; expected less.")

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        y, z, side = self._sides(y, z)
        error = self.variance.to(z)
        beyond = torch.special.log_ndtr(side * (z - y) / error.sqrt())
        return torch.where(side == 0, log_normal(y - z, error), beyond).sum(1)

    def chi_square(self, y: Tensor, z: Tensor) -> Tensor:
        """((y - z) / s)^2, and at a limit its mean over the values beyond."""
        y, z, side = self._sides(y, z)
        error = self.variance.to(z)
        at = side * (z - y) / error.sqrt()
        return torch.where(side == 0, (y - z).square() / error, 1 - at * hazard(at)[0])

    def tilted(self, y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        y, mean, side = self._sides(y, mean)
        total = variance + self.variance.to(mean)
        rate, fall = hazard(side * (mean - y) / total.sqrt())
        beyond = mean + side * variance / total.sqrt() * rate
        first = torch.where(side == 0, mean + variance / total * (y - mean), beyond)
        explained = torch.where(side == 0, torch.ones_like(fall), fall)
        return first, variance - variance.square() / total * explained

    def _sides(self, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values within the limits, z, and -1 below, 1 above, 0 between; all of the shape of z."""
        y, z = y.double().expand_as(z), z.double()
        side = torch.zeros_like(z)
        if self.low is not None:
            side = torch.where(y <= self.low.to(z), -torch.ones_like(z), side)
            y = torch.maximum(y, self.low.to(z))
        if self.high is not None:
            side = torch.where(y >= self.high.to(z), torch.ones_like(z), side)
            y = torch.minimum(y, self.high.to(z))
        return y, z, side


@dataclass(frozen=True, eq=False)
class Joined(Noise):
    """Independent blocks of values, ``counts`` of them, each with its own law."""

    laws: tuple[Noise, ...]
    counts: tuple[int, ...]

    def check(self, y: Tensor) -> None:
        for law, part in zip(self.laws, y.split(self.counts, -1), strict=True):
            law.check(part)

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        parts = [law.log_prob(a, b) for law, a, b in self._split(y, z)]
        return torch.stack(parts).sum(0)

    def chi_square(self, y: Tensor, z: Tensor) -> Tensor:
        return torch.cat([law.chi_square(a, b) for law, a, b in self._split(y, z)], dim=1)

    def tilted(self, y: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        variances = variance.split(self.counts, -1)
        parts = [
            law.tilted(a, b, v)
            for (law, a, b), v in zip(self._split(y, mean), variances, strict=True)
        ]
        first, second = zip(*parts, strict=True)
        return torch.cat(first, dim=-1), torch.cat(second, dim=-1)

    def whitening(self, n: int) -> Tensor | None:
        parts = [law.whitening(k) for law, k in zip(self.laws, self.counts, strict=True)]
        if all(part is None for part in parts):
            return None
        blocks = [
            torch.eye(k, dtype=torch.float64) if part is None else part
            for part, k in zip(parts, self.counts, strict=True)
        ]
        return torch.block_diag(*blocks)

    def whitened(self) -> Noise:
        return Joined(tuple(law.whitened() for law in self.laws), self.counts)

    def _split(self, y: Tensor, z: Tensor) -> list[tuple[Noise, Tensor, Tensor]]:
        parts = zip(self.laws, y.split(self.counts, -1), z.split(self.counts, -1), strict=True)
        return list(parts)


def _matches(parameter: Tensor, y: Tensor, name: str) -> None:
    n = y.shape[-1]
    if parameter.shape not in ((), (n,)):
        raise InputError(
            f"Got a {name} of shape {tuple(parameter.shape)} for {n} values; expected a scalar or "
            f"({n},)."
        )


def _positive(parameter: Tensor) -> None:
    if not bool((parameter > 0).all()) or not bool(torch.isfinite(parameter).all()):
        raise InputError(
            "An observation error is not positive and finite; give one above 0. Values without "
            "error are taken only by naming a hard constraint (guide.Replace)."
        )
