"""The reverse equation on torchsde: its law, its weak order, and noise that belongs to a member."""

from __future__ import annotations

import math

import pytest
import torch
import torchsde
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.guide import Conditioned
from sciddm.observe import Observation, points
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Clocked,
    CosineAlpha,
    Flow,
    LogLinear,
    MeanReverting,
    Process,
    SubVP,
)
from sciddm.random import Streams
from sciddm.sde import Integrated, Path, Reverse, Scheme

DOUBLE = torch.float64
N = 16
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
WHITE: Covariance = White(1.0)
MATERN = Spectral(Matern(0.2, 0.5), (1.0,), Cosine())
ALL = Cosine().inverse(torch.ones(N, dtype=DOUBLE), (N,)).view(1, N)


class Impulses:
    """Addressed noise that is one in every eigendirection, for each address in a row of its own."""

    def __init__(self, known: dict[object, int], at: object = None) -> None:
        self.known, self._at = known, at

    def at(self, purpose: str, step: int = 0) -> Impulses:
        return Impulses(self.known, (purpose, step))

    def normal(self, like: Tensor) -> Tensor:
        row = self.known.setdefault(self._at, len(self.known) + 1)
        z = torch.zeros_like(like)
        if row < len(z):
            z[row] = ALL
        return z


def law(process: Process, scheme: Scheme, eta: float, steps: int) -> Tensor:
    """Variance of every eigendirection over the exact one, from kappa 10 to 0.1."""
    prior, noise = PRIOR.eigenvalues((N,)), torch.ones(N, dtype=DOUBLE)
    if isinstance(process.noise, Spectral):
        noise = process.noise.eigenvalues((N,))

    def exact(t: Tensor) -> Tensor:
        alpha, _, sigma = process.coefficients(t)
        return alpha**2 * prior + sigma**2 * noise

    times = process.times(2, 10.0, 0.1)
    start = Cosine().inverse(exact(times[0]).sqrt(), (N,)).view(1, 1, N)
    denoiser = Gaussian(torch.zeros((), dtype=DOUBLE), PRIOR, process)
    context = Context(anchor=torch.zeros(1, 1, N, dtype=DOUBLE) if process.anchored else None)
    sampler = Integrated(denoiser, steps, scheme, eta, 10.0, 0.1)
    known: dict[object, int] = {}
    sampler.descend(start, context, Impulses(known))
    x = torch.zeros(1 + len(known), 1, N, dtype=DOUBLE)
    x[:1] = start
    found = Cosine().forward(sampler.descend(x, context, Impulses(known))[:, 0], 1)
    return found.square().sum(0) / exact(times[1])


PROCESSES: list[Process] = [
    *(kind(WHITE, CLOCK) for kind in (VE, VP, Flow, SubVP, MeanReverting)),
    VP(MATERN, CLOCK),
    VP(WHITE, CosineAlpha()),
    Bridge(VE(WHITE, CLOCK), 5.0),
]
NAMES = ["VE", "VP", "Flow", "SubVP", "MeanReverting", "matern", "cosine", "Bridge"]


@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
@pytest.mark.parametrize(("scheme", "order"), [(Scheme.EULER, 1), (Scheme.SRK, 2)])
def test_the_weak_order(scheme: Scheme, order: int, process: Process) -> None:
    coarse, fine = (float((law(process, scheme, 1.0, n) - 1).abs().max()) for n in (20, 60))
    assert math.log(coarse / fine) / math.log(3) == pytest.approx(order, abs=0.3)
    assert fine < (0.12 if order == 1 else 0.04)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.5])
def test_the_law_is_right_whatever_the_noise(eta: float) -> None:
    """Within 2 % at 256 steps of the first order, or at 48 of the second."""
    assert float((law(Flow(MATERN, CLOCK), Scheme.SRK, eta, 48) - 1).abs().max()) < 0.02
    if eta == 1:
        assert float((law(Flow(MATERN, CLOCK), Scheme.EULER, eta, 256) - 1).abs().max()) < 0.02


@pytest.mark.parametrize("kind", [VP, MeanReverting], ids=lambda k: k.__name__)
def test_without_noise_it_is_the_probability_flow(kind: type[VP]) -> None:
    """A mean and an anchor included: against the exact flow map."""
    process = kind(MATERN, CLOCK)
    mean = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
    denoiser = Gaussian(mean, PRIOR, process)
    m = torch.full((1, 1, N), 0.8, dtype=DOUBLE) if process.anchored else None
    times = process.times(2)
    x = process.start(torch.zeros(3, 1, N, dtype=DOUBLE), times[0], m, Streams.of(0, 3))
    sampler = Integrated(denoiser, 100, Scheme.SRK, 0.0)
    found = sampler.descend(x, Context(anchor=m), None)
    beta = [0.0 if m is None else process.coefficients(t)[1] * m for t in times]
    exact = denoiser.under(VP(MATERN, CLOCK)).flow(x - beta[0], *times) + beta[1]
    assert float((found - exact).norm() / exact.norm()) < 5e-3


class Counting(Denoiser):
    def __init__(self, inner: Denoiser) -> None:
        nn.Module.__init__(self)
        self.inner, self.process, self.calls = inner, inner.process, 0

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.calls += 1
        return self.inner(x_t, t, context)


@pytest.mark.parametrize("scheme", list(Scheme), ids=lambda s: s.name)
def test_members_and_evaluations(scheme: Scheme) -> None:
    """The same member in any company, in float32; torch's own seed has no say."""
    denoiser = Counting(Gaussian(torch.tensor(0.5), PRIOR, VE(MATERN, CLOCK)))
    sampler = Integrated(denoiser, 12, scheme)
    torch.manual_seed(0)
    first = sampler((4, 1, N), Context(), Streams.of(3, 4))
    assert denoiser.calls == sampler.evaluations
    torch.manual_seed(1)
    assert first.dtype == torch.float32 and not first.requires_grad
    other = sampler((4, 1, N), Context(), Streams.of(3, [3, 9, 0, 8]))
    assert torch.equal(other[[2, 0]], first[[0, 3]])
    assert not torch.allclose(other[1], first[1])


def test_it_draws_with_guidance_in_closed_form() -> None:
    gaussian = Gaussian(torch.tensor(0.0), PRIOR, VP(WHITE, CLOCK))
    operator = points([0, 0], torch.tensor([[1.0], [12.5]]), (N,))
    y = torch.tensor([2.0, -1.0])
    guided = Conditioned(gaussian, Observation(y, operator, torch.tensor(0.01)), gaussian)
    x = Integrated(guided, 64)((6, 1, N), Context(), Streams.of(0, 6))
    assert float((operator(x) - y).abs().max()) < 0.4
    assert float(x.std(0).max()) > 0.2


def test_the_path_has_the_moments_of_a_brownian_path() -> None:
    like = torch.zeros(4000, 1, 2, dtype=DOUBLE)
    path = Path(like, Streams.of(0, 4000))
    w, u = path(2.0, 3.0, return_U=True)
    assert w.shape == u.shape == path.shape == (4000, 2)
    assert torch.equal(w, path(2.0, 3.0)) and not torch.equal(w, path(3.0, 4.0))
    moments = [float((a * b).mean()) for a, b in ((w, w), (w, u), (u, u))]
    assert moments == pytest.approx([1, 1 / 2, 1 / 3], abs=4 * 0.02)
    for wrong in ((0.0, 2.0), (0.5, 1.5), (1.0, None)):
        with pytest.raises(InputError, match="whole step"):
            path(*wrong)
    with pytest.raises(InputError, match="BrownianInterval"):
        reverse = Reverse(Gaussian(torch.zeros(()), WHITE, VE()), Context(), (1, 2), (1, 0), 4)
        torchsde.sdeint(reverse, like[:, 0], [0.0, 4.0], bm=path, dt=1.0, method="euler",
                        adaptive=True)  # fmt: skip


def test_bad_input_is_refused() -> None:
    gaussian = Gaussian(torch.zeros(()), WHITE, VE(clock=CLOCK))
    for eta in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="eta"):
            Integrated(gaussian, eta=eta)
    with pytest.raises(InputError, match="steps"):
        Integrated(gaussian, 0)
    with pytest.raises(InputError, match="downwards"):
        Reverse(gaussian, Context(), (1, N), (0.0, 1.0), 4)
    with pytest.raises(InputError, match="within"):
        Integrated(gaussian, kappa_max=30.0)((1, 1, N), Context(), Streams.of(0, 1))
    clocked = Counting(gaussian)
    clocked.process = Clocked(VE(clock=CLOCK), torch.rand(1, N, dtype=DOUBLE))
    with pytest.raises(InputError, match="single clock"):
        Reverse(clocked, Context(), (1, N), (1.0, 0.0), 4)
