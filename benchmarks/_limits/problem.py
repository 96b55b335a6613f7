r"""The joint Poisson problem whose posterior is known: Laplace u = a, points of one of them seen.

a is the Gaussian random field of the elliptic benchmarks (cosines, alpha 2, tau 3, no mean), u the
five-point solution with zero edges; both are scaled to a mean s.d. of 0.5 per pixel. Since u is
linear in a, the pair is Gaussian with S^2 - 1 modes e_r of variance v_r:

    x = sum_r c_r e_r,    c_r ~ N(0, v_r)

The same problem is posed twice. In fields, (B, 2, S, S), the prior is `covariance.LowRank`. In
modes, (B, 1, R), it is diagonal: white noise stays white and every rule that meets the operator
through the prior's Jacobian draws the same coefficients at a tenth of the cost. Rules that use
A A^T (pseudo-inverse, projection, replacement) differ in the two and run in fields.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from sciddm.covariance import Covariance, Function, LowRank, White
from sciddm.denoise import Gaussian
from sciddm.guide import linear_posterior
from sciddm.observe import Function as Map
from sciddm.observe import Observation, points
from sciddm.pde import GaussianField, Poisson
from sciddm.pde.grid import idct2, laplacian
from sciddm.process import VE, LogLinear
from sciddm.random import Streams

STD = 0.5
PROCESS = VE(White(), LogLinear(1e-3, 1e3))


@dataclass(frozen=True, eq=False)
class Diagonal(Covariance):
    """Independent values (B, 1, R) of the given variances (R,)."""

    variances: Tensor

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        assert isinstance(other, White)
        return f(self.variances, torch.tensor(other.std**2, dtype=torch.float64)).to(x) * x

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        assert isinstance(other, White)
        return f(self.variances, torch.tensor(other.std**2, dtype=torch.float64)).mean()

    def sqrt(self, w: Tensor) -> Tensor:
        return self.variances.sqrt().to(w) * w

    def diagonal(self, like: Tensor) -> Tensor:
        return self.variances.expand(like.shape[1:])


@dataclass(frozen=True, eq=False)
class Law:
    """modes (R, 2, S, S), orthonormal; variances (R,), falling; unit (2,), the physical size of one
    unit of a and of u."""

    modes: Tensor
    variances: Tensor
    unit: Tensor

    @property
    def size(self) -> int:
        return self.modes.shape[-1]


@functools.lru_cache(maxsize=2)
def joint_law(size: int) -> Law:
    """The joint law on ``size`` x ``size`` points, by one eigendecomposition of (S^2 - 1)."""
    std = (size * GaussianField().spectrum(size)).flatten()[1:]
    unit = torch.eye(size * size, dtype=torch.float64)[1:].view(-1, 1, size, size)
    a = std.view(-1, 1, 1, 1) * idct2(unit)
    pair = torch.cat([a, Poisson()(a)], dim=1)
    scale = pair.square().sum(0).mean((1, 2)).sqrt() / STD
    pair = (pair / scale.view(2, 1, 1)).flatten(1)
    values, vectors = torch.linalg.eigh(pair @ pair.T)
    values, vectors = values.flip(0), vectors.flip(1)
    modes = (vectors.T @ pair) / values.sqrt()[:, None]
    return Law(modes.view(-1, 2, size, size), values, scale)


@dataclass(frozen=True, eq=False)
class Problem:
    """Fields of one law seen at the same points, with the exact posterior of the other channel.

    Attributes
    ----------
    law : the joint law. inverse : whether points of u are seen and a is wanted.
    where : (n,) flat positions of the points. noise : s.d. of the error, in units of the field.
    truth : (F, 1, R) coefficients. y : (F, n).
    mean : (F, 1, R), std : (S, S), the exact posterior mean and pixel s.d. of the wanted channel.
    """

    law: Law
    inverse: bool
    where: Tensor
    noise: float
    truth: Tensor
    y: Tensor
    mean: Tensor
    std: Tensor

    @property
    def prior(self) -> Gaussian:
        """The prior of the coefficients (B, 1, R)."""
        return Gaussian(torch.zeros(()), Diagonal(self.law.variances), PROCESS)

    @property
    def field_prior(self) -> Gaussian:
        """The prior of the fields (B, 2, S, S)."""
        return Gaussian(torch.zeros(()), LowRank(self.law.modes, self.law.variances), PROCESS)

    @property
    def live(self) -> Tensor:
        """(S, S), where the wanted channel is not known beforehand: u is zero on the edges."""
        return self.std > 1e-6 * self.std.max()

    @property
    def channel(self) -> int:
        """The channel that is seen."""
        return int(self.inverse)

    def observation(self, members: int) -> Observation:
        """y in rows of ``members`` a field, for coefficients."""
        rows = self.law.modes[:, self.channel].flatten(1)[:, self.where]
        return self._of(members, Map(lambda c: c[:, 0] @ rows.to(c)))

    def field_observation(self, members: int) -> Observation:
        """The same for fields."""
        size = self.law.size
        at = torch.stack([self.where // size, self.where % size], dim=1).double()
        return self._of(members, points([self.channel] * len(at), at, (size, size)))

    def _of(self, members: int, operator: Map | object) -> Observation:
        variance = torch.tensor(self.noise**2, dtype=torch.float64)
        return Observation(self.y.repeat_interleave(members, 0), operator, variance)  # type: ignore[arg-type]

    def wanted(self, x: Tensor) -> Tensor:
        """The wanted channel (..., S, S) of coefficients (..., 1, R) or fields (..., 2, S, S)."""
        size = self.law.size
        if x.shape[-2:] == (size, size):
            return x[..., 1 - self.channel, :, :]
        modes = self.law.modes[:, 1 - self.channel].flatten(1)
        return (x[..., 0, :] @ modes).unflatten(-1, (size, size))

    def exact(self, members: int, seed: int = 0) -> Tensor:
        """Exact posterior draws (F * members, 1, R), by Matheron's rule."""
        like = torch.zeros(len(self.y) * members, 1, len(self.law.variances), dtype=torch.float64)
        observation = self.observation(members)
        _, gain, _ = linear_posterior(self.prior, observation, like)
        rng = Streams.of(900 + seed, len(like))
        x = self.prior.sample(like, rng.at("prior"))
        error = self.noise * rng.at("error").normal(observation.y)
        return x + gain(observation.residual(x) - error)

    def interpolated(self) -> Tensor:
        """A baseline without a prior (F, S, S): a cubic radial interpolation of the points, zero on
        the edges where u is seen, then the equation."""
        size = self.law.size
        mesh = np.stack(np.unravel_index(np.arange(size**2), (size, size)), 1) / (size - 1)
        edge = ((mesh == 0) | (mesh == 1)).any(1)
        at, values = mesh[self.where.numpy()], self.y.numpy().T
        if self.inverse:
            inner = ~edge[self.where.numpy()]
            at = np.concatenate([at[inner], mesh[edge]])
            values = np.concatenate([values[inner], np.zeros((int(edge.sum()), values.shape[1]))])
        smooth = RBFInterpolator(at, values, kernel="cubic", smoothing=1e-9)(mesh)
        field = torch.from_numpy(smooth.T.copy()).view(-1, 1, size, size)
        seen, other = self.law.unit[self.channel], self.law.unit[1 - self.channel]
        solved = laplacian(field) if self.inverse else Poisson()(field)
        return solved[:, 0] * (seen / other)


def make(size: int, count: int, noise: float, inverse: bool, fields: int, seed: int = 0) -> Problem:
    """``count`` random grid points of ``fields`` fields, errors of ``noise`` times the rms."""
    law = joint_law(size)
    rng = np.random.default_rng([31, seed])
    where = torch.from_numpy(np.sort(rng.choice(size * size, count, replace=False)))
    rows = law.modes[:, int(inverse)].flatten(1)[:, where]
    streams = Streams.of(700 + seed, fields)
    like = torch.zeros(fields, 1, len(law.variances), dtype=torch.float64)
    truth = Diagonal(law.variances).sample(like, streams.at("truth"))
    clean = truth[:, 0] @ rows
    std = noise * STD
    y = clean + std * streams.at("error").normal(clean)
    empty = torch.empty(0)
    problem = Problem(law, inverse, where, std, truth, y, empty, empty)
    mean, _, _ = linear_posterior(problem.prior, problem.observation(1), like)
    return Problem(law, inverse, where, std, truth, y, mean, posterior_std(problem))


def posterior_std(problem: Problem) -> Tensor:
    """Exact posterior s.d. (S, S) of the wanted channel."""
    law, size = problem.law, problem.law.size
    rows = law.modes[:, problem.channel].flatten(1)[:, problem.where].T
    modes = law.modes[:, 1 - problem.channel].flatten(1)
    total = (rows * law.variances) @ rows.T
    total += problem.noise**2 * torch.eye(len(rows), dtype=torch.float64)
    half = torch.linalg.solve_triangular(torch.linalg.cholesky(total), rows, upper=False)
    prior = (law.variances[:, None] * modes.square()).sum(0)
    known = ((half * law.variances) @ modes).square().sum(0)
    return (prior - known).clamp_min(0).sqrt().view(size, size)


def scores(problem: Problem, x: Tensor, members: int) -> dict[str, float]:
    """Figures of draws ``x`` (F * members, ...) against the exact posterior of the wanted channel.

    error: relative L2 error of the mean over that of the exact mean. distance: rms distance of the
    mean from the exact one in posterior s.d., less what ``members`` draws of this spread leave.
    sd: rms s.d. over the exact rms. crps: the fair estimate over the exact closed form. coverage:
    of the central 90 % interval, by fractional ranks, less 0.9. misfit: rms of the whitened
    residual.
    """
    draws = problem.wanted(x).unflatten(0, (-1, members))
    truth, exact = problem.wanted(problem.truth), problem.wanted(problem.mean)
    live = problem.live
    mean = draws.mean(1)
    norm = truth.flatten(1).norm(dim=1)
    error, floor = (((m - truth).flatten(1).norm(dim=1) / norm).mean() for m in (mean, exact))
    variance = draws.var(1) if members > 1 else torch.zeros_like(mean)
    away = (((mean - exact).square() - variance / members)[:, live] / problem.std[live] ** 2).mean()
    z = (truth - exact)[:, live] / problem.std[live]
    closed = gaussian_crps(z)
    seen = problem.observation if x.shape[1:] == problem.truth.shape[1:] else None
    observation = (seen or problem.field_observation)(members)
    return {
        "error": float(error / floor),
        "distance": float(away.clamp_min(0).sqrt()),
        "sd": float((variance[:, live].mean() / (problem.std[live] ** 2).mean()).sqrt()),
        "crps": float(
            fair_crps(draws, truth)[:, live].mean() / (closed * problem.std[live]).mean()
        ),
        "coverage": float(coverage(draws, truth)[:, live].mean()) - 0.9,
        "misfit": float(observation.misfit(x).square().mean().sqrt()),
    }


def gaussian_crps(z: Tensor) -> Tensor:
    """CRPS of N(0, 1) at ``z`` in closed form."""
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)


def fair_crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Fair CRPS (F, S, S) of ``draws`` (F, M, S, S); without a spread the absolute error."""
    members = draws.shape[1]
    error = (draws - truth[:, None]).abs().mean(1)
    if members < 2:
        return error
    rank = torch.arange(1, members + 1, dtype=draws.dtype).view(-1, 1, 1)
    weight = 2 * rank - members - 1
    return error - (weight * draws.sort(1).values).sum(1) / (members * (members - 1))


def coverage(draws: Tensor, truth: Tensor, level: float = 0.9) -> Tensor:
    """Share (F, S, S) of the truth's rank interval inside the central one, see `sciddm.score`."""
    members = draws.shape[1]
    low = (draws < truth[:, None]).sum(1) / (members + 1)
    edge = (1 - level) / 2
    high = low + 1 / (members + 1)
    return (high.clamp(edge, 1 - edge) - low.clamp(edge, 1 - edge)) * (members + 1)
