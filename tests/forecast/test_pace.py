"""How wide errors are of late: the law is found again, and what does not vary is left alone."""

from __future__ import annotations

import pytest
import torch

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Autoregressive, Pace
from sciddm.forecasters.mean import Persistence

TURN, BLOCK, POINTS = 6, 3, 400


def left(starts: int, seed: int, persistence: float = 0.99) -> torch.Tensor:
    """Errors (n, 1, BLOCK, POINTS) whose log width is a slow AR(1) of the first frame's time."""
    rng = torch.Generator().manual_seed(seed)
    rest = (1 - persistence**2) ** 0.5
    log = [0.5 * torch.randn((), generator=rng)]
    for _ in range(starts + BLOCK):
        log.append(persistence * log[-1] + 0.5 * rest * torch.randn((), generator=rng))
    width = torch.stack(log).exp()
    e = torch.randn(starts, 1, BLOCK, POINTS, generator=rng)
    ahead = torch.stack([width[n : n + starts] for n in range(BLOCK)], dim=1)
    return e * ahead[:, None, :, None]


def test_slow_widths_are_followed_and_calibrated() -> None:
    pace = Pace.fit([left(400, k) for k in range(6)], TURN)
    assert bool((pace.power > 0.9).all())
    held = [left(400, 100 + k) for k in range(6)]
    ratio, plain = [], []
    for x in held:
        size = x.square().flatten(3).mean(3).sqrt()
        for n in range(TURN, len(x)):
            log = (size[n - TURN : n, :, 0].square().mean(0).sqrt() / pace.usual).log()
            factor = torch.exp(pace.level + pace.power * log)
            ratio.append(size[n, 0] / (pace.usual * factor))
            plain.append(size[n, 0] / pace.usual)
    followed, usual = torch.stack(ratio), torch.stack(plain)
    assert float(followed.square().mean()) == pytest.approx(1, abs=0.05)
    assert float(followed.log().std()) < 0.4 * float(usual.log().std())


def test_widths_that_do_not_vary_are_left_as_they_are() -> None:
    rng = torch.Generator().manual_seed(0)
    pace = Pace.fit([torch.randn(300, 1, BLOCK, POINTS, generator=rng) for _ in range(4)], TURN)
    x = torch.randn(2, 1, TURN + 1, POINTS, generator=rng).cumsum(2)
    factor = pace(Persistence(), x, Context(past=x), 1)
    assert factor.shape == (2, 1, BLOCK, 1)
    torch.testing.assert_close(factor, torch.ones_like(factor), atol=0.02, rtol=0)


def test_members_are_wider_after_a_turn_of_large_errors() -> None:
    def walk(std: float) -> float:
        rng = torch.Generator().manual_seed(3)
        past = (std * torch.randn(1, 1, TURN + 1, POINTS, generator=rng)).cumsum(2)
        pace = Pace(torch.ones(1), torch.zeros(BLOCK), torch.tensor([1.0, 1.0, 1.0]), TURN)
        return float(pace(Persistence(), past, Context(past=past), 1)[0, 0, 0, 0])

    assert walk(2.0) == pytest.approx(2 * walk(1.0), rel=1e-5)


def test_the_past_it_needs_is_a_turn_longer() -> None:
    from sciddm.covariance import White
    from sciddm.denoise import Gaussian
    from sciddm.process import VE

    base = Gaussian(torch.zeros(()), White(), VE())
    scale = torch.ones(1, BLOCK)
    pace = Pace(torch.ones(1), torch.zeros(BLOCK), torch.zeros(BLOCK), TURN)
    assert Autoregressive(base, Persistence(), scale, block=BLOCK).history == 1
    assert Autoregressive(base, Persistence(), scale, block=BLOCK, pace=pace).history == 1 + TURN


def test_blocks_shorter_than_a_turn_are_refused() -> None:
    with pytest.raises(InputError, match="at most 6 starts; expected more than the 6 frames"):
        Pace.fit([left(TURN, 0)], TURN)
