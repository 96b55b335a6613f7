"""Rolling diffusion: the clock that shifts, and its law against a process whose law is known.

The truth is an AR(1) at every grid point, x_k = a x_{k-1} + N(0, 1 - a^2); the network is replaced
by the exact answer for the innovations of a window given the past, e_k = (x_k - m x_{k-1}) / scale,
under noise that is an AR(1) of correlation r over the frames.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from sciddm.covariance import Matern, Spectral, TimeCorrelated, White
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.forecasters import Boundary, Damped, Emphasis, Persistence, Rolling
from sciddm.model import CLASSES
from sciddm.nn import FilmNet
from sciddm.process import VE, VP, CosineAlpha, EvenPower
from sciddm.random import Streams
from sciddm.solve import Adams, Euler, Heun, InTime, RotationForm, Solver, trajectory
from sciddm.tree import Encoder, decode

DOUBLE = torch.float64
A = 0.9
SCALE = math.sqrt(1 - A * A)


class Exact(nn.Module):
    """The network's answer where the film is the AR(1) above; ``causal`` forgets later frames."""

    def __init__(self, width: int, m: float, r: float, causal: bool) -> None:
        nn.Module.__init__(self)
        self.width, self.m, self.r, self.causal = width, m, r, causal
        at = torch.arange(width, dtype=DOUBLE)
        follow = torch.tril(A ** (at[:, None] - at))
        innovation = torch.eye(width, dtype=DOUBLE) - m * torch.diag(at.new_ones(width - 1), -1)
        to_e = innovation @ follow  # of unit innovations of the truth
        self.cov = to_e @ to_e.T
        mean = innovation @ A ** (at + 1)
        mean[0] -= m
        self.mean = mean / SCALE
        self.noise = r ** (at[:, None] - at).abs()

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        kappa = log_kappa.exp().reshape(len(log_kappa), self.width)
        u = x[:, 0] * torch.sqrt(1 + kappa**2)[:, :, None]
        mean = self.mean[:, None] * x[:, 1, :1]  # what was before the first frame is known
        seen = self.cov + kappa[:, :, None] * self.noise * kappa[:, None]
        gain = self.cov @ torch.linalg.inv(seen)
        if self.causal:
            for i in range(self.width):
                known = torch.linalg.inv(seen[:, : i + 1, : i + 1])
                gain[:, i] = 0
                gain[:, i, : i + 1] = self.cov[i, : i + 1] @ known
        e_hat = mean + gain @ (u - mean)
        base = u / (1 + kappa**2)[:, :, None]
        return ((e_hat - base) / (kappa * torch.rsqrt(1 + kappa**2))[:, :, None])[:, None]


def rolling(
    m: float = 1.0,
    r: float = 0.0,
    width: int = 4,
    steps: int = 2,
    solver: Solver | None = None,
    causal: bool = False,
) -> Rolling:
    return Rolling(
        Exact(width, m, r, causal),
        VP(clock=CosineAlpha()),
        Damped(torch.tensor(m, dtype=DOUBLE)),
        torch.tensor(SCALE, dtype=DOUBLE),
        width,
        correlation=r,
        steps=steps,
        solver=solver,
    )


def films(model: Rolling, frames: int, members: int = 300, points: int = 40) -> Tensor:
    """(members * points, frames), every one from a past of 1."""
    past = torch.ones(members, 1, 1, points, dtype=DOUBLE)
    out = model((members, 1, frames, points), Context(past=past), Streams.of(0, members))
    return out[:, 0].movedim(1, 2).flatten(0, 1)


def truth(frames: int) -> tuple[Tensor, Tensor]:
    """Mean (frames,) and covariance (frames, frames) of the AR(1) from 1."""
    n = torch.arange(1, frames + 1, dtype=DOUBLE)
    gap = (n[:, None] - n).abs()
    return A**n, A**gap * (1 - A ** (2 * torch.minimum(n[:, None], n)))


def law_gap(x: Tensor) -> float:
    """The largest gap of mean and covariance from the truth, in s.d. of the truth."""
    mean, cov = truth(x.shape[1])
    std = cov.diagonal().sqrt()
    gaps = torch.cat(
        [(x.mean(0) - mean) / std, ((torch.cov(x.T) - cov) / torch.outer(std, std)).flatten()]
    )
    return float(gaps.abs().max())


# ------------------------------------------------------------------------------------ the clock


@pytest.mark.parametrize("width", [2, 3, 6])
def test_after_a_unit_every_frame_stands_where_the_one_before_it_stood(width: int) -> None:
    model = rolling(width=width)
    process = model.denoiser(1).process
    clock = model.process.clock

    def level(units: float) -> Tensor:
        return process.kappa(torch.tensor(units * model.unit, dtype=DOUBLE)).flatten()

    for share in (0.0, 0.3, 0.75):
        now, before = level(width - 1 + share), level(width + share)
        assert torch.allclose(now[1:].log(), before[:-1].log(), atol=1e-9)
        place = (torch.arange(width) + share) / width
        assert torch.allclose(now.log(), clock.kappa(place.double()).log(), atol=1e-9)
    low, high = clock.ends()
    ends = torch.stack([level(width - 1)[0], level(width)[-1]])
    assert torch.allclose(ends, torch.tensor([low, high], dtype=DOUBLE), rtol=1e-9)
    assert torch.allclose(level(2 * width - 1), torch.full((width,), high, dtype=DOUBLE), rtol=1e-9)
    # at the start a frame moves once the window has come to it
    units = torch.linspace(width - 1, 2 * width - 1, 40, dtype=DOUBLE)
    local = ((units[:, None] - (width - 1) + torch.arange(width)) / width).clamp(0, 1)
    found = torch.stack([level(float(u)) for u in units])
    assert torch.allclose(found.log(), clock.kappa(local).log(), atol=1e-9)


def test_a_power_clock_is_even_in_that_power() -> None:
    t = torch.linspace(0, 1, 7, dtype=DOUBLE)
    for rho in (7.0, -10.0, 1.0):
        clock = EvenPower(0.002, 500.0, rho)
        values = clock.kappa(t) ** (1 / rho)
        assert torch.allclose(values.diff(), values.diff()[:1].expand(6), rtol=1e-9)
        assert torch.allclose(clock.time(clock.kappa(t)), t, atol=1e-9)
        assert clock.ends() == pytest.approx((0.002, 500.0))
    assert EvenPower(rho=-10.0).kappa(t)[3] < EvenPower(rho=7.0).kappa(t)[3]
    for bad in ((0.0, 1.0, 7.0), (1.0, 0.5, 7.0), (0.1, 1.0, 0.0)):
        with pytest.raises(InputError, match="kappa_min"):
            EvenPower(*bad)


# ------------------------------------------------------------------------------------- the law


@pytest.mark.parametrize(("m", "r"), [(1.0, 0.0), (0.0, 0.0), (A, 0.6)], ids=str)
def test_frames_are_draws_of_the_exact_law(m: float, r: float) -> None:
    """Mean and covariance of 12 frames, across starts and shifts, within the error of 12,000."""
    assert law_gap(films(rolling(m, r, steps=8), 12)) < 5 / math.sqrt(12_000)


def test_the_law_comes_with_the_second_order_of_the_solver() -> None:
    """The same noise on every grid, so that differences are those of the steps alone."""

    def drawn(steps: int) -> Tensor:
        return films(rolling(0.0, steps=steps, solver=Heun(RotationForm(), InTime())), 8, 20, 5)

    draws = [drawn(n) for n in (3, 6, 12, 24)]
    gaps = [float((a - b).abs().mean()) for a, b in zip(draws, draws[1:], strict=False)]
    orders = [math.log2(a / b) for a, b in zip(gaps, gaps[1:], strict=False)]
    assert orders[-1] == pytest.approx(2.0, abs=0.15), orders


def test_every_frame_takes_the_path_that_it_would_take_alone() -> None:
    """Where frames are independent, what the solver remembers goes on over starts and shifts."""
    variance, width, steps, count = 0.3, 4, 1, 9

    class Alone(nn.Module):
        def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
            kappa = log_kappa.exp()
            u = x[:, :1] * torch.sqrt(1 + kappa**2)
            gap = variance * u / (variance + kappa**2) - u / (1 + kappa**2)
            return gap / (kappa * torch.rsqrt(1 + kappa**2))

    process, zero = VP(clock=CosineAlpha()), torch.zeros((), dtype=DOUBLE)
    model = Rolling(Alone(), process, Damped(zero), width=width, steps=steps)
    past = torch.zeros(2, 1, 1, 5, dtype=DOUBLE)
    rng = Streams.of(0, 2)
    film = model((2, 1, count, 5), Context(past=past), rng)
    law = Gaussian(zero, White(variance**0.5), process)
    times = torch.linspace(1, 0, width * steps + 1, dtype=DOUBLE)
    for n in range(count):
        z = rng.inside("frame", n + 1).at("enter").normal(past[:, :, 0])
        x = process.coefficients(times[0])[2] * z
        *_, last, _ = trajectory(law, x, times, Context(), model.solver)
        alone = process.centred(last, times[-1])
        assert torch.allclose(film[:, :, n], alone, atol=1e-9), n


def test_where_the_innovations_have_the_law_of_the_noise_one_evaluation_is_exact() -> None:
    """With the mean of the truth there is nothing to correct: any solver, any number of steps."""
    one = films(rolling(A, steps=1), 6, 20, 5)
    assert torch.allclose(one, films(rolling(A, steps=7), 6, 20, 5), atol=2e-3)
    assert rolling(A, steps=1).evaluations == 1
    assert rolling(A, steps=2, solver=Heun()).evaluations == 4


def test_an_answer_that_forgets_later_frames_has_another_law() -> None:
    """A causal answer misses what noisier frames tell of a frame: its spread stays too small."""
    x = films(rolling(0.0, steps=8, causal=True), 12)
    spread = (x.var(0) / truth(12)[1].diagonal()).sqrt()
    assert 0.8 < float(spread[-1]) < 0.95
    assert float(spread[0]) == pytest.approx(1.0, abs=0.02)


# --------------------------------------------------------------------------------- the noise


def test_noise_over_frames_is_the_stated_law_and_goes_on_over_the_shift() -> None:
    space, r = Spectral(Matern(0.3), (1.0,)), 0.7
    noise = TimeCorrelated(space, r)
    w = torch.eye(3 * 8, dtype=DOUBLE).view(24, 1, 3, 8)
    at = torch.arange(3, dtype=DOUBLE)
    frame = space(torch.eye(8, dtype=DOUBLE)[:, None])[:, 0]
    wanted = torch.kron(r ** (at[:, None] - at).abs(), frame)
    assert torch.allclose(noise(w).flatten(1), wanted, atol=1e-12)
    root = noise.sqrt(w).flatten(1)
    assert torch.allclose(root.T @ root, wanted, atol=1e-12)
    whole = noise.joint(w, White(0.5), lambda p, c: 1 / (p + c)).flatten(1)
    direct = torch.linalg.inv(wanted + 0.25 * torch.eye(24, dtype=DOUBLE))
    assert torch.allclose(whole, direct, atol=1e-9)
    assert float(noise.average(w[:1], White(), lambda p, c: p)) == pytest.approx(
        float(wanted.diagonal().mean())
    )
    assert torch.allclose(noise.diagonal(w[:1]).flatten(), wanted.diagonal())
    with pytest.raises(InputError, match="correlation"):
        TimeCorrelated(space, 1.0)


def test_the_frame_that_enters_follows_the_noise_of_the_last_one() -> None:
    """For innovations of the law of the noise: Cov(entering z, state of each frame) is exact."""
    r, width, members = 0.7, 3, 4000
    model = rolling(A, r, width=width)
    denoiser = model.denoiser(1)
    past = torch.ones(members, 1, 1, 10, dtype=DOUBLE)
    now = Context(past=past)
    t = model._time(width - 1)
    rng = Streams.of(1, members)
    e = rng.at("e").normal(torch.zeros(members, 1, width, 10, dtype=DOUBLE))
    x, _ = denoiser.process.forward(e, t, rng=rng.at("z"))
    fresh = rng.at("enter").normal(torch.zeros(members, 1, 10, dtype=DOUBLE))
    z = model._continued(fresh, x, t, denoiser, now)
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.03)
    sigma = denoiser.process.coefficients(t)[2].flatten()
    for k in range(width):
        found = float((z * x[:, :, k]).mean())
        assert found == pytest.approx(r ** (width - k) * float(sigma[k]), abs=0.03)


# ---------------------------------------------------------------------------------- members


def test_a_member_is_the_same_whatever_is_asked_for_beside_it() -> None:
    model = rolling(0.0, 0.5)
    past = torch.ones(5, 1, 2, 6, dtype=DOUBLE)
    rng = Streams.of(3, 5)
    whole = model((5, 1, 7, 6), Context(past=past), rng)
    fewer = model((2, 1, 3, 6), Context(past=past[:2]), Streams.of(3, 2))
    assert torch.allclose(whole[:2, :, :3], fewer, atol=1e-12)
    assert not torch.allclose(whole[0], whole[1])
    ancestral = replace_solver(model, Euler(1.0))
    a = torch.stack(list(islice(ancestral.frames(Context(past=past), rng), 3)), dim=2)
    b = torch.stack(list(islice(ancestral.frames(Context(past=past), rng), 5)), dim=2)
    assert torch.equal(a, b[:, :, :3])


def replace_solver(model: Rolling, solver: Solver) -> Rolling:
    return Rolling(
        model.backbone, model.process, model.mean, model.scale, model.width,
        correlation=model.correlation, solver=solver,
    )  # fmt: skip


def test_known_values_are_held_before_the_next_frame_sees_them() -> None:
    model = rolling(1.0)
    mask = torch.zeros(1, 6, dtype=torch.bool)
    mask[:, :2] = True
    model.boundary = Boundary(mask, torch.full((1, 6), 3.0, dtype=DOUBLE))
    past = torch.ones(400, 1, 1, 6, dtype=DOUBLE)
    film = model((400, 1, 3, 6), Context(past=past), Streams.of(0, 400))
    assert bool((film[..., :2] == 3.0).all()) and not bool((film[..., 2:] == 3.0).any())


# ------------------------------------------------------------------------------------ learning


def small(**numbers: float) -> Rolling:
    torch.manual_seed(0)
    net = FilmNet(2, 1, (4,), (8,), 1, periodic=True)
    return Rolling(net, VP(clock=CosineAlpha()), Persistence(), torch.ones(()), 3, **numbers)  # type: ignore[arg-type]


def ar(rows: int, frames: int, seed: int, points: int = 8) -> Tensor:
    w = torch.randn(rows, 1, frames, points, generator=torch.manual_seed(seed), dtype=DOUBLE)
    x = [w[:, :, 0]]
    for k in range(1, frames):
        x.append(A * x[-1] + SCALE * w[:, :, k])
    return torch.stack(x, dim=2)


def test_the_exact_answer_has_the_least_loss_and_it_is_known() -> None:
    """E loss = E |e - e_hat|^2 (1 + kappa^2) / kappa^2 over the frames, in closed form."""
    model, rows = rolling(1.0, width=3), 3000
    film = ar(rows, 4, 0)
    loss = model.loss(film, Context(), Streams.of(0, rows), 0.0)
    t = model._times(film, Streams.of(0, rows))
    net = model.backbone
    assert isinstance(net, Exact)
    kappa = model.denoiser(1).process.kappa(t).flatten(1)
    expected = []
    high = model.process.clock.ends()[1]
    for k in kappa:
        rest = net.cov - net.cov @ torch.linalg.inv(net.cov + torch.diag(k**2)) @ net.cov
        moves = k < high * (1 - 1e-9)
        expected.append((rest.diagonal() * (1 + k**2) / k**2 * moves).mean())
    wanted = torch.stack(expected)
    error = float((loss - wanted).std()) / math.sqrt(rows)
    assert float(loss.mean()) == pytest.approx(float(wanted.mean()), abs=5 * error)
    started = float((t.flatten() > 3 * model.unit).double().mean())
    assert started == pytest.approx(model.startup, abs=0.03)
    net.mean = net.mean + 0.3
    assert float(model.loss(film, Context(), Streams.of(0, rows), 0.0).mean()) > float(loss.mean())


def test_a_step_of_training_lowers_the_loss_of_the_same_draws() -> None:
    model = small(emphasis=Emphasis(0.5, 1.0)).double()
    film, rng = ar(64, 4, 1), Streams.of(0, 64)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = model.loss(film, Context(), rng, 0.0).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_forcings_are_those_of_each_frame_and_too_few_are_refused() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
            assert context.forcings is not None
            seen.append(context.forcings)
            return torch.zeros_like(x[:, :1])

    model = Rolling(Spy(), VP(clock=CosineAlpha()), width=3)
    past = torch.zeros(1, 1, 2, 4)
    forcings = torch.arange(6.0).view(1, 1, 6, 1)  # 0, 1 of the past, then of 4 leads
    given = Context(past=past, forcings=forcings)
    model((1, 1, 4, 4), given, Streams.of(0, 1))
    # of the frame before, and of its own; past the end the last that is known
    assert seen[0].flatten(2).tolist() == [[[1, 2, 3], [2, 3, 4]]]
    assert seen[-1].flatten(2).tolist() == [[[4, 5, 5], [5, 5, 5]]]
    with pytest.raises(InputError, match="4 lead steps; expected at least 5"):
        model((1, 1, 5, 4), given, Streams.of(0, 1))


def test_it_is_saved_as_data_and_draws_the_same() -> None:
    model = small(correlation=0.3, emphasis=Emphasis(0.2, 0.9))
    with torch.no_grad():
        nn.init.normal_(model.backbone.head.weight, std=0.3)  # type: ignore[union-attr, arg-type]
    coder = Encoder()
    node = json.loads(json.dumps(coder.encode(model)))
    again = decode(node, load(save(coder.tensors)), CLASSES)
    past = torch.randn(2, 1, 1, 8, generator=torch.manual_seed(0))
    given, rng = Context(past=past), Streams.of(0, 2)
    assert torch.equal(model((2, 1, 4, 8), given, rng), again((2, 1, 4, 8), given, rng))
    assert again.emphasis == model.emphasis and again.window == 4


def test_a_process_of_another_scale_gives_the_same_frames() -> None:
    model = rolling(1.0, steps=8, solver=Adams(2, InTime(), RotationForm()))
    other = Rolling(
        model.backbone, VE(clock=CosineAlpha()), model.mean, model.scale, model.width,
        steps=8, solver=model.solver,
    )  # fmt: skip
    assert torch.allclose(films(model, 5, 10, 4), films(other, 5, 10, 4), atol=1e-2)


@pytest.mark.parametrize("numbers", [{"width": 1}, {"steps": 0}, {"past": 0}, {"startup": 1.5}])
def test_a_window_that_cannot_roll_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(InputError, match="frames in the window"):
        Rolling(nn.Identity(), replace(VP(), clock=CosineAlpha()), **numbers)  # type: ignore[arg-type]
