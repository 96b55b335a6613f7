r"""Moment matching in closed form: exact for a Gaussian prior, no back-propagation.

With V = Cov[X | x_t] known in closed form,

    E[X | x_t, y] = x_hat + V A^T (A V A^T + R)^{-1} (y - A x_hat).

V is the same for every member at one time, so a step costs n applications of V and one Cholesky
factor of (n, n), n the number of observations, once for all members, and one application of V a
member. Where V is measured and the gap y - A x_hat is
larger than it allows, V is inflated (see `sciddm.guide.surprise`).

References
----------
Rozet, Andry, Lanusse, Louppe. Learning diffusion priors from observations by expectation
maximization. NeurIPS 2024, eq. 16-19 (moment matching). https://arxiv.org/abs/2405.13712
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.23-2.24.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.guide.anchored import NEAR, Anchor, Chord
from sciddm.guide.curved import GaussNewton
from sciddm.guide.linear import factor, gram, kalman_gain
from sciddm.guide.sites import weights
from sciddm.guide.surprise import Surprise
from sciddm.observe import Observation
from sciddm.observe.noise import Gaussian as Normal
from sciddm.random import Streams, normal

TIMES = 64
"""Times whose V A^T must fit into the memory for any of them to be kept."""

FINAL = 4
"""Chords at most that bring a finished draw to its values."""


class Known(NamedTuple):
    """What the observations see of V at one time, float64.

    covariance : V. images : V A^T (n, C, *grid), where it is small enough to be kept. spread :
    A V A^T (n, n). chol : Cholesky factor of A V A^T + R. surprise : the law of the gap, where V is
    measured; the last two are of Gaussian errors only.
    """

    covariance: LinearMap
    images: Tensor | None
    spread: Tensor
    chol: Tensor | None
    surprise: Surprise | None

    @property
    def nbytes(self) -> int:
        """Of the tensors that are kept, about."""
        return 3 * self.spread.nbytes + (0 if self.images is None else self.images.nbytes)


class Gain:
    """V A^T (A V A^T + R)^{-1} for one operator and one error law, remembered by time.

    Members, and cases that share their sensors, share it. Where V A^T is large only (n, n) is kept
    of a time, and V is applied to the members.

    Parameters
    ----------
    observation : its values are not used. moments : gives V at a time.
    memory : bytes to keep. rows : of the operator, (n, C, *grid), float64, where they are known.
    """

    def __init__(
        self,
        observation: Observation,
        moments: Moments,
        memory: int = 1 << 30,
        rows: Tensor | None = None,
    ) -> None:
        self.observation, self.moments, self.memory = observation, moments, memory
        self._rows = rows
        self._affine: bool | None = None
        self._known: dict[float, Known] = {}

    def at(self, t: Tensor, like: Tensor) -> Known:
        """What is known at the one time ``t`` of fields ``like`` (B, C, *grid)."""
        key = float(t)
        if key in self._known:
            return self._known[key]
        rows = self.rows(like)
        covariance = self.moments.covariance(t.reshape(()))
        images = covariance(rows)
        spread = gram(rows, images)
        kept = images if images.nbytes * TIMES <= self.memory else None
        known = Known(covariance, kept, spread, None, None)
        if isinstance(self.observation.law, Normal):
            noise = self.observation.covariance
            surprise = None if self.moments.exact else Surprise(spread, noise)
            known = Known(covariance, kept, spread, factor(spread + noise), surprise)
        if (len(self._known) + 1) * known.nbytes <= self.memory:
            self._known[key] = known
        return known

    def pull(self, known: Known, weight: Tensor, like: Tensor) -> Tensor:
        """V A^T w, of the shape and type of ``like`` (B, C, *grid), of weights (B, n)."""
        rows = self.rows(like) if known.images is None else known.images
        moved = (weight.double() @ rows.flatten(1)).view(len(weight), *rows.shape[1:])
        return (known.covariance(moved) if known.images is None else moved).to(like)

    def affine(self, like: Tensor) -> bool:
        """Whether the operator is affine, so that one linearisation serves every field."""
        if self._affine is None:
            self._affine = self.observation.operator.affine(like[:1])
        return self._affine

    def rows(self, like: Tensor) -> Tensor:
        """The rows of the operator, (n, C, *grid), float64: smooth operators and small errors make
        the system ill-conditioned."""
        if self._rows is None:
            self._rows = self.observation.operator.rows(torch.zeros_like(like[:1])).double()
        return self._rows


class Conditioned(Denoiser):
    """E[X | x_t, y] by moment matching with a covariance in closed form.

    Exact for an affine operator, Gaussian errors and a covariance that is exact. Other errors are
    met by Gaussian sites (`sciddm.guide.sites`), other operators by linearising them at each
    member's own estimate (`sciddm.guide.curved`); which of them is needed is found out once. With
    an ``anchor`` all members share its rows, and reach their own fit by chords
    (`sciddm.guide.anchored`): for operators that are dear to run and bend little.

    Parameters
    ----------
    prior : the denoiser of the model, a network or the exact one.
    observation : y, any operator with a gradient and the law of its errors.
    moments : whose covariance stands for Cov[X | x_t]: the exact `Gaussian`, the Gaussian base of
        the network, or its `Calibrated` error.
    passes : linearisations of an operator that is not affine. 1 is the extended Kalman filter; 3 is
        good where the operator bends within the s.d. of the errors.
    sweeps : over the sites of errors that are not Gaussian. One value needs 1, twenty that go
        together 3.
    anchor : of this observation, from `linearised`; or None.
    """

    def __init__(
        self,
        prior: Denoiser,
        observation: Observation,
        moments: Moments,
        passes: int = 3,
        sweeps: int = 4,
        anchor: Anchor | None = None,
    ) -> None:
        if passes < 1 or sweeps < 1:
            raise InputError(
                f"Got {passes} passes and {sweeps} sweeps; expected at least 1 of each."
            )
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.moments = observation, moments
        self.passes, self.sweeps = passes, sweeps
        self._normal = isinstance(observation.law, Normal)
        self._seen = observation if self._normal else observation.whitened()
        self.anchor = anchor
        if anchor is not None and self._seen is not observation:
            raise InputError(
                "Got an anchor and errors that go together; expected the observation.whitened() "
                "that the anchor was made of."
            )
        self._gain = Gain(self._seen, moments, rows=None if anchor is None else anchor.rows)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if t.numel() != 1:
            raise InputError(
                f"Got times of shape {tuple(t.shape)}; closed-form guidance needs one time a step. "
                "Use guide.MMPS for a clock per cell."
            )
        x_hat = self.prior(x_t, t, context)
        if self.anchor is not None:
            return self._by_chords(x_hat, self._gain.at(t, x_t), self.anchor)
        if not self._gain.affine(x_t):
            curved = GaussNewton(self._seen, self.moments, self._weights, self.passes)
            return curved(x_hat, self.moments.covariance(t.reshape(())))
        known = self._gain.at(t, x_t)
        if not self._normal:
            gap = self._weights(self._seen.y, self._seen.value(x_hat), known.spread)
        else:
            gap = self.observation.residual(x_hat)
            if known.surprise is not None:
                gap = known.surprise.stretch(gap)

        def update(d: Tensor) -> Tensor:
            weight = d if known.chol is None else solve(known.chol, d)
            return self._gain.pull(known, weight, x_hat)

        return x_hat + self.moments.respond(x_hat, gap, self._gain.rows(x_t), update)

    def _by_chords(self, x_hat: Tensor, known: Known, anchor: Anchor) -> Tensor:
        def weights(mean: Tensor) -> Tensor:
            if known.chol is None:
                return self._weights(self._seen.y, mean, known.spread)
            gap = self._seen.y.double() - mean
            return solve(known.chol, known.surprise.stretch(gap) if known.surprise else gap)

        def move(weight: Tensor) -> Tensor:
            return self.moments.respond(
                x_hat, weight, anchor.rows, lambda w: self._gain.pull(known, w, x_hat)
            )

        return Chord(self._seen, anchor)(x_hat, known.spread, weights, move)

    def _weights(self, y: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """w (B, n), float64, such that x_hat moves by V A^T w. Only the V of Gaussian errors is
        inflated: other laws explain a surprise by themselves."""
        if not self._normal:
            return weights(self._seen.law, y, mean, spread, self.sweeps)
        gap, noise = y.to(mean).double() - mean.double(), self._seen.covariance
        if not self.moments.exact:
            gap = Surprise(spread, noise).stretch(gap)
        return solve(factor(spread + noise), gap)

    def shared(self, like: Tensor) -> bool:
        """Whether Cov[X | x_t, y] is one for all members: errors are Gaussian, and the operator is
        affine or linearised at an anchor."""
        return self._normal and (self.anchor is not None or self._gain.affine(like))

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        """A draw of X - E[X | x_t, y], N(0, V - K A V), of the shape of ``like`` (B, C, *grid).

        By Matheron's rule: a draw of the prior's fluctuation v and of an error e moves by the gain
        of -(A v + e). Where V is inflated for a member that surprises it, its draw is not. With an
        anchor A is its linearisation. Raises `InputError` where it is not `shared`.
        """
        if not self.shared(like):
            raise InputError(
                "Got an operator that is not affine, or errors that are not Gaussian; their "
                "posterior covariance differs from member to member and is not sampled. Use a "
                "solver that draws no fluctuation."
            )
        v = self.moments.fluctuation(t, like, rng)
        known = self._gain.at(t, like)
        assert known.chol is not None  # errors are Gaussian
        chol = torch.linalg.cholesky(self.observation.covariance).to(like)
        blank = like.new_zeros(len(like), len(chol))
        e = normal(blank, None if rng is None else rng.at(f"{rng.purpose} error", rng.step))
        rows = self._gain.rows(like).flatten(1).to(like)
        gap = v.flatten(1) @ rows.T + e @ chol.T
        return v - self._gain.pull(known, solve(known.chol, gap), v)

    def finished(self, t: Tensor, x: Tensor, rng: Streams | None = None) -> Tensor:
        """E[X | x_t, y] of members ``x`` (B, C, *grid) and a draw of what is left of X at ``t``.

        With an anchor the draw moves the values by what the linearisation does not know; a few
        chords bring them to where it says they are. Raises as `fluctuation`.
        """
        drawn = x + self.fluctuation(t, x, rng)
        if self.anchor is None:
            return drawn
        known, law = self._gain.at(t, x), self._seen.law
        assert known.chol is not None  # errors are Gaussian
        aim = self._seen.value(x).double() + self.anchor.move(drawn, x)
        for _ in range(FINAL):
            value = self._seen.value(drawn).double()
            if float(law.chi_square(aim, value).mean(1).max()) <= NEAR**2:
                break
            drawn = drawn + self._gain.pull(known, solve(known.chol, aim - value), drawn)
        return drawn

    def at(self, x: Tensor) -> Conditioned:
        """The same observation with its anchor moved to ``x`` (1, C, *grid)."""
        assert self.anchor is not None  # the caller's to know
        seen = self._seen
        moved = replace(self.anchor, at=x, value=seen.value(x), rows=seen.operator.rows(x).double())
        return Conditioned(
            self.prior, self.observation, self.moments, self.passes, self.sweeps, moved
        )

    def given(self, observation: Observation) -> Conditioned:
        """The same sensors and errors with other values, without an anchor; shares the gains."""
        other = Conditioned(self.prior, observation, self.moments, self.passes, self.sweeps)
        if self.anchor is None:
            other._gain = self._gain
        return other


def solve(chol: Tensor, gap: Tensor) -> Tensor:
    """(A V A^T + R)^{-1} d of each row of ``gap`` (B, n), float64, by the Cholesky factor."""
    return torch.cholesky_solve(gap.double().T, chol).T


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
    """Pointwise prior variance (C, *grid), float64, in closed form."""
    return prior.prior.diagonal(like)
