r"""Step sizes from a tolerance: an embedded pair of two evaluations inside each given step.

With u = (x - beta m) / alpha, the guess is one exponential step with a constant clean estimate, the
answer the same step with the straight line through both ends, and the same noise. Their difference
is the error of the guess; a step is taken where its root mean square over the field, in units of
atol + rtol |u|, is at most 1.

Steps are halves of halves of the given one, and the noise is a Brownian path known at every such
time (bridges, each with its own address). So a rejected step is tried again on the same path: the
law is not bent by what was rejected, and a smaller tolerance follows the same path more closely.

References
----------
Jolicoeur-Martineau, Li, Piche-Taillefer, Kachman, Mitliagkas. Gotta go fast when generating data
with score-based models. 2021, algorithm 1 (the pair, the mixed tolerance).
https://arxiv.org/abs/2105.14080
Rackauckas, Nie. Adaptive methods for stochastic differential equations via natural embeddings and
rejection sampling with memory. DCDS-B 2017 (why a rejected step keeps its path).
https://doi.org/10.3934/dcdsb.2017133
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve.address import below
from sciddm.solve.integrals import adams
from sciddm.solve.restart import one_clock
from sciddm.solve.solvers import History, Solver

DEPTH = 12
"""A given step is divided at most into 2 ** DEPTH; the smallest is taken whatever its error."""
WHOLE = 1 << DEPTH
GROW = 0.2
"""The next step is twice as long where the error is below this share of the tolerance."""
EVEN = 1e-6
"""Rounding of lengths in log kappa, in halvings."""


@dataclass(frozen=True)
class Adaptive(Solver):
    """Sub-steps inside every given step, each row of the batch with its own.

    A row's steps follow from its own error and its noise from its own address, so a member is the
    same in any company, to the rounding of the network (to the bit at a fixed batch size). The
    network is called on the whole batch at one time a call, so that every guidance works; rows that
    stand elsewhere ignore the answer. A call sees as many times as the rows' steps differ.

    Parameters
    ----------
    atol, rtol : absolute (units of the clean field) and relative tolerance, not both 0.
    tau : 0 for the probability flow, 1 for the reverse diffusion, see `StochasticAdams`.
    longest : of all steps, in log kappa, and the first that is tried; above 0, at most 2. Over a
        longer one the guess forgets the field and confirms itself, and no error would be seen.

    With ``Diffusion(denoiser, Adaptive(), steps=2)`` it alone places the times.
    """

    atol: float = 0.01
    rtol: float = 0.01
    tau: float = 1.0
    longest: float = 1.0

    def __post_init__(self) -> None:
        low, high = sorted((self.atol, self.rtol))
        if not (low >= 0 and 0 < high < math.inf):
            raise InputError(
                f"Got atol = {self.atol}, rtol = {self.rtol}; expected one above 0, none below."
            )
        if not 0 <= self.tau < math.inf or not 0 < self.longest <= 2:
            raise InputError(
                f"Got tau = {self.tau}, longest = {self.longest}; expected tau >= 0 and a longest "
                "step above 0, at most 2."
            )

    def check(self, process: Process, times: Tensor) -> None:
        one_clock(process, times, type(self).__name__)

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        context: Context,
        state: History,
        rng: Streams | None,
    ) -> tuple[Tensor, History]:
        """``state.kept`` holds the evaluations so far, (), and the next length of every row, (B,)
        in log kappa."""
        process, m = denoiser.process, context.anchor
        tau = torch.tensor(self.tau, dtype=torch.float64)
        path = _Path(process, x_t, t, s, self.tau, rng)
        whole = torch.full((len(x_t),), self.longest, dtype=torch.float64)
        count, length = state.kept or (torch.zeros(()), whole)
        size, top = path.width(length), path.width(whole)
        at = torch.zeros_like(size)
        x, x_hat, seen = x_t, x_t, -1
        while bool((at < WHOLE).any()):
            here = int(at[at < WHOLE].min())
            width = int(size[at == here].max())
            rows = (at == here) & (size == width)
            a, b = path.time(here), path.time(here + width)
            if here != seen:  # the last rows go first, so all that pass here are here now
                x_hat, seen, count = denoiser(x, a, context), here, count + 1
            z = path.noise(here, here + width)
            guess = adams(process, x, a, b, [x_hat], [a], tau, z, m)
            there = denoiser(_where(rows, guess, x), b, context)
            better = adams(process, x, a, b, [there, x_hat], [b, a], tau, z, m)
            count = count + 1
            error = self._error(process, x, guess, better, a, b, m)
            taken = rows & ((error <= 1) | (width == 1))
            x = _where(taken, better, x)
            at = at + width * taken
            longer = taken & (error < GROW) & (at % (2 * width) == 0) & (at + 2 * width <= WHOLE)
            # at the end of the step the next one decides what fits
            longer = (longer | (taken & (error < GROW) & (at == WHOLE))) & (2 * size <= top)
            size = torch.where(longer, 2 * size, torch.where(rows & ~taken, size // 2, size))
            path.forget(here)
        return x, History(kept=(count, path.length * size / WHOLE))

    def _error(
        self,
        process: Process,
        x: Tensor,
        guess: Tensor,
        better: Tensor,
        a: Tensor,
        b: Tensor,
        anchor: Tensor | None,
    ) -> Tensor:
        """(B,) rms of the difference over the tolerance, in units of u."""

        new = process.centred(better, b, anchor)
        old = process.centred(x, a, anchor)
        scale = self.atol + self.rtol * torch.maximum(new.abs(), old.abs())
        ratio = (new - process.centred(guess, b, anchor)) / scale.clamp_min(1e-30)
        return ratio.double().square().flatten(1).mean(1).sqrt()

    def evaluations(self, steps: int) -> int:
        """The least there can be: two for every given step, and the clean estimate. The tolerance
        decides on more; ``History.kept`` counts them."""
        return 2 * (steps - 1) + 1


class _Path:
    """Times and noise at the 2 ** DEPTH + 1 fine positions of one given step.

    The noise of a stretch is that of a Brownian motion in the clock kappa^(-2 tau^2), here over its
    value at the end of the step.
    """

    def __init__(
        self, process: Process, like: Tensor, t: Tensor, s: Tensor, tau: float, rng: Streams | None
    ) -> None:
        self.process, self.like, self.ends, self.rng = process, like, (t, s), rng
        self.log_kappa = process.kappa(t).log()
        self.length = self.log_kappa - process.kappa(s).log()
        self.tau = tau
        self._known: dict[int, Tensor] = {0: torch.zeros_like(like)}

    def width(self, length: Tensor) -> Tensor:
        """The widest positions within ``length`` (B,) in log kappa: powers of two, (B,)."""
        halvings = torch.log2(self.length / length) - EVEN
        return (WHOLE / 2 ** halvings.ceil().clamp(0, DEPTH)).long()

    def time(self, position: int) -> Tensor:
        if position in (0, WHOLE):
            return self.ends[position // WHOLE].reshape(())
        log_kappa = self.log_kappa - self.length * position / WHOLE
        return self.process.clock.time(log_kappa.exp()).reshape(()).clamp(0, 1)

    def noise(self, left: int, right: int) -> Tensor | None:
        """Noise N(0, C) of the stretch."""
        if self.tau == 0:
            return None
        gap = self._at(right) - self._at(left)
        return gap / torch.sqrt(self._clock(right) - self._clock(left)).to(gap)

    def forget(self, position: int) -> None:
        """Drop what no row at or after ``position`` needs."""
        ancestors = {position >> k << k for k in range(DEPTH + 1)}
        self._known = {p: w for p, w in self._known.items() if p >= position or p in ancestors}

    def _clock(self, position: int) -> Tensor:
        return torch.exp(-2 * self.tau**2 * self.length * (1 - position / WHOLE)).double()

    def _at(self, position: int) -> Tensor:
        if position not in self._known:
            z = self.process.noise.sample(self.like, below(self.rng, "path", position))
            if position == WHOLE:
                spread = torch.sqrt(self._clock(WHOLE) - self._clock(0))
                self._known[position] = spread.to(z) * z
            else:
                half = position & -position
                a, b = position - half, position + half
                before, now, after = (self._clock(p) for p in (a, position, b))
                share = (now - before) / (after - before)
                spread = torch.sqrt((now - before) * (after - now) / (after - before))
                mean = torch.lerp(self._at(a), self._at(b), share.to(z))
                self._known[position] = mean + spread.to(z) * z
        return self._known[position]


def _where(rows: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose whole rows of fields (B, ...)."""
    return torch.where(rows.view(-1, *[1] * (yes.ndim - 1)).to(yes.device), yes, no)
