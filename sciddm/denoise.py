r"""Denoisers: x_hat = E[X | x_t, context], the one quantity that a sampler needs.

Everything that modifies a model is a `Denoiser` that wraps one: guidance, calibration, the exact
oracle. Wrappers nest, so every sampler works with every one of them.

For a Gaussian prior N(mu, Sigma) under noise C, with u = x_t / alpha and kappa = sigma / alpha,

    x_hat = mu + Sigma (Sigma + kappa^2 C)^{-1} (u - mu)
    Cov[X | x_t] = kappa^2 C Sigma (Sigma + kappa^2 C)^{-1} = (sigma^2 / alpha) C J^T,

J = d x_hat / d x_t. The second form (Tweedie's covariance) holds for any prior.

References
----------
Robbins. An empirical Bayes approach to statistics. 1956. Efron. Tweedie's formula and selection
bias. JASA 2011, eq. 2.8 (posterior mean and variance).
Karras et al. Elucidating the design space of diffusion-based generative models. NeurIPS 2022,
eq. 7 and table 1 (preconditioning). https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sciddm.covariance import Covariance, Function, White
from sciddm.errors import InputError
from sciddm.process import Process, shift
from sciddm.random import Streams, normal

LinearMap = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Context:
    """What a denoiser may see beside x_t. Every tensor has the batch first.

    anchor : (B, C, *grid), the anchor M of the process.
    fields : (B, K, *grid), conditions on the grid.
    scalars : (B, P), parameters.
    index : (B,), where in the training record each row was; in training only.
    past : (B, C, T, *grid), frames before the first that is wanted, the newest last.
    forcings : (B, K, T + N, *grid), or ones in the place of the grid: what is known ahead at the
        times of the past and of the N frames that are wanted.
    """

    anchor: Tensor | None = None
    fields: Tensor | None = None
    scalars: Tensor | None = None
    index: Tensor | None = None
    past: Tensor | None = None
    forcings: Tensor | None = None


class Denoiser(nn.Module, ABC):
    """x_hat = E[X | x_t, context] under ``process``."""

    process: Process

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        """The posterior mean (B, C, *grid) of ``x_t`` (B, C, *grid) at times ``t``."""


class Moments(ABC):
    """Something that knows Cov[X | x_t] in closed form.

    ``exact`` says whether it is known, or measured on fields that guidance may leave: only the
    measured one is inflated where observations surprise it.
    """

    exact: ClassVar[bool]

    @abstractmethod
    def covariance(self, t: Tensor) -> LinearMap:
        """Cov[X | x_t] at the one time ``t`` (scalar), as a map on fields (n, C, *grid)."""

    @abstractmethod
    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        """The update of ``x_hat`` (B, C, *grid) that the gaps (B, n) of the observations call for.

        rows : (n, C, *grid), the operator. update : gaps -> fields, the gain of `covariance`. A
        covariance that is the same in every state returns ``update(gap)``.
        """

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        """A draw of X - x_hat, N(0, Cov[X | x_t]), of the shape of ``like`` (B, C, *grid).

        Raises `InputError` where the covariance is known by its images alone.
        """
        raise InputError(
            f"Got {type(self).__name__}, whose covariance cannot be sampled; expected Gaussian, "
            "Calibrated, Scaled or TwoPhase."
        )


def interpolate(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise-linear ``values`` (L, ...) at positions ``at``, constant beyond the ends.

    The result has the shape of ``at`` followed by the shape of one value.
    """
    knots, values = knots.to(at.device), values.to(at.device)
    right = torch.searchsorted(knots, at.contiguous()).clamp(1, len(knots) - 1)
    share = ((at - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    share = share.reshape((*at.shape, *[1] * (values.ndim - 1)))
    return torch.lerp(values[right - 1], values[right], share.to(values))


class Gaussian(Denoiser, Moments):
    """The exact denoiser of X ~ N(mean, covariance): oracle, baseline and base of training.

    Parameters
    ----------
    mean : (C, *grid), or a scalar tensor.
    prior : covariance of X, with the eigenvectors of the process' noise.
    process : any process without a clock per cell.
    """

    exact: ClassVar[bool] = True

    def __init__(self, mean: Tensor, prior: Covariance, process: Process) -> None:
        nn.Module.__init__(self)
        self.mean, self.prior, self.process = mean, prior, process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        _, kappa = self._level(t, x_t)
        mean = self.mean.to(x_t)
        gap = self.process.centred(x_t, t, context.anchor) - mean
        return mean + self.prior.joint(gap, self.process.noise, lambda p, c: _gain(p, c, kappa))

    def covariance(self, t: Tensor) -> LinearMap:
        noise, variance = self.process.noise, self._variance(t)
        return lambda g: self.prior.joint(g, noise, variance)

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        variance = self._variance(t)
        return self.prior.joint(
            normal(like, rng), self.process.noise, lambda p, c: variance(p, c).sqrt()
        )

    def mean_variance(self, t: Tensor, like: Tensor) -> Tensor:
        """Variance of X given x_t, averaged over the values of a field ``like``: a scalar."""
        return self.prior.average(like, self.process.noise, self._variance(t))

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return update(gap)

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor, anchor: Tensor | None = None) -> Tensor:
        """x_s on the probability flow through x_t, exactly: each eigendirection is rescaled by
        the ratio of its marginal s.d. at s and t."""
        _, kappa_t = self._level(t, x_t)
        alpha_s, kappa_s = self._level(s, x_t)
        beta_s = self.process.coefficients(s)[1].to(x_t)
        mean = self.mean.to(x_t)

        def ratio(p: Tensor, c: Tensor) -> Tensor:
            return torch.sqrt((p + kappa_s**2 * c) / (p + kappa_t**2 * c).clamp_min(1e-300))

        u = self.process.centred(x_t, t, anchor)
        gap = self.prior.joint(u - mean, self.process.noise, ratio)
        return shift(alpha_s.to(x_t) * (mean + gap), beta_s, anchor)

    def sample(self, like: Tensor, rng: Streams | None = None) -> Tensor:
        """X ~ N(mean, prior) of the shape of ``like``."""
        return self.mean.to(like) + self.prior.sample(like, rng)

    def expected_error(self, like: Tensor, levels: int = 33) -> tuple[Tensor, Tensor]:
        """(log kappa, log s.d. of the error per grid value), each (levels,), float64, rising."""
        times = self.process.times(levels).flip(0)
        variances = torch.stack([self.mean_variance(t, like) for t in times])
        return self.process.kappa(times).log(), 0.5 * variances.clamp_min(1e-30).log()

    def under(self, process: Process) -> Gaussian:
        """The same law, seen through another process."""
        return Gaussian(self.mean, self.prior, process)

    def _variance(self, t: Tensor) -> Function:
        kappa = self.process.kappa(t)
        _one_a_row(kappa, 1)
        return lambda p, c: kappa**2 * c * _gain(p, c, kappa)

    def _level(self, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha, _, sigma = self.process.coefficients(t)
        _one_a_row(alpha, len(x))
        return alpha, sigma / alpha


class CrossFitted(Denoiser):
    """A base that never saw the block of the record that it is trained beside.

    A base fitted on the very fields that the network trains on leaks them: the network learns from
    an error that is too small. In training (the context knows the ``index`` of each row) a row is
    denoised by the base fitted without its block; in use, by the one fitted on everything.

    Parameters
    ----------
    whole : fitted on the whole record. parts : fitted without block 0, 1, ...
    edges : (len(parts) + 1,) first index of each block, and the end.
    """

    def __init__(
        self, whole: Gaussian, parts: Sequence[Gaussian], edges: Sequence[int] | Tensor
    ) -> None:
        nn.Module.__init__(self)
        self.whole, self.process = whole, whole.process
        self.parts, self.edges = tuple(parts), torch.as_tensor(edges)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if context.index is None:
            out: Tensor = self.whole(x_t, t, context)
            return out
        block = torch.searchsorted(self.edges, context.index, right=True) - 1
        x_hat = torch.empty_like(x_t)
        for k in block.unique().tolist():
            rows = block == k
            anchor = None if context.anchor is None else context.anchor[rows]
            x_hat[rows] = self.parts[k](
                x_t[rows], t[rows] if t.numel() > 1 else t, Context(anchor=anchor)
            )
        return x_hat

    def under(self, process: Process) -> CrossFitted:
        """The same laws, seen through another process."""
        return CrossFitted(
            self.whole.under(process), [p.under(process) for p in self.parts], self.edges
        )

    def expected_error(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """As of the whole, see `Gaussian.expected_error`."""
        return self.whole.expected_error(like)


class Mixture(Denoiser):
    """The exact denoiser of a mixture of Gaussians that share one isotropic width.

    Parameters
    ----------
    means : (K, C, *grid). weights : (K,), positive, sum 1. std : s.d. of every component.
    process : a process with white noise. ``Empirical`` data are the case std = 0.
    """

    def __init__(self, means: Tensor, weights: Tensor, std: float, process: Process) -> None:
        noise = process.noise
        if not isinstance(noise, White):
            raise InputError(f"Got {type(noise).__name__} noise for a mixture; expected White.")
        nn.Module.__init__(self)
        self._noise = noise
        self.means, self.weights, self.std, self.process = means, weights, std, process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, _, sigma = self.process.coefficients(t)
        _one_a_row(alpha, len(x_t))
        u = self.process.centred(x_t.double(), t, context.anchor).flatten(1)
        means = self.means.double().flatten(1)
        noise2 = (self._noise.variance(x_t) * (sigma / alpha) ** 2).reshape(-1, 1)
        total = self.std**2 + noise2
        log_weight = self.weights.double().log() - torch.cdist(u, means) ** 2 / (2 * total)
        centre = torch.softmax(log_weight, dim=1) @ means
        x_hat = (noise2 * centre + self.std**2 * u) / total
        return x_hat.view_as(x_t).to(x_t)


class Preconditioned(Denoiser):
    """x_hat = base + scale * backbone: the network learns only what the base does not know.

    Without a base this is Karras et al. 2022, eq. 7 at sigma_data = 1, which is the Gaussian base
    N(0, I): ``base = u / (1 + kappa^2)``, ``scale = kappa / sqrt(1 + kappa^2)``. With a base, its
    answer is a second input of the network and its own expected error is the scale. In both cases
    the backbone's target has unit variance at every noise level under the base's own law.

    Parameters
    ----------
    backbone : module ``(x (B, K, *grid), log_kappa, context) -> (B, C, *grid)``, with K = C
        without and K = 2 C with a base.
    process : any process; only kappa and the noise matter, so a network trained under one process
        can be drawn under another with the same noise.
    base : a `Gaussian` fitted to the data, or None; its law is taken, under this process.
    """

    def __init__(
        self, backbone: nn.Module, process: Process, base: Gaussian | CrossFitted | None = None
    ) -> None:
        nn.Module.__init__(self)
        self.backbone, self.process = backbone, process
        self.base = None if base is None else base.under(process)
        # by grid: the same weights on another grid have another scale
        self._scales: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        kappa = self.process.kappa(t)
        u = self.process.centred(x_t, t, context.anchor)
        inputs = u * torch.rsqrt(1 + kappa**2).to(x_t)
        if self.base is None:
            known = u / (1 + kappa**2).to(x_t)
        else:
            known = self.base(x_t, t, context)
            inputs = torch.cat([inputs, known], dim=1)
        return known + self.scale(t, x_t).to(x_t) * self.backbone(inputs, kappa.log(), context)

    def scale(self, t: Tensor, like: Tensor) -> Tensor:
        """S.d. of the base's error at times ``t``, of the shape of ``t``, float64."""
        kappa = self.process.kappa(t)
        if self.base is None:
            return kappa * torch.rsqrt(1 + kappa**2)
        grid = tuple(like.shape[1:])
        if grid not in self._scales:
            self._scales[grid] = self.base.expected_error(like)
        return interpolate(kappa.log(), *self._scales[grid]).exp()


def denoising_loss(
    denoiser: Preconditioned,
    x: Tensor,
    t: Tensor,
    context: Context,
    *,
    measure: Tensor | None = None,
    rng: Streams | None = None,
) -> Tensor:
    """Weighted squared error of the denoiser on ``x`` noised to ``t``: (B,).

    Parameters
    ----------
    x : (B, C, *grid) clean fields. t : (B, 1, ...) times.
    measure : (1 or B, 1 or C, *grid) weight of each grid value (cell areas, a mask), or None.

    The weight is 1 / scale(t)^2, so an untrained network scores the base's own error at every
    level; the exact denoiser of N(0, base) scores 1. Karras et al. 2022, eq. 8.
    """
    x_t, _ = denoiser.process.forward(x, t, context.anchor, rng)
    gap = (denoiser(x_t, t, context) - x) / denoiser.scale(t, x).to(x)
    if measure is None:
        return gap.square().flatten(1).mean(1)
    weight = measure.expand_as(gap)
    return (weight * gap.square()).flatten(1).sum(1) / weight.flatten(1).sum(1)


def _one_a_row(level: Tensor, rows: int) -> None:
    """Refuse noise levels that differ within a row, whoever set them: the times or the process."""
    if level.numel() not in (1, rows) or (level.numel() > 1 and level.shape[0] != rows):
        raise InputError(
            f"Got noise levels of shape {tuple(level.shape)} for a batch of {rows}; a closed form "
            "needs one level for every row, no clock per frame or cell."
        )


def _gain(prior: Tensor, noise: Tensor, kappa: Tensor) -> Tensor:
    total = prior + kappa**2 * noise
    return prior / total.clamp_min(math.ulp(0.0) * 1e10)
