"""PDE-Refiner: exact moments where its denoiser is exact, and addressed noise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.covariance import White
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.errors import InputError
from sciddm.forecasters import Boundary, Persistence, Refine
from sciddm.nn import SpectralOperator
from sciddm.process import VE, VP, LogLinear
from sciddm.random import Streams

PROCESS = VE(clock=LogLinear(1e-4, 1e5))


class Conditional(Denoiser):
    """The exact denoiser of y ~ N(slope x, spread^2) in every cell, x the newest frame."""

    def __init__(self, slope: float, spread: float) -> None:
        nn.Module.__init__(self)
        self.slope, self.spread, self.process = slope, spread, PROCESS

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        assert context.fields is not None
        mean, kappa = self.slope * context.fields[:, -1:], self.process.kappa(t).to(x_t)
        return mean + self.spread**2 / (self.spread**2 + kappa**2) * (x_t - mean)


def known(spread: float, steps: int, least: float) -> float:
    """v_K of the card: the variance of y that the refinements leave."""
    variance = 0.0
    for k in range(1, steps + 1):
        noise = least ** (2 * k / steps)
        variance = (spread**2 / (spread**2 + noise)) ** 2 * (variance + noise)
    return variance


def small(steps: int = 2) -> Refine:
    torch.manual_seed(0)
    backbone = SpectralOperator(2, 1, (3,), 8, 2, kernel=3, periodic=True)
    nn.init.normal_(backbone.head.weight)
    return Refine(
        Preconditioned(backbone, PROCESS), Persistence(), torch.full((1, 1), 0.3), steps=steps,
        least=1e-2,
    )  # fmt: skip


@pytest.mark.parametrize(("steps", "least"), [(0, 0.1), (1, 0.1), (3, 1e-3), (4, 0.2)])
def test_with_the_exact_denoiser_the_mean_is_exact_and_the_spread_too_small_as_known(
    steps: int, least: float
) -> None:
    """Two frames of x' = (1 + scale slope) x + scale N(0, v), far from the origin."""
    slope, spread, scale, cells, members = -0.4, 0.25, 0.5, 500, 40
    engine = Refine(
        Conditional(slope, spread), Persistence(), torch.tensor([[scale]]), steps=steps, least=least
    )
    assert engine.evaluations == steps + 1
    past = torch.full((members, 1, 1, cells), 3.0)
    film = engine((members, 1, 2, cells), Context(past=past), Streams.of(0, members)).double()
    variance, factor = known(spread, steps, least), 1 + scale * slope
    assert variance < spread**2
    one = scale**2 * variance
    for n, (mean, var) in enumerate([(3 * factor, one), (3 * factor**2, one * (1 + factor**2))]):
        frame = film[:, :, n]
        error = math.sqrt(var / frame.numel())
        assert float(frame.mean()) == pytest.approx(mean, abs=4.5 * error + 1e-6)
        assert float((frame - mean).square().mean()) == pytest.approx(
            var, rel=4.5 * math.sqrt(2 / frame.numel()), abs=1e-12
        )


def test_the_levels_are_those_of_the_paper() -> None:
    engine = small(steps=3)
    kappa = engine.denoiser.process.kappa(engine.times)
    torch.testing.assert_close(kappa[1:], 1e-2 ** (torch.arange(1, 4).double() / 3))
    assert float(kappa[0]) == pytest.approx(1e5)


def test_the_loss_of_an_untrained_network_is_the_power_of_its_target() -> None:
    """A network of zeros answers u / (1 + kappa^2): the target it misses is the clean y where there
    is no input, and of unit power where y and the noise have it."""
    engine = small(steps=3)
    nn.init.zeros_(engine.denoiser.backbone.head.weight)
    rows = 4000
    rng = Streams.of(0, rows)
    film = rng.normal(torch.zeros(rows, 1, 2, 16))
    film[:, :, 1] = film[:, :, 0] + 0.3 * film[:, :, 1]
    loss = engine.loss(film, Context(), rng.at("train"), 0.0).detach().double()
    assert float(loss.mean()) == pytest.approx(1.0, abs=4.5 * math.sqrt(2 / 16 / rows))


def test_the_first_prediction_is_made_of_nothing_but_the_past() -> None:
    film = Streams.of(0, 3).normal(torch.zeros(3, 1, 2, 16))
    losses = [
        small(steps).loss(film, Context(), Streams.of(s, 3), 0.0)
        for steps in (0, 2)
        for s in (1, 2)
    ]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[2], losses[3])


def test_noise_on_the_past_is_part_of_what_the_network_takes_away() -> None:
    """A network of zeros leaves the noise in: the power of y grows by (noised / scale)^2."""
    engine, rows = small(steps=0), 4000
    nn.init.zeros_(engine.denoiser.backbone.head.weight)
    rng = Streams.of(0, rows)
    film = rng.normal(torch.zeros(rows, 1, 2, 16))
    film[:, :, 1] = film[:, :, 0] + 0.3 * film[:, :, 1]
    engine.noised = 0.6
    loss = engine.loss(film, Context(), rng.at("train"), 0.0).detach().double()
    assert float(loss.mean()) == pytest.approx(5.0, abs=5 * 4.5 * math.sqrt(2 / 16 / rows))


def test_the_gradient_vanishes_at_the_exact_denoiser() -> None:
    """y ~ N(0, 1) whatever the past: the exact network is zero at every level of the training."""
    engine = small(steps=3)
    head = engine.denoiser.backbone.head
    nn.init.zeros_(head.weight)
    rows, gradients = 400, []
    for step in range(12):
        rng = Streams.of(0, rows).inside("training step", step)
        film = rng.normal(torch.zeros(rows, 1, 2, 16))
        film[:, :, 1] = film[:, :, 0] + 0.3 * film[:, :, 1]
        loss = engine.loss(film, Context(), rng.at("train"), 0.0).mean()
        gradients.append(torch.autograd.grad(loss, head.weight)[0].flatten())
    every = torch.stack(gradients)
    z = every.mean(0) / (every.std(0) / math.sqrt(len(every)))
    assert float(z.square().mean()) < 2.5


def test_a_member_is_the_same_in_any_batch_and_a_frame_however_many_are_asked_for() -> None:
    engine = small()
    past = Streams.of(0, 3).normal(torch.zeros(3, 1, 1, 16))
    every = engine((3, 1, 4, 16), Context(past=past), Streams.of(7, 3))
    alone = engine((1, 1, 2, 16), Context(past=past[2:]), Streams.of(7, [2]))
    torch.testing.assert_close(every[2:, :, :2], alone)
    members = engine((2, 1, 2, 16), Context(past=past[:1].expand(2, -1, -1, -1)), Streams.of(7, 2))
    assert not torch.allclose(members[0, :, 0], members[1, :, 0])


def test_known_values_are_held_and_not_trained_on() -> None:
    engine = small()
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[:, :4] = True
    film = Streams.of(0, 2).normal(torch.zeros(2, 1, 2, 16))
    whole = engine.loss(film, Context(), Streams.of(1, 2), 0.5)
    engine.boundary = Boundary(mask)
    drawn = engine((2, 1, 3, 16), Context(past=film[:, :, :1]), Streams.of(1, 2))
    torch.testing.assert_close(drawn[..., :4], film[:, :, :1, :4].expand(-1, -1, 3, -1))
    part = engine.loss(film, Context(), Streams.of(1, 2), 0.5)
    assert bool((part < whole).all())


def test_what_cannot_be_served_is_refused() -> None:
    scale, law = torch.ones(1, 1), Conditional(0.0, 1.0)
    wrong = [
        ({"steps": -1}, "steps=-1"),
        ({"least": 2.0}, "least=2"),
        ({"history": 0}, "history=0"),
        ({"noised": -1.0}, "noised=-1"),
        ({"least": 1e-5}, "1e-05"),
    ]
    for numbers, word in wrong:
        with pytest.raises(InputError, match=word):
            Refine(law, Persistence(), scale, **numbers)
    gaussian = Gaussian(torch.zeros(()), White(), VP(clock=LogLinear(1e-4, 1e5)))
    with pytest.raises(InputError, match="VP"):
        Refine(gaussian, Persistence(), scale)
    with pytest.raises(InputError, match="Conditional"):
        Refine(law, Persistence(), scale).loss(
            torch.zeros(1, 1, 2, 4), Context(), Streams.of(0, 1), 0.0
        )
