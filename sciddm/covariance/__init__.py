r"""Covariance operators on fields: the law of the noise, and of the simplest prior.

A covariance C is a positive self-adjoint operator on fields of shape ``(B, C, *grid)``. It is
applied, square-rooted and sampled; its inverse is never needed. Where a prior and a noise share
their eigenvectors, any function of the two is one transform away::

    joint(x, other, f) = sum_k f(lambda_k, c_k) <e_k, x> e_k

with ``lambda_k`` the eigenvalues of C and ``c_k`` those of ``other``. The exact Gaussian denoiser,
its covariance, flow and likelihood are each one such function.

`Spectral` is built from a continuous density and the box, never from the number of points: on a
grid of N cells in a box of volume V the eigenvalue is ``density(k) N / V``, so the law of the
field survives a change of grid.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 4.14-4.15 (Matern).
Lord, Powell, Shardlow. An introduction to computational stochastic PDEs. 2014, ch. 7.
"""

from sciddm.covariance.base import Covariance, Function, White
from sciddm.covariance.lowrank import LowRank
from sciddm.covariance.points import Dense, MaternKernel, PeriodicKernel, Points
from sciddm.covariance.spectral import (
    Density,
    Matern,
    PowerLaw,
    Spectral,
    Tabulated,
    ZeroMean,
)
from sciddm.covariance.time import TimeCorrelated

__all__ = [
    "Covariance",
    "Dense",
    "Density",
    "Function",
    "LowRank",
    "Matern",
    "MaternKernel",
    "PeriodicKernel",
    "Points",
    "PowerLaw",
    "Spectral",
    "Tabulated",
    "TimeCorrelated",
    "White",
    "ZeroMean",
]
