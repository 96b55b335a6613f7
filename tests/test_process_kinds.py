"""What each process and clock is by its own formula, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, CrossFitted, Denoiser, Gaussian, Mixture, Preconditioned
from sciddm.errors import InputError
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Capped,
    Clock,
    Clocked,
    CosineAlpha,
    Drifting,
    Flow,
    Interpolant,
    LinearBeta,
    LinearSigma,
    LogLinear,
    MeanReverting,
    OneClock,
    SubVP,
)
from sciddm.tree import Encoder, decode

DOUBLE = torch.float64
T = torch.linspace(0, 1, 21, dtype=DOUBLE)
CLOCKS: list[Clock] = [
    LogLinear(1e-3, 1e3),
    LinearSigma(1e-3),
    LinearSigma(0.02, 1.7, 0.5),
    LinearBeta(),
    LinearBeta(3.0, 3.0, 0.03, 0.4),
    CosineAlpha(),
]


@pytest.mark.parametrize("clock", CLOCKS, ids=str)
def test_a_clock_rises_between_finite_ends_and_has_an_inverse(clock: Clock) -> None:
    t = torch.linspace(0, 1, 101, dtype=DOUBLE)
    kappa = clock.kappa(t)
    assert bool((kappa.diff() > 0).all()) and bool(torch.isfinite(kappa).all())
    assert clock.ends() == (float(kappa[0]), float(kappa[-1])) and clock.ends()[0] > 0
    assert torch.allclose(clock.time(kappa), t, atol=1e-10)


def test_a_linear_beta_is_the_clock_of_song_et_al() -> None:
    """alpha = exp(-1/2 integral of beta) under VP, by the trapezoid; times from 1e-3 to 1."""
    fine = torch.linspace(0, 1, 100_001, dtype=DOUBLE)
    beta = 0.1 + 19.9 * fine
    integral = torch.cumulative_trapezoid(beta, fine)
    tau = 1e-3 + 0.999 * T
    expected = torch.exp(-0.5 * integral[(tau * 100_000).round().long() - 1])
    alpha, _, sigma = VP(clock=LinearBeta()).coefficients(T)
    assert torch.allclose(alpha, expected, rtol=1e-9)
    # and its rates: drift -beta/2, diffusion sqrt(beta)
    drift, _, diffusion = VP(clock=LinearBeta()).rates(T)
    assert torch.allclose(drift, -0.5 * 0.999 * (0.1 + 19.9 * tau))
    assert torch.allclose(diffusion**2, 0.999 * (0.1 + 19.9 * tau))


def test_a_cosine_alpha_is_a_cosine() -> None:
    alpha, _, sigma = VP(clock=CosineAlpha(0.008, 1e-3)).coefficients(T)
    angle = (0.999 * T + 0.008) / 1.008 * math.pi / 2
    assert torch.allclose(alpha, angle.cos()) and torch.allclose(sigma, angle.sin())


def test_sub_vp_is_stable_at_both_ends() -> None:
    alpha, _, sigma = SubVP(clock=LogLinear(1e-12, 1e12)).coefficients(T)
    kappa = LogLinear(1e-12, 1e12).kappa(T)
    assert torch.allclose(sigma, (1 - alpha) * (1 + alpha), atol=1e-12)
    assert float(1 - alpha[0]) == pytest.approx(5e-13, rel=1e-3)
    assert float(alpha[-1] * kappa[-1]) == pytest.approx(1, rel=1e-12)
    middle, _, below = SubVP().coefficients(T)
    assert torch.allclose(below, 1 - middle**2, atol=1e-12)
    assert bool((below < torch.sqrt(1 - middle**2)).all())  # less noise than VP at one alpha


def test_mean_reversion_by_its_own_time() -> None:
    """exp(-Theta), mu + (x - mu) exp(-Theta) and lambda^2 (1 - exp(-2 Theta))."""
    spread, beta = 0.3, 4.0
    process = MeanReverting(clock=LinearBeta(beta, beta, 0.01, spread), spread=spread)
    theta = 0.5 * beta * (0.01 + 0.99 * T)
    alpha, weight, sigma = process.coefficients(T)
    assert torch.allclose(alpha, torch.exp(-theta)) and torch.allclose(weight, 1 - alpha)
    assert torch.allclose(sigma**2, spread**2 * (1 - torch.exp(-2 * theta)))
    # dX = theta (M - X) dt + spread sqrt(2 theta) dW
    drift, pull, diffusion = process.rates(T)
    rate = torch.full_like(T, 0.5 * beta * 0.99)
    assert torch.allclose(drift, -rate) and torch.allclose(pull, rate)
    assert torch.allclose(diffusion**2, 2 * spread**2 * rate)


def test_drifting_by_its_own_time() -> None:
    """The mean and the variance in the paper's time, and the equation that they belong to."""
    gamma, low, high = 1.5, 0.05, 0.5
    plain = Drifting(stiffness=gamma, sigma_min=low, sigma_max=high)
    own = LinearBeta(2 * plain.rate, 2 * plain.rate, 0.03, plain.spread)
    process = Drifting(clock=own, stiffness=gamma, sigma_min=low, sigma_max=high)
    tau, log_r = 0.03 + 0.97 * T, math.log(high / low)
    alpha, weight, sigma = process.coefficients(T)
    assert torch.allclose(alpha, torch.exp(-gamma * tau)) and torch.allclose(weight, 1 - alpha)
    variance = low**2 * ((high / low) ** (2 * tau) - torch.exp(-2 * gamma * tau)) * log_r
    assert torch.allclose(sigma**2, variance / (gamma + log_r))
    drift, pull, diffusion = process.rates(T)
    speed = torch.full_like(T, 0.97 * gamma)
    assert torch.allclose(drift, -speed) and torch.allclose(pull, speed)
    assert torch.allclose(diffusion**2, 0.97 * low**2 * (high / low) ** (2 * tau) * 2 * log_r)


BASES: list[type[VE] | type[VP] | type[SubVP] | type[Flow]] = [VE, VP, SubVP, Flow]
bases = pytest.mark.parametrize("kind", BASES, ids=lambda k: k.__name__)


@bases
def test_a_bridge_is_its_base_given_the_end(kind: type[VE]) -> None:
    """Condition (X_t, X_T) of the base on X_T = m by hand: weights and variance."""
    base, end = kind(clock=LogLinear(1e-3, 10.0)), 4.0
    last = base.clock.time(torch.tensor(end, dtype=DOUBLE))
    t = last * torch.linspace(0.3, 0.95, 9, dtype=DOUBLE)
    scale, _, std = base.between(t, last)
    alpha_t, _, sigma_t = base.coefficients(t)
    gain = scale * sigma_t**2 / ((scale * sigma_t) ** 2 + std**2)
    mean_x, mean_m = alpha_t - gain * scale * alpha_t, gain
    variance = sigma_t**2 - gain * scale * sigma_t**2
    bridge = Bridge(base, end)
    alpha, beta, sigma = bridge.at(variance.sqrt() / mean_x)
    assert torch.allclose(alpha, mean_x) and torch.allclose(beta, mean_m)
    assert torch.allclose(sigma**2, variance)
    # a noise source, M = the base's own field at T, makes it the base again
    alpha_last, _, sigma_last = base.coefficients(last)
    assert torch.allclose(alpha + beta * alpha_last, alpha_t)
    assert torch.allclose((beta * sigma_last) ** 2 + sigma**2, sigma_t**2)


def test_the_weights_of_the_two_published_bridges() -> None:
    """s_t^2 / s_T^2 and its complement under VE; the signal-to-noise form under VP."""
    s, end = torch.linspace(0.01, 1.9, 9, dtype=DOUBLE), 2.0
    share = (s / end) ** 2
    alpha, beta, sigma = Bridge(VE(), end).at(s / torch.sqrt(1 - share))
    assert torch.allclose(beta, share) and torch.allclose(alpha, 1 - share)
    assert torch.allclose(sigma**2, s**2 * (1 - share))
    a, a_end = torch.rsqrt(1 + s**2), 1 / math.sqrt(1 + end**2)
    ratio = (a_end**2 / (1 - a_end**2)) / (a**2 / (1 - a**2))  # SNR_T / SNR_t
    alpha, beta, sigma = Bridge(VP(), end).at(s / torch.sqrt(1 - share))
    assert torch.allclose(beta, ratio * a / a_end) and torch.allclose(alpha, a * (1 - ratio))
    assert torch.allclose(sigma**2, (1 - a**2) * (1 - ratio))


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_an_interpolant_by_its_own_time(power: float) -> None:
    spread, eps = 0.6, 1e-3
    tau = eps + (1 - 2 * eps) * T
    process = Interpolant(clock=LinearSigma(eps, spread, power), spread=spread, power=power)
    alpha, beta, sigma = process.coefficients(T)
    assert torch.allclose(alpha, 1 - tau) and torch.allclose(beta, tau)
    assert torch.allclose(sigma, spread * tau**power * (1 - tau) ** (1 - power))


def test_what_the_interpolants_are_beside_the_others() -> None:
    """Half power is the Brownian bridge; full power starts from the anchor plus noise, and is flow
    matching where the anchor is zero."""
    half, bridge = Interpolant(spread=1.7).coefficients(T), Bridge(VE(), 1.7).coefficients(T)
    for a, b in zip(half, bridge, strict=True):
        assert torch.allclose(a, b)
    coupled = Interpolant(clock=LogLinear(1e-3, 1e6), spread=1.7, power=1.0)
    alpha, beta, sigma = coupled.coefficients(torch.ones((), dtype=DOUBLE))
    assert [float(v) for v in (alpha, beta, sigma)] == pytest.approx([0, 1, 1.7], abs=1e-5)
    plain, unit = Flow().coefficients(T), Interpolant(spread=1.0, power=1.0).coefficients(T)
    assert torch.allclose(plain[0], unit[0]) and torch.allclose(plain[2], unit[2])
    reverting = MeanReverting().coefficients(T)
    assert torch.allclose(VP().coefficients(T)[0], reverting[0])


SAVED: list[OneClock | Clocked | Capped] = [
    SubVP(clock=CosineAlpha(0.01, 2e-3)),
    MeanReverting(White(0.5), LinearBeta(0.2, 8.0, 0.01, 0.4), 0.4),
    Drifting(stiffness=1.2, sigma_min=0.1, sigma_max=0.7),
    Interpolant(clock=LinearSigma(0.01, 0.8, 0.7), spread=0.8, power=0.7),
    Bridge(Flow(clock=LogLinear(0.01, 10.0)), 2.0),
    Clocked(Bridge(VP(), 3.0), torch.tensor([0.1, 0.9]), 0.5),
    Capped(SubVP(), torch.tensor([0.1, 9.0])),
]


@pytest.mark.parametrize("process", SAVED, ids=lambda p: type(p).__name__)
def test_a_process_is_saved_as_data(process: OneClock | Clocked | Capped) -> None:
    offered = [White, VE, VP, SubVP, Flow, MeanReverting, Drifting, Interpolant, Bridge, Clocked]
    offered += [Capped, LogLinear, LinearSigma, LinearBeta, CosineAlpha]
    classes = {kind.__name__: kind for kind in offered}
    coder = Encoder()
    node = json.loads(json.dumps(coder.encode(process)))
    again = decode(node, coder.tensors, classes)
    t = T.view(-1, 1)
    for a, b in zip(process.coefficients(t), again.coefficients(t), strict=True):
        assert torch.equal(a, b)


# ------------------------------------------------------------------------- what is refused

CAP, HALF = torch.tensor([0.1, 1.0]), torch.tensor(0.5)
NAN, INF = math.nan, math.inf
BAD: dict[str, tuple[Callable[[], object], str]] = {
    "clock from zero": (lambda: LinearSigma(0.0), "eps"),
    "clock past the middle": (lambda: LinearSigma(0.5), "eps"),
    "clock with nan": (lambda: LinearSigma(NAN), "eps"),
    "clock of negative spread": (lambda: LinearSigma(1e-3, -1.0), "spread"),
    "clock of infinite spread": (lambda: LinearSigma(1e-3, INF), "finite"),
    "falling beta": (lambda: LinearBeta(2.0, 1.0), "beta_min <= beta_max"),
    "no beta": (lambda: LinearBeta(0.0, 1.0), "beta_min"),
    "infinite beta": (lambda: LinearBeta(0.1, INF), "finite"),
    "overflowing beta": (lambda: LinearBeta(0.1, 5000.0), "finite"),
    "beta from eps one": (lambda: LinearBeta(eps=1.0), "eps"),
    "no offset": (lambda: CosineAlpha(0.0), "offset"),
    "cosine to infinity": (lambda: CosineAlpha(eps=0.0), "eps"),
    "cosine with nan": (lambda: CosineAlpha(NAN), "offset"),
    "no spread": (lambda: MeanReverting(spread=0.0), "spread"),
    "negative spread": (lambda: MeanReverting(spread=-1.0), "spread"),
    "nan spread": (lambda: MeanReverting(spread=NAN), "spread"),
    "infinite spread": (lambda: Interpolant(spread=INF), "spread"),
    "spread out of the clock": (lambda: MeanReverting(spread=1e-320), "not finite|spread"),
    "no stiffness": (lambda: Drifting(stiffness=0.0), "stiffness"),
    "falling sigma": (lambda: Drifting(sigma_min=1.0, sigma_max=0.5), "sigma_min"),
    "power above one": (lambda: Interpolant(power=1.1), "power"),
    "no power": (lambda: Interpolant(power=0.0), "power"),
    "nan power": (lambda: Interpolant(power=NAN), "power"),
    "power that leaves no field": (lambda: Interpolant(power=1e-3), "not finite"),
    "no end": (lambda: Bridge(VE(), 0.0), "end"),
    "nan end": (lambda: Bridge(VE(), NAN), "end"),
    "bridge over a bridge": (lambda: Bridge(Bridge()), "no anchor"),
    "bridge over a clock per cell": (lambda: Bridge(Clocked(VE(), HALF)), "one clock"),  # type: ignore[arg-type]
    "delay above one": (lambda: Clocked(VE(), torch.tensor([0.0, 1.2])), "delays"),
    "nan delay": (lambda: Clocked(VE(), torch.tensor(NAN)), "delays"),
    "negative span": (lambda: Clocked(VE(), HALF, -1.0), "span"),
    "infinite span": (lambda: Clocked(VE(), HALF, INF), "span"),
    "cap above the clock": (lambda: Capped(VE(clock=LogLinear(0.01, 0.5)), CAP), "outside"),
    "cap below the clock": (lambda: Capped(VE(clock=LogLinear(0.5, 5.0)), CAP), "outside"),
    "nan cap": (lambda: Capped(VE(), torch.tensor(NAN)), "outside"),
    "cap over an anchor": (lambda: Capped(MeanReverting(), CAP), "no anchor"),
    "cap on a clock per cell": (lambda: Capped(Clocked(VE(), HALF), CAP), "one clock"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(("make", "said"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_a_process_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


# ------------------------------------------------------------------------- denoisers and the anchor

N = 6
ANCHOR = torch.linspace(-2, 1, 3 * N, dtype=DOUBLE).cos().view(3, 1, N)
ANCHORED: dict[str, OneClock] = {
    "MeanReverting": MeanReverting(spread=0.5),
    "Bridge": Bridge(VP(), 3.0),
    "Interpolant": Interpolant(spread=0.5, power=1.0),
}


class Constant(nn.Module):
    """A backbone that returns its last input channel: sees whatever the denoiser shows it."""

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        return x[:, :1]


@pytest.mark.parametrize("process", ANCHORED.values(), ids=ANCHORED.keys())
def test_every_denoiser_sees_past_the_anchor(process: OneClock) -> None:
    """The clean estimate of alpha x + beta m + sigma z is VE's of x + kappa z, whatever m."""
    noise, t = White(), torch.tensor([0.3, 0.5, 0.6], dtype=DOUBLE).view(3, 1, 1)
    prior = Spectral(Matern(0.4, 1.5), (1.0,), Cosine())
    u = torch.linspace(-2, 3, 3 * N, dtype=DOUBLE).sin().view(3, 1, N)
    alpha, beta, _ = process.coefficients(t)
    x_t = alpha * u + beta * ANCHOR
    assert torch.allclose(process.centred(x_t, t, ANCHOR), u)
    known = Gaussian(torch.full((1, N), 0.7, dtype=DOUBLE), prior, VE(noise))
    other = Gaussian(torch.zeros((), dtype=DOUBLE), White(0.6), VE(noise))
    crossed = CrossFitted(known, (other, known), (0, 2, 3))
    means = torch.linspace(-1, 1, 2 * N, dtype=DOUBLE).view(2, 1, N)
    weights = torch.tensor([0.3, 0.7])
    makers: list[Callable[[OneClock], Denoiser]] = [
        known.under,
        crossed.under,
        lambda p: Mixture(means, weights, 0.4, p),
        lambda p: Preconditioned(Constant(), p),
        lambda p: Preconditioned(Constant(), p, known),
        lambda p: Preconditioned(Constant(), p, crossed),
    ]
    index = torch.tensor([0, 1, 2])
    for make in makers:
        plain, seen = make(VE(noise)), make(process)
        for rows in (None, index):
            expected = plain(u, t, Context(index=rows))
            found = seen(x_t, t, Context(anchor=ANCHOR, index=rows))
            assert torch.allclose(found, expected, atol=1e-9), type(plain).__name__
    s = 0.5 * t
    alpha, beta, _ = process.coefficients(s)
    moved = known.under(process).flow(x_t, t, s, ANCHOR)
    assert torch.allclose((moved - beta * ANCHOR) / alpha, known.flow(u, t, s), atol=1e-9)
    with pytest.raises(InputError, match="anchor"):
        known.under(process)(x_t, t, Context())
