"""Laws of films against dense linear algebra, and against the recursions that they come from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciddm import fit
from sciddm.basis import Basis, Cosine, Periodic
from sciddm.covariance import PowerLaw, Spectral, White
from sciddm.errors import InputError
from sciddm.pde import StochasticHeat
from sciddm.random import Streams
from sciddm.spacetime import SpaceTime, longer, markov, windows

DOUBLE = torch.float64
CASES: dict[str, tuple[tuple[int, ...], Basis]] = {
    "circle": ((8,), Periodic()),
    "odd circle": ((7,), Periodic()),
    "torus": ((6, 8), Periodic()),
    "box": ((5, 3), Cosine()),
}


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return Streams.of(seed, shape[0]).at("films").normal(torch.zeros(shape, dtype=DOUBLE))


def some_law(name: str, channels: int = 2, frames: int = 5) -> SpaceTime:
    """The sample law of rough films, whose patterns have a direction."""
    grid, basis = CASES[name]
    x = normal((30, channels, 8, *grid)).cumsum(2)
    x = x + 0.5 * x.roll((1, 1), (2, -1))
    return longer(windows(x, 3, basis), frames)


def dense(law: SpaceTime) -> Tensor:
    shape = (law.channels, law.frames, *law.grid)
    unit = torch.eye(math.prod(shape), dtype=DOUBLE)
    return law(unit.view(-1, *shape)).flatten(1)


@pytest.mark.parametrize("name", CASES)
def test_a_law_is_a_covariance_and_its_functions_are_those_of_the_matrix(name: str) -> None:
    law = some_law(name)
    full = dense(law)
    x = normal((3, law.channels, law.frames, *law.grid), 1)
    torch.testing.assert_close(full, full.T)
    assert torch.linalg.eigvalsh(full)[0] > 0
    noisy = torch.linalg.solve(full + 0.3 * torch.eye(len(full), dtype=DOUBLE), full)
    found = law.joint(x, White(0.3**0.5), lambda p, c: p / (p + c))
    torch.testing.assert_close(found.flatten(1), x.flatten(1) @ noisy)
    root = law.sqrt(torch.eye(len(full), dtype=DOUBLE).view(-1, *x.shape[1:])).flatten(1)
    torch.testing.assert_close(root @ root.T, full)
    torch.testing.assert_close(law.diagonal(x).flatten(), full.diagonal())
    share = law.average(x, White(0.3**0.5), lambda p, c: p / (p + c))
    torch.testing.assert_close(share, noisy.trace() / len(full))
    exact = torch.distributions.MultivariateNormal(torch.zeros(len(full), dtype=DOUBLE), full)
    torch.testing.assert_close(law.log_prob(x), exact.log_prob(x.flatten(1)))


def test_a_noise_level_for_every_row_is_each_row_alone() -> None:
    law = some_law("torus")
    x, level = normal((3, 2, 5, 6, 8)), torch.tensor([0.1, 1.0, 7.0]).double()

    def f(scale: Tensor) -> Tensor:
        return law.joint(x, White(), lambda p, c: p / (p + scale.view(-1, 1, 1, 1, 1) * c))

    whole = f(level)
    for i in range(3):
        torch.testing.assert_close(whole[i], f(level[i])[i])


def heat(speed: float) -> StochasticHeat:
    return StochasticHeat(2 * math.pi, 0.03, 0.2, speed, PowerLaw(1.0, 3.0))


def heat_law(frames: int, points: int = 8, speed: float = 0.4) -> SpaceTime:
    equation = heat(speed)
    step, noise = equation.transition(points, 1.0)
    start = equation.stationary(points)
    parts = (v[:, None, None].to(torch.complex128) for v in (start, step, noise))
    return markov(*parts, frames, (points,), Periodic())


def test_a_markov_law_has_the_powers_of_its_step() -> None:
    law, equation = heat_law(6), heat(0.4)
    step, _ = equation.transition(8, 1.0)
    start = equation.stationary(8)
    for t in range(6):
        for s in range(t + 1):
            found = law.matrices[:, t, s]
            torch.testing.assert_close(found, step ** (t - s) * start)


def test_films_of_the_equation_are_white_under_their_law() -> None:
    law = heat_law(4)
    x = heat(0.4).films(3000, 8, 4, 1.0)[:, None]
    values = torch.linalg.eigvalsh(dense(law))
    expected = -0.5 * (32 * (math.log(2 * math.pi) + 1) + values.log().sum())
    assert abs(float(law.log_prob(x).mean() - expected)) < 4 * math.sqrt(16 / 3000)


def test_a_longer_film_is_what_its_windows_say_and_a_shorter_one_its_beginning() -> None:
    whole = heat_law(9)
    torch.testing.assert_close(longer(heat_law(2), 9).matrices, whole.matrices)
    torch.testing.assert_close(longer(whole, 4).matrices, whole.matrices[:, :4, :4])
    # of order 2: three frames are enough, two are not
    second = some_law("circle", frames=3)
    six = longer(second, 6)
    torch.testing.assert_close(longer(longer(second, 4), 6).matrices, six.matrices)
    assert not torch.allclose(longer(longer(second, 2), 6).matrices, six.matrices, rtol=0.05)


def test_a_fit_finds_whether_patterns_travel_and_how_far_back_to_look() -> None:
    for speed, travelling in ((0.4, 1.0), (0.0, 0.0)):
        x = heat(speed).films(300, 8, 8, 1.0)[:, None]
        law, chosen = fit.film_law(x[:240], x[240:], 6, Periodic())
        assert (chosen["depth"], chosen["travelling"]) == (2.0, travelling)
        gap = law.matrices - heat_law(6, speed=speed).matrices
        assert float(gap.abs().max() / law.real.abs().max()) < 0.1


def test_what_does_not_fit_is_refused() -> None:
    law = some_law("circle")
    with pytest.raises(InputError, match="own length and grid"):
        law(torch.zeros(1, 2, 4, 8))
    with pytest.raises(InputError, match="expected White"):
        law.joint(torch.zeros(1, 2, 5, 8), Spectral(PowerLaw(1.0, 1.0), (1.0,)), lambda p, c: p)
    with pytest.raises(InputError, match="for each of"):
        SpaceTime(law.real, 5, (10,))
    with pytest.raises(InputError, match="two windows"):
        windows(torch.zeros(2, 1, 3, 8), 4, Periodic())
