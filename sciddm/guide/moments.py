r"""Moment matching in closed form: exact for a Gaussian prior, no back-propagation.

With V = Cov[X | x_t] known in closed form,

    E[X | x_t, y] = x_hat + V A^T (A V A^T + R)^{-1} (y - A x_hat).

V is the same for every member at one time, so a step costs n applications of V and one Cholesky
factor of (n, n), n the number of observations. Where V is measured and the gap y - A x_hat is
larger than it allows, V is inflated (see `sciddm.guide.surprise`).

References
----------
Rozet, Andry, Lanusse, Louppe. Learning diffusion priors from observations by expectation
maximization. NeurIPS 2024, eq. 16-19 (moment matching). https://arxiv.org/abs/2405.13712
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.23-2.24.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.guide.surprise import Surprise
from sciddm.observe import Observation


class Gain:
    """K(t) = V A^T (A V A^T + R)^{-1} for one operator and one error law, remembered by time.

    Members, and cases that share their sensors, share it.

    Parameters
    ----------
    observation : its values are not used. moments : gives V at a time.
    memory : bytes of gains to keep.
    """

    def __init__(self, observation: Observation, moments: Moments, memory: int = 1 << 30) -> None:
        self.observation, self.moments, self.memory = observation, moments, memory
        self._rows: Tensor | None = None
        self._known: dict[float, tuple[Tensor, Surprise]] = {}

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Surprise]:
        """The transposed gain (n, C, *grid) at the one time ``t``, in the type of ``like``, and the
        law of the gap that it is for."""
        key = float(t)
        if key not in self._known:
            rows, noise = self.rows(like), self.observation.covariance
            images = self.moments.covariance(t.reshape(()))(rows)
            spread = gram(rows, images)
            gain = torch.cholesky_solve(images.flatten(1), factor(spread + noise))
            known = gain.view_as(rows).to(like), Surprise(spread, noise)
            if (len(self._known) + 1) * known[0].nbytes > self.memory:
                return known
            self._known[key] = known
        return self._known[key]

    def rows(self, like: Tensor) -> Tensor:
        """The rows of the operator, (n, C, *grid), float64: smooth operators and small errors make
        the system ill-conditioned."""
        if self._rows is None:
            self._rows = self.observation.operator.rows(torch.zeros_like(like[:1])).double()
        return self._rows


class Conditioned(Denoiser):
    """E[X | x_t, y] by moment matching with a covariance in closed form.

    Parameters
    ----------
    prior : the denoiser of the model, a network or the exact one.
    observation : y, a linear (affine) operator and its error.
    moments : whose covariance stands for Cov[X | x_t]: the exact `Gaussian`, the Gaussian base of
        the network, or its `Calibrated` error.
    """

    def __init__(self, prior: Denoiser, observation: Observation, moments: Moments) -> None:
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.moments = observation, moments
        self._gain = Gain(observation, moments)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if t.numel() != 1:
            raise InputError(
                f"Got times of shape {tuple(t.shape)}; closed-form guidance needs one time a step. "
                "Use guide.MMPS for a clock per cell."
            )
        x_hat = self.prior(x_t, t, context)
        gain, surprise = self._gain.at(t, x_t)
        gap = self.observation.residual(x_hat)
        if not self.moments.exact:
            gap = surprise.stretch(gap)
        flat = gain.flatten(1)
        return x_hat + self.moments.respond(
            x_hat, gap, self._gain.rows(x_t), lambda d: (d @ flat).view_as(x_hat)
        )

    def given(self, observation: Observation) -> Conditioned:
        """The same sensors and errors with other values; shares the gains."""
        other = Conditioned(self.prior, observation, self.moments)
        other._gain = self._gain
        return other


def kalman_gain(covariance: LinearMap, rows: Tensor, noise: Tensor) -> Tensor:
    """(A V A^T + R)^{-1} A V, the transposed gain (n, C, *grid).

    rows : (n, C, *grid), the operator. noise : R (n, n).
    """
    images = covariance(rows)
    total = gram(rows, images) + noise.double()
    gain = torch.cholesky_solve(images.flatten(1).double(), factor(total))
    return gain.to(images).view_as(rows)


def gram(rows: Tensor, images: Tensor) -> Tensor:
    """A V A^T (n, n), symmetric, float64, of the rows of A and their images under V."""
    product = rows.flatten(1).double() @ images.flatten(1).double().T
    return 0.5 * (product + product.T)


def factor(total: Tensor) -> Tensor:
    """Cholesky factor of a covariance; rounding is met by the least ridge that works."""
    ridge = 0.0
    scale = float(total.diagonal().mean())
    unit = torch.eye(len(total)).to(total)
    while True:
        chol, fault = torch.linalg.cholesky_ex(total + ridge * scale * unit)
        if int(fault) == 0:
            return chol
        ridge = max(10 * ridge, 1e-12)
        if ridge > 1e-3:
            raise InputError(
                "The covariance of the observations is not positive definite; "
                "check for values that are not finite."
            )


def linear_posterior(
    prior: Gaussian, observation: Observation, like: Tensor
) -> tuple[Tensor, LinearMap, Tensor]:
    """The exact posterior of a Gaussian prior under a linear observation.

    Returns the mean (B, C, *grid), the gain as a map from residuals (B, n) to fields, and the
    marginal variance (C, *grid). Rasmussen and Williams 2006, eq. 2.23-2.24.

    ``like`` (1, C, *grid) gives shape and type.
    """
    rows = observation.operator.rows(torch.zeros_like(like[:1])).double()
    transposed = kalman_gain(prior.prior, rows, observation.covariance)

    def gain(gap: Tensor) -> Tensor:
        return (gap.to(rows) @ transposed.flatten(1)).view(len(gap), *rows.shape[1:]).to(like)

    centre = prior.mean.to(like).expand_as(like[:1])
    mean = centre + gain(observation.residual(centre))
    explained = (prior.prior(rows) * transposed).sum(0)
    return mean, gain, (marginal(prior, like) - explained).clamp_min(0)


def marginal(prior: Gaussian, like: Tensor) -> Tensor:
    """Pointwise prior variance (C, *grid), float64, exactly, by unit fields in blocks."""
    size = like[0].numel()
    blocks = []
    for start in range(0, size, 512):
        index = torch.arange(start, min(size, start + 512))
        unit = torch.zeros(len(index), size, dtype=torch.float64)
        unit[torch.arange(len(index)), index] = 1
        image = prior.prior(unit.view(-1, *like.shape[1:])).flatten(1)
        blocks.append(image[torch.arange(len(index)), index])
    return torch.cat(blocks).view(like.shape[1:])
