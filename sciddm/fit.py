r"""Fitting a Gaussian law to fields and films: EOFs with shrinkage and localisation, spectra.

References
----------
Ledoit, Wolf. A well-conditioned estimator for large-dimensional covariance matrices. JMVA 2004.
Gaspari, Cohn. Construction of correlation functions in two and three dimensions. QJRMS 1999,
eq. 4.10. https://doi.org/10.1002/qj.49712555417
Whittle. On stationary processes in the plane. Biometrika 1954 (spectral likelihood).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciddm.basis import Basis
from sciddm.covariance import LowRank, PowerLaw, Tabulated
from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.guide import linear_posterior
from sciddm.observe import Observation, Points
from sciddm.process import VE
from sciddm.spacetime import SpaceTime, longer, windows


def eof(x: Tensor, modes: int, shrinkage: float = 0.0) -> LowRank:
    """The leading EOFs of centred fields ``x`` (N, C, *grid), by the smaller Gram matrix.

    shrinkage : share of the variance given to the isotropic rest. The floor is the mean variance
    outside the kept modes.
    """
    check_fields(x)
    flat = x.flatten(1).double()
    n, size = flat.shape
    keep = min(modes, n, size)
    if n < size:
        values, vectors = torch.linalg.eigh(flat @ flat.T / n)
        # centred fields span one direction fewer than their number: what is left is rounding
        keep = min(keep, int((values > 1e-12 * values[-1]).sum()))
        values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
        directions = (flat.T @ vectors / (n * values).sqrt()).T
    else:
        values, vectors = torch.linalg.eigh(flat.T @ flat / n)
        values, directions = values.flip(0)[:keep], vectors.flip(1)[:, :keep].T
    total = float(flat.square().mean())
    values = (1 - shrinkage) * values.clamp_min(0)
    floor = max(total * size - float(values.sum()), 0.0) / max(size - keep, 1)
    shape = (keep, *x.shape[1:])
    return LowRank(directions.reshape(shape).float(), values.float() + 0.0, floor)


def by_channel(x: Tensor, modes: tuple[int, ...]) -> Tensor:
    """Orthonormal EOFs of each channel of ``x`` (N, C, *grid) alone: (sum of modes, C, *grid).

    A basis for joint statistics of channels of very different smoothness.
    """
    parts = []
    for channel, count in enumerate(modes):
        own = eof(x[:, channel : channel + 1], count).modes
        full = torch.zeros(len(own), *x.shape[1:])
        full[:, channel] = own[:, 0]
        parts.append(full)
    return torch.cat(parts)


def localised(
    x: Tensor,
    distance: Tensor,
    radius: float,
    shrinkage: float,
    modes: int | None = None,
    nugget: float = 1e-4,
) -> LowRank:
    """A sample covariance tapered by distance and shrunk to the mean spectrum of a smooth law.

    Parameters
    ----------
    x : (N, C, *grid), centred. distance : (D, D) between grid values, D = C * points.
    radius : distance at which the taper (Gaspari and Cohn) reaches zero.
    shrinkage : share of the target, a Matern-like exponential law with the sample's pointwise
        variances and ``radius / 4`` as length. nugget : variance added to every value.
    modes : kept; None keeps 99.99 % of the variance.
    """
    check_fields(x)
    flat = x.flatten(1).double()
    sample = flat.T @ flat / len(flat)
    std = sample.diagonal().sqrt()
    target = torch.outer(std, std) * torch.exp(-distance.double() / (radius / 4))
    full = (1 - shrinkage) * sample * taper(distance.double() / radius) + shrinkage * target
    values, vectors = torch.linalg.eigh(full)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    modes = modes if modes is None else min(modes, len(values))
    if modes is None:
        share = values.cumsum(0) / values.sum()
        modes = int((share < 0.9999).sum()) + 1
    kept = values[:modes]
    floor = float(values[modes:].mean()) if modes < len(values) else 0.0
    directions = vectors[:, :modes].T.reshape(modes, *x.shape[1:])
    return LowRank(directions.float(), (kept + nugget).float(), floor + nugget)


def taper(r: Tensor) -> Tensor:
    """Gaspari and Cohn's fifth-order taper, 1 at r = 0 and 0 from r = 1 on."""
    z = 2 * r.clamp(0, 1)
    near = 1 - 5 / 3 * z**2 + 5 / 8 * z**3 + 0.5 * z**4 - 0.25 * z**5
    w = z.clamp_min(1e-12)
    far = 4 - 5 * z + 5 / 3 * z**2 + 5 / 8 * z**3 - 0.5 * z**4 + z**5 / 12 - 2 / (3 * w)
    return torch.where(z <= 1, near, far).clamp_min(0)


def spectrum(x: Tensor, basis: Basis, lengths: tuple[float, ...], bins: int = 24) -> Tabulated:
    """The isotropic density of fields ``x`` (N, C, *grid), averaged in rings even in log k."""
    check_fields(x)
    shape = tuple(x.shape[-len(lengths) :])
    k = basis.wavenumbers(shape, lengths).sqrt()
    power = basis.forward(x.double(), len(lengths)).abs().square().flatten(0, -len(lengths) - 1)
    cell = math.prod(lengths) / basis.cells(shape)
    mean = power.mean(0) * cell
    low, high = k[k > 0].min().log(), k.max().log()
    ring = ((k.clamp_min(1e-300).log() - low) / (high - low) * bins).floor().clamp(-1, bins - 1)
    knots, values = [], []
    for i in range(bins):
        inside = (ring == i) & (k > 0)
        if bool(inside.any()):
            knots.append(float(k[inside].log().mean().exp()))
            values.append(float(mean[inside].mean().clamp_min(1e-300)))
    return Tabulated(tuple(knots), tuple(values))


def check_fields(x: Tensor) -> None:
    """Refuse too few or not finite fields."""
    if len(x) < 2 or not bool(torch.isfinite(x).all()):
        raise InputError(
            f"Got {len(x)} fields to fit a covariance, finite: {bool(torch.isfinite(x).all())}; "
            "expected at least 2 fields of finite values; fill or mask the missing ones."
        )


def power_law(x: Tensor, basis: Basis, lengths: tuple[float, ...]) -> PowerLaw:
    """scale^2 (k^2 + tau^2)^(-alpha) fitted to fields ``x`` (N, C, *grid) by Whittle's likelihood.

    The sum over modes of ``log density + periodogram / density`` is minimised by L-BFGS over
    (log scale, log tau, alpha); the constant mode is left out.
    """
    check_fields(x)
    shape = tuple(x.shape[-len(lengths) :])
    k2 = basis.wavenumbers(shape, lengths)
    power = basis.forward(x.double(), len(lengths)).abs().square()
    cell = math.prod(lengths) / basis.cells(shape)
    mean = power.flatten(0, -len(lengths) - 1).mean(0) * cell
    inside = k2 > 0
    k2, mean = k2[inside], mean[inside]
    unknown = torch.tensor([0.0, float(k2.min().log()) / 2, 2.0], dtype=torch.float64)
    unknown[0] = 0.5 * float((mean * (k2 + k2.min()) ** 2).mean().log())
    unknown.requires_grad_()
    optimiser = torch.optim.LBFGS(
        [unknown],
        max_iter=500,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        log_density = 2 * unknown[0] - unknown[2] * (k2 + (2 * unknown[1]).exp()).log()
        value = (log_density + mean * (-log_density).exp()).sum()
        value.backward()
        return value

    optimiser.step(loss)
    log_scale, log_tau, alpha = (float(v) for v in unknown.detach())
    return PowerLaw(alpha, math.exp(log_tau), math.exp(log_scale))


def regularised(
    x: Tensor, held: Tensor, distance: Tensor | None, modes: int = 400
) -> tuple[LowRank, dict[str, float]]:
    """The Gaussian law of fields ``x`` that interpolates the later fields ``held`` well.

    Up to 2,000 grid values with known ``distance`` (D, D): the sample covariance tapered at a
    radius and shrunk to a smooth law (`localised`). Larger: EOFs with shrinkage. Of all that are
    within one standard error of the best `interpolation_score`, the most shrunk is taken: a short
    record knows less than it seems to, and the days to come are not those of ``held`` (Breiman et
    al., Classification and regression trees, 1984, section 3.4.3). Returns the law and the choice.
    """
    check_fields(x)
    found: list[tuple[Tensor, LowRank, dict[str, float]]] = []
    if distance is not None and x[0].numel() <= 2000:
        far = float(distance.max())
        for radius in (0.5 * far, 0.85 * far, 1.25 * far):
            for shrinkage in (0.01, 0.03, 0.1, 0.2):
                law = localised(x, distance, radius, shrinkage, modes=modes)
                choice = {"radius": radius, "shrinkage": shrinkage}
                found.append((interpolation_score(law, held), law, choice))
    else:
        for count in (m for m in (10, 20, 40, 80, 160) if m < len(x)):
            for shrinkage in (0.0, 0.1, 0.3):
                law = eof(x, count, shrinkage)
                choice = {"modes": float(count), "shrinkage": shrinkage}
                found.append((interpolation_score(law, held), law, choice))
    best = min((score for score, _, _ in found), key=lambda s: float(s.mean()))
    close = [f for f in found if within_one_error(f[0] - best)]
    _, law, choice = max(close, key=lambda f: (f[2]["shrinkage"], -float(f[0].mean())))
    return law, choice


def film_law(
    x: Tensor, held: Tensor, frames: int, basis: Basis, depths: tuple[int, ...] = (1, 2, 3, 4, 6)
) -> tuple[SpaceTime, dict[str, float]]:
    """The law of films of ``frames`` frames that is stationary in space and time, fitted to films
    ``x`` (N, C, T, *grid) of mean 0.

    The windows it is made from (`spacetime.windows`), whether patterns travel and the shrinkage are
    those of the best likelihood of the films ``held``, the plainest within one standard error of
    it. Returns the law and the choice.
    """
    longest = min(x.shape[2], held.shape[2], frames)
    found = []
    for depth in (d for d in depths if d <= longest):
        for travelling in (False, True):
            for shrinkage in (0.0, 1e-4, 1e-3, 1e-2):
                law = windows(x, depth, basis, travelling=travelling, shrinkage=shrinkage)
                score = -longer(law, longest).log_prob(held[:, :, :longest])
                choice = (float(depth), float(travelling), -shrinkage)
                found.append((choice, score, law))
    best = min((score for _, score, _ in found), key=lambda v: float(v.mean()))
    close = [f for f in found if within_one_error(f[1] - best)]
    choice, _, law = min(close, key=lambda f: f[0])
    names = {"depth": choice[0], "travelling": choice[1], "shrinkage": -choice[2]}
    return longer(law, frames), names


def within_one_error(excess: Tensor, blocks: int = 6) -> bool:
    """Whether a paired excess (N,) of consecutive fields is below its own standard error, from the
    means of ``blocks`` stretches, since neighbours in time are no independent tests."""
    means = torch.stack([part.mean() for part in excess.tensor_split(min(blocks, len(excess)))])
    error = float(means.std()) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return float(excess.mean()) <= error


def interpolation_score(law: LowRank, held: Tensor) -> Tensor:
    """Log CRPS of each field of ``held`` (N, C, *grid) interpolated from some of its values: (N,).

    3 % of the values with an error of 0.2 s.d. and 10 % with 0.05, at fixed random places; the
    two are averaged as logarithms. Gneiting and Raftery, JASA 2007, eq. 21.
    """
    total = torch.zeros(len(held), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    prior = Gaussian(torch.zeros(()), law, VE())
    size = held[0].numel()
    unit = float(held.std())
    for share, error in ((0.03, 0.2), (0.1, 0.05)):
        at = torch.randperm(size, generator=generator)[: max(1, round(share * size))]
        seen = held.flatten(1)[:, at]
        noise = error * unit * torch.randn(seen.shape, generator=generator)
        see = Points(at[:, None], torch.ones(len(at), 1))
        observation = Observation(seen + noise, see, torch.tensor((error * unit) ** 2))
        mean, _, spread = linear_posterior(prior, observation, held)
        std = spread.clamp_min(1e-12).sqrt()
        z = (held.double() - mean.double()) / std
        density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        crps = std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
        total += 0.5 * crps.flatten(1).mean(1).log()
    return total


def log_likelihood(law: LowRank, x: Tensor) -> Tensor:
    """log N(x; 0, law) of each field of ``x`` (N, C, *grid): (N,), float64. Needs a floor > 0."""
    flat, modes = x.flatten(1).double(), law.modes.flatten(1).double()
    inside = flat @ modes.T
    variances = law.variances.double().clamp_min(1e-12)
    floor = max(law.floor, 1e-12)
    rest = flat.square().sum(1) - inside.square().sum(1)
    size, rank = modes.shape[1], modes.shape[0]
    log_det = variances.log().sum() + (size - rank) * math.log(floor)
    quadratic = (inside.square() / variances).sum(1) + rest / floor
    return -0.5 * (quadratic + log_det + size * math.log(2 * math.pi))
