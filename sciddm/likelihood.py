r"""Log-likelihoods along the probability flow, and the mean that a trained score should not have.

In u = (x_t - beta m) / alpha and log kappa the probability flow and the log-density along it are

    du / d log kappa       = u - x_hat
    d log p / d log kappa  = -(D - trace(d x_hat / du)),     D = C * prod(grid)

for every process and every noise. The flow is followed from the field at the least noise level to
the greatest, where the law is N(m, kappa_max^2 C) with m the clean estimate of a field without
information, or with a Gaussian ``base`` N(m, Sigma + kappa_max^2 C):

    log p(x) = log p_max(u_max) + integral (D - trace) d log kappa.

All densities are with respect to the Lebesgue measure of the grid values, in float64 nats, and of
X + kappa_min Z: of the data themselves as kappa_min goes to 0, where they have a density. This is
the only place where C must be invertible.

References
----------
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
eq. 39-40 (the flow and its likelihood). https://arxiv.org/abs/2011.13456
Grathwohl et al. FFJORD. ICLR 2019, eq. 8 (Hutchinson's estimate of the trace).
https://arxiv.org/abs/1810.01367
Hutchinson. A stochastic estimator of the trace of the influence matrix. Communications in
Statistics 1990.
Pang et al. On calibrating diffusion probabilistic models. NeurIPS 2023, eq. 10 and 12 (`Centred`).
https://arxiv.org/abs/2302.10688
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sciddm.covariance import White
from sciddm.denoise import Context, Denoiser, Gaussian, interpolate
from sciddm.errors import InputError
from sciddm.process import Process, shift
from sciddm.random import Streams
from sciddm.solve.address import Silent
from sciddm.solve.grids import Grid, LogKappa
from sciddm.solve.singlestep import Singlestep
from sciddm.solve.solvers import History, Solver

Probe = Callable[[Tensor, Streams], Tensor]
NOTHING = Context()
THIRD = Singlestep(3)
EVEN = LogKappa()
BLOCK = 64
"""Unit vectors a backward pass."""


def rademacher(like: Tensor, rng: Streams) -> Tensor:
    """Independent signs of the shape of ``like``; of all probes they have the least variance."""
    return torch.where(rng.normal(like) < 0, -1.0, 1.0).to(like)


def gaussian_log_prob(law: Gaussian, u: Tensor, kappa: Tensor) -> Tensor:
    """log N(u; mean, Sigma + kappa^2 C) of fields ``u`` (B, C, *grid): (B,), float64.

    Raises `InputError` where the covariance is singular.
    """
    u, noise, like = u.double(), law.process.noise, u[:1].double()

    def total(p: Tensor, c: Tensor) -> Tensor:
        return p + kappa**2 * c

    if float(law.prior.average(like, noise, lambda p, c: (total(p, c) <= 0).double())) > 0:
        raise InputError(
            "The covariance of the law is singular, so it has no density; give the noise a part "
            "in every direction (no ZeroMean density), or add a floor to the prior."
        )
    gap = u - law.mean.to(u)
    square = (gap * law.prior.joint(gap, noise, lambda p, c: 1 / total(p, c))).flatten(1).sum(1)
    log_det = law.prior.average(like, noise, lambda p, c: total(p, c).log()).to(u)
    return -0.5 * (square + like.numel() * (log_det + math.log(2 * math.pi)))


def log_prob(
    denoiser: Denoiser,
    x: Tensor,
    context: Context = NOTHING,
    *,
    steps: int = 64,
    probes: int | None = None,
    rng: Streams | None = None,
    base: Gaussian | None = None,
    solver: Solver = THIRD,
    grid: Grid = EVEN,
    kappa_max: float | None = None,
    kappa_min: float | None = None,
    probe: Probe = rademacher,
) -> Tensor:
    """log p(x | context) of clean fields ``x`` (B, C, *grid): (B,), float64, nats.

    The error falls with the step in log kappa as the solver's does, to fourth order. With the
    default, over noise levels of 1 to 50,000, it is below 1e-4 nats a dimension for a Gaussian and
    about 1e-3 for separate modes. The path and the trace share their evaluations: 3 ``steps`` - 2
    of them, and D (or ``probes``) backward passes a step; none for a `Gaussian`, whose trace is
    known.

    Parameters
    ----------
    denoiser : a prior, differentiable in x_t; one noise level for all cells.
    steps, grid, kappa_max, kappa_min : the times, as of `sciddm.solve.Diffusion`.
    probes : None for the exact trace; else Hutchinson's estimate from that many probes, fresh at
        every time, so that their errors average along the path.
    rng : addresses of the probes, one a row.
    base : a Gaussian law close to the data. It stands at ``kappa_max``, and carries its own part
        of the estimated trace exactly. A `Gaussian` denoiser is its own base.
    solver : a deterministic one.
    probe : law of the probes, of identity covariance: `rademacher` or `sciddm.random.normal`.

    Raises `InputError` for fields that are not finite, noise without a density, a clock per cell,
    a solver that draws noise, or a denoiser without a gradient.
    """
    _check(x, probes, rng)
    process = denoiser.process
    falling = grid.times(process, steps, kappa_max, kappa_min)
    _one(process.kappa(falling[0]))
    solver.check(process, falling)
    times, x = falling.flip(0), x.double()
    if float(White().average(x[:1], process.noise, lambda _, c: (c <= 0).double())) > 0:
        raise InputError(
            f"Got a noise {type(process.noise).__name__} without power in some directions, so "
            "fields have no density; expected noise with power everywhere (the usual cause is a "
            "ZeroMean density: take the density inside it)."
        )
    if base is None and isinstance(denoiser, Gaussian):
        base = denoiser
    law = Gaussian(torch.zeros(()), White(0.0), process) if base is None else base.under(process)
    known = law if base is not None else None
    gaussian_log_prob(law, x[:1], process.kappa(times[-1]))  # refuse before any work
    path = _Path(denoiser)
    alpha, beta, _ = (c.to(x) for c in process.coefficients(times[0]))
    x_t = shift(alpha * x, beta, context.anchor)
    state, noiseless = History(), Silent(0, (), ())
    traces = []
    for k, t in enumerate(times):
        numbers = range(k * (probes or 0), (k + 1) * (probes or 0))
        draws = None if rng is None or probes is None else (rng, numbers)
        traces.append(path.trace(x_t, t, context, known, probe, draws))
        if k + 1 < len(times):
            with torch.no_grad():
                x_t, state = solver.step(path, x_t, t, times[k + 1], context, state, noiseless)
    level = process.kappa(times).log().to(x)
    rate = x[0].numel() - torch.stack(traces, dim=1)
    integral = rate @ quadrature(level)
    alpha, beta, _ = (c.to(x) for c in process.coefficients(times[-1]))
    u = shift(x_t, -beta, context.anchor) / alpha
    blank = shift((alpha * law.mean.to(x)).expand_as(x), beta, context.anchor)
    with torch.no_grad():
        mean = path(blank, times[-1], context)
    end = Gaussian(mean, law.prior, process)
    return gaussian_log_prob(end, u, process.kappa(times[-1])) + integral


class _Path(Denoiser):
    """A denoiser in float64, whatever its weights, that remembers its answer at the last trace."""

    def __init__(self, denoiser: Denoiser) -> None:
        nn.Module.__init__(self)
        self.denoiser, self.process = denoiser, denoiser.process
        kinds = [p.dtype for p in denoiser.parameters() if p.is_floating_point()]
        self._dtype = kinds[0] if kinds else torch.float64
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if self._last is not None and self._last[0] is x_t and self._last[1] is t:
            return self._last[2]
        return self.denoiser(x_t.to(self._dtype), t, context).double()

    def trace(
        self,
        x_t: Tensor,
        t: Tensor,
        context: Context,
        known: Gaussian | None,
        probe: Probe,
        draws: tuple[Streams, range] | None,
    ) -> Tensor:
        """trace(d x_hat / du) of every row (B,), u = x_t / alpha."""
        like, kappa = x_t[:1], self.process.kappa(t)

        def gain(p: Tensor, c: Tensor) -> Tensor:
            return p / (p + kappa**2 * c)

        whole = torch.zeros(len(x_t)).to(x_t)
        if known is not None:
            whole += like.numel() * known.prior.average(like, self.process.noise, gain).to(x_t)
        if self.denoiser is known:
            return whole
        with torch.enable_grad():
            leaf = x_t.detach().requires_grad_()
            x_hat = self.denoiser(leaf.to(self._dtype), t, context).double()
        if not x_hat.requires_grad:
            raise InputError(
                f"Got {type(self.denoiser).__name__}, which gives no gradient in x_t; expected a "
                "prior denoiser (the likelihood of a posterior is that of its prior and its data)."
            )
        self._last = (x_t, t, x_hat.detach())
        alpha = self.process.coefficients(t)[0].to(x_t)
        if draws is None:
            return alpha * _trace(x_hat, leaf)
        rng, numbers = draws
        for number in numbers:
            v = probe(x_t, rng.at("probe", number))
            (image,) = torch.autograd.grad(x_hat, leaf, v, retain_graph=True)
            image = alpha * image
            if known is not None:
                image = image - known.prior.joint(v, self.process.noise, gain)
            whole = whole + (v * image).flatten(1).sum(1) / len(numbers)
        return whole


def _trace(x_hat: Tensor, x: Tensor) -> Tensor:
    """The exact trace of d x_hat / dx of every row, by unit vectors in blocks."""
    rows, size = x.shape[0], x[0].numel()
    total = torch.zeros(rows).to(x)
    for start in range(0, size, BLOCK):
        at = torch.arange(start, min(start + BLOCK, size), device=x.device)
        unit = torch.zeros(len(at), rows, size, device=x.device, dtype=x.dtype)
        unit[torch.arange(len(at)), :, at] = 1
        (images,) = torch.autograd.grad(
            x_hat, x, unit.view(-1, *x.shape), is_grads_batched=True, retain_graph=True
        )
        total += images.flatten(2)[torch.arange(len(at)), :, at].sum(0)
    return total


def quadrature(nodes: Tensor) -> Tensor:
    """Weights (n,) of the integral over rising ``nodes`` (n,), float64: in every interval the cubic
    through the four nearest values; the trapezoid where there are fewer than four."""
    n = len(nodes)
    count = 4 if n >= 4 else 2
    powers = torch.arange(count, device=nodes.device, dtype=nodes.dtype)
    weights = torch.zeros_like(nodes)
    for k in range(n - 1):
        first = min(max(k + 1 - count // 2, 0), n - count)
        width = nodes[k + 1] - nodes[k]
        place = (nodes[first : first + count] - nodes[k]) / width
        share = torch.linalg.solve(place ** powers[:, None], 1 / (powers + 1))
        weights[first : first + count] += width * share
    return weights


def _check(x: Tensor, probes: int | None, rng: Streams | None) -> None:
    if x.ndim < 3 or not bool(torch.isfinite(x).all()):
        raise InputError(
            f"Got fields of shape {tuple(x.shape)}, or values that are not finite; expected "
            "finite fields (B, C, *grid)."
        )
    if probes is not None and (probes < 1 or rng is None):
        raise InputError(
            f"Got {probes} probes and {'no ' if rng is None else ''}addresses; expected at least "
            "one probe and rng=Streams.of(seed, rows), or probes=None for the exact trace."
        )


def _one(kappa: Tensor) -> None:
    if kappa.numel() != 1:
        raise InputError(
            f"Got noise levels of shape {tuple(kappa.shape)}; a likelihood needs one for all "
            "cells, no clock per frame or cell."
        )


class Centred(Denoiser):
    """A denoiser less the mean of its own error: E[x_hat - X] is zero at every noise level.

    The mean square error at a level falls by exactly the square of the mean, and with it the
    weighted loss. Pang et al. 2023, eq. 10, in terms of the clean estimate.

    Parameters
    ----------
    denoiser : a trained one. knots : (L,) log kappa, rising. means : (L, C, *grid), E[x_hat - X]
        at the knots, piecewise linear between them (see `centred`, which measures them).
    """

    def __init__(self, denoiser: Denoiser, knots: Tensor, means: Tensor) -> None:
        if len(knots) < 2 or len(knots) != len(means) or not bool((knots.diff() > 0).all()):
            raise InputError(
                f"Got {len(knots)} knots and {len(means)} means; expected as many, at least two, "
                "by rising log kappa."
            )
        nn.Module.__init__(self)
        self.denoiser, self.process = denoiser, denoiser.process
        self.knots, self.means = knots, means

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        level = _per_row(self.process, t, len(x_t))
        return self.denoiser(x_t, t, context) - interpolate(level, self.knots, self.means).to(x_t)


@torch.no_grad()
def centred(
    denoiser: Denoiser, x: Tensor, rng: Streams, context: Context = NOTHING, levels: int = 33
) -> Centred:
    """``denoiser`` less its mean error on clean fields ``x`` (B, C, *grid), measured at ``levels``.

    Every field meets its noise and the opposite one, so an affine error leaves no sampling error.
    """
    process = denoiser.process
    times = process.times(levels).flip(0)
    means = []
    for k, t in enumerate(times):
        z = process.noise.sample(x, rng.at("centre", k))
        alpha, beta, sigma = (c.to(x) for c in process.coefficients(t))
        pair = (shift(alpha * x + s * sigma * z, beta, context.anchor) for s in (1, -1))
        means.append(sum((denoiser(x_t, t, context) - x).mean(0) / 2 for x_t in pair))
    return Centred(denoiser, process.kappa(times).log(), torch.stack(means))


def _per_row(process: Process, t: Tensor, rows: int) -> Tensor:
    """log kappa, (1,) or (B,)."""
    kappa = process.kappa(t)
    if kappa.numel() not in (1, rows):
        _one(kappa)
    return kappa.log().reshape(-1)
