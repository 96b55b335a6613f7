"""Fitting the linear part of a forecast to films: the law, how many patterns, what is left over.

A linear law fitted to a short record knows that record too well: what it leaves of the frames that
it was fitted on is too small, and a spread taken from that is too. Here the numbers are chosen on
held films, and what is left over is measured on frames that the fit did not see.

References
----------
Penland, Sardeshmukh. The optimal growth of tropical sea surface temperature anomalies. Journal of
Climate 8, 1995, eq. 3-6. https://doi.org/10.1175/1520-0442(1995)008<1999:TOGOTS>2.0.CO;2
Neumaier, Schneider. Estimation of parameters and eigenmodes of multivariate autoregressive models.
ACM TOMS 27, 2001, eq. 8-12 (least squares).
Stone. Cross-validatory choice and assessment of statistical predictions. JRSS B 36, 1974.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm import fit
from sciddm.covariance import LowRank
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Known
from sciddm.forecasters.linear import LinearGaussian
from sciddm.forecasters.mean import Linear, Mean

SLOWEST = 0.9999
"""Decay a frame of the slowest mode of a fitted law, at least."""

FEW_VALUES, FRAMES = 1024, 2000
"""Frames of more values than this take their EOFs from about so many of them."""


@dataclass(frozen=True, eq=False)
class Moments:
    """All that the linear inverse models of films of one order are made of.

    eofs : of all frames, R of them. mean : (C, *grid). pairs : how many steps were seen.
    gram : (P + 1, R, P + 1, R), sums of products of the coefficients of a frame and of the P before
        it, newest first. still, lagged : sums of squares of all values, and of their products with
        the values a frame later.
    """

    eofs: LowRank
    mean: Tensor
    pairs: int
    gram: Tensor
    still: float
    lagged: float

    @staticmethod
    def of(films: Tensor, modes: int, order: int = 1) -> Moments:
        """Of ``films`` (N, C, T, *grid), with at most ``modes`` EOFs; one long record is N = 1.

        Raises `InputError` for films that are too short or too few.
        """
        count, length = films.shape[0], films.shape[2]
        pairs = count * (length - order)
        if order < 1 or length <= order or pairs < 4 * order:
            raise InputError(
                f"Got {count} films of {length} frames for a linear model of order {order}; "
                "expected longer or more of them."
            )
        frames = films.movedim(2, 1).double()
        mean = frames.mean((0, 1))
        gap = frames - mean
        some = gap.flatten(0, 1)
        if some[0].numel() > FEW_VALUES:
            some = some[:: max(1, len(some) // FRAMES)]
        # as many unknowns as steps would fit anything
        eofs = fit.eof(some, min(modes, max(1, pairs // (2 * order) - 1)))
        z = gap.flatten(2) @ eofs.modes.flatten(1).double().T
        lags = [z[:, order - p : length - p].flatten(0, 1) for p in range(order + 1)]
        gram = torch.stack([torch.stack([a.T @ b for b in lags]) for a in lags])
        return Moments(
            eofs,
            mean,
            pairs,
            gram.movedim(2, 1),
            float(gap[:, :-1].square().sum()),
            float((gap[:, :-1] * gap[:, 1:]).sum()),
        )

    def law(
        self, modes: int, ridge: float = 0.0, boundary: Known | None = None
    ) -> LinearGaussian:
        """The linear inverse model with the first ``modes`` EOFs, see `linear_inverse`."""
        rank, order = min(modes, len(self.eofs.variances)), len(self.gram) - 1
        gram = self.gram[:, :rank, :, :rank]
        x, xy = gram[1:, :, 1:], gram[1:, :, 0]
        # a ridge on frames would pull their small differences, which say most, to zero
        change = torch.tensor(
            [[(-1) ** j * math.comb(k, j) for j in range(order)] for k in range(order)],
            dtype=torch.float64,
        )
        moved = torch.einsum("kp,lq,prqs->krls", change, change, x)
        size = (moved.flatten(0, 1).flatten(1).diagonal() / self.pairs).sqrt()
        size = size.clamp_min(1e-12 * float(size.max()))
        weight = moved.flatten(0, 1).flatten(1) / size[:, None] / size
        weight = weight + ridge * self.pairs * torch.eye(len(size), dtype=torch.float64)
        known = torch.einsum("kp,prs->krs", change, xy).flatten(0, 1) / size[:, None]
        found = torch.linalg.solve(weight, known) / size[:, None]
        solved = torch.einsum("kp,krs->prs", change, found.unflatten(0, (order, rank)))
        cross = torch.einsum("prs,prq->sq", xy, solved)
        left = gram[0, :, 0] - cross - cross.T
        left = left + torch.einsum("pra,prqs,qsb->ab", solved, x, solved)
        noise = left / max(self.pairs - len(size), 1)
        transition = solved.transpose(1, 2)
        persistence, floor = self._rest(rank)
        parts = (self.eofs.modes[:rank].double(), transition, noise, self.mean, persistence, floor)
        fitted = LinearGaussian(*parts, boundary)
        if (radius := fitted.radius) <= SLOWEST:
            return fitted
        shares = (SLOWEST / radius) ** torch.arange(1, order + 1, dtype=torch.float64)
        damped = transition * shares[:, None, None]
        return LinearGaussian(parts[0], damped, *parts[2:], boundary)

    def _rest(self, rank: int) -> tuple[float, float]:
        """Persistence and variance of a value outside the first EOFs."""
        size = self.mean.numel()
        if rank == size:
            return 0.0, 0.0
        variances = self.eofs.variances.double()
        total = float(variances.sum()) + self.eofs.floor * (size - len(variances))
        floor = (total - float(variances[:rank].sum())) / (size - rank)
        products = self.gram.diagonal(dim1=1, dim2=3)
        still = self.still - float(products[1, 1, :rank].sum())
        lagged = self.lagged - float(products[0, 1, :rank].sum())
        if floor <= 1e-9 * float(variances.mean()) or still <= 0:
            return 0.0, 0.0
        return min(max(lagged / still, -0.999), 0.999), floor


def linear_inverse(
    films: Tensor,
    modes: int,
    *,
    order: int = 1,
    ridge: float = 0.0,
    boundary: Known | None = None,
) -> LinearGaussian:
    """The linear inverse model of ``films`` (N, C, T, *grid); one long record is N = 1.

    Parameters
    ----------
    modes : EOFs kept, at most. What lies outside is red noise, independent a value.
    order : frames of the past that it looks at (1: Penland and Sardeshmukh).
    ridge : variance added to that of each EOF and of each of its differences in time, as a share of
        it, before the transition is solved for: short records need 0.001 to 0.1.

    The noise is the covariance of what the transition leaves over. A fitted law that would grow is
    damped until it settles. Raises `InputError` for films that are too short or too few.
    """
    return Moments.of(films, modes, order).law(modes, ridge, boundary)


def windows(films: Tensor, length: int, limit: int) -> Tensor:
    """Up to ``limit`` stretches of ``length`` frames of ``films`` (N, C, T, *grid), evenly spread:
    (n, C, length, *grid). Raises `InputError` for films that are shorter."""
    count, each = len(films), films.shape[2] - length + 1
    if each < 1:
        raise InputError(
            f"Got films of {films.shape[2]} frames; expected at least {length}, the past and the "
            "future of one step."
        )
    total = count * each
    index = torch.linspace(0, total - 1, min(total, limit), dtype=torch.float64).round().long()
    film, first = index // each, index % each
    return torch.stack([films[film, :, first + k] for k in range(length)], dim=2)


def best_linear(
    films: Tensor,
    held: Tensor,
    *,
    order: int = 1,
    modes: Sequence[int] = (5, 10, 20, 40, 80, 160),
    ridges: Sequence[float] = (0.0, 0.003, 0.03, 0.3),
) -> tuple[LinearGaussian, dict[str, float]]:
    """The `linear_inverse` of ``films`` whose next frame errs least on ``held``, both (N, C, T,
    *grid), and the numbers of the choice: modes, ridge, and its error over that of persistence."""
    test = windows(held, order + 1, 4000)
    recent, truth = test[:, :, :order], test[:, :, order]
    known = Moments.of(films, max(modes), order)
    found: list[tuple[float, LinearGaussian, int, float]] = []
    for count in sorted({min(m, len(known.eofs.variances)) for m in modes}):
        for ridge in ridges:
            law = known.law(count, ridge)
            error = float((law.expected(recent) - truth).square().mean())
            found.append((error, law, count, ridge))
    error, law, count, ridge = min(found, key=lambda f: f[0])
    still = float((recent[:, :, -1] - truth).square().mean())
    return law, {"modes": float(count), "ridge": ridge, "over_persistence": round(error / still, 4)}


def left_over(films: Tensor, mean: Mean, block: int = 1, limit: int = 200_000) -> Tensor:
    """What ``mean`` leaves of the next ``block`` frames in ``films`` (N, C, T, *grid): (n, C,
    block, *grid)."""
    parts = windows(films, mean.history + block, limit)
    past, future = parts[:, :, : mean.history], parts[:, :, mean.history :]
    return future - mean.ahead(past, Context(), 1, block)


def left_unseen(
    films: Tensor,
    *,
    modes: int,
    ridge: float,
    order: int = 1,
    block: int = 1,
    folds: int = 5,
    limit: int = 200_000,
) -> Tensor:
    """As `left_over` of the `linear_inverse` fitted without the fold that a frame lies in. Folds
    are whole films, or stretches of a record where there are fewer films than folds."""
    if len(films) < folds:  # the one record cut, with its remainder in no fold
        length = films.shape[2] // folds
        films = torch.cat([films[:, :, k * length : (k + 1) * length] for k in range(folds)])
    parts = films.tensor_split(folds)
    out = []
    for k, part in enumerate(parts):
        rest = torch.cat([p for j, p in enumerate(parts) if j != k])
        law = linear_inverse(rest, modes, order=order, ridge=ridge)
        out.append(left_over(part, Linear(law), block, limit // folds))
    return torch.cat(out)
