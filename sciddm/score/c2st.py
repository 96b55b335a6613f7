r"""Can a classifier tell two sets of draws apart? 0.5 when they are of one law.

A classifier is trained on a part of the draws and asked about the rest, in turn; the share that it
gets right is the score. Under one law it is 1/2 within sqrt(1/(8 n)) for n draws a side, whatever
the classifier, so a score above the ``limit`` in the attrs says that the laws differ. A score below
says that *this* classifier saw nothing.

Here it is a logistic regression with a ridge, on features of the leading principal components of
both sets together: the components and their squares, turned to where the two covariances differ
most (which is all that Gaussian laws can differ by), the size of what the components leave out, and
the share of each set among the nearest neighbours (for everything else).

References:
    Lopez-Paz, Oquab, Revisiting classifier two-sample tests, 2017, arXiv:1610.06545, section 3.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.special import expit, logit

from sciddm.errors import InputError
from sciddm.score.weights import MEMBER, Labelled, each, finish, label, match, where

RIDGE = 1.0
"""Penalty on the squared weights of features of unit variance, beside the sum over draws."""
BLOCK = 512
"""Draws whose distances to all others are held at once."""


def c2st(
    a: Labelled,
    b: Labelled,
    dim: str = MEMBER,
    *,
    components: int = 32,
    neighbours: int = 20,
    folds: int = 5,
    seed: int = 0,
) -> Labelled:
    """Classifier two-sample test: out-of-sample accuracy of telling ``a`` from ``b``; 0.5 when of
    one law.

    Each draw is one point, with all other dims as its coordinates; a Dataset is tested variable by
    variable (join them with ``.to_dataarray()`` to test them together). The two sides count alike
    whatever their numbers of draws. Draws must be independent: members of one case, or one member
    from each of many cases beside the truths (then give the condition as further coordinates, or
    subtract what it predicts; sides of equal length are held out pair by pair).

    Args:
        a, b: ``(dim, *dims)`` on the same points, at least 20 draws each; gaps alike in all.
        dim: Along which the draws lie.
        components: Leading principal components that are looked at one by one, at most as many as a
            tenth of the draws a side.
        neighbours: Nearest neighbours that are asked, at most a quarter of the draws.
        folds: Parts, each held out once.
        seed: Of the parts.

    Returns:
        The accuracy; ``attrs["limit"]`` is what one law exceeds in one of a hundred tests.

    Raises:
        InputError: No such dim, other points, too few draws, values that are not finite, or numbers
            out of range.
    """
    if components < 1 or neighbours < 1 or folds < 2:
        raise InputError(
            f"got {components} components, {neighbours} neighbours and {folds} folds; expected at "
            f"least 1, 1 and 2"
        )

    def score(x: xr.DataArray, y: xr.DataArray) -> xr.DataArray:
        first, second = _points(x, y, dim)
        least = min(len(first), len(second))
        if least < max(20, 2 * folds):
            raise InputError(
                f"c2st of {label(x)}: {len(first)} and {len(second)} draws along {dim!r}; expected "
                f"at least {max(20, 2 * folds)} of each; draw more"
            )
        kept = min(components, max(1, least // 10))
        asked = min(neighbours, max(1, least // 4))
        accuracy = _accuracy(first, second, kept, asked, folds, seed)
        spread = np.sqrt((0.25 / len(first) + 0.25 / len(second)) / 4)
        result = finish(
            xr.DataArray(accuracy, name=x.name),
            f"C2ST, {folds}-fold accuracy of a logistic regression on {kept} components, their "
            f"squares and {asked} neighbours",
            None,
            "1",
        )
        return result.assign_attrs(
            draws=[len(first), len(second)], limit=round(float(0.5 + 2.326 * spread), 4)
        )

    return each(score, a, b)


def _points(a: xr.DataArray, b: xr.DataArray, dim: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws as rows (n, D), float64, of the points that are no gap."""
    for what, field in (("first", a), ("second", b)):
        if dim not in field.dims:
            raise InputError(
                f"the {what} set {label(field)} has dims {tuple(field.dims)}; expected its draws "
                f"along {dim!r}; name the dim with dim="
            )
    one = a.isel({dim: 0}, drop=True)
    free = next(n for n in ("draw", "draw_", "draw__") if n not in a.dims)
    loose = b.drop_vars([n for n, c in b.coords.items() if dim in c.dims]).rename({dim: free})
    _, b = match(one.expand_dims({free: b.sizes[dim]}), loose)
    first = a.transpose(dim, *one.dims).values.reshape(a.sizes[dim], -1).astype(np.float64)
    second = b.transpose(free, *one.dims).values.reshape(b.sizes[free], -1).astype(np.float64)
    both = np.concatenate([first, second])
    gap = np.isnan(both).all(axis=0)
    bad = ~np.isfinite(both[:, ~gap])
    if bad.any() or gap.all():
        spot = where(xr.DataArray(bad, dims=("draw", "point"))) if bad.any() else " everywhere"
        raise InputError(
            f"{label(a)}: draws that are not finite{spot}; expected finite numbers, or NaN at the "
            f"same points of every draw"
        )
    return first[:, ~gap], second[:, ~gap]


def _accuracy(
    first: np.ndarray, second: np.ndarray, components: int, neighbours: int, folds: int, seed: int
) -> float:
    """Balanced share of held-out draws that are told right; a draw on the fence counts half."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 3])))
    parts = [rng.permutation(len(x)) % folds for x in (first, second)]
    if len(first) == len(second):  # what is paired (one condition, two draws) stays together
        parts[1] = parts[0]
    right: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for fold in range(folds):
        train = [x[p != fold] for x, p in zip((first, second), parts, strict=True)]
        held = [x[p == fold] for x, p in zip((first, second), parts, strict=True)]
        space = Space(train[0], train[1], components, neighbours)
        weights = logistic(*(space.features(x, side) for side, x in enumerate(train)))
        for side, x in enumerate(held):
            value = space.features(x) @ weights[1:] + weights[0]
            right[side].append(np.where(value == 0, 0.5, (value > 0) == (side == 1)))
    return float(np.mean([np.concatenate(r).mean() for r in right]))


class Space:
    """Features of draws, fitted to two training sets that count alike."""

    def __init__(self, a: np.ndarray, b: np.ndarray, components: int, neighbours: int) -> None:
        self.centre = 0.5 * (a.mean(0) + b.mean(0))
        both = np.concatenate([(x - self.centre) / np.sqrt(2 * len(x)) for x in (a, b)])
        _, size, rows = np.linalg.svd(both, full_matrices=False)
        keep = size[:components] > 1e-9 * max(size[0], 1e-300)
        self.axes = rows[:components][keep]
        self.map = (self.axes / size[:components][keep, None]).T
        self.sets = [self._white(x) for x in (a, b)]
        gap = np.subtract(*(np.cov(z, rowvar=False).reshape(z.shape[1], -1) for z in self.sets))
        self.turn = np.linalg.eigh(gap)[1]
        self.floor = 1e-9 * float(size[0] ** 2) + 1e-300
        self.neighbours = neighbours
        raw = [self._raw(x, side) for side, x in enumerate((a, b))]
        self.mean = 0.5 * (raw[0].mean(0) + raw[1].mean(0))
        spread = np.sqrt(0.5 * sum(((f - self.mean) ** 2).mean(0) for f in raw))
        self.scale = np.where(spread > 1e-12, spread, 1.0)

    def features(self, x: np.ndarray, side: int | None = None) -> np.ndarray:
        """(n, F), of zero mean and unit variance; ``side`` says that they are that training set."""
        return (self._raw(x, side) - self.mean) / self.scale

    def _white(self, x: np.ndarray) -> np.ndarray:
        white: np.ndarray = (x - self.centre) @ self.map
        return white

    def _raw(self, x: np.ndarray, side: int | None) -> np.ndarray:
        z = self._white(x)
        turned = z @ self.turn
        gap = x - self.centre
        rest = (gap**2).sum(1) - ((gap @ self.axes.T) ** 2).sum(1)
        size = np.stack([(z**2).sum(1), np.log(rest.clip(0) + self.floor)], axis=1)
        return np.hstack([turned, turned**2, size, self._near(z, side)[:, None]])

    def _near(self, z: np.ndarray, side: int | None) -> np.ndarray:
        """Log odds of the second set among the nearest neighbours of each point."""
        known = np.concatenate(self.sets)
        count = [len(s) for s in self.sets]
        square = (known**2).sum(1)
        odds = []
        for start in range(0, len(z), BLOCK):
            block = z[start : start + BLOCK]
            far = square - 2 * block @ known.T
            if side is not None:  # a point is no neighbour of itself
                far[np.arange(len(block)), side * count[0] + start + np.arange(len(block))] = np.inf
            near = np.argpartition(far, self.neighbours - 1, axis=1)[:, : self.neighbours]
            share = ((near >= count[0]).sum(1) + 0.5) / (self.neighbours + 1)
            odds.append(logit(share) - np.log(count[1] / count[0]))
        return np.concatenate(odds)


def logistic(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Weights (1 + F,), the intercept first, of a ridge logistic regression by Newton's method."""
    x = np.hstack([np.ones((len(a) + len(b), 1)), np.concatenate([a, b])])
    sign = np.concatenate([-np.ones(len(a)), np.ones(len(b))])
    count = 0.5 * len(x) / np.concatenate([np.full(len(a), len(a)), np.full(len(b), len(b))])
    penalty = np.full(x.shape[1], RIDGE)
    penalty[0] = 1e-9
    weights = np.zeros(x.shape[1])

    def loss(w: np.ndarray) -> float:
        return float(
            (count * np.logaddexp(0, -sign * (x @ w))).sum() + 0.5 * (penalty * w**2).sum()
        )

    now = loss(weights)
    for _ in range(30):
        p = expit(-sign * (x @ weights))
        slope = penalty * weights - x.T @ (count * sign * p)
        curve = (x.T * (count * p * (1 - p))) @ x + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while (after := loss(weights - size * step)) > now and size > 1e-6:
            size /= 2
        if now - after < 1e-8 * now:
            break
        weights, now = weights - size * step, after
    return weights
