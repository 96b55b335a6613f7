r"""Processes that move from the clean field X to an anchor M, with noise on the way.

The anchor is known when drawing: a coarse, masked, biased, noisy or earlier field. All but one have
beta = 1 - alpha, and all are one shape of scale, on any clock:

===============  ==================================================  ==========================
process          alpha(kappa)                                        the same without anchor is
===============  ==================================================  ==========================
`MeanReverting`  (1 + (kappa/spread)^2)^(-1/2)                       `VP` at spread 1
`Drifting`       (1 + (kappa/spread)^2)^(-p), p in (0, 1/2)          `VE` at p = 0
`Interpolant`    (1 + (kappa/spread)^(1/power))^(-1)                 `Flow` at spread, power 1
`Bridge`         scale(rho) / (1 + (kappa/end)^2), see there         its base
===============  ==================================================  ==========================

References
----------
Luo, Gustafsson, Zhao, Sjolund, Schon. Image restoration with mean-reverting stochastic differential
equations. ICML 2023, eq. 6. https://arxiv.org/abs/2301.11699
Richter, Welker, Lemercier, Lay, Gerkmann. Speech enhancement and dereverberation with
diffusion-based generative models. 2023, section III (SGMSE+). https://arxiv.org/abs/2208.05830
Zhou, Lou, Khanna, Ermon. Denoising diffusion bridge models. ICLR 2024, table 1.
https://arxiv.org/abs/2309.16948
Zheng, He, Chen, Bao, Zhu. Diffusion bridge implicit models. ICLR 2025.
https://arxiv.org/abs/2405.15885
Albergo, Boffi, Vanden-Eijnden. Stochastic interpolants: a unifying framework for flows and
diffusions. 2023. https://arxiv.org/abs/2303.08797
Albergo, Goldstein, Boffi, Ranganath, Vanden-Eijnden. Stochastic interpolants with data-dependent
couplings. ICML 2024. https://arxiv.org/abs/2310.03725
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance, White
from sciddm.errors import InputError
from sciddm.process.base import OneClock
from sciddm.process.clocks import Clock, LogLinear
from sciddm.process.plain import VE


class Anchored(OneClock):
    """What the clean field loses the anchor gains: beta = 1 - alpha."""

    @property
    def anchored(self) -> bool:
        return True

    def weight(self, kappa: Tensor, alpha: Tensor) -> Tensor:
        return 1 - alpha


@dataclass(frozen=True)
class MeanReverting(Anchored):
    """IR-SDE: alpha = exp(-Theta), beta = 1 - alpha, sigma = spread sqrt(1 - exp(-2 Theta)).

    Luo et al. 2023, eq. 6, whose own time is ``LinearBeta(..., spread=spread)`` with beta = 2 theta
    and Theta the integral of theta.

    Parameters
    ----------
    spread : s.d. of the noise around the anchor at the end, in units of C; positive.
    """

    noise: Covariance = White()
    clock: Clock = LogLinear()
    spread: float = 1.0

    def __post_init__(self) -> None:
        _positive("spread", self.spread)
        self._check_ends()

    def scale(self, kappa: Tensor) -> Tensor:
        return torch.rsqrt(1 + (kappa / self.spread) ** 2)


@dataclass(frozen=True)
class Drifting(Anchored):
    """SGMSE+: drift to the anchor while the noise explodes. Richter et al. 2023, section III.

    dX = stiffness (M - X) dtau + sigma_min r^tau sqrt(2 log r) dW with r = sigma_max / sigma_min:

        alpha = exp(-stiffness tau),
        sigma^2 = sigma_min^2 log r (r^(2 tau) - alpha^2) / (stiffness + log r).

    Own time: ``LinearBeta(2 rate, 2 rate, 0.03, spread)``, with `rate` and `spread` below. It ends
    at tau = 1, where the clean field still has the weight exp(-stiffness); other clocks may follow
    the process further.

    Parameters
    ----------
    stiffness, sigma_min, sigma_max : as in the paper; positive, sigma_min < sigma_max.
    """

    noise: Covariance = White()
    clock: Clock = LogLinear()
    stiffness: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5

    def __post_init__(self) -> None:
        _positive("stiffness", self.stiffness)
        _positive("sigma_min", self.sigma_min)
        _positive("sigma_max", self.sigma_max)
        if self.sigma_min >= self.sigma_max:
            raise InputError(
                f"Got sigma_min = {self.sigma_min} and sigma_max = {self.sigma_max}; "
                "expected sigma_min < sigma_max."
            )
        self._check_ends()

    @property
    def rate(self) -> float:
        """stiffness + log(sigma_max / sigma_min): how fast kappa^2 grows, halved."""
        return self.stiffness + math.log(self.sigma_max / self.sigma_min)

    @property
    def spread(self) -> float:
        """The noise level kappa in units of which the scale falls."""
        return self.sigma_min * math.sqrt(1 - self.stiffness / self.rate)

    def scale(self, kappa: Tensor) -> Tensor:
        return (1 + (kappa / self.spread) ** 2) ** (-0.5 * self.stiffness / self.rate)


@dataclass(frozen=True)
class Interpolant(Anchored):
    """alpha = 1 - tau, beta = tau, sigma = spread tau^power (1 - tau)^(1 - power).

    power = 1/2 is the two-sided interpolant, noise only on the way: sigma = spread sqrt(tau (1 -
    tau)) (Albergo et al. 2023). power = 1 is the data-dependent coupling, which starts from the
    anchor plus noise: (1 - tau) X + tau (M + spread Z) (Albergo et al. 2024). tau itself is linear
    in the time of ``LinearSigma(eps, spread, power)``.

    Parameters
    ----------
    spread : s.d. of the latent noise, in units of C; positive.
    power : in (0, 1]; below 1 no noise is left at tau = 1.
    """

    noise: Covariance = White()
    clock: Clock = LogLinear()
    spread: float = 1.0
    power: float = 0.5

    def __post_init__(self) -> None:
        _positive("spread", self.spread)
        if not 0 < self.power <= 1:
            raise InputError(f"Got power = {self.power}; expected a number in (0, 1].")
        self._check_ends()

    def scale(self, kappa: Tensor) -> Tensor:
        return 1 / (1 + (kappa / self.spread) ** (1 / self.power))


@dataclass(frozen=True)
class Bridge(Anchored):
    """A process without an anchor, tied to end at M: its law given that X_T = M.

    With (a, s) scale and noise of the base, rho = s / a its noise level and T where rho = end,

        alpha = a (1 - rho^2 / end^2),  beta = (a / a_T) rho^2 / end^2,
        sigma^2 = s^2 (1 - rho^2 / end^2):  kappa^2 = rho^2 / (1 - rho^2 / end^2).

    Zhou et al. 2024, table 1: VE and VP bridges are ``Bridge(VE(), end)`` and ``Bridge(VP(),
    end)``. Where M itself is the base's noised field at T, this is the base again. The clock of
    the base gives kappa of the bridge; at its upper end float32 fields lose a share of about 5e-8
    kappa / end of their noise, so 1e3 times ``end`` is far enough.

    Parameters
    ----------
    base : `VE`, `VP`, `SubVP` or `Flow`. end : the base's noise level at T; positive.
    """

    base: OneClock = VE()
    end: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.base, OneClock) or self.base.anchored:
            raise InputError(
                f"Got a bridge over {type(self.base).__name__}; expected a process with one clock "
                "and no anchor of its own (VE, VP, SubVP, Flow)."
            )
        _positive("end", self.end)
        self._check_ends()

    @property
    def noise(self) -> Covariance:  # type: ignore[override]
        return self.base.noise

    @property
    def clock(self) -> Clock:  # type: ignore[override]
        return self.base.clock

    def scale(self, kappa: Tensor) -> Tensor:
        return self.base.scale(self._rho(kappa)) / (1 + (kappa / self.end) ** 2)

    def weight(self, kappa: Tensor, alpha: Tensor) -> Tensor:
        last = self.base.scale(torch.full_like(kappa, self.end))
        return self.base.scale(self._rho(kappa)) / last / (1 + (self.end / kappa) ** 2)

    def _rho(self, kappa: Tensor) -> Tensor:
        return kappa * torch.rsqrt(1 + (kappa / self.end) ** 2)


def _positive(name: str, number: float) -> None:
    if not 0 < number < math.inf:
        raise InputError(f"Got {name} = {number}; expected a positive, finite number.")
