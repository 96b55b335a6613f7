"""Windows composed into long films, against the Gaussian law of the whole film."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Periodic
from sciddm.covariance import PowerLaw
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.errors import InputError
from sciddm.forecasters import Composed
from sciddm.forecasters.composed import places
from sciddm.guide import Conditioned
from sciddm.observe import Mask, Observation
from sciddm.pde import StochasticHeat
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.spacetime import SpaceTime, markov

DOUBLE = torch.float64
POINTS, FRAMES = 8, 14
HEAT = StochasticHeat(2 * math.pi, 0.02, 0.1, 0.4, PowerLaw(1.0, 3.0, 8.0))
PROCESS = VE(clock=LogLinear(0.002, 200.0))


def law(frames: int) -> SpaceTime:
    step, noise = HEAT.transition(POINTS, 1.0)
    parts = (v[:, None, None].to(torch.complex128) for v in (HEAT.stationary(POINTS), step, noise))
    return markov(*parts, frames, (POINTS,), Periodic())


def gaussian(frames: int) -> Gaussian:
    return Gaussian(torch.zeros((), dtype=DOUBLE), law(frames), PROCESS)


def noised(kappa: float, rows: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    x = HEAT.films(rows, POINTS, FRAMES, 1.0)[:, None]
    t = PROCESS.clock.time(torch.tensor(kappa, dtype=DOUBLE))
    return x, PROCESS.forward(x, t, rng=Streams.of(1, rows))[0], t


def excess(denoiser: Denoiser, kappa: float) -> float:
    """Mean square distance from the exact estimate, over the posterior variance."""
    _, x_t, t = noised(kappa)
    exact = gaussian(FRAMES)
    gap = denoiser(x_t, t, Context()) - exact(x_t, t, Context())
    return float(gap.square().mean() / exact.mean_variance(t, x_t))


def test_a_window_of_the_whole_film_is_the_film() -> None:
    assert excess(Composed(gaussian(FRAMES), FRAMES), 0.7) < 1e-20


@pytest.mark.parametrize(("kappa", "reached"), [(0.1, 1e-12), (1.0, 1e-5), (5.0, 5e-3)])
def test_the_error_falls_with_the_window(kappa: float, reached: float) -> None:
    errors = [excess(Composed(gaussian(w), w), kappa) for w in (3, 5, 9, 13)]
    assert all(a > 2 * b for a, b in zip(errors, errors[1:], strict=False))
    assert errors[-1] < reached
    far = excess(Composed(gaussian(9), 9, stride=5), kappa)
    assert far > errors[2]  # frames off the middle of their window


def test_at_low_noise_the_neighbours_are_all_that_counts() -> None:
    """Markov of order one: a blanket of one frame on each side is enough as the noise goes."""
    errors = [excess(Composed(gaussian(3), 3), kappa) for kappa in (0.4, 0.1, 0.025)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2]


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("kappa", [0.1, 1.0, 30.0])
def test_beside_the_law_of_the_film_it_is_exact_at_every_window(window: int, kappa: float) -> None:
    base = gaussian(window)
    whole = Composed(gaussian(window), window, 1, base, gaussian(FRAMES))
    assert excess(whole, kappa) < 1e-20


class Late(nn.Module):
    """What is said of each frame is its place in the window."""

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        at = torch.arange(x.shape[2], dtype=x.dtype).view(1, 1, -1, 1)
        return at.expand_as(x[:, :1])


def test_each_frame_is_said_by_the_window_round_it() -> None:
    base = gaussian(5)
    late = Preconditioned(Late(), PROCESS, base)
    denoiser = Composed(late, 5, 1, base, gaussian(FRAMES))
    _, x_t, t = noised(1.0, 2)
    x_hat = denoiser(x_t, t, Context())
    added = (x_hat - gaussian(FRAMES)(x_t, t, Context())) / late.scale(t, x_t[:, :, :5])
    said = [0, 1, *[2] * (FRAMES - 4), 3, 4]
    torch.testing.assert_close(added[0, 0, :, 0], torch.tensor(said, dtype=DOUBLE))


def test_a_level_for_each_row_is_each_row_alone() -> None:
    denoiser = Composed(gaussian(4), 4, stride=3)
    _, x_t, _ = noised(1.0, 3)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=DOUBLE).view(3, 1, 1, 1)
    whole = denoiser(x_t, t, Context())
    for i in range(3):
        torch.testing.assert_close(whole[i], denoiser(x_t[i : i + 1], t[i : i + 1], Context())[0])


def test_places() -> None:
    starts, chosen, inside = places(10, 5, 3)
    assert starts.tolist() == [0, 3, 5]
    assert (starts[chosen] + inside).tolist() == list(range(10))
    assert inside.tolist() == [0, 1, 2, 3, 1, 2, 3, 2, 3, 4]


def test_guidance_takes_it_as_any_denoiser() -> None:
    """Composed windows under an observation of the film, against the exact posterior mean."""
    keep = torch.zeros(1, FRAMES, POINTS, dtype=torch.bool)
    keep[0, 6, ::3] = True
    seen = Observation(torch.ones(3, dtype=DOUBLE), Mask(keep), torch.tensor(0.01, dtype=DOUBLE))
    whole = gaussian(FRAMES)
    _, x_t, t = noised(0.5, 20)
    exact = Conditioned(whole, seen, whole)(x_t, t, Context())
    gaps = []
    for w in (3, 7, 11):
        found = Conditioned(Composed(gaussian(w), w), seen, whole)(x_t, t, Context())
        gaps.append(float((found - exact).abs().max()))
    assert gaps[0] > 10 * gaps[1] > 100 * gaps[2]


def test_what_leaves_frames_out_is_refused() -> None:
    base = gaussian(4)
    with pytest.raises(InputError, match="expected an overlap"):
        Composed(base, 4, stride=5)
    with pytest.raises(InputError, match="that of a window and that of a film"):
        Composed(base, 4, base=base)
    with pytest.raises(InputError, match="at least one window"):
        Composed(base, 4)(torch.zeros(1, 1, 3, POINTS), torch.tensor(0.5), Context())
