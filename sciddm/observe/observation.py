"""Values, the operator that they are values of, and the law of their errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.observe.noise import Gaussian, Joined, Noise
from sciddm.observe.operators import Function, Operator


@dataclass(frozen=True, eq=False, init=False)
class Observation:
    """Values ``y`` of ``operator``, scattered by ``law``.

    Parameters
    ----------
    y : (n,) the same for every member, or (B, n). Finite.
    operator : fields (B, C, *grid) -> (B, n).
    law : of the errors, see `sciddm.observe.noise`; a tensor is the variance of Gaussian errors: a
        scalar, (n,), or a full (n, n) covariance. Positive.
    """

    y: Tensor
    operator: Operator
    law: Noise

    def __init__(self, y: Tensor, operator: Operator, law: Tensor | Noise) -> None:
        if not bool(torch.isfinite(y).all()):
            raise InputError("An observed value is not finite; leave missing values out.")
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "operator", operator)
        object.__setattr__(self, "law", law if isinstance(law, Noise) else Gaussian(law))
        self.law.check(y)

    @property
    def variance(self) -> Tensor:
        """The variance of Gaussian errors, as given. Raises `InputError` for another law."""
        if not isinstance(self.law, Gaussian):
            raise InputError(
                f"Got {type(self.law).__name__} errors where a covariance is needed; expected "
                "Gaussian ones (guide.Conditioned takes every law)."
            )
        return self.law.variance

    @property
    def covariance(self) -> Tensor:
        """The full covariance (n, n) of Gaussian errors, float64. Raises as `variance`."""
        n = self.y.shape[-1]
        v = self.variance.double()
        return v if v.ndim == 2 else torch.diag(v.expand(n))

    def residual(self, x: Tensor) -> Tensor:
        """y - A(x), (B, n)."""
        return self.y.to(x) - self.value(x)

    def value(self, x: Tensor) -> Tensor:
        """A(x), (B, n). Raises `InputError` where the operator does not give the n values."""
        value = self.operator(x)
        if value.ndim != 2 or value.shape[1] != self.y.shape[-1]:
            raise InputError(
                f"The operator gives values of shape {tuple(value.shape)} for {len(x)} fields; "
                f"expected ({len(x)}, {self.y.shape[-1]}), one for every observed value."
            )
        return value

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(y | x), (B,)."""
        return self.law.log_prob(self.y.to(x), self.value(x)).to(x)

    def misfit(self, x: Tensor) -> Tensor:
        """Root mean square error of each member in units of the law, (B,); 0.8-1.5 is right.

        The square has mean 1 at the truth, whatever the law: see `Noise.chi_square`.
        """
        return self.law.chi_square(self.y.to(x), self.value(x)).mean(1).sqrt()

    def whitened(self) -> Observation:
        """The same observation with errors that are independent from value to value."""
        turn = self.law.whitening(self.y.shape[-1])
        if turn is None:
            return self
        operator = Function(lambda x: self.operator(x) @ turn.to(x).T)
        return Observation(self.y.double() @ turn.T, operator, self.law.whitened())

    def __and__(self, other: Observation) -> Observation:
        """Both at once, with independent errors."""
        y = torch.cat(_same_rows(self.y, other.y), dim=-1)
        operator = Function(lambda x: torch.cat([self.operator(x), other.operator(x)], dim=1))
        parts = (self.law, other.law)
        if not (isinstance(parts[0], Gaussian) and isinstance(parts[1], Gaussian)):
            counts = (self.y.shape[-1], other.y.shape[-1])
            return Observation(y, operator, Joined(parts, counts))
        if self.variance.ndim == 2 or other.variance.ndim == 2:
            variance = torch.block_diag(self.covariance, other.covariance)
        else:
            scalars = [o.variance.double().expand(o.y.shape[-1]) for o in (self, other)]
            variance = torch.cat(scalars)
        return Observation(y, operator, variance)


def _same_rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both with a batch axis where either has one."""
    if a.ndim == b.ndim:
        return a, b
    rows = a.shape[0] if a.ndim == 2 else b.shape[0]
    return a.expand(rows, a.shape[-1]), b.expand(rows, b.shape[-1])
