r"""Optimisers of time grids: functions that return a `Given` grid, to be saved with a model.

`align` minimises a bound on the Kullback-Leibler divergence between the reverse process and its
discretisation. Between two times the estimate is held, so with e(kappa) the mean square error of
the denoiser (a martingale: its mean square change is a difference of errors) a step costs

    c(high, low) = \int_{low}^{high} kappa^{-3} (e(high) - e(kappa)) d kappa.

It needs the error alone: closed form for a Gaussian, the scale of a network's base otherwise. The
divergence counts every direction by its own spread, the finest included, where almost nothing of a
smooth field is; with a ``detail`` d, kappa^{-3} becomes 1 / (kappa (kappa^2 + d^2)) and directions
below d count by their size. The bound is for solvers of first order; it does not serve others.

`refine` runs one solver against a fine reference trajectory. A step costs the error that it makes
from the reference, carried to the end; the last word has the error of the whole draw, which is
lowered by moving one level at a time.

In both the sum of the costs is made least over all choices among fine candidates, by dynamic
programming.

References
----------
Sabour, Fidler, Kreis. Align your steps. ICML 2024, theorem 3.1 (bound) and section 3.2 (Gaussian).
https://arxiv.org/abs/2404.14507
Chen, Zhou, Wang, Shen, Lyu. On the trajectory regularity of ODE-based diffusion sampling. ICML
2024, algorithm 1. https://arxiv.org/abs/2405.11326
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser, Gaussian, interpolate
from sciddm.errors import InputError
from sciddm.solve.address import Silent
from sciddm.solve.grids import Given, LogKappa
from sciddm.solve.sampler import trajectory
from sciddm.solve.singlestep import Singlestep
from sciddm.solve.solvers import History, Solver

_EXACT = Singlestep(3)
_ROOTS, _WEIGHTS = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(8))


def align(
    error: tuple[Tensor, Tensor],
    steps: int,
    kappa_max: float,
    kappa_min: float,
    candidates: int = 256,
    detail: float = 0.0,
) -> Given:
    """The grid of ``steps`` levels of the least bound.

    Parameters
    ----------
    error : (log kappa, log s.d. of the error per grid value), rising, (L,) each: what
        ``expected_error(like)`` of a `Gaussian`, a base or a calibration returns.
    kappa_max, kappa_min : both ends. candidates : levels to choose from, even in log kappa.
    detail : s.d. of a direction below which errors may be relative to this and not to the direction
        itself, see above; 0 is the bound on the divergence.
    """
    _enough(steps, candidates)
    if not 0 < kappa_min < kappa_max:
        raise InputError(f"Got levels from {kappa_min} to {kappa_max}; expected 0 < min < max.")
    ends = torch.tensor([kappa_max, kappa_min], dtype=torch.float64).log()
    level = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, candidates, dtype=torch.float64))
    return Given(_chosen(level, cheapest(alignment_cost(error, level, detail), steps)))


def alignment_cost(error: tuple[Tensor, Tensor], level: Tensor, detail: float = 0.0) -> Tensor:
    """c(i, j) of a step from level i to level j > i, (K, K); ``level`` (K,) is falling log kappa.

    Sabour et al. 2024, theorem 3.1, for a denoiser whose error is known.
    """
    centre, half = 0.5 * (level[1:] + level[:-1]), 0.5 * (level[:-1] - level[1:])
    inner = centre + half * _ROOTS[:, None]
    weight = half * _WEIGHTS[:, None] / ((2 * inner).exp() + detail**2)
    lost = (2 * interpolate(inner, *error)).exp()
    weights, below = (
        torch.cat([level.new_zeros(1), part.sum(0).cumsum(0)]) for part in (weight, weight * lost)
    )
    held = (2 * interpolate(level, *error)).exp()
    return held[:, None] * (weights - weights[:, None]) - (below - below[:, None])


def refine(
    denoiser: Denoiser,
    solver: Solver,
    x: Tensor,
    steps: int,
    *,
    context: Context | None = None,
    kappa_max: float | None = None,
    kappa_min: float | None = None,
    candidates: int = 24,
    base: Gaussian | None = None,
) -> Given:
    """The grid of ``steps`` levels on which ``solver`` leaves the reference trajectory least.

    Parameters
    ----------
    solver : a deterministic one; another is refused.
    x : (B, C, *grid), fields at ``kappa_max``: the more the better, 64 serve.
    candidates : levels to choose from, even in log kappa. A solver with memory costs candidates^3
        / 6 steps (one without, candidates^2 / 2), which need no evaluation if it takes one a step.
    base : a Gaussian whose flow carries the errors of steps to the end, or None to weigh them where
        they are made, in units of the clean field.
    """
    _enough(steps, candidates)
    path = Path(denoiser, solver, x, context or Context(), candidates, kappa_max, kappa_min, base)
    level = path.level[cheapest(path.cost(), steps)]
    even = torch.lerp(level[0], level[-1], torch.linspace(0, 1, steps, dtype=torch.float64))
    best = min((level, even), key=path.error)
    return Given(tuple(descend(path.error, best).exp().tolist()))


class Path:
    """A reference trajectory, and what one step of a solver away from it costs."""

    def __init__(
        self,
        denoiser: Denoiser,
        solver: Solver,
        x: Tensor,
        context: Context,
        candidates: int,
        kappa_max: float | None,
        kappa_min: float | None,
        base: Gaussian | None,
    ) -> None:
        process = denoiser.process
        self.times = LogKappa().times(process, candidates, kappa_max, kappa_min)
        self.level = process.kappa(self.times).log()
        self.solver, self.context, self.recorded = solver, context, Recorded(denoiser)
        self._base = None if base is None else base.under(process)
        self.fields = [x]
        _EXACT.check(process, self.times)
        solver.check(process, self.times)
        with torch.no_grad():
            # one step over all levels: a solver that draws noise anywhere says so
            t, s = self.times[0], self.times[-1]
            solver.step(denoiser, x, t, s, context, History(), Silent(0, (), ()))
            for t, s in zip(self.times[:-1], self.times[1:], strict=True):
                self.recorded.keep(self.fields[-1], t, context)
                step = _EXACT.step(self.recorded, self.fields[-1], t, s, context, History(), None)
                self.fields.append(step[0])
            self._ends = [self._carried(k, field) for k, field in enumerate(self.fields)]
            self._last = denoiser(self.fields[-1], self.times[-1], context)

    @torch.no_grad()
    def cost(self) -> Tensor:
        """c(h, i, j) of a step from i to j after one from h to i, (K, K, K); c(0, 0, j) of a first
        step. (K, K) for a solver without memory."""
        count = len(self.times)
        memory = self._step(0, 1, History())[1] != History()
        cost = torch.zeros((count,) * (3 if memory else 2), dtype=torch.float64)
        for i in range(count - 1):
            for h in range(max(i, 1) if memory else 1):
                state = self._step(h, i, History())[1] if memory and i else History()
                for j in range(i + 1, count):
                    gap = self._carried(j, self._step(i, j, state)[0]) - self._ends[j]
                    cost[(h, i, j) if memory else (i, j)] = float(gap.double().square().mean())
        return cost

    @torch.no_grad()
    def error(self, level: Tensor) -> float:
        """Mean square distance of the draws on a grid, falling log kappa, from the reference."""
        denoiser = self.recorded.inner
        times = denoiser.process.clock.time(level.exp()).clamp(0, 1)
        *_, last = trajectory(denoiser, self.fields[0], times, self.context, self.solver)
        return float((last - self._last).double().square().mean())

    def _step(self, i: int, j: int, state: History) -> tuple[Tensor, History]:
        t, s = self.times[i], self.times[j]
        return self.solver.step(self.recorded, self.fields[i], t, s, self.context, state, None)

    def _carried(self, k: int, x: Tensor) -> Tensor:
        anchor = self.context.anchor
        if self._base is not None:
            x = self._base.flow(x, self.times[k], self.times[-1], anchor)
            k = -1
        return self.recorded.process.centred(x, self.times[k], anchor)


class Recorded(Denoiser):
    """A denoiser that remembers its answers on the fields of a trajectory."""

    def __init__(self, inner: Denoiser) -> None:
        nn.Module.__init__(self)
        self.inner, self.process = inner, inner.process
        self._known: dict[int, Tensor] = {}

    def keep(self, x_t: Tensor, t: Tensor, context: Context) -> None:
        """Evaluate once, for as long as the field itself is held."""
        self._known[id(x_t)] = self.inner(x_t, t, context)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        known = self._known.get(id(x_t))
        out: Tensor = self.inner(x_t, t, context) if known is None else known
        return out


def cheapest(cost: Tensor, steps: int) -> list[int]:
    """The ``steps`` indices from 0 to K - 1 of the least total cost, by dynamic programming.

    cost : (K, K), of a step from i to j > i; or (K, K, K), of that step after one from h to i,
        where (0, 0, j) stands for the first step.
    """
    count = len(cost)
    later = torch.ones(count, count, dtype=torch.bool).triu(1)
    if cost.ndim == 2:
        cost = cost.expand(count, count, count)
    first = torch.where(later[0], cost[0, 0], torch.inf)
    # best[h, i]: least total of a path whose last step was from h to i
    best = torch.full((count, count), torch.inf, dtype=cost.dtype)
    best[0] = first
    back = []
    for _ in range(steps - 2):
        total = best[:, :, None] + torch.where(later, cost, torch.inf)
        best, origin = total.min(0)
        back.append(origin)
    last = int(best[:, -1].argmin())
    path = [count - 1, last]
    for origin in reversed(back):
        path.append(int(origin[path[-1], path[-2]]))
    return path[::-1]


def descend(error: Callable[[Tensor], float], level: Tensor, rounds: int = 6) -> Tensor:
    """Move one inner level at a time, by less and less of its gap, where the error falls."""
    best, least = level.clone(), error(level)
    for k in range(rounds):
        for i in range(1, len(level) - 1):
            for way in (1, -1):
                trial = best.clone()
                trial[i] = torch.lerp(best[i], best[i + way], 0.5 * 0.6**k)
                found = error(trial)
                if found < least:
                    best, least = trial, found
    return best


def _chosen(level: Tensor, indices: list[int]) -> tuple[float, ...]:
    return tuple(level[indices].exp().tolist())


def _enough(steps: int, candidates: int) -> None:
    if not 2 <= steps <= candidates:
        raise InputError(
            f"Got {steps} steps among {candidates} candidates; expected at least 2 steps and as "
            "many candidates (four times as many serve well)."
        )
