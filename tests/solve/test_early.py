"""The early phase: exact where its base is, for the prior and for the posterior."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from sciddm import model, tree
from sciddm.basis import Cosine
from sciddm.covariance import LowRank, Matern, Spectral, White
from sciddm.denoise import Context, Gaussian, Mixture
from sciddm.errors import InputError
from sciddm.guide import DPS, ClassifierFree, Conditioned
from sciddm.observe import Function, Observation, points
from sciddm.process import VE, VP, LogLinear, MeanReverting, Process
from sciddm.random import Streams
from sciddm.solve import Diffusion, Early, LogKappa, Multistep, trajectory

DOUBLE = torch.float64
CLOCK = LogLinear(0.01, 300.0)
PRIOR = Spectral(Matern(0.35, 1.5, 1.2), (1.0,), Cosine())
N = 10
MEAN = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
PROCESSES: dict[str, Process] = {
    "VE": VE(clock=CLOCK),
    "VP coloured": VP(Spectral(Matern(0.1, 0.5), (1.0,), Cosine()), CLOCK),
    "anchored": MeanReverting(clock=CLOCK),
}
processes = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES.keys())
OBSERVATION = Observation(
    torch.tensor([0.5, -1.0, 0.3]),
    points([0, 0, 0], torch.tensor([[1.0], [4.5], [8.0]]), (N,)),
    torch.tensor([[0.04, 0.01, 0], [0.01, 0.05, 0], [0, 0, 0.09]]),
)


def given(process: Process, count: int) -> Context:
    if not process.anchored:
        return Context()
    return Context(anchor=torch.cos(torch.arange(N).float()).expand(count, 1, N))


@processes
def test_the_jump_is_the_flow(process: Process) -> None:
    """The same start noise, through the exact flow of the base, to where the grid starts."""
    gaussian = Gaussian(MEAN, PRIOR, process)
    rng, context = Streams.of(1, 4), given(process, 4)
    early = Early(Gaussian(MEAN, PRIOR, VE()), 2.0)
    steps = Diffusion(gaussian, Multistep(), 5, early=early)
    x = steps((4, 1, N), context, rng)
    high, low = process.clock.time(torch.tensor([300.0, 2.0], dtype=DOUBLE))
    start = process.start(torch.zeros(4, 1, N), high, context.anchor, rng.at("start"))
    jumped = gaussian.flow(start, high, low, context.anchor)
    times = process.times(5, 2.0, None)
    *_, want = trajectory(gaussian, jumped, times, context, Multistep())
    assert torch.allclose(x, want, atol=1e-6)
    # where the base is the law, it is what many steps would have come to
    whole = Diffusion(gaussian, Multistep(), 400)((4, 1, N), context, rng)
    late = Diffusion(gaussian, Multistep(), 200, early=early)((4, 1, N), context, rng)
    assert torch.allclose(whole, late, atol=5e-3)


class Basis(Streams):
    """Unit fields for one purpose, zeros for the others; seed says which."""

    PURPOSES = ("start", "early field", "early error")

    def normal(self, like: Tensor) -> Tensor:
        if self.purpose != self.PURPOSES[self.seed]:
            return torch.zeros_like(like)
        return torch.eye(len(like), like[0].numel(), dtype=like.dtype).view_as(like)


@processes
def test_the_jump_of_a_guided_draw_is_the_posterior(process: Process) -> None:
    """Mean and whole covariance at the level, by unit noise, against dense algebra."""
    gaussian = Gaussian(MEAN, PRIOR, process)
    guided = Conditioned(gaussian, OBSERVATION, gaussian)
    context = given(process, 12)
    early = Early(gaussian, 1.5)
    high, t = process.clock.time(torch.tensor([300.0, 1.5], dtype=DOUBLE))
    like = torch.zeros(12, 1, N, dtype=DOUBLE)
    shares = []
    for purpose in range(3):
        rng = Basis(purpose, (), ())
        x = early.start(guided, like, high, t, context.anchor, rng).flatten(1)
        mean, moved = x[-1], x[:-1]  # the eye has no more than N rows
        shares.append((moved - mean).T @ (moved - mean))
    alpha, beta, sigma = process.coefficients(t)
    unit = torch.eye(N, dtype=DOUBLE).view(N, 1, N)
    prior, noise = PRIOR(unit).flatten(1), process.noise(unit).flatten(1)
    a = OBSERVATION.operator(unit).T
    gain = prior @ a.T @ torch.linalg.inv(a @ prior @ a.T + OBSERVATION.covariance)
    centre = MEAN.flatten() + gain @ (OBSERVATION.y - a @ MEAN.flatten())
    want = alpha * centre
    if context.anchor is not None:
        want = want + beta * context.anchor[-1].flatten()
    assert torch.allclose(mean, want, atol=1e-6)
    covariance = alpha**2 * (prior - gain @ a @ prior) + sigma**2 * noise
    assert torch.allclose(sum(shares), covariance, atol=1e-7)  # type: ignore[arg-type]


def test_members_are_addressed() -> None:
    """A member is the same in any company; its posterior needs no more than its address."""
    gaussian = Gaussian(MEAN, PRIOR, VE(clock=CLOCK))
    guided = Conditioned(gaussian, OBSERVATION, gaussian)
    sampler = Diffusion(guided, Multistep(), 6, early=Early(gaussian, 3.0))
    together = sampler((5, 1, N), Context(), Streams.of(3, 5))
    alone = sampler((1, 1, N), Context(), Streams.of(3, [3]))
    assert torch.allclose(together[3:4], alone, atol=1e-5)
    assert not torch.allclose(together[2:3], alone, atol=1e-2)


def test_a_guided_draw_that_starts_late_is_the_posterior() -> None:
    """At eight evaluations, closer than from the top: the mean over many members."""
    gaussian = Gaussian(MEAN, PRIOR, VE(clock=CLOCK))
    guided = Conditioned(gaussian, OBSERVATION, gaussian)
    count = 2000
    rng, like = Streams.of(0, count), (count, 1, N)
    late = Diffusion(guided, Multistep(), 8, early=Early(gaussian, 1.0))(like, Context(), rng)
    prior = PRIOR(torch.eye(N, dtype=DOUBLE).view(N, 1, N)).flatten(1)
    a = OBSERVATION.operator(torch.eye(N, dtype=DOUBLE).view(N, 1, N)).T
    gain = prior @ a.T @ torch.linalg.inv(a @ prior @ a.T + OBSERVATION.covariance)
    mean = MEAN.flatten() + gain @ (OBSERVATION.y - a @ MEAN.flatten())
    std = (prior - gain @ a @ prior).diagonal().sqrt()
    z = (late.flatten(1).mean(0) - mean) / std * math.sqrt(count)
    assert float(z.abs().max()) < 4.5
    ratio = late.flatten(1).double().std(0) / std
    assert float((ratio - 1).abs().max()) < 0.08


def moments_of(mixture: Mixture) -> Gaussian:
    """The Gaussian with the mixture's own mean and covariance."""
    flat, weights = mixture.means.flatten(1), mixture.weights.to(mixture.means)
    mean = weights @ flat
    _, size, modes = torch.linalg.svd((flat - mean) * weights.sqrt()[:, None], full_matrices=False)
    law = LowRank(
        modes.view(-1, *mixture.means.shape[1:]), size**2 + mixture.std**2, mixture.std**2
    )
    return Gaussian(mean.view(mixture.means.shape[1:]), law, mixture.process)


def test_fewer_evaluations_at_equal_error() -> None:
    """On three blobs, where the base is wrong below: the later start is better at equal cost, and
    the base's own error shows once it stands for too much."""
    means = torch.randn(3, 1, N, generator=torch.manual_seed(2), dtype=DOUBLE)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)
    mixture = Mixture(means, weights, 0.3, VE(clock=CLOCK))
    base, rng = moments_of(mixture), Streams.of(0, 200)

    def draw(steps: int, kappa: float | None) -> Tensor:
        early = None if kappa is None else Early(base, kappa)
        return Diffusion(mixture, Multistep(), steps, early=early)((200, 1, N), Context(), rng)

    exact = draw(300, None)

    def error(steps: int, kappa: float | None) -> float:
        return float((draw(steps, kappa) - exact).square().mean().sqrt())

    assert error(8, 4.0) < error(12, None) and error(10, 4.0) < error(16, None)
    assert error(300, 10.0) < 1e-3 < 1e-2 < error(300, 2.0)


def test_what_it_cannot_follow_is_refused() -> None:
    gaussian = Gaussian(MEAN, PRIOR, VE(clock=CLOCK))
    curved = Observation(
        torch.ones(1), Function(lambda x: x.square().mean((1, 2))[:, None]), torch.tensor(0.1)
    )
    for guided in (
        DPS(gaussian, OBSERVATION, 0.5),
        Conditioned(Conditioned(gaussian, OBSERVATION, gaussian), OBSERVATION, gaussian),
        Conditioned(gaussian, curved, gaussian),
        ClassifierFree(Conditioned(gaussian, OBSERVATION, gaussian), gaussian, 3.0),
    ):
        sampler = Diffusion(guided, Multistep(), 6, early=Early(gaussian, 3.0))
        with pytest.raises(InputError, match="early"):
            sampler((2, 1, N), Context(), Streams.of(0, 2))
    for kappa in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="positive"):
            Early(gaussian, kappa)
    with pytest.raises(InputError, match="within"):
        Diffusion(gaussian, early=Early(gaussian, 1e4))((1, 1, N), Context(), Streams.of(0, 1))


def test_it_is_saved_with_the_sampler() -> None:
    classes = model.CLASSES | {"Early": Early, "LogKappa": LogKappa}
    gaussian = Gaussian(MEAN, PRIOR, VE(White(), CLOCK))
    sampler = Diffusion(gaussian, Multistep(), 6, early=Early(gaussian, 3.0))
    encoder = tree.Encoder()
    again = tree.decode(json.loads(json.dumps(encoder.encode(sampler))), encoder.tensors, classes)
    draws = [s((2, 1, N), Context(), Streams.of(0, 2)) for s in (sampler, again)]
    assert torch.equal(*draws)
