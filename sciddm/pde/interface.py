r"""Where a two-phase coefficient changes phase, from values of the Darcy solution.

The coefficient is a `LevelSet`: phases by the sign of g = C^{1/2} w, w white in cosine modes. The
posterior of w given y = A u(phases(g)) + e is met by Gauss-Newton. The step between the phases is
widened to Phi(g / width), and the width falls to one cell while

    1/2 |y - A u|^2 / std^2 + 1/2 |w - w_0|^2

is lowered. With w_0 = 0 that is the posterior mode; with w_0 a draw of the prior and y moved by a
draw of the error it is one member of the ensemble (randomised maximum likelihood: exact where the
problem is linear, else an approximation). The last steps take the residual of the sharp phases,
so that what is given out fits. On a grid that residual jumps from node to node, which no derivative
sees: each member ends with Metropolis steps under the sharp likelihood, proposed from the Gaussian
of the last linearisation (Cotter et al., with that reference in the place of the prior).

The scale of g has no influence on its phases, and the mode would shrink it to nothing: after every
step on the way to the mode it is set back to that of the prior.

A linearisation costs one block factorisation and n solves, on a coarse grid; the residual is always
that of the full grid.

References
----------
Iglesias, Lu, Stuart. A Bayesian level set method for geometric inverse problems. Interfaces and
Free Boundaries 2016. https://arxiv.org/abs/1504.00313
Kitanidis. Quasi-linear geostatistical theory for inversing. Water Resources Research 1995, eq.
14-19 (Gauss-Newton in the space of the data). Oliver, He, Reynolds. Conditioning permeability
fields to pressure data. ECMOR 1996 (randomised maximum likelihood).
Cotter, Roberts, Stuart, White. MCMC methods for functions. Statistical Science 2013, eq. 4.6.
https://arxiv.org/abs/1202.0709
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from sciddm.basis import Cosine
from sciddm.covariance import Spectral
from sciddm.errors import InputError
from sciddm.observe.operators import points
from sciddm.pde.elliptic import Darcy, energy_gradient, faces
from sciddm.pde.level_set import LevelSet
from sciddm.random import Streams

BLURRED = (12.0, 12.0, 12.0, 8.0, 8.0, 5.0, 5.0, 3.0, 3.0, 2.0, 2.0, 1.0)
SHARP = tuple((0.0, smooth) for smooth in (3.0, 2.0, 1.5, 1.0, 0.7, 0.5, 2.0, 1.0, 0.5))
TO_MODE = (*((width, width) for width in BLURRED), *SHARP)
TO_MEMBER = (*((width, width) for width in (3.0, 2.0, 1.0)), *SHARP)
"""Widths of the step between the phases, of the residual and of the linearisation, in cells of the
latter at the prior's slope. 0 is the sharp step. A sharp step is not smooth on a grid; what one
linearisation does not mend another does."""

SMOOTH = 1.5
"""Width of the step in the linearisation that Metropolis steps are proposed from, in cells."""

POLISH = 150
"""Metropolis steps that end a member."""

SHARES = (1.0, 0.5, 0.25, 0.125, 0.05)


@final
@dataclass(frozen=True, eq=False)
class Seen:
    """Values of the solution: position (n, 2) in [0, 1], values and their error s.d. (n,).

    Raises `InputError` for no value, shapes that differ, values that are not finite and errors that
    are not positive (take 1e-3 of the field's s.d. where values have none).
    """

    position: Tensor
    values: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        n = len(self.values)
        if not n or self.position.shape != (n, 2) or self.std.shape != (n,):
            raise InputError(
                f"Got {n} values at positions {tuple(self.position.shape)} with errors "
                f"{tuple(self.std.shape)}; expected n of each, positions (n, 2), n at least 1."
            )
        known = torch.isfinite(self.values) & torch.isfinite(self.std) & (self.std > 0)
        if not bool(known.all()):
            first = int((~known).nonzero()[0])
            raise InputError(
                f"Value {first} is {float(self.values[first]):g} with an error of "
                f"{float(self.std[first]):g}; expected a finite value and a positive error."
            )


@final
@dataclass(frozen=True)
class Interface:
    """The posterior of a two-phase coefficient under values of its Darcy solution.

    Parameters
    ----------
    law : prior; its latent covariance is a power of the cosines of the unit square.
    grid : nodes a side of the unit square. coarse : of the linearisation. modes : cosines along
        each axis that the values may move; the others keep the prior's draw.
    """

    law: LevelSet
    grid: int
    coarse: int = 64
    modes: int = 32

    def __post_init__(self) -> None:
        latent = self.law.latent
        if not (isinstance(latent, Spectral) and isinstance(latent.basis, Cosine)):
            raise InputError(
                f"Got a latent {type(latent).__name__}; expected a Spectral one on cosines."
            )
        if min(self.grid, self.coarse) < 4 or self.modes < 1:
            raise InputError(
                f"Got {self.grid} and {self.coarse} nodes and {self.modes} modes; expected at "
                "least 4, 4 and 1."
            )

    def mode(self, seen: Seen) -> Tensor:
        """w (grid, grid), float64, at the posterior mode."""
        blank = torch.zeros(self.grid, self.grid, dtype=torch.float64)
        return _Search(self, seen)(blank, blank, seen.values.double(), TO_MODE, rescale=True)

    def draw(self, seen: Seen, start: Tensor, rng: Streams) -> Tensor:
        """Members (B, grid, grid) of w, each from ``start``, the mode: one for each address."""
        search = _Search(self, seen)
        white = torch.zeros(len(rng.members), self.grid, self.grid, dtype=torch.float64)
        error = rng.at("error").normal(white[:, 0, :1].expand(-1, len(seen.values)))
        members = []
        for prior, e in zip(rng.at("latent").normal(white), error, strict=True):
            y = seen.values.double() + seen.std.double() * e
            first = prior.clone()
            first[: search.kept, : search.kept] = start[: search.kept, : search.kept]
            members.append(search(first, prior, y, TO_MEMBER, rescale=False))
        found = torch.stack(members)
        shape = len(rng.members), POLISH, len(seen.values) + 1
        white = torch.zeros(shape, dtype=torch.float64)
        noise = rng.at("polish").normal(white)
        fresh = rng.at("polish latent")
        for i, member in enumerate(fresh.members):
            own = Streams(fresh.seed, fresh.cases[i : i + 1], (member,))
            found[i] = search.polish(found[i], seen.values.double(), noise[i], own)
        return found

    def latent(self, w: Tensor) -> Tensor:
        """g (..., grid, grid) of w (..., grid, grid)."""
        cosines = _cosines(self.grid, self.grid, self.grid)
        return cosines.T @ (self.spectrum * w) @ cosines

    def coefficient(self, w: Tensor) -> Tensor:
        """The sharp phases (..., grid, grid)."""
        return self.law(self.latent(w))

    @property
    def spectrum(self) -> Tensor:
        """S.d. of the modes (grid, grid), of cosines of mean square 1."""
        assert isinstance(self.law.latent, Spectral)
        return self.law.latent.eigenvalues((self.grid, self.grid)).sqrt() / self.grid


class _Search:
    """Gauss-Newton steps for one set of places; ``kept`` modes a side move."""

    def __init__(self, problem: Interface, seen: Seen) -> None:
        at = seen.position.double()
        self.problem, self.solve = problem, Darcy()
        self.std = seen.std.double()
        self.fine = points([0] * len(at), at * (problem.grid - 1), (problem.grid,) * 2)
        rough = points([0] * len(at), at * (problem.coarse - 1), (problem.coarse,) * 2)
        flat = torch.zeros(len(at), problem.coarse**2, dtype=torch.float64)
        flat.scatter_add_(1, rough.index, rough.weight)
        self.rows = flat.view(-1, problem.coarse, problem.coarse)
        self.kept = min(problem.modes, problem.grid, problem.coarse)
        self.spectrum = problem.spectrum
        k = math.pi * torch.arange(problem.grid, dtype=torch.float64)
        slope = (self.spectrum**2 * (k[:, None] ** 2 + k**2))[: self.kept, : self.kept]
        self.cell = float(slope.sum().sqrt()) / (problem.coarse - 1)
        self.size = float(self.spectrum.square().sum().sqrt())

    def __call__(
        self,
        w: Tensor,
        prior: Tensor,
        y: Tensor,
        widths: tuple[tuple[float, float], ...],
        rescale: bool,
    ) -> Tensor:
        kept = (slice(self.kept), slice(self.kept))
        for width, smooth in widths:
            gap = y - self.value(w, width)
            best = self._loss(gap, w - prior)
            turn = self.jacobian(w, smooth * self.cell) / self.std[:, None]
            drift = (w - prior)[kept].flatten()
            inner = turn @ turn.T + torch.eye(len(y), dtype=torch.float64)
            weight = torch.linalg.solve(inner, gap / self.std + turn @ drift)
            goal = w.clone()
            goal[kept] = prior[kept] + (weight @ turn).view(self.kept, self.kept)
            tried = [self._moved(w, goal - w, share, rescale) for share in SHARES]
            losses = [self._loss(y - self.value(v, width), v - prior) for v in tried]
            least = min(range(len(SHARES)), key=losses.__getitem__)
            if losses[least] < best or not bool(w.any()):
                w = tried[least]
        return w

    def polish(self, w: Tensor, y: Tensor, noise: Tensor, rng: Streams) -> Tensor:
        """Metropolis steps from ``w`` under the sharp likelihood of y.

        noise : (steps, n + 1). The proposal keeps N(mean, (1 + J^T J)^{-1}), J and the mean of one
        linearisation at the start; its length is tuned to an acceptance of a quarter.
        """
        kept = (slice(self.kept), slice(self.kept))
        gap = (y - self.value(w, 0.0)) / self.std
        turn = self.jacobian(w, SMOOTH * self.cell) / self.std[:, None]
        chol = torch.linalg.cholesky(turn @ turn.T + torch.eye(len(y), dtype=torch.float64))

        def back(v: Tensor) -> Tensor:
            return (torch.cholesky_solve(v[:, None], chol)[:, 0] @ turn).view(self.kept, -1)

        mean = torch.zeros_like(w)
        mean[kept] = back(gap + turn @ w[kept].flatten())

        def excess(w: Tensor, gap: Tensor) -> float:
            """log posterior - log reference."""
            off = w - mean
            reference = off.square().sum() + (turn @ off[kept].flatten()).square().sum()
            return 0.5 * float(reference - gap.square().sum() - w.square().sum())

        now, length = excess(w, gap), 0.1
        for step, row in enumerate(noise):
            move = rng.at("polish latent", step).normal(w[None])[0]
            move[kept] -= back(turn @ move[kept].flatten() + row[:-1])
            new = mean + math.sqrt(1 - length**2) * (w - mean) + length * move
            gap = (y - self.value(new, 0.0)) / self.std
            then = excess(new, gap)
            accept = float(torch.special.log_ndtr(row[-1])) < then - now  # log of uniform
            if accept:
                w, now = new, then
            length = min(0.9, max(0.003, length * math.exp(0.2 * (accept - 0.25))))
        return w

    def value(self, w: Tensor, width: float) -> Tensor:
        """A u (n,) of phases ``width`` cells wide."""
        g = self.problem.latent(w)
        a = self.phases(g, width * self.cell) if width > 0 else self.problem.law(g)
        return self.fine(self.solve(a[None, None]))[0]

    def phases(self, g: Tensor, width: float) -> Tensor:
        """The phases with a step of Phi(g / width)."""
        law = self.problem.law
        return law.low + (law.high - law.low) * torch.special.ndtr(g / width)

    def jacobian(self, w: Tensor, width: float) -> Tensor:
        """d(A u) / dw of the kept modes, (n, kept^2), on the coarse grid."""
        problem, law, kept = self.problem, self.problem.law, self.kept
        shown = min(problem.grid, problem.coarse)
        cosines = _cosines(problem.grid, shown, problem.coarse)
        g = cosines.T @ (self.spectrum * w)[:shown, :shown] @ cosines
        a = self.phases(g, width)
        one = torch.ones_like(a)[None]
        u = solve_many(a, torch.cat([one, self.rows])).float()
        pull = -energy_gradient(a.float().expand_as(u[1:]), u[1:], u[:1].expand_as(u[1:]))
        step = torch.exp(-0.5 * (g / width) ** 2) * (
            (law.high - law.low) / (width * math.sqrt(2 * math.pi))
        )
        cos = cosines[:kept].float()
        moved = cos @ (pull * step.float()) @ cos.T
        return (moved.double() * self.spectrum[:kept, :kept]).flatten(1)

    def _moved(self, w: Tensor, step: Tensor, share: float, rescale: bool) -> Tensor:
        """``share`` of the ``step``; g set back to the scale of the prior where ``rescale``."""
        moved = w + share * step
        if not rescale:
            return moved
        size = float((self.spectrum * moved).square().sum().sqrt())
        return moved * (self.size / max(size, 1e-12 * self.size))

    def _loss(self, gap: Tensor, drift: Tensor) -> float:
        return 0.5 * float((gap / self.std).square().sum() + drift.square().sum())


def solve_many(a: Tensor, f: Tensor) -> Tensor:
    """``-div(a grad u) = f`` for many right sides: ``a (H, W), f (B, H, W) -> u (B, H, W)``.

    Block elimination, row of nodes by row of nodes, in dense products: with 500 right sides ten
    times quicker than the banded factor of `Darcy`. ``u = 0`` on the ring, float64.
    """
    h, w = a.shape
    down, across = (v.double() for v in faces(a))
    down, across = down[:, 1:-1] * (h - 1) ** 2, across[1:-1] * (w - 1) ** 2
    middle = torch.diag_embed(down[:-1] + down[1:] + across[:, :-1] + across[:, 1:])
    side = torch.diag_embed(across[:, 1:-1], offset=1)
    block = middle - side - side.mT
    right = f.double()[:, 1:-1, 1:-1].permute(1, 2, 0)
    inverse: list[Tensor] = []
    forward: list[Tensor] = []
    for i in range(h - 2):
        link = down[i]
        now, value = block[i], right[i]
        if i:
            now = now - link[:, None] * inverse[-1] * link
            value = value + link[:, None] * (inverse[-1] @ forward[-1])
        inverse.append(torch.cholesky_inverse(torch.linalg.cholesky(now)))
        forward.append(value)
    out = [inverse[-1] @ forward[-1]]
    for i in range(h - 4, -1, -1):
        out.append(inverse[i] @ (forward[i] + down[i + 1][:, None] * out[-1]))
    return pad(torch.stack(out[::-1]).permute(2, 0, 1), (1, 1, 1, 1))


def _cosines(grid: int, modes: int, at: int) -> Tensor:
    """Cosines of mean square 1 on the cells of ``grid``, read at ``at`` nodes: (modes, at)."""
    index = torch.arange(at, dtype=torch.float64) * ((grid - 1) / (at - 1))
    k = torch.arange(modes, dtype=torch.float64)
    matrix = torch.cos(math.pi / (2 * grid) * k[:, None] * (2 * index + 1)) * math.sqrt(2)
    matrix[0] = 1.0
    return matrix
