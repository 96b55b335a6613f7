r"""Are generated series like real ones that the generator never saw, or copies of those it did?

    train, held = score.chronological(record, length=48)    # windows, with a gap between
    score.discriminative(generated, train, held)            # 0.5: a classifier sees no difference
    score.predictive(generated, train, held, horizon=12)    # trained on generated, tested on real
    score.nearest_training(generated, train, held)                   # exposes a machine that copies

Windows of one record that overlap are nearly copies of each other: split at random, a test window
has its twin in training, and a machine that hands back its training windows wins every table of
generated series. Here real windows are split by time with a gap, everything that is fitted sees
the first part alone, and the distance to the nearest training window is part of the answer.

References:
    Yoon, Jarrett, van der Schaar, Time-series generative adversarial networks, NeurIPS 2019,
    section 5.1 (the two scores). Kollovieh et al., Predict, refine, synthesize, NeurIPS 2023,
    arXiv:2307.11494, section 4.3 (the linear predictive score).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from sciddm.errors import InputError, nearest
from sciddm.score.c2st import BLOCK, Space, logistic
from sciddm.score.weights import label, match, where

KINDS = ("generated", "train", "held")
LEAST = 20
"""Windows of each kind below which nothing is said."""
SHARE = 0.05
"""Share of held-out windows that lies nearer to training than the limit of `nearest_training`."""
RIDGES = (1e-4, 1e-2, 1.0, 1e2)
"""Candidates, as shares of the mean variance of the inputs."""


def chronological(
    record: xr.DataArray,
    length: int,
    *,
    held: float = 0.3,
    gap: int | None = None,
    stride: int = 1,
    dim: str = "time",
) -> tuple[xr.DataArray, xr.DataArray]:
    """Windows of the earlier and of the later part of a record, with a gap that is in neither.

    Args:
        record: ``(dim, *others)`` in order of time, such as items and channels in ``others``.
        length: Steps in a window.
        held: Share of the steps in the later part.
        gap: Steps left out between the last training window and the first held-out one; a whole
            window by default.
        stride: Steps from one window to the next.
        dim: The dim of time.

    Returns:
        Training and held-out windows, ``(window, step, *others)``, the first step of each in the
        coordinate ``start``. Windows with gaps (NaN) are left out and counted in
        ``attrs["left_out"]``.

    Raises:
        InputError: No such dim, numbers out of range, or a part without a whole window.
    """
    if dim not in record.dims:
        raise InputError(
            f"{label(record)} has dims {tuple(record.dims)}; expected time along {dim!r}."
            f"{nearest(dim, map(str, record.dims))}"
        )
    gap = length if gap is None else gap
    if length < 1 or stride < 1 or gap < 0 or not 0 < held < 1:
        raise InputError(
            f"windows of {length} steps, stride {stride}, gap {gap}, held {held}; expected at "
            f"least 1, 1 and 0, and a share in (0, 1)"
        )
    steps = record.sizes[dim]
    cut = steps - round(held * steps)
    starts = (
        np.arange(0, cut - gap - length + 1, stride),
        np.arange(cut, steps - length + 1, stride),
    )
    if not (starts[0].size and starts[1].size):
        raise InputError(
            f"{label(record)}: {steps} steps, {steps - cut} of them held out after a gap of {gap}, "
            f"have no window of {length} on each side; take shorter windows or a smaller gap"
        )
    early, late = (_cut(record, at, length, dim) for at in starts)
    return early, late


def discriminative(
    generated: xr.DataArray,
    train: xr.DataArray,
    held: xr.DataArray,
    *,
    components: int = 16,
    neighbours: int = 20,
    seed: int = 0,
) -> xr.DataArray:
    """Accuracy of telling generated windows from real ones that are later than all it saw.

    The logistic regression of :func:`sciddm.score.c2st` learns half of the generated windows from
    the training windows, and is asked about the other half and the held-out ones; each kind counts
    one half. 0.5 when of one law. Published tables give the distance to 0.5.

    Args:
        generated, train, held: ``(window, *dims)`` of the same shape without gaps, 40, 20 and 20
            windows at least.
        components, neighbours: As in :func:`sciddm.score.c2st`.
        seed: Of the halves.

    Returns:
        The accuracy; ``attrs["discriminative"]`` is ``|accuracy - 0.5|``, and
        ``attrs["real_later"]`` the same accuracy with held-out windows in place of the generated
        ones that are learned: how far later windows of the truth itself are told from earlier ones.

    Raises:
        InputError: Other shapes, gaps, or too few windows.
    """
    g, t, h = _rows((generated, train, held), least=(2 * LEAST, LEAST, LEAST))
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 4])))
    order = rng.permutation(len(g))
    learned, asked = g[order[: len(g) // 2]], g[order[len(g) // 2 :]]
    accuracy = _told(t, learned, h, asked, components, neighbours)
    half = len(h) // 2
    later = float("nan")
    if half >= LEAST:
        later = _told(t, h[:half], t, h[half:], components, neighbours)
    return xr.DataArray(
        accuracy,
        name="discriminative",
        attrs={
            "estimator": "accuracy of a logistic regression on later windows",
            "discriminative": round(abs(accuracy - 0.5), 6),
            "real_later": round(later, 6),
            "windows": [len(g), len(t), len(h)],
            "units": "1",
        },
    )


def predictive(
    generated: xr.DataArray, train: xr.DataArray, held: xr.DataArray, *, horizon: int
) -> xr.DataArray:
    """Linear predictive score: a ridge regression fitted to generated windows, tested on later
    real ones.

    It forecasts the last ``horizon`` steps of a window from those before; its ridge is chosen on a
    quarter of the windows that it is fitted to. Many generators tie with the truth here: it shows
    that something is badly wrong, not that something is right.

    Args:
        generated, train, held: ``(window, step, *dims)`` as in :func:`discriminative`.
        horizon: Steps forecast.

    Returns:
        ``(fitted_to,)`` for "generated", "real" and "last value": the sum of absolute errors over
        the sum of absolute truths (the weighted quantile loss of a point forecast).

    Raises:
        InputError: As :func:`discriminative`, or a horizon that leaves no step before it.
    """
    steps = generated.sizes.get("step", 0)
    if not 1 <= horizon < steps:
        raise InputError(
            f"horizon is {horizon} of windows of {steps} steps along 'step'; expected from 1 to "
            f"{max(steps - 1, 1)}"
        )
    g, t, h = (
        x.reshape(len(x), steps, -1)
        for x in _rows([w.transpose("window", "step", ...) for w in (generated, train, held)])
    )
    size = np.abs(h[:, -horizon:]).sum()
    errors = [np.abs(_ridge(x, horizon)(h) - _flat(h[:, -horizon:])).sum() for x in (g, t)]
    errors.append(np.abs(h[:, -horizon - 1, None] - h[:, -horizon:]).sum())
    return xr.DataArray(
        np.array(errors) / size,
        dims="fitted_to",
        coords={"fitted_to": ["generated", "real", "last value"]},
        name="predictive",
        attrs={"estimator": f"normalised deviation of a ridge, {horizon} steps", "units": "1"},
    )


def nearest_training(
    generated: xr.DataArray, train: xr.DataArray, held: xr.DataArray
) -> xr.Dataset:
    """Distance of each generated window to its nearest training window, beside held-out windows.

    The distance is the root mean square over a window, in standard deviations of the training
    windows (each of ``dims`` but ``step`` by its own). A generator of the right law comes as near
    as real windows of another time do; one that copies comes nearer.

    Args:
        generated, train, held: ``(window, step, *dims)`` as in :func:`discriminative`.

    Returns:
        ``distance_generated (window)``, ``distance_held (later)``, their medians and ``ratio``;
        where ``train`` comes from :func:`chronological` also ``median_train``, of training windows
        to those that share no step with them (later windows can be far because the times have
        changed, so the nearer of the two is asked); ``nearer``, the share of generated windows
        nearer than the nearest 5 % of the real ones; ``copies``, whether that share is larger than
        chance allows: over 10 % and over 5 % by four standard errors.

    Raises:
        InputError: As :func:`discriminative`.
    """
    windows = [w.transpose("window", "step", ...) for w in (generated, train, held)]
    steps = windows[0].sizes["step"]
    g, t, h = (x.reshape(len(x), steps, -1) for x in _rows(windows))
    spread = t.std((0, 1))
    g, t, h = (_flat(x / np.where(spread > 0, spread, 1.0)) for x in (g, t, h))
    made, real = _distance(g, t), _distance(h, t)
    found = {"median_generated": np.median(made), "median_held": np.median(real)}
    limit = np.quantile(real, SHARE)
    if "start" in train.coords:
        apart = _distance(t, t, train["start"].values, steps)
        if np.isfinite(apart).all():
            found["median_train"] = np.median(apart)
            limit = min(limit, np.quantile(apart, SHARE))
    nearer = float((made < limit).mean())
    chance = SHARE + 4 * np.sqrt(SHARE * (1 - SHARE) * (1 / len(g) + 1 / len(h)))
    least = max(2 * SHARE, float(chance))
    found["ratio"] = found["median_generated"] / found["median_held"]
    result = xr.Dataset(
        {
            "distance_generated": ("window", made),
            "distance_held": ("later", real),
            **{name: float(value) for name, value in found.items()},
            "nearer": nearer,
            "copies": nearer > least,
        },
        attrs={"estimator": "root mean square distance to the nearest training window"},
    )
    result["nearer"].attrs["limit"] = round(least, 4)
    return result


def _cut(record: xr.DataArray, starts: np.ndarray, length: int, dim: str) -> xr.DataArray:
    """The windows that begin at ``starts``, without those that have gaps."""
    index = xr.DataArray(starts[:, None] + np.arange(length), dims=("window", "step"))
    bare = record.drop_vars([n for n, c in record.coords.items() if dim in c.dims])
    windows = bare.isel({dim: index}).transpose("window", "step", ...)
    windows = windows.assign_coords(start=("window", starts))
    whole = windows.notnull().all([d for d in windows.dims if d != "window"]).values
    windows = windows.isel(window=np.flatnonzero(whole))
    if not whole.any():
        raise InputError(
            f"{label(record)}: every window of {length} steps has a gap; fill the gaps first, "
            f"such as with sd.impute"
        )
    return windows.assign_attrs(left_out=int((~whole).sum()))


def _rows(
    windows: Sequence[xr.DataArray], least: tuple[int, int, int] = (LEAST, LEAST, LEAST)
) -> list[np.ndarray]:
    """Generated, training and held-out windows as rows (n, D), float64."""
    rows = []
    train = windows[1]
    one = train.isel(window=0, drop=True) if "window" in train.dims else train
    for what, field, few in zip(KINDS, windows, least, strict=True):
        if "window" not in field.dims or field.sizes["window"] < few:
            raise InputError(
                f"{what} has sizes {dict(field.sizes)}; expected at least {few} along 'window'"
            )
        bare = field.drop_vars([n for n, c in field.coords.items() if "window" in c.dims])
        like = one.expand_dims(window=field.sizes["window"])
        _, bare = match(like, bare)
        x = bare.transpose("window", *one.dims).values.reshape(field.sizes["window"], -1)
        bad = ~np.isfinite(x.astype(np.float64))
        if bad.any():
            spot = where(xr.DataArray(bad, dims=("window", "value")))
            raise InputError(f"{what} is not finite{spot}; expected windows without gaps")
        rows.append(x.astype(np.float64))
    return rows


def _told(
    a: np.ndarray, b: np.ndarray, held_a: np.ndarray, held_b: np.ndarray, components: int, near: int
) -> float:
    """Balanced share of held-out rows that a classifier of a and b tells right."""
    few = min(len(a), len(b))
    space = Space(a, b, min(components, max(1, few // 10)), min(near, max(1, few // 4)))
    weights = logistic(space.features(a, 0), space.features(b, 1))
    right = []
    for side, x in enumerate((held_a, held_b)):
        value = space.features(x) @ weights[1:] + weights[0]
        right.append(np.where(value == 0, 0.5, (value > 0) == (side == 1)).mean())
    return float(np.mean(right))


def _ridge(windows: np.ndarray, horizon: int) -> Callable[[np.ndarray], np.ndarray]:
    """The last steps of windows (n, L, C) from those before; the ridge by the last quarter."""
    x, y = _flat(windows[:, :-horizon]), _flat(windows[:, -horizon:])
    early = len(x) - max(1, len(x) // 4)

    def fit(n: int, ridge: float) -> Callable[[np.ndarray], np.ndarray]:
        mean, level = x[:n].mean(0), y[:n].mean(0)
        gap = x[:n] - mean
        size = ridge * max(float((gap**2).mean()), 1e-300) * n
        weights = np.linalg.solve(gap.T @ gap + size * np.eye(x.shape[1]), gap.T @ (y[:n] - level))
        return lambda past: (past - mean) @ weights + level

    errors = [np.abs(fit(early, r)(x[early:]) - y[early:]).sum() for r in RIDGES]
    best = fit(len(x), RIDGES[int(np.argmin(errors))])
    return lambda w: best(_flat(w[:, :-horizon]))


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1)


def _distance(
    x: np.ndarray, known: np.ndarray, start: np.ndarray | None = None, steps: int = 0
) -> np.ndarray:
    """Root mean square distance of each row to the nearest of ``known``; where both are windows
    that begin at ``start``, of those that share no step with it (infinite where there is none)."""
    square = (known**2).sum(1)
    found = []
    for first in range(0, len(x), BLOCK):
        block = x[first : first + BLOCK]
        far = (block**2).sum(1)[:, None] + square - 2 * block @ known.T
        if start is not None:
            far[np.abs(start[first : first + BLOCK, None] - start) < steps] = np.inf
        at = far.argmin(1)
        near = ((block - known[at]) ** 2).mean(1)
        found.append(np.where(np.isfinite(far[np.arange(len(block)), at]), near, np.inf))
    return np.sqrt(np.concatenate(found))
