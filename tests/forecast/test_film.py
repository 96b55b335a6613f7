"""Forecasts from a prior over films against the exact conditional law, without Monte Carlo.

With a Gaussian prior and a deterministic solver a forecast is an affine function of the noise it
draws, so its whole law is known from its images of zero and of unit draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sciddm
from sciddm.basis import Periodic
from sciddm.covariance import LowRank, PowerLaw
from sciddm.data.codec import Grid, Normaliser
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.errors import InputError
from sciddm.forecasters import Boundary, Film, Forecaster
from sciddm.guide import Pinned
from sciddm.nn import FilmNet, Subbands
from sciddm.observe import Observation, points
from sciddm.observe.noise import StudentT
from sciddm.pde import StochasticHeat
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.spacetime import SpaceTime, markov
from sciddm.wavelet import DWT

DOUBLE = torch.float64
POINTS = 6
HEAT = StochasticHeat(2 * math.pi, 0.03, 0.2, 0.6, PowerLaw(1.0, 3.0, 8.0))
PROCESS = VE(clock=LogLinear(0.005, 2000.0))
PAST = torch.tensor([1.0, 0.4, -0.7, -0.2, 0.9, 1.3], dtype=DOUBLE).view(1, 1, 1, POINTS)


def law(frames: int) -> SpaceTime:
    step, noise = HEAT.transition(POINTS, 1.0)
    parts = (v[:, None, None].to(torch.complex128) for v in (HEAT.stationary(POINTS), step, noise))
    return markov(*parts, frames, (POINTS,), Periodic())


def gaussian(frames: int, mean: float = 0.0, wide: float = 1.0) -> Gaussian:
    prior = law(frames)
    assert prior.imag is not None
    prior = replace(prior, real=wide * prior.real, imag=wide * prior.imag)
    return Gaussian(torch.tensor(mean, dtype=DOUBLE), prior, PROCESS)


def maps() -> tuple[Tensor, Tensor]:
    """One step as a matrix on points, and the covariance of its noise."""
    step, noise = HEAT.transition(POINTS, 1.0)
    unit = torch.eye(POINTS, dtype=DOUBLE)

    def on_points(factor: Tensor) -> Tensor:
        rows = torch.fft.irfft(factor * torch.fft.rfft(unit, norm="ortho"), POINTS, norm="ortho")
        return rows.T

    return on_points(step), on_points(noise.to(torch.complex128))


@dataclass
class Unit:
    """Noise whose row i is the i-th unit vector of all that is drawn, in the order it is drawn."""

    book: dict[str, tuple[int, int]] = field(default_factory=dict)
    total: int = 0
    purpose: str = "draw"
    step: int = 0
    scope: str = ""
    live: bool = True

    def at(self, purpose: str, step: int = 0) -> Unit:
        return self._like(purpose=purpose, step=step)

    def inside(self, name: str, number: int = 0) -> Unit:
        return self._like(scope=f"{self.scope}{name} {number}/")

    def _like(self, **changes: object) -> Unit:
        other = replace(self, **changes)  # type: ignore[arg-type]
        other.__dict__["home"] = self.__dict__.get("home", self)
        return other

    def normal(self, like: Tensor) -> Tensor:
        home: Unit = self.__dict__.get("home", self)
        key, size = f"{self.scope}{self.purpose} {self.step}", like[0].numel()
        if key not in home.book:
            home.book[key] = home.total, size
            home.total += size
        out = torch.zeros(len(like), size, dtype=like.dtype)
        if home.live:
            first = home.book[key][0]
            count = max(0, min(size, len(like) - first))
            out[first : first + count, :count] = torch.eye(count, dtype=like.dtype)
        return out.view_as(like)


def law_of(forecaster: Forecaster, frames: int, past: Tensor = PAST) -> tuple[Tensor, Tensor]:
    """Mean (frames, POINTS) and covariance of what the forecaster draws."""
    noise = Unit(live=False)
    mean = forecaster((1, 1, frames, POINTS), Context(past=past), noise)  # type: ignore[arg-type]
    noise.live = True
    shape = (noise.total, 1, frames, POINTS)
    many = past.expand(noise.total, *past.shape[1:])
    moved = forecaster(shape, Context(past=many), noise) - mean  # type: ignore[arg-type]
    rows = moved.flatten(1).double()
    return mean[0, 0].double(), rows.T @ rows


def forecast_law(frames: int, past: Tensor = PAST) -> tuple[Tensor, Tensor]:
    """The exact law of what follows, step by step."""
    step, noise = maps()
    means, blocks = [past[0, 0, -1]], [torch.zeros(POINTS, POINTS, dtype=DOUBLE)]
    for _ in range(frames):
        means.append(step @ means[-1])
        blocks.append(step @ blocks[-1] @ step.T + noise)
    full = torch.zeros(frames * POINTS, frames * POINTS, dtype=DOUBLE)
    for t in range(frames):
        for s in range(t + 1):
            part = torch.linalg.matrix_power(step, t - s) @ blocks[s + 1]
            rows, columns = slice(t * POINTS, (t + 1) * POINTS), slice(s * POINTS, (s + 1) * POINTS)
            full[rows, columns], full[columns, rows] = part, part.T
    return torch.stack(means[1:]), full


SEEN = ((1, 2.0), (1, 4.5), (3, 0.25))
VALUES, ERROR = torch.tensor([0.8, -0.4, 0.3], dtype=DOUBLE), 0.2


def observation(frames: int) -> Observation:
    """Values at (frame counted from 0, point), between the points too."""
    where = torch.tensor(SEEN, dtype=DOUBLE)
    see = points([0] * len(SEEN), where, (frames, POINTS), (False, True))
    return Observation(VALUES, see, torch.tensor(ERROR**2, dtype=DOUBLE))


def smoother(frames: int) -> tuple[Tensor, list[Tensor]]:
    """Means (frames, POINTS) and covariances of each frame by Rauch, Tung and Striebel."""
    step, noise = maps()
    mean, cov = PAST[0, 0, 0], torch.zeros(POINTS, POINTS, dtype=DOUBLE)
    ahead, filtered = [], []
    for n in range(frames):
        mean, cov = step @ mean, step @ cov @ step.T + noise
        ahead.append((mean, cov))
        for (frame, place), y in zip(SEEN, VALUES, strict=True):
            if frame == n:
                row = torch.zeros(POINTS, dtype=DOUBLE)
                share = place - math.floor(place)
                row[math.floor(place)], row[(math.floor(place) + 1) % POINTS] = 1 - share, share
                gain = cov @ row / (row @ cov @ row + ERROR**2)
                mean, cov = mean + gain * (y - row @ mean), cov - torch.outer(gain, row @ cov)
        filtered.append((mean, cov))
    smooth = [filtered[-1]]
    for n in range(frames - 2, -1, -1):
        back = filtered[n][1] @ step.T @ torch.linalg.inv(ahead[n + 1][1])
        mean = filtered[n][0] + back @ (smooth[0][0] - ahead[n + 1][0])
        cov = filtered[n][1] + back @ (smooth[0][1] - ahead[n + 1][1]) @ back.T
        smooth.insert(0, (mean, cov))
    return torch.stack([m for m, _ in smooth]), [c for _, c in smooth]


def distance(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Largest error of a mean in s.d., and of any covariance in units of the two s.d."""
    std = exact[1].diagonal().sqrt()
    mean = ((found[0] - exact[0]).flatten() / std).abs().max()
    cov = ((found[1] - exact[1]) / torch.outer(std, std)).abs().max()
    return float(mean), float(cov)


def eofs(frames: int) -> Gaussian:
    """The same law as a sum of EOFs, which knows nothing of space and time."""
    size = frames * POINTS
    full = law(frames)(torch.eye(size, dtype=DOUBLE).view(size, 1, frames, POINTS)).flatten(1)
    values, vectors = torch.linalg.eigh(full)
    modes = vectors.T.reshape(size, 1, frames, POINTS)
    return Gaussian(torch.zeros((), dtype=DOUBLE), LowRank(modes, values), PROCESS)


@pytest.mark.parametrize("prior", [gaussian, eofs])
def test_given_the_past_the_draws_have_the_law_of_the_forecast(
    prior: Callable[[int], Gaussian],
) -> None:
    film = Film(prior(4), length=4, steps=200)
    mean, cov = distance(law_of(film, 3), forecast_law(3))
    assert mean < 2e-3 and cov < 5e-3


def test_block_after_block_is_one_forecast() -> None:
    film = Film(gaussian(3), length=3, steps=200)
    mean, cov = distance(law_of(film, 5), forecast_law(5))
    assert mean < 2e-3 and cov < 5e-3


@pytest.mark.parametrize("prior", [gaussian, eofs])
def test_with_values_on_the_way_the_draws_have_the_law_of_the_smoother(
    prior: Callable[[int], Gaussian],
) -> None:
    mean, covs = smoother(5)
    guided = Film(prior(6), length=6, steps=200).given(observation(5), 5)
    found = law_of(guided, 5)
    whole = torch.block_diag(*covs)
    inside = whole != 0
    near, wide = distance((found[0], found[1] * inside), (mean, whole))
    assert near < 2e-3 and wide < 5e-3
    free, _ = forecast_law(5)
    assert float((free - mean).abs().max()) > 0.3  # the values do say something


def test_a_film_longer_than_the_block_is_the_smoother_too() -> None:
    """Blocks of three: the Gaussian is made longer, windows of a network are composed."""
    mean, covs = smoother(5)
    base = gaussian(3)
    silent = Preconditioned(_Zero(), PROCESS, base)
    for denoiser in (base, silent):
        guided = Film(denoiser, length=3, steps=200).given(observation(5), 5)
        found = law_of(guided, 5)
        whole = torch.block_diag(*covs)
        near, wide = distance((found[0], found[1] * (whole != 0)), (mean, whole))
        assert near < 2e-3 and wide < 5e-3
    assert guided.evaluations == 200 * 4 / 5


class _Zero(nn.Module):
    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        return torch.zeros_like(x[:, :1])


@pytest.mark.parametrize(
    ("mean", "wide", "least"), [(0.0, 0.8, 0.1), (0.0, 1.25, 0.1), (0.5, 1.0, 0.05)]
)
def test_a_prior_that_is_wrong_is_seen(mean: float, wide: float, least: float) -> None:
    found = law_of(Film(gaussian(4, mean, wide), length=4, steps=60), 3)
    assert max(distance(found, forecast_law(3))) > least


def test_the_order_of_steps_is_that_of_the_solver() -> None:
    errors = [
        distance(law_of(Film(gaussian(4), 4, steps=n), 3), forecast_law(3))[1]
        for n in (30, 60, 120)
    ]
    assert errors[0] > 2.5 * errors[1] > 5 * errors[2]


def test_pinned_frames_are_the_rows_of_an_observation() -> None:
    """The closed form by modes against one row for every value of the past."""
    x = law(4).sample(torch.zeros(3, 1, 4, POINTS, dtype=DOUBLE), Streams.of(3, 3))
    t = PROCESS.clock.time(torch.tensor(0.7, dtype=DOUBLE))
    base = gaussian(4)
    pinned = Pinned(base, base, history=1, error=0.1)
    past = PAST.expand(3, 1, 1, POINTS)
    unit = torch.eye(4 * POINTS, dtype=DOUBLE).view(-1, 1, 4, POINTS)
    v = base.covariance(t)(unit).flatten(1)
    a = unit.flatten(1)[:POINTS]
    gain = v @ a.T @ torch.linalg.inv(a @ v @ a.T + 0.01 * torch.eye(POINTS, dtype=DOUBLE))
    x_hat = base(x, t, Context()).flatten(1)
    want = x_hat + (PAST.flatten() - x_hat[:, :POINTS]) @ gain.T
    found = pinned(x, t, Context(past=past)).flatten(1)
    torch.testing.assert_close(found, want)
    left = pinned.covariance(t)(unit).flatten(1)
    torch.testing.assert_close(left, v - gain @ a @ v)
    root = pinned.fluctuation(t, unit, Unit())  # type: ignore[arg-type]
    rows = root.flatten(1)
    torch.testing.assert_close(rows.T @ rows, left, atol=1e-9, rtol=1e-6)


def test_errors_that_are_not_gaussian_pass_through() -> None:
    seen = observation(5)
    robust = Observation(VALUES[:2], points([0, 0], torch.tensor([[1.0, 2.0], [1.0, 4.5]]),
                         (3, POINTS), (False, True)), StudentT(torch.tensor(0.2), 4.0))  # fmt: skip
    film = Film(gaussian(4), length=4, steps=20)
    for known in (robust, replace_values(seen)):
        x = film.given(known, 3)((4, 1, 3, POINTS), _context(4), Streams.of(0, 4))
        assert bool(torch.isfinite(x).all())


def replace_values(seen: Observation) -> Observation:
    """Values of its own for every member."""
    y = VALUES + torch.arange(4, dtype=DOUBLE)[:, None]
    where = torch.tensor([[0, 2.0], [1, 4.5], [2, 0.25]], dtype=DOUBLE)
    return Observation(y, points([0] * 3, where, (3, POINTS), (False, True)), seen.law)


def _context(rows: int) -> Context:
    return Context(past=PAST.float().expand(rows, 1, 1, POINTS))


def test_a_member_is_the_same_in_any_batch_and_for_any_number_of_frames() -> None:
    film = Film(gaussian(4), length=4, steps=12)
    many = film((5, 1, 7, POINTS), _context(5), Streams.of(2, 5))
    few = film((2, 1, 4, POINTS), _context(2), Streams.of(2, [1, 3]))
    torch.testing.assert_close(few, many[[1, 3], :, :4])
    assert not torch.allclose(many[:, :, :3], many[:, :, 3:6])  # blocks have noise of their own


def test_the_boundary_holds_in_every_frame_and_the_next_block_sees_it() -> None:
    mask = torch.zeros(1, POINTS, dtype=torch.bool)
    mask[0, 0] = True
    film = Film(
        gaussian(3), length=3, steps=12, boundary=Boundary(mask, torch.full((1, POINTS), 9.0))
    )
    x = film((3, 1, 5, POINTS), _context(3), Streams.of(0, 3))
    assert bool((x[..., 0] == 9).all()) and bool((x[..., 3] < 9).all())
    free = Film(gaussian(3), length=3, steps=12)((3, 1, 5, POINTS), _context(3), Streams.of(0, 3))
    torch.testing.assert_close(x[:, :, :2, 1:], free[:, :, :2, 1:])
    assert bool((x[:, :, 2, 1] > free[:, :, 2, 1] + 1).all())


class _Sees(nn.Module):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.seen: list[Context] = []

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        self.seen.append(context)
        return torch.zeros_like(x[:, :1])


def test_the_network_sees_the_forcings_of_its_own_frames() -> None:
    eye = _Sees()
    film = Film(Preconditioned(eye, PROCESS, gaussian(3)), length=3, steps=3, stride=2)
    known = torch.arange(7.0).view(1, 1, 7, 1)
    still = torch.ones(1, 2, POINTS)
    context = replace(_context(2), forcings=known, fields=still)
    film((2, 1, 4, POINTS), context, Streams.of(0, 2))
    shown = [c.forcings.flatten().tolist() for c in eye.seen if c.forcings is not None]
    assert shown == [[0, 1, 2]] * 3 + [[2, 3, 4]] * 3
    assert eye.seen[0].fields is still
    eye.seen.clear()
    film.given(observation(5), 5)((2, 1, 5, POINTS), context, Streams.of(0, 2))
    first = eye.seen[0].forcings  # windows 0-2, 2-4 and 3-5 of both members
    assert first is not None and first[:3, 0, :, 0].tolist() == [[0, 1, 2], [2, 3, 4], [3, 4, 5]]


def test_the_loss_is_the_error_beside_the_gaussian_and_depends_on_its_address() -> None:
    base = gaussian(4)
    film = Film(Preconditioned(_Zero(), PROCESS, base), length=4)
    x = HEAT.films(400, POINTS, 4, 1.0).float()[:, None]
    rng = Streams.of(0, 400).inside("training step", 3)
    first = film.loss(x, Context(), rng, 0.0)
    torch.testing.assert_close(first, film.loss(x, Context(), rng, 0.0))
    assert abs(float(first.mean()) - 1) < 0.05  # the base itself scores 1
    other = film.loss(x, Context(), Streams.of(0, 400).inside("training step", 4), 0.0)
    assert not torch.allclose(first, other)


def test_what_cannot_be_forecast_is_refused() -> None:
    with pytest.raises(InputError, match="past in a block"):
        Film(gaussian(3), length=3, history=3)
    with pytest.raises(InputError, match="without a Gaussian"):
        Film(Preconditioned(_Zero(), PROCESS), length=3)
    with pytest.raises(InputError, match="observed together"):
        Film(eofs(3), length=3).given(observation(5), 5)
    with pytest.raises(InputError, match="expected no more"):
        film = Film(gaussian(3), length=3).given(observation(5), 5)
        film((1, 1, 6, POINTS), _context(1), Streams.of(0, 1))
    with pytest.raises(InputError, match="nothing to train"):
        Film(gaussian(3), length=3).loss(
            torch.zeros(1, 1, 3, POINTS), Context(), Streams.of(0, 1), 0
        )
    with pytest.raises(InputError, match="are known"):
        base = gaussian(3)
        Pinned(base, base, 1)(torch.zeros(1, 1, 3, POINTS), torch.tensor(0.5), Context())


class _Reads(Denoiser):
    """The Gaussian of films, told in the coefficients of an orthonormal transform."""

    def __init__(self, transform: DWT, base: Gaussian) -> None:
        nn.Module.__init__(self)
        self.transform, self.base, self.process = transform, base, PROCESS
        assert isinstance(base.prior, SpaceTime)
        size = base.prior.frames * POINTS
        unit = torch.eye(size, dtype=DOUBLE).view(size, 1, -1, POINTS)
        self.turn = transform.forward(unit).flatten(1)
        self.cov = self.turn.T @ base.prior(unit).flatten(1) @ self.turn

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        noise = PROCESS.kappa(t) ** 2 * torch.eye(len(self.cov), dtype=DOUBLE)
        c = x_t.flatten(1).double() @ self.turn
        kept = torch.linalg.solve(self.cov + noise, self.cov)
        return (c @ kept @ self.turn.T).view_as(x_t).to(x_t)


def test_the_law_is_the_same_in_wavelets_of_space_and_time() -> None:
    """An orthonormal transform keeps white noise white: the denoiser of the coefficients is that of
    the film, and so are the draws."""
    transform, base = DWT("sym4", (False, True), 1), gaussian(4)
    inside = _Reads(transform, base)
    gap = float(
        (inside.cov - torch.linalg.inv(inside.turn) @ torch.linalg.inv(inside.turn).T).abs().max()
    )
    assert gap > 0.1  # the coefficients are not white
    torch.testing.assert_close(inside.turn @ inside.turn.T, torch.eye(24, dtype=DOUBLE))
    x, t = (
        base.sample(torch.zeros(2, 1, 4, POINTS, dtype=DOUBLE), Streams.of(0, 2)),
        torch.tensor(0.4),
    )
    torch.testing.assert_close(inside(x, t, Context()), base(x, t, Context()))
    rng = Streams.of(0, 2)
    plain = Film(base, 4, steps=12)((2, 1, 3, POINTS), _context(2), rng)
    waves = Film(inside, 4, law=base, steps=12)((2, 1, 3, POINTS), _context(2), rng)
    torch.testing.assert_close(waves, plain, atol=1e-4, rtol=1e-4)


def test_subbands_are_the_inner_network_between_the_transform_and_its_inverse() -> None:
    class Double(nn.Module):
        def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
            assert x.shape == (2, 4, 2, 3)
            return torch.cat([2 * x[:, :1], x[:, 1:]], dim=1)

    x = torch.randn(2, 1, 4, POINTS, generator=torch.manual_seed(0))
    transform = DWT("haar", (False, True), 1)
    means = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    smooth = means.repeat_interleave(2, 2).repeat_interleave(2, 3)
    found = Subbands(Double(), transform)(x, torch.zeros(()), Context())
    torch.testing.assert_close(found, x + smooth)
    with pytest.raises(InputError, match="not orthonormal"):
        Subbands(Double(), DWT("bior2.4", (False, True)))
    with pytest.raises(InputError, match="expected none"):
        Subbands(Double(), transform)(x, torch.zeros(()), Context(fields=x))


def _saved(tmp_path: Path, levels: int) -> Iterator[Film]:
    base = gaussian(4)
    torch.manual_seed(0)
    net: nn.Module = FilmNet(2 * 4**levels, 4**levels, (3,), (4,), 1, periodic=True, causal=False)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.1)
    if levels:
        net = Subbands(net, DWT("haar", (False, True), levels))
    film = Film(Preconditioned(net, PROCESS, base), 4, steps=5)
    grid = Grid(("x",), {"x": np.arange(POINTS) / POINTS}, {"x": {"period": 1.0}})
    codec = Normaliser(grid, ("u",), {"u": {}}, np.zeros((1, 1)), np.ones(1))
    task = sciddm.Task(sciddm.View(("u",)), lead=sciddm.task.Lead())
    sciddm.Model(task, codec, film).save(tmp_path / "m")
    again = sciddm.load(tmp_path / "m").forecaster
    assert isinstance(again, Film)
    yield film
    yield again


@pytest.mark.parametrize("levels", [0, 1])
def test_a_saved_film_draws_the_same(tmp_path: Path, levels: int) -> None:
    first, again = (
        film((2, 1, 3, POINTS), _context(2), Streams.of(0, 2)) for film in _saved(tmp_path, levels)
    )
    torch.testing.assert_close(first, again)
