"""Backbones: the transforms they are made of, one set of weights on every grid, conditioning."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn import FNO, UNO, SpectralOperator, UNet
from sciddm.nn.spectral import CosineConv, Film, FourierConv, NoiseLevel, coordinates
from sciddm.tree import Encoder, decode

DOUBLE = torch.float64
CLASSES = {kind.__name__: kind for kind in (FNO, UNO, SpectralOperator, UNet)}
Build = Callable[..., nn.Module]
BACKBONES: dict[str, Build] = {
    "cosine": lambda **k: SpectralOperator(2, 1, (5, 4), width=8, blocks=2, **k),
    "fourier": lambda **k: SpectralOperator(2, 1, (4, 4), 8, 2, periodic=True, **k),
    "cosine 3x3": lambda **k: SpectralOperator(2, 1, (5, 4), 8, 2, kernel=3, **k),
    "unet": lambda **k: UNet(2, 1, (3, 3), (6, 8), **k),
    "unet on a torus": lambda **k: UNet(2, 1, (2, 2), (6, 8), periodic=True, **k),
    "fno": lambda **k: FNO(2, 1, (6, 6), width=8, blocks=2, **k),
    "uno": lambda **k: UNO(2, 1, (6, 6), width=8, **k),
}
backbones = pytest.mark.parametrize("build", BACKBONES.values(), ids=BACKBONES.keys())


def built(build: Build, **numbers: int) -> nn.Module:
    """With every weight away from zero, as after training."""
    torch.manual_seed(0)
    net = build(**numbers)
    with torch.no_grad():
        for weight in net.parameters():
            if not weight.is_complex() and not bool(weight.any()):
                nn.init.normal_(weight, std=0.3)
    return net


def noise(rows: int, *grid: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, 2, *grid, generator=torch.manual_seed(1), dtype=dtype)


LEVEL = torch.tensor(0.5, dtype=DOUBLE)


@pytest.mark.parametrize(
    ("modes", "grid"),
    [
        ((3,), (8,)), ((5,), (8,)), ((9,), (8,)), ((9,), (7,)),
        ((3, 4), (8, 10)), ((6, 7), (9, 7)), ((6, 7), (8, 8)),
        ((2, 3, 2), (5, 6, 4)), ((4, 4, 4), (4, 4, 4)),
    ],
    ids=str,
)  # fmt: skip
def test_fourier_conv_is_an_explicit_rfftn(modes: tuple[int, ...], grid: tuple[int, ...]) -> None:
    """Also where the grid has fewer frequencies than the layer has modes, and at Nyquist."""
    torch.manual_seed(0)
    layer = FourierConv(3, 2, modes).double()
    x = torch.randn(2, 3, *grid, dtype=DOUBLE)
    axes = tuple(range(2, 2 + len(grid)))
    spectrum = torch.fft.rfftn(x, dim=axes, norm="forward")
    weight = torch.complex(*layer.weight.detach())
    out = torch.zeros(2, 2, *spectrum.shape[2:], dtype=torch.complex128)
    for index in np.ndindex(*spectrum.shape[2:]):
        signed = [
            k if i == len(grid) - 1 or k <= (n - 1) // 2 else k - n
            for i, (k, n) in enumerate(zip(index, grid, strict=True))
        ]
        nyquist = any(2 * abs(k) == n for k, n in zip(signed[:-1], grid[:-1], strict=True))
        if nyquist or any(abs(k) >= m for k, m in zip(signed, modes, strict=True)):
            continue
        place = [k + m - 1 for k, m in zip(signed[:-1], modes[:-1], strict=True)] + [signed[-1]]
        out[(slice(None), slice(None), *index)] = (
            spectrum[(slice(None), slice(None), *index)] @ weight[tuple(place)]
        )
    expected = torch.fft.irfftn(out, s=grid, dim=axes, norm="forward")
    assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("modes", "grid"), [((3,), (8,)), ((9,), (8,)), ((3, 4), (8, 10)), ((2, 3, 2), (5, 6, 4))],
    ids=str,
)  # fmt: skip
def test_cosine_conv_is_an_explicit_dctn(modes: tuple[int, ...], grid: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = CosineConv(3, 2, modes).double()
    x = torch.randn(2, 3, *grid, dtype=DOUBLE)
    axes = tuple(range(2, 2 + len(grid)))
    spectrum = scipy.fft.dctn(x.numpy(), axes=axes, norm="ortho")
    weight = np.zeros((*grid, 3, 2))
    kept = tuple(slice(min(m, n)) for m, n in zip(modes, grid, strict=True))
    weight[kept] = layer.weight.detach().numpy()[kept]
    mixed = np.einsum("bi...,...io->bo...", spectrum, weight)
    expected = scipy.fft.idctn(mixed, axes=axes, norm="ortho")
    assert np.allclose(layer(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("kind", [FourierConv, CosineConv])
@pytest.mark.parametrize("modes", [(3,), (2, 3)], ids=str)
def test_gradients_of_the_spectral_layers(
    kind: type[FourierConv] | type[CosineConv], modes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer = kind(2, 2, modes).double()
    x = torch.randn(1, 2, *[5, 4][: len(modes)], dtype=DOUBLE, requires_grad=True)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    weight = layer.weight.detach().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, weight))
    assert torch.autograd.gradgradcheck(run, (x, weight), fast_mode=True)


@pytest.mark.parametrize("kind", [FourierConv, CosineConv])
def test_a_map_on_a_finer_grid_is_the_same_map(kind: type[FourierConv] | type[CosineConv]) -> None:
    """Linear and band-limited: exact on the shared points (cell centres of a threefold grid)."""
    torch.manual_seed(0)
    layer = kind(2, 1, (3, 4)).double()

    def field(n: int) -> Tensor:
        at = (torch.arange(n, dtype=DOUBLE) + 0.5) / n
        if kind is CosineConv:
            y, x = torch.cos(torch.pi * 2 * at), torch.cos(torch.pi * 3 * at)
        else:
            y, x = torch.cos(2 * torch.pi * 2 * at), torch.sin(2 * torch.pi * 3 * at)
        return torch.stack([1 + y[:, None] * x, y[:, None] + x]).unsqueeze(0)

    coarse, fine = layer(field(12)), layer(field(36))
    assert torch.allclose(fine[..., 1::3, 1::3], coarse, atol=1e-12)


@backbones
@pytest.mark.parametrize("grid", [(12, 12), (16, 12), (15, 13)], ids=str)
@torch.no_grad()
def test_resolution_and_type_are_kept(build: Build, grid: tuple[int, int]) -> None:
    net = built(build)
    out = net(noise(2, *grid), LEVEL, Context())
    assert out.shape == (2, 1, *grid) and out.dtype == torch.float32
    assert float(out.std()) > 1e-3
    if not isinstance(net, FNO | UNO):  # the library's weights are complex64
        double = net.double()(noise(2, *grid).double(), LEVEL, Context())
        assert double.dtype == DOUBLE
        assert torch.allclose(double.float(), out, atol=1e-4)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_any_number_of_dimensions(dim: int) -> None:
    modes, grid = (3,) * dim, (9, 8, 10)[:dim]
    for net in (
        SpectralOperator(2, 1, modes, 6, 1), SpectralOperator(2, 1, modes, 6, 1, periodic=True),
        UNet(2, 1, modes, (4, 6)), FNO(2, 1, modes, width=6, blocks=1), UNO(2, 1, modes, width=6),
    ):  # fmt: skip
        assert net(noise(2, *grid), LEVEL, Context()).shape == (2, 1, *grid)


def smooth(n: int, dtype: torch.dtype) -> Tensor:
    """Two channels of a periodic, band-limited function at the centres of n x n cells."""
    at = 2 * torch.pi * (torch.arange(n, dtype=dtype) + 0.5) / n
    first = torch.cos(at[:, None]) * torch.sin(at) + 0.5 * torch.cos(at - at[:, None])
    return torch.stack([first, torch.sin(at)[:, None] + torch.cos(at)]).unsqueeze(0)


@pytest.mark.parametrize(
    ("name", "tolerance"), [("fourier", 1e-9), ("cosine", 1e-3), ("fno", 5e-4), ("uno", 2e-3)]
)
def test_the_same_weights_on_a_finer_grid(name: str, tolerance: float) -> None:
    """Relative difference on shared points, 24 x 24 against 72 x 72 (an odd ratio shares the cell
    centres). What is left is the coordinate's jump at the edge, which falls with the grid, and in
    the U-NO the resampling."""
    net = built(BACKBONES[name])
    dtype = torch.float32 if name in ("fno", "uno") else DOUBLE  # the library's are complex64
    net = net if dtype == torch.float32 else net.double()
    assert transfer(net, dtype) < tolerance


@torch.no_grad()
def transfer(net: nn.Module, dtype: torch.dtype) -> float:
    coarse = net(smooth(24, dtype), LEVEL, Context())
    fine = net(smooth(72, dtype), LEVEL, Context())[..., 1::3, 1::3]
    return float((fine - coarse).norm() / coarse.norm())


def test_local_weights_are_tied_to_their_grid() -> None:
    """The test above can fail: 3x3 maps see a third of the distance on a threefold grid."""
    assert transfer(built(BACKBONES["cosine 3x3"]).double(), DOUBLE) > 0.02


@backbones
@torch.no_grad()
def test_the_noise_level_conditions_every_row_by_itself(build: Build) -> None:
    net, x = built(build), noise(3, 12, 12)
    levels = torch.tensor([-2.0, 0.5, 3.0], dtype=DOUBLE).view(3, 1, 1, 1)
    together = net(x, levels, Context())
    for i in range(3):
        alone = net(x[i : i + 1], levels[i], Context())
        assert torch.allclose(together[i : i + 1], alone, atol=1e-5)
        other = net(x[i : i + 1], levels[i] + 2, Context())
        assert float((other - alone).norm() / alone.norm()) > 3e-3


@backbones
@torch.no_grad()
def test_every_film_matters_and_starts_silent(build: Build) -> None:
    """Untrained, the level changes nothing; each FiLM alone, once its weight is perturbed, does."""
    torch.manual_seed(0)
    net, x = build(), noise(1, 12, 12)
    for name, weight in net.named_parameters():
        if "head" in name:
            nn.init.normal_(weight, std=0.3)
    films = [m for m in net.modules() if isinstance(m, Film)]
    assert len(films) >= 2
    low, high = (torch.tensor(v, dtype=DOUBLE) for v in (-1.0, 2.0))
    plain = net(x, low, Context())
    assert torch.equal(net(x, high, Context()), plain)
    for film in films:
        nn.init.normal_(film.linear.weight, std=2.0)
        a, b = net(x, low, Context()), net(x, high, Context())
        assert float((a - b).norm() / plain.norm()) > 1e-3
        nn.init.zeros_(film.linear.weight)


@backbones
@torch.no_grad()
def test_scalars_condition_too(build: Build) -> None:
    net, x = built(build, scalars=3), noise(2, 12, 12)
    scalars = torch.randn(2, 3)
    first = net(x, LEVEL, Context(scalars=scalars))
    moved = net(x, LEVEL, Context(scalars=scalars + torch.tensor([[0.0], [1.0]])))
    assert torch.allclose(moved[0], first[0], atol=1e-5)
    assert float((moved[1] - first[1]).norm() / first[1].norm()) > 1e-2
    for wrong in (None, torch.zeros(2, 2)):
        with pytest.raises(InputError, match="expects 3 scalars"):
            net(x, LEVEL, Context(scalars=wrong))
    # a failed call leaves nothing behind
    assert torch.equal(net(x, LEVEL, Context(scalars=scalars)), first)


@backbones
def test_fields_of_the_context_are_inputs(build: Build) -> None:
    net, x = built(build), noise(3, 12, 12)
    given = net(x[:, :1], LEVEL, Context(fields=x[:, 1:]))
    assert torch.equal(given, net(x, LEVEL, Context()))
    shared = net(x[:, :1], LEVEL, Context(fields=x[:1, 1:]))
    repeated = net(torch.cat([x[:, :1], x[:1, 1:].expand(3, -1, -1, -1)], 1), LEVEL, Context())
    assert torch.equal(shared, repeated)


@backbones
def test_copies_after_a_backward_pass_live_on_their_own(build: Build) -> None:
    """As averaging does in training: no graph holds the copy back, and it sees its own level."""
    net, x = built(build), noise(2, 12, 12)
    net(x, LEVEL, Context()).square().mean().backward()
    twin = copy.deepcopy(net)
    before = net(x, LEVEL, Context())
    assert torch.equal(twin(x, LEVEL, Context()), before)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert not bool(twin(x, LEVEL, Context()).any())
    assert torch.equal(net(x, LEVEL, Context()), before)
    grads = [w.grad for w in net.parameters()]
    assert all(g is not None and bool(torch.isfinite(torch.view_as_real(g) if g.is_complex() else g)
               .all()) for g in grads)  # fmt: skip


@backbones
def test_a_backbone_is_data(build: Build) -> None:
    """Tensors only in its state; through JSON and safetensors and back to the bit."""
    net, x = built(build), noise(2, 12, 12)
    state = net.state_dict()
    assert all(isinstance(v, Tensor) for v in state.values())
    prefixed = nn.ModuleDict({"inner": net}).state_dict()
    assert sorted(prefixed) == sorted(f"inner.{k}" for k in state)
    encoder = Encoder()
    tree = json.loads(json.dumps(encoder.encode(net, "net")))
    assert len(encoder.tensors) == len(state)
    again = decode(tree, load(save(encoder.tensors)), CLASSES)
    assert torch.equal(again(x, LEVEL, Context()), net(x, LEVEL, Context()))
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), state.values(),
                                                 strict=True))  # fmt: skip


@backbones
def test_one_level_a_row_and_no_other(build: Build) -> None:
    with pytest.raises(InputError, match="one level a row"):
        built(build)(noise(2, 12, 12), torch.zeros(1, 1, 12, 1), Context())


def test_an_untrained_operator_says_nothing() -> None:
    """The model starts as its base: the heads of our own backbones are zero."""
    for name in ("cosine", "fourier", "cosine 3x3", "unet", "unet on a torus"):
        assert not bool(BACKBONES[name]()(noise(2, 12, 12), LEVEL, Context()).any())


def test_a_torus_has_no_place_of_its_own() -> None:
    """Periodic maps commute with a shift; bounded ones do not."""
    x = noise(2, 12, 12)
    for name in ("fourier",):
        net = built(BACKBONES[name])
        moved = net(x.roll((3, 5), (2, 3)), LEVEL, Context())
        assert torch.allclose(moved, net(x, LEVEL, Context()).roll((3, 5), (2, 3)), atol=1e-4)
    net = built(BACKBONES["cosine"])
    moved = net(x.roll((3, 5), (2, 3)), LEVEL, Context())
    assert not torch.allclose(moved, net(x, LEVEL, Context()).roll((3, 5), (2, 3)), atol=1e-2)


def test_coordinates_are_cell_centres() -> None:
    at = coordinates(torch.zeros(2, 5, 4, 2))
    assert at.shape == (2, 2, 4, 2)
    assert at[0, 0, :, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert at[0, 1, 0].tolist() == [-0.5, 0.5]


def test_the_level_embedding_tells_levels_apart() -> None:
    """Over the whole range of log kappa, to a step of 0.1."""
    torch.manual_seed(0)
    embed = NoiseLevel(32)
    levels = torch.arange(-7, 7, 0.1, dtype=DOUBLE)
    features = embed(levels, Context(), torch.zeros(len(levels), 1)).detach()
    distance = torch.cdist(features, features) + torch.eye(len(levels))
    assert float(distance.min()) > 1e-3


def test_layers_that_trained_after_validation_under_inference() -> None:
    """Matrices cached by the first call must not bind later ones to inference mode."""
    for name in ("cosine", "fourier"):
        net, x = built(BACKBONES[name]), noise(1, 14, 18)
        with torch.inference_mode():
            net(x, LEVEL, Context())
        net(x.requires_grad_(), LEVEL, Context()).square().sum().backward()
        assert x.grad is not None and bool(x.grad.any())
