r"""Diffusion processes: X_t = alpha X + beta M + sigma Z, with Z ~ N(0, C).

X is the clean field, M a known anchor (none for the processes here, so beta = 0), Z noise with
covariance C = ``noise``. Time t runs from 0 (clean) to 1 (lost) and is any tensor that broadcasts
against x. After dividing by alpha only kappa = sigma / alpha is information, so a process is a
clock kappa(t) and a scale alpha(kappa); step grids are even in log kappa, and both ends of kappa
are finite.

========  =======================  ==================
process   alpha(kappa)             sigma = alpha kappa
========  =======================  ==================
`VE`      1                        kappa
`VP`      (1 + kappa^2)^(-1/2)     alpha^2 + sigma^2 = 1
`Flow`    1 / (1 + kappa)          alpha + sigma = 1
========  =======================  ==================

References
----------
Karras, Aittala, Aila, Laine. Elucidating the design space of diffusion-based generative models.
NeurIPS 2022, eq. 1-4 (VE). https://arxiv.org/abs/2206.00364
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
eq. 11 and 29 (VP). https://arxiv.org/abs/2011.13456
Lipman et al. Flow matching for generative modeling. ICLR 2023, eq. 22 (Flow).
https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

from sciddm.process.base import Process, shift
from sciddm.process.clocked import Clocked
from sciddm.process.clocks import Clock, LinearSigma, LogLinear
from sciddm.process.plain import VE, VP, Flow

__all__ = ["VE", "VP", "Clock", "Clocked", "Flow", "LinearSigma", "LogLinear", "Process", "shift"]
