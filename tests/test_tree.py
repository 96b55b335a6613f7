"""A model as data: what goes in comes out, and nothing else can be built."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from sciddm import basis, covariance, denoise, process, solve
from sciddm.basis import Cosine
from sciddm.calibrate import Calibrated, Scaled
from sciddm.covariance import LowRank, Matern, PowerLaw, Spectral, Tabulated, ZeroMean
from sciddm.denoise import Context, Gaussian, Mixture, Preconditioned
from sciddm.errors import InputError
from sciddm.nn import SpectralOperator
from sciddm.process import VE, VP, Clocked, LinearSigma, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler
from sciddm.tree import Encoder, arguments, decode


@dataclass(frozen=True, eq=False)
class Holder:
    """Anything, under one name."""

    value: Any


CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Holder, basis.Periodic, Cosine, basis.Sine, covariance.White, Spectral, LowRank, Matern,
        PowerLaw, Tabulated, ZeroMean, VE, VP, process.Flow, Clocked, LogLinear, LinearSigma,
        Gaussian, Mixture, Preconditioned, denoise.CrossFitted, Calibrated, Scaled, Diffusion,
        Euler, solve.Heun, solve.Multistep, solve.LogKappa, solve.NoiseForm, solve.InKappa,
        SpectralOperator,
    )
}  # fmt: skip


def through(value: object) -> Any:  # noqa: ANN401
    """Through JSON text and safetensors bytes, and back."""
    encoder = Encoder()
    tree = json.dumps(encoder.encode(value, "root"))
    return decode(json.loads(tree), load(save(encoder.tensors)), CLASSES)


@pytest.mark.parametrize(
    "value", [None, True, False, 3, -2.5, "text", (1, "a", None), (), ((1, 2), (3,))], ids=repr
)
def test_plain_values(value: object) -> None:
    found = through(Holder(value)).value
    assert found == value and type(found) is type(value)


def test_mappings_arrays_and_tensors() -> None:
    value = {
        "a": {"tensor": torch.arange(3), "b": np.array([[1.5, 2.5]])},
        "class": "no class", "map": [1, 2], "args": {}, "array": np.arange(4),
        "half": torch.ones(2, dtype=torch.bfloat16), "truth": torch.tensor([True, False]),
    }  # fmt: skip
    found = through(Holder(value)).value
    assert torch.equal(found["a"]["tensor"], torch.arange(3))
    assert np.array_equal(found["a"]["b"], [[1.5, 2.5]]) and found["a"]["b"].dtype == np.float64
    assert found["class"] == "no class" and found["map"] == (1, 2) and found["args"] == {}
    assert np.array_equal(found["array"], np.arange(4))
    assert found["half"].dtype == torch.bfloat16 and found["truth"].tolist() == [True, False]


def test_every_array_and_every_network_has_its_own_tensors() -> None:
    """What is encoded may be made on the way and freed at once: its identity is no name."""
    arrays = {f"v{i}": np.full(3, float(i)) for i in range(50)}
    found = through(Holder(arrays)).value
    assert all(np.array_equal(found[k], v) for k, v in arrays.items())
    torch.manual_seed(0)
    networks = tuple(SpectralOperator(1, 1, (3,), 4, 1) for _ in range(6))
    for a, b in zip(networks, through(Holder(networks)).value, strict=True):
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True):
            assert torch.equal(x, y)


def test_names_that_meet_stay_apart() -> None:
    value = {"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1)}
    found = through(Holder(value)).value
    assert float(found["a"]["b"]) == 0 and float(found["a.b"]) == 1


def test_a_tensor_used_twice_is_stored_once() -> None:
    shared = torch.randn(4, 4)
    encoder = Encoder()
    tree = encoder.encode({"one": shared, "two": {"three": shared}}, "root")
    assert list(encoder.tensors) == ["root.one"]
    found = decode(tree, encoder.tensors, CLASSES)
    assert found["one"] is found["two"]["three"]
    # a view is another tensor
    Encoder.encode(encoder, {"view": shared[:2], "turned": shared.T}, "more")
    assert {k: tuple(v.shape) for k, v in encoder.tensors.items()} == {
        "root.one": (4, 4), "more.view": (2, 4), "more.turned": (4, 4),
    }  # fmt: skip
    assert encoder.tensors["more.turned"].is_contiguous()


def lowrank() -> LowRank:
    modes = torch.linalg.qr(torch.randn(8, 3, generator=torch.manual_seed(0))).Q.T
    return LowRank(modes.reshape(3, 1, 8), torch.tensor([3.0, 2.0, 1.0]), 0.1)


def network(inputs: int = 2) -> SpectralOperator:
    torch.manual_seed(1)
    net = SpectralOperator(inputs, 1, (4,), 6, 1, scalars=0)
    nn.init.normal_(net.head.weight)
    return net


MEAN = torch.linspace(-1, 1, 8).view(1, 8)
SPECTRAL = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0,), Cosine())
TABULATED = Spectral(Tabulated((1.0, 10.0), (1.0, 0.01)), (1.0,), Cosine())
VE_ = VE(clock=LogLinear(0.02, 50.0))
VP_ = VP(Spectral(Matern(0.3, 1.5), (1.0,), Cosine()), LinearSigma(1e-3))
DENOISERS: dict[str, Callable[[], denoise.Denoiser]] = {
    "spectral": lambda: Gaussian(MEAN, SPECTRAL, VP_),
    "tabulated": lambda: Gaussian(MEAN, TABULATED, VE_),
    "low rank": lambda: Gaussian(MEAN, lowrank(), VE_),
    "mixture": lambda: Mixture(torch.randn(5, 1, 8), torch.full((5,), 0.2), 0.3, VE_),
    "network": lambda: Preconditioned(network(1), VE_),
    "network on a base": lambda: Preconditioned(network(), VE_, Gaussian(MEAN, lowrank(), VE_)),
    "cross-fitted": lambda: Preconditioned(
        network(),
        VE_,
        denoise.CrossFitted(
            Gaussian(MEAN, lowrank(), VE_), [Gaussian(MEAN, SPECTRAL, VE_)] * 2, (0, 4, 9)
        ),
    ),
}


@pytest.mark.parametrize("build", DENOISERS.values(), ids=DENOISERS.keys())
def test_a_denoiser_comes_back_to_the_bit(build: Callable[[], denoise.Denoiser]) -> None:
    denoiser = build()
    again = through(denoiser)
    assert type(again) is type(denoiser)
    x_t = torch.randn(3, 1, 8, generator=torch.manual_seed(2))
    for t in (torch.tensor(0.3), torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1)):
        for context in (Context(), Context(index=torch.tensor([3, 4, 8]))):
            expected = denoiser(x_t, t, context)
            assert torch.equal(again(x_t, t, context), expected)


def test_a_sampler_and_its_moments_come_back_whole() -> None:
    clocked = Clocked(VE_, torch.linspace(0, 1, 8).view(1, 1, 8), span=0.5)
    assert torch.equal(through(clocked).kappa(torch.tensor(0.5)), clocked.kappa(torch.tensor(0.5)))
    base = Gaussian(MEAN, lowrank(), VE_)
    inside = torch.diag_embed(torch.rand(2, 3) + 1)
    calibrated = Calibrated(VE_, lowrank().modes, torch.tensor([-1.0, 2.0]), inside,
                            torch.rand(2, 1) + 1)  # fmt: skip
    scaled = Scaled(base, torch.tensor([-1.0, 2.0]), torch.tensor([1.0, 2.0]))
    g, t = torch.randn(2, 1, 8), torch.tensor(0.4)
    for moments in (calibrated, scaled, base):
        assert torch.equal(through(moments).covariance(t)(g), moments.covariance(t)(g))
    sampler = Diffusion(Preconditioned(network(), VE_, base), Euler(0.5), 7, 20.0, 0.1)
    again = through(sampler)
    assert (again.solver, again.steps, again.kappa_max, again.kappa_min) == (
        Euler(0.5), 7, 20.0, 0.1,
    )  # fmt: skip
    draw = sampler((2, 1, 8), Context(), Streams.of(0, 2))
    assert torch.equal(again((2, 1, 8), Context(), Streams.of(0, 2)), draw)


def test_a_copy_shares_no_memory() -> None:
    net = network()
    encoder = Encoder()
    encoder.encode(net, "net")
    before = {k: v.clone() for k, v in encoder.tensors.items()}
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(1)
    assert all(torch.equal(encoder.tensors[k], v) for k, v in before.items())


def encoded() -> tuple[dict[str, Any], dict[str, Tensor]]:
    encoder = Encoder()
    return encoder.encode(Gaussian(MEAN, lowrank(), VE_), "g"), encoder.tensors


def test_arguments_are_those_of_the_constructor() -> None:
    assert arguments(LowRank) == ["modes", "variances", "floor"]
    assert arguments(covariance.Points) == ["coords", "kernel"]  # what it computes is no argument
    assert arguments(Preconditioned) == ["backbone", "process", "base"]


def test_a_tree_that_names_what_is_not_offered_is_refused() -> None:
    tree, tensors = encoded()
    tree["args"]["prior"]["class"] = "LowRankk"
    with pytest.raises(InputError, match="'LowRankk', which sciddm does not offer.*'LowRank'"):
        decode(tree, tensors, CLASSES)
    for name in ("os.system", "Popen", "type", None, 3, ["VE"]):
        tree["args"]["prior"]["class"] = name
        with pytest.raises(InputError, match="does not offer"):
            decode(tree, tensors, CLASSES)
    tree, tensors = encoded()
    del tree["args"]["prior"]["args"]["variances"]
    with pytest.raises(InputError, match="LowRank cannot be built.*variances"):
        decode(tree, tensors, CLASSES)
    tree["args"]["prior"]["args"] = [1]
    with pytest.raises(InputError, match="no arguments by name"):
        decode(tree, tensors, CLASSES)
    tree, tensors = encoded()
    tree["args"]["process"]["args"]["clock"]["args"]["kappa_min"] = "low"
    with pytest.raises(InputError, match="LogLinear cannot be built"):
        decode(tree, tensors, CLASSES)
    tree["args"]["process"]["args"]["clock"]["args"]["kappa_min"] = -1.0
    with pytest.raises(InputError, match="0 < kappa_min < kappa_max"):
        decode(tree, tensors, CLASSES)
    tree, tensors = encoded()
    tree["args"]["prior"]["args"]["flor"] = 1.0
    with pytest.raises(InputError, match="argument 'flor'.*'floor'"):
        decode(tree, tensors, CLASSES)


def test_tensors_that_are_missing_or_of_another_shape_are_refused() -> None:
    tree, tensors = encoded()
    del tensors["g.prior.modes"]
    with pytest.raises(InputError, match="'g.prior.modes' is missing"):
        decode(tree, tensors, CLASSES)
    tree["args"]["mean"] = {"tensor": ["g.mean"]}
    with pytest.raises(InputError, match="is missing from the weights"):
        decode(tree, tensors, CLASSES)
    encoder = Encoder()
    tree = encoder.encode(network(), "net")
    wrong = dict(encoder.tensors)
    wrong["net.head.weight"] = wrong["net.head.weight"][:, :-1]
    with pytest.raises(InputError, match="'head.weight' is missing, extra or of another shape"):
        decode(tree, wrong, CLASSES)
    for change in (lambda s: s.pop("head.bias"), lambda s: s.update(more=s["head.bias"])):
        altered = json.loads(json.dumps(tree))
        change(altered["state"])
        with pytest.raises(InputError, match="missing, extra or of another shape"):
            decode(altered, encoder.tensors, CLASSES)
