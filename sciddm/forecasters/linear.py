r"""The linear Gaussian law: exact where it is the truth, the classical baseline where it is fitted.

A frame is ``x = mean + sum_r z_r e_r + rest`` with orthonormal patterns e_r, and

    z_{n+1}    = A_1 z_n + A_2 z_{n-1} + ... + N(0, Q)
    rest_{n+1} = rho rest_n + N(0, (1 - rho^2) v)     outside the patterns.

Mean and covariance at every lead, and the joint law of all leads, are closed form: with F the
companion matrix of the A_i, P_0 = 0 and P_{n+1} = F P_n F^T + Q,

    Cov(z_m, z_n | past) = P_m (F^{n-m})^T     for m <= n.

References
----------
Penland, Sardeshmukh. The optimal growth of tropical sea surface temperature anomalies. Journal of
Climate 8, 1995, eq. 3-6 (linear inverse model; its noise by fluctuation and dissipation).
https://doi.org/10.1175/1520-0442(1995)008<1999:TOGOTS>2.0.CO;2
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sciddm.covariance import LowRank
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Forecaster, Known
from sciddm.random import Streams


class LinearGaussian(Forecaster):
    """The law above as a `Forecaster`: draws, and their moments in closed form.

    Parameters
    ----------
    modes : (R, C, *grid), orthonormal in the plain dot product over (C, *grid).
    transition : (P, R, R), A_1 (of the newest frame) to A_P.
    noise : (R, R), the covariance Q. mean : (C, *grid), or a scalar tensor.
    persistence, floor : rho and v of the rest, a value of the grid.
    """

    def __init__(
        self,
        modes: Tensor,
        transition: Tensor,
        noise: Tensor,
        mean: Tensor,
        persistence: float = 0.0,
        floor: float = 0.0,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        rank = len(modes)
        if transition.ndim != 3 or transition.shape[1:] != (rank, rank) or len(transition) < 1:
            raise InputError(
                f"Got a transition of shape {tuple(transition.shape)} for {rank} modes; expected "
                f"(P, {rank}, {rank}), one matrix for every frame of the past."
            )
        if noise.shape != (rank, rank) or not -1 < persistence < 1 or not floor >= 0:
            raise InputError(
                f"Got noise of shape {tuple(noise.shape)}, a rest of persistence {persistence!r} "
                f"and variance {floor!r}; expected ({rank}, {rank}), a number between -1 and 1, "
                "and a variance."
            )
        self.modes, self.transition, self.noise, self.mean = modes, transition, noise, mean
        self.persistence, self.floor, self.boundary = persistence, floor, boundary
        self.history = len(transition)
        values, vectors = torch.linalg.eigh(noise.double())
        if not float(values[0]) >= -1e-6 * abs(float(values[-1])):
            raise InputError(
                f"Got a noise with the eigenvalue {float(values[0]):g}; expected a covariance."
            )
        self._root = vectors * values.clamp_min(0).sqrt()

    @staticmethod
    def circle(
        factor: Tensor, variance: Tensor, points: int, scale: float = 1.0, mean: float = 0.0
    ) -> LinearGaussian:
        """The law of a real field on a circle whose orthonormal Fourier coefficients are each
        multiplied by ``factor`` (points // 2 + 1,) a frame, and receive noise of ``variance``, as
        `sciddm.pde.StochasticHeat.transition` says; for fields (x - mean) / scale.
        """
        angle = 2 * math.pi / points * torch.arange(points, dtype=torch.float64)
        rows: list[Tensor] = []
        a = torch.zeros(points, points, dtype=torch.float64)
        noise = torch.zeros(points, dtype=torch.float64)
        for k, (f, v) in enumerate(zip(factor.to(torch.complex128), variance, strict=True)):
            at, single = len(rows), k == 0 or 2 * k == points
            size = math.sqrt((1 if single else 2) / points)
            rows.append(size * torch.cos(k * angle))
            a[at, at], noise[at] = f.real, v
            if not single:
                rows.append(size * torch.sin(k * angle))
                a[at + 1, at + 1], noise[at + 1] = f.real, v
                a[at, at + 1], a[at + 1, at] = f.imag, -f.imag
        shifted = torch.tensor(-mean / scale, dtype=torch.float64)
        return LinearGaussian(
            torch.stack(rows)[:, None], a[None], torch.diag(noise / scale**2), shifted
        )

    @property
    def evaluations(self) -> float:
        return 0.0

    def coefficients(self, frames: Tensor) -> Tensor:
        """z (B, T, R) of ``frames`` (B, C, T, *grid), float64."""
        gap = (frames.movedim(2, 1).double() - self.mean.to(frames.device)).flatten(2)
        return gap @ self.modes.flatten(1).to(gap).T

    def fields(self, z: Tensor) -> Tensor:
        """Frames (B, C, T, *grid) of coefficients (B, T, R), the rest being zero; float64."""
        flat = z @ self.modes.flatten(1).to(z)
        return (self.mean.to(z) + flat.unflatten(2, self.modes.shape[1:])).movedim(1, 2)

    def expected(self, recent: Tensor) -> Tensor:
        """The mean of the frame after ``recent`` (B, C, T, *grid), T >= P: (B, C, *grid)."""
        recent = recent[:, :, -self.history :]
        z = self.coefficients(recent)
        ahead = torch.einsum("prs,bps->br", self.transition.to(z), z.flip(1))
        mean = self.fields(ahead[:, None])[:, :, 0]
        if self.persistence:
            newest = recent[:, :, -1:]
            mean = mean + self.persistence * (newest - self.fields(z[:, -1:]))[:, :, 0]
        return mean.to(recent)

    def innovation(self, like: Tensor, rng: Streams) -> Tensor:
        """What a frame adds to its mean, a draw of the shape of ``like`` (B, C, *grid)."""
        white = rng.at("modes").normal(like.new_zeros(len(like), len(self.modes)).double())
        flat = self.modes.flatten(1).to(white)
        added = white @ self._root.to(white).T @ flat
        if self.floor:
            w = rng.at("rest").normal(like).double().flatten(1)
            size = math.sqrt(self.floor * (1 - self.persistence**2))
            added = added + size * (w - w @ flat.T @ flat)
        return added.view_as(like).to(like)

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        recent = context.past[:, :, -self.history :]
        frame = 0
        while True:
            frame += 1
            x = self.expected(recent)
            x = self.imposed(x + self.innovation(x, rng.inside("frame", frame)), context)
            recent = torch.cat([recent[:, :, 1:], x[:, :, None]], dim=2)
            yield x

    def means(self, past: Tensor, leads: int) -> Tensor:
        """E[frame n | past] for n = 1 .. ``leads``: (B, C, leads, *grid)."""
        out: list[Tensor] = []
        recent = past[:, :, -self.history :]
        for _ in range(leads):
            out.append(self.expected(recent))
            recent = torch.cat([recent[:, :, 1:], out[-1][:, :, None]], dim=2)
        return torch.stack(out, dim=2)

    def covariances(self, leads: int) -> Tensor:
        """Cov(z_n | past) for n = 1 .. ``leads``: (leads, R, R), float64."""
        rank = len(self.modes)
        return torch.stack(self._companion_covariances(leads))[:, :rank, :rank]

    def joint(self, leads: int) -> Tensor:
        """Cov(z_m, z_n | past) for all leads: (leads, R, leads, R), float64."""
        f, rank = self._companion(), len(self.modes)
        known = self._companion_covariances(leads)
        out = torch.empty(leads, rank, leads, rank, dtype=torch.float64)
        for m, block in enumerate(known):
            for n in range(m, leads):
                out[m, :, n] = block[:rank, :rank]
                out[n, :, m] = block[:rank, :rank].T
                block = block @ f.T
        return out

    def variances(self, leads: int) -> Tensor:
        """Pointwise variance of each lead given the past: (leads, C, *grid), float64."""
        flat = self.modes.flatten(1).double()
        inside = torch.einsum("nrs,rd,sd->nd", self.covariances(leads), flat, flat)
        n = torch.arange(1, leads + 1, dtype=torch.float64)[:, None]
        share = self.floor * (1 - self.persistence ** (2 * n))
        rest = share * (1 - flat.square().sum(0)).clamp_min(0)
        return (inside + rest).unflatten(1, self.modes.shape[1:])

    def stationary(self) -> Tensor:
        """Cov(z) of the law at rest: (R, R), float64. Raises `InputError` where it has none."""
        f, rank = self._companion(), len(self.modes)
        if not self.radius < 1:
            raise InputError(f"Got a mode that grows by {self.radius:g} a frame; expected decay.")
        total = self._companion_noise()
        while float(f.abs().max()) > 1e-12:  # doubling: the sum over 2^k frames
            total = total + f @ total @ f.T
            f = f @ f
        return total[:rank, :rank]

    @property
    def radius(self) -> float:
        """Growth a frame of the slowest mode: below 1 for a law that settles."""
        return float(torch.linalg.eigvals(self._companion()).abs().max())

    def innovations(self, block: int = 1) -> LowRank:
        """The covariance of ``block`` frames round their means given the past, on fields (B, C
        block, *grid) with the frames of a channel beside each other; without the rest."""
        rank = len(self.modes)
        joint = self.joint(block).reshape(block * rank, block * rank)
        values, vectors = torch.linalg.eigh(joint)
        shapes = vectors.T.unflatten(1, (block, rank)) @ self.modes.flatten(1).double()
        shapes = shapes.unflatten(2, self.modes.shape[1:]).movedim(1, 2).flatten(1, 2)
        return LowRank(shapes, values.clamp_min(0))

    def _companion(self) -> Tensor:
        order, rank = self.transition.shape[:2]
        f = torch.zeros(order * rank, order * rank, dtype=torch.float64)
        f[:rank] = self.transition.double().movedim(0, 1).flatten(1)
        f[rank:, :-rank] = torch.eye((order - 1) * rank, dtype=torch.float64)
        return f

    def _companion_noise(self) -> Tensor:
        order, rank = self.transition.shape[:2]
        noise = torch.zeros(order * rank, order * rank, dtype=torch.float64)
        noise[:rank, :rank] = self.noise.double()
        return noise

    def _companion_covariances(self, leads: int) -> list[Tensor]:
        f, noise = self._companion(), self._companion_noise()
        out = [noise]
        for _ in range(leads - 1):
            out.append(f @ out[-1] @ f.T + noise)
        return out
