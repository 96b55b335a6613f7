r"""Diffusion processes: X_t = alpha X + beta M + sigma Z, with Z ~ N(0, C).

X is the clean field, M a known anchor (a coarse, masked or noisy field; most processes have none),
Z noise with covariance C = ``noise``. Time t runs from 0 (clean) to 1 (lost) and is any tensor that
broadcasts against x. Given the anchor, u = (x_t - beta m) / alpha = x + kappa z with kappa = sigma
/ alpha: only kappa is information. So a process is a clock kappa(t), a scale alpha(kappa) and an
anchor weight beta, and whatever the process, a solver takes the same u from the same network to
the same draw. Step grids are even in log kappa, and both ends of kappa are finite.

================  ======================================  =====================================
process           alpha(kappa)                            sigma = alpha kappa, beta
================  ======================================  =====================================
`VE`              1                                       kappa
`VP`              (1 + kappa^2)^(-1/2)                    alpha^2 + sigma^2 = 1
`SubVP`           2 / (kappa + sqrt(kappa^2 + 4))         sigma = 1 - alpha^2
`Flow`            1 / (1 + kappa)                         alpha + sigma = 1
`MeanReverting`   (1 + (kappa/spread)^2)^(-1/2)           beta = 1 - alpha; noise stays
`Drifting`        (1 + (kappa/spread)^2)^(-p), p < 1/2    beta = 1 - alpha; noise explodes
`Interpolant`     (1 + (kappa/spread)^(1/power))^(-1)     beta = 1 - alpha; noise on the way
`Bridge`          any of the first four, tied to M        noise ends; the base given X_T = M
`Clocked`         any, a clock per frame or cell          its base's
`Capped`          any, a largest noise level per cell     starts from a measurement
================  ======================================  =====================================

References
----------
Karras, Aittala, Aila, Laine. Elucidating the design space of diffusion-based generative models.
NeurIPS 2022, eq. 1-4 (VE). https://arxiv.org/abs/2206.00364
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
eq. 29 (VE, VP, sub-VP). https://arxiv.org/abs/2011.13456
Lipman et al. Flow matching for generative modeling. ICLR 2023, eq. 22 (Flow).
https://arxiv.org/abs/2210.02747
Anchored and per-cell processes: `sciddm.process.anchored`, `sciddm.process.clocked`.
"""

from __future__ import annotations

from sciddm.process.anchored import Bridge, Drifting, Interpolant, MeanReverting
from sciddm.process.base import OneClock, Process, shift
from sciddm.process.clocked import Capped, Clocked
from sciddm.process.clocks import (
    Clock,
    CosineAlpha,
    EvenPower,
    LinearBeta,
    LinearSigma,
    LogLinear,
)
from sciddm.process.plain import VE, VP, Flow, SubVP

__all__ = [
    "VE",
    "VP",
    "Bridge",
    "Capped",
    "Clock",
    "Clocked",
    "CosineAlpha",
    "Drifting",
    "EvenPower",
    "Flow",
    "Interpolant",
    "LinearBeta",
    "LinearSigma",
    "LogLinear",
    "MeanReverting",
    "OneClock",
    "Process",
    "SubVP",
    "shift",
]
