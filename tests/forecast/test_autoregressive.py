"""The autoregressive engine: exact where its denoiser is, in any block, under an address."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciddm import recipe
from sciddm.covariance import LowRank, PowerLaw
from sciddm.denoise import Context, Gaussian, Preconditioned
from sciddm.errors import InputError
from sciddm.forecasters import (
    Autoregressive,
    Boundary,
    Damped,
    Forecaster,
    Linear,
    LinearGaussian,
    Mean,
    Persistence,
)
from sciddm.nn import SpectralOperator
from sciddm.pde import StochasticHeat
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import Adams, GaussianForm, Heun, Solver

ROOT = Path(__file__).parents[2]
POINTS = 12
HEAT = StochasticHeat(2 * math.pi, 0.012, 0.08, 0.25, PowerLaw(1.0, 3.0, 1.4))
LAW = LinearGaussian.circle(*HEAT.transition(POINTS, 1.0), POINTS)
SCALE = 0.7
PROCESS = VE(clock=LogLinear(0.001, 200.0))
PAST = HEAT.films(1, POINTS, 2, 1.0, seed=9)[:, None].float()


def base(block: int = 1, spread: float = 1.0) -> Gaussian:
    law = LAW.innovations(block)
    return Gaussian(
        torch.zeros(()), LowRank(law.modes, (spread / SCALE) ** 2 * law.variances), PROCESS
    )


def exact(block: int = 1, spread: float = 1.0, solver: Solver | None = None) -> Autoregressive:
    """The engine whose denoiser knows the law of the residual: no network."""
    known = base(block, spread)
    solver = solver or Adams(1, form=GaussianForm(known))
    steps = 3 if isinstance(solver, Adams) else 60
    return Autoregressive(
        known, Linear(LAW), torch.full((1, block), SCALE), block=block, solver=solver, steps=steps
    )


def drawn(engine: Forecaster, frames: int, members: int, past: Tensor = PAST) -> Tensor:
    context = Context(past=past.expand(members, *past.shape[1:]))
    shape = (members, past.shape[1], frames, *past.shape[3:])
    return engine(shape, context, Streams.of(4, members))


@pytest.mark.parametrize(
    ("block", "solver"),
    [(1, None), (3, None), (1, Heun())],
    ids=["frame by frame", "blocks of three", "another solver"],
)
def test_with_the_exact_denoiser_moments_are_closed_at_every_lead(
    block: int, solver: Solver | None
) -> None:
    members, leads = 4000, 5
    c = LAW.coefficients(drawn(exact(block, solver=solver), leads, members))
    expected = LAW.coefficients(LAW.means(PAST, leads))[0]
    joint = LAW.joint(leads).reshape(leads * POINTS, -1)
    std = joint.diagonal().sqrt()
    z = (c.mean(0) - expected).flatten() / std * math.sqrt(members)
    assert float(z.abs().max()) < 4.5
    gap = (c - expected).flatten(1) / std
    # frames hang together across leads as they should, within a block and between two
    correlation = joint / torch.outer(std, std)
    error = (gap.T @ gap / members - correlation).abs().max()
    assert float(error) < 5 * math.sqrt(2 / members)


def calibrated(engine: Autoregressive, shift: float = 0.0, starts: int = 300) -> bool:
    """Whether spread over skill is 1 and the bias 0 at leads 1 to 4, within four standard errors of
    what exact forecasts of as many starts vary by."""
    members, leads = 20, 4
    film = HEAT.films(starts, POINTS, leads + 1, 1.0, seed=31)[:, None].float()
    past = film[:, :, :1].repeat_interleave(members, 0)
    rng = Streams(7, tuple(np.repeat(np.arange(starts), members)), tuple(range(members)) * starts)
    out = engine((len(past), 1, leads, POINTS), Context(past=past), rng) + shift
    members_of = out.unflatten(0, (starts, members))
    variance = members_of.var(1).mean((1, 3)) * (1 + 1 / members)
    gap = members_of.mean(1) - film[:, :, 1:]
    error = gap.square().mean((1, 3))
    ratio = variance.mean(0) / error.mean(0)
    # of one start: how far its error is from its variance
    noise = (error / error.mean(0)).std(0) / math.sqrt(starts)
    bias = gap.mean((1, 3))
    off = bias.mean(0) / (bias.std(0) / math.sqrt(starts))
    return bool(((ratio - 1).abs() < 4 * noise).all() and (off.abs() < 4).all())


def test_the_calibration_check_passes_the_exact_law_and_catches_wrong_ones() -> None:
    assert calibrated(exact()) and calibrated(exact(3))
    assert not calibrated(exact(spread=0.8))
    assert not calibrated(exact(spread=1.2))
    assert not calibrated(exact(), shift=0.3)


@pytest.mark.parametrize("block", [1, 3])
def test_noise_has_an_address(block: int) -> None:
    engine = exact(block)
    many = drawn(engine, 7, 5)
    torch.testing.assert_close(many[:2], drawn(engine, 7, 2))
    torch.testing.assert_close(many[:, :, :4], drawn(engine, 4, 5))
    one = engine((1, 1, 7, POINTS), Context(past=PAST), Streams.of(4, [3]))
    torch.testing.assert_close(many[3:4], one)
    assert not torch.allclose(many[0], many[1])
    fresh = many[:, :, 1:] - torch.stack([LAW.expected(many[:, :, [n]]) for n in range(6)], 2)
    assert float((fresh[:, :, 0] - fresh[:, :, -1]).abs().min()) > 0


def test_a_block_costs_its_share() -> None:
    assert exact(3).evaluations == pytest.approx(1.0) and exact(1).evaluations == 3


class Probe(nn.Module):
    """A backbone that remembers what it was shown, and answers a share of it."""

    def __init__(self, outputs: int = 1) -> None:
        nn.Module.__init__(self)
        self.share = nn.Parameter(torch.zeros(()))
        self.outputs = outputs
        self.shown: list[Context] = []

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        self.shown.append(context)
        return self.share * x[:, : self.outputs]


def probed(mean: Mean, block: int = 1, **numbers: object) -> tuple[Autoregressive, Probe]:
    probe = Probe(block)
    denoiser = Preconditioned(probe, PROCESS)
    scale = torch.full((1, block), 0.5)
    return Autoregressive(denoiser, mean, scale, block=block, **numbers), probe  # type: ignore[arg-type]


def test_an_untrained_network_scores_one_and_its_gradient_is_the_errors() -> None:
    """On films of the law itself the base's error is its own: the loss is 1 at every level."""
    probe = Probe(1)
    engine = Autoregressive(
        Preconditioned(probe, PROCESS, base()),
        Linear(LAW),
        torch.full((1, 1), SCALE),
        level_std=2.5,
    )
    film = HEAT.films(3000, POINTS, 2, 1.0, seed=11)[:, None].float()
    assert engine.window == 2
    loss = engine.loss(film, Context(), Streams.of(0, len(film)), 0.0)
    error = float(loss.detach().std()) / math.sqrt(3000)
    assert float(loss.detach().mean()) == pytest.approx(1.0, abs=5 * error)
    loss.mean().backward()
    assert probe.share.grad is not None and float(probe.share.grad.abs()) > 0
    # the residual is what the mean leaves, and the last of a window is what is drawn
    left = engine.residual(film, Context())
    gap = (film[:, :, 1] - LAW.expected(film[:, :, :1])) / SCALE
    torch.testing.assert_close(left, gap)
    again = engine.loss(film[:3], Context(), Streams.of(0, 3), 0.0)
    torch.testing.assert_close(again, loss[:3].detach())


def test_a_residual_is_of_each_frame_and_channel_in_its_own_scale() -> None:
    scale = torch.tensor([[0.5, 2.0], [1.0, 4.0]])
    engine = Autoregressive(base(), Persistence(), scale, block=2)
    film = torch.randn(5, 2, 3, POINTS, generator=torch.Generator().manual_seed(0))
    left = engine.residual(film, Context())
    for c in range(2):
        for k in range(2):
            by_hand = (film[:, c, 1 + k] - film[:, c, 0]) / scale[c, k]
            torch.testing.assert_close(left[:, 2 * c + k], by_hand)


def test_the_network_sees_recent_frames_and_what_is_known_ahead_at_their_times() -> None:
    """Frame n of a forecast beside forcings of its own time, whatever the length of the past."""
    block, seen, length = 2, 2, 4
    engine, probe = probed(Persistence(), block, seen=seen, steps=2)
    past = torch.randn(3, 1, length, POINTS, generator=torch.Generator().manual_seed(0))
    times = (torch.arange(length + 6.0) + torch.tensor([[0.0], [100.0]])).expand(3, 2, -1)[
        ..., None
    ]
    fixed = torch.full((3, 1, POINTS), -1.0)
    context = Context(past=past, forcings=times, fields=fixed)
    out = engine((3, 1, 6, POINTS), context, Streams.of(0, 3))
    fields = [c.fields for c in probe.shown[:: engine.steps]]
    assert len(fields) == 3
    recent = torch.cat([past, out], 2)
    for k, field in enumerate(fields):
        assert field is not None
        at = length + block * k
        torch.testing.assert_close(field[:, :seen], recent[:, 0, at - seen : at])
        assert bool((field[:, seen] == -1).all())
        told = field[:, seen + 1 :, 0].unflatten(1, (-1, 2))
        torch.testing.assert_close(told[0, :, 0], torch.arange(at - seen, at + block).float())
        torch.testing.assert_close(told[0, :, 1], told[0, :, 0] + 100)
    # in training the same, beside a window
    probe.shown.clear()
    film, known = recent[:, :, : engine.window], times[:, :, : engine.window]
    engine.loss(film, Context(forcings=known, fields=fixed), Streams.of(0, 3), 0.0)
    shown = probe.shown[0].fields
    assert shown is not None
    torch.testing.assert_close(shown[:, :seen], film[:, 0, :seen])
    torch.testing.assert_close(shown[0, seen + 1 :: 2, 0], torch.arange(4.0))
    with pytest.raises(InputError, match="forcings of 6 lead steps"):
        list(islice(engine.frames(context, Streams.of(0, 3)), 7))


@pytest.mark.parametrize("told", [False, True])
def test_noise_on_the_frames_that_the_network_sees(told: bool) -> None:
    engine, probe = probed(
        Persistence(), noised=0.3, told=told, steps=2, used=0.1 if told else None
    )
    film = torch.zeros(2000, 1, 2, POINTS)
    engine.loss(film, Context(), Streams.of(0, 2000), 0.0)
    shown = probe.shown[0]
    assert shown.fields is not None
    if told:  # every level up to it, and each row's own
        assert shown.scalars is not None
        level = shown.scalars[:, 0]
        assert float(level.min()) >= 0 and float(level.max()) <= 0.3
        assert float(level.mean()) == pytest.approx(0.15, abs=0.01)
        z = shown.fields[:, 0] / level[:, None]
    else:
        assert shown.scalars is None
        z = shown.fields[:, 0] / 0.3
    assert float(z.std()) == pytest.approx(1.0, abs=0.03)
    # in use: another draw in every frame, and the mean sees the frames as they are
    probe.shown.clear()
    past = torch.zeros(400, 1, 1, POINTS)
    out = engine((400, 1, 2, POINTS), Context(past=past), Streams.of(1, 400))
    first, second = (c.fields[:, 0] for c in probe.shown[::2] if c.fields is not None)
    used = 0.1 if told else 0.3
    assert float(first.std()) == pytest.approx(used, rel=0.05)
    noise = second - out[:, 0, 0]
    assert float(noise.std()) == pytest.approx(used, rel=0.05)
    assert abs(float((noise * first).mean())) < 0.05 * used**2
    # as it would be drawn without: the noise reaches the network alone, and this one is blind
    plain, _ = probed(Persistence(), steps=2)
    same = plain((400, 1, 2, POINTS), Context(past=past), Streams.of(1, 400))
    torch.testing.assert_close(out, same)


def test_a_boundary_is_held_and_not_trained_on() -> None:
    mask = torch.zeros(1, POINTS, dtype=torch.bool)
    mask[:, :2] = True
    known = base()
    engine = Autoregressive(known, Linear(LAW), torch.ones(1, 1), boundary=Boundary(mask), steps=3)
    out = drawn(engine, 3, 4)
    assert bool((out[..., :2] == PAST[:, :, -1:, :2]).all())
    engine, _ = probed(Persistence(), boundary=Boundary(mask))
    film = torch.randn(5, 1, 2, POINTS, generator=torch.Generator().manual_seed(0))
    spoilt = film.clone()
    spoilt[..., :2] += 1e3
    rng = Streams.of(0, 5)
    torch.testing.assert_close(
        engine.loss(film, Context(), rng, 0.0), engine.loss(spoilt, Context(), rng, 0.0)
    )


def test_the_recipe_is_the_exact_law_before_any_training() -> None:
    """Mean and base fitted to films of a linear Gaussian truth: its moments, to the fit's error."""
    shelf = recipe.load(ROOT / "datasets" / "spde_heat.py", "datasets")
    ds = shelf.fields(240, 12)
    build = recipe.load(ROOT / "models" / "forecast_autoregressive.py", "models").build
    model = build(ds, block=2, widths=(4,), modes=2, blocks=1)
    law = shelf.law(ds)
    field = ds["temperature"].values[230:231, :3]
    x = model.codec.encode({"temperature": field[0]})[None].movedim(2, 1)
    out = drawn(model.forecaster, 4, 3000, x)
    film = model.codec.physical(out.movedim(2, 1).flatten(0, 1)).unflatten(0, (3000, 4))
    film = film.movedim(1, 2).double()
    std = law.variances(4).sqrt().movedim(0, 1)
    mean = law.means(torch.from_numpy(field)[:, None], 4)[0]
    assert float(((film.mean(0) - mean) / std).abs().max()) < 0.15
    assert float((film.std(0) / std - 1).abs().max()) < 0.08
    assert float((film.var(0).mean() / std.square().mean() - 1).abs()) < 0.03


def test_the_network_learns_what_is_not_gaussian() -> None:
    """x' = 0.6 x + 0.8 s with s a random sign: the residual takes two values, and no Gaussian."""
    rng = np.random.default_rng(0)

    def films(count: int) -> tuple[Tensor, np.ndarray]:
        first = rng.standard_normal((count, 1, 1, 8))
        sign = rng.choice([-1.0, 1.0], size=first.shape)
        both = np.concatenate([first, 0.6 * first + 0.8 * sign], axis=2)
        return torch.from_numpy(both).float(), sign

    prior = LowRank(torch.eye(8)[:, None], torch.ones(8))
    known = Gaussian(torch.zeros(()), prior, VE(clock=LogLinear(0.01, 30.0)))
    torch.manual_seed(0)
    network = SpectralOperator(3, 1, (1,), 16, 2, periodic=True)
    engine = Autoregressive(
        Preconditioned(network, known.process, known),
        Damped(torch.tensor(0.6)),
        torch.full((1, 1), 0.8),
        solver=Adams(2, form=GaussianForm(known)),
        steps=16,
        level_mean=-0.5,
        level_std=1.0,
    )
    optimiser = torch.optim.Adam(engine.parameters(), 5e-3)
    for step in range(200):
        loss = engine.loss(films(128)[0], Context(), Streams.of(0, 128).at("s", step), 0.0).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    held = engine.loss(films(2000)[0], Context(), Streams.of(1, 2000), 0.0).mean()
    assert float(held.detach()) < 0.8
    past = films(500)[0][:, :, :1]
    out = engine((500, 1, 1, 8), Context(past=past), Streams.of(2, 500))
    z = (out[:, :, 0] - 0.6 * past[:, :, 0]) / 0.8
    assert float(z.square().mean()) == pytest.approx(1.0, abs=0.1)
    # the fourth moment is 1 for two values and 3 for a Gaussian
    assert float(z.pow(4).mean() / z.square().mean() ** 2) < 1.6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"expected \(C, 2\)"):
        Autoregressive(base(), Persistence(), torch.ones(1, 1), block=2)
    for noised, used in ((-0.1, None), (0.1, 0.2), (0.1, -0.1)):
        with pytest.raises(InputError, match="nothing negative"):
            Autoregressive(base(), Persistence(), torch.ones(1, 1), noised=noised, used=used)
    with pytest.raises(InputError, match="expected Preconditioned"):
        exact().loss(torch.zeros(2, 1, 2, POINTS), Context(), Streams.of(0, 2), 0.0)
