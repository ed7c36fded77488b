"""Each optimizer's step by hand or by its paper, its options, and that its state can be stored."""

import copy
import io

import pytest
import torch
from torch.nn import functional as F

from res2net.config.schema_learning import OptimConfig
from res2net.models.head import Res2NetClassifier
from res2net.training.optim.optimizers import build_optimizer, scaled_lr
from res2net.zoo import create_model

NAMES = ["sgd", "adamw", "lamb", "muon"]


def network() -> Res2NetClassifier:
    torch.manual_seed(0)
    return create_model("res2net20_cifar", num_classes=7)


def set_gradients(model: Res2NetClassifier, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def after(optim: OptimConfig, *, lr: float = 0.1, steps: int = 1) -> tuple[dict, dict, dict]:
    """Weights before and after so many steps with the same gradients, and those."""
    model = network()
    before = {name: p.detach().clone().double() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, optim, lr=lr)
    set_gradients(model)
    gradients = {name: p.grad.double().clone() for name, p in model.named_parameters()}
    for _ in range(steps):
        optimizer.step()
    return before, {n: p.detach().double() for n, p in model.named_parameters()}, gradients


def expect(found: torch.Tensor, formula: torch.Tensor) -> None:
    torch.testing.assert_close(found, formula, rtol=2e-5, atol=2e-6)


def test_sgd_is_nesterovs_by_hand() -> None:
    before, found, g = after(OptimConfig(momentum=0.5, weight_decay=0.25))
    for name, w in before.items():
        decay = 0.25 if w.ndim > 1 else 0.0
        # the first velocity is the gradient; Nesterov adds momentum times velocity to it
        expect(found[name], w - 0.1 * 1.5 * (g[name] + decay * w))


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.9, False), (0.0, True), (0.0, False)])
def test_plain_momentum_and_none(momentum: float, nesterov: bool) -> None:
    optimizer = build_optimizer(
        network(), OptimConfig(momentum=momentum, nesterov=nesterov), lr=0.1
    )
    assert optimizer.defaults["momentum"] == momentum and not optimizer.defaults["nesterov"]


def test_adamw_by_hand() -> None:
    optim = OptimConfig(name="adamw", weight_decay=0.25, betas=(0.8, 0.9), eps=0.5)
    before, found, g = after(optim, steps=2)
    for name, w in before.items():
        decay = 0.25 if w.ndim > 1 else 0.0
        for _ in range(2):  # the same gradient twice: both means are it and its square
            w = w * (1 - 0.1 * decay) - 0.1 * g[name] / (g[name].abs() + 0.5)
        expect(found[name], w)


def test_lamb_by_the_paper_and_without_clipping() -> None:
    optim = OptimConfig(name="lamb", weight_decay=0.25, eps=0.5)
    before, found, g = after(optim)
    for name, w in before.items():
        # arXiv 1904.00962, algorithm 2; the norm of all gradients is far above 1
        step = g[name] / (g[name].abs() + 0.5)
        if w.ndim > 1:
            step = step + 0.25 * w
            step = step * w.norm() / step.norm()
        expect(found[name], w - 0.1 * step)


def test_muon_makes_kernels_orthogonal_and_moves_the_rest_by_adam() -> None:
    optim = OptimConfig(name="muon", weight_decay=0.25, momentum=0.5, nesterov=False)
    before, found, g = after(optim)
    kernels = 0
    for name, w in before.items():
        if w.ndim == 1:
            expect(found[name], w - 0.1 * g[name] / (g[name].abs() + 1e-7))
            continue
        step = (w * (1 - 0.1 * 0.25) - found[name]) / 0.1
        matrix = step.flatten(1)
        if min(matrix.shape) < 4:
            continue
        kernels += 1
        values = torch.linalg.svdvals(matrix) / (0.2 * max(matrix.shape) ** 0.5)
        # Newton and Schulz's quintic brings singular values near 1
        assert values.median() == pytest.approx(1, abs=0.25), name
        assert values.max() < 1.3, name
    assert kernels > 20


@pytest.mark.parametrize("name", NAMES[1:])
def test_eps_0_is_the_optimizers_own(name: str) -> None:
    own = build_optimizer(network(), OptimConfig(name=name), lr=0.1).defaults["eps"]  # type: ignore[arg-type]
    assert own == {"adamw": 1e-8, "lamb": 1e-6, "muon": 1e-7}[name]
    optim = OptimConfig(name=name, eps=0.01)  # type: ignore[arg-type]
    groups = build_optimizer(network(), optim, lr=0.1).param_groups
    assert {group["eps"] for group in groups} == {0.01}


@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_their_rate_and_decay(name: str) -> None:
    optim = OptimConfig(name=name, weight_decay=0.25, layer_decay=0.5, head_lr=3.0)  # type: ignore[arg-type]
    optimizer = build_optimizer(network(), optim, lr=0.1)
    head = [group for group in optimizer.param_groups if group["lr_scale"] == 3]
    assert [group["lr"] for group in head] == pytest.approx([0.3, 0.3])
    assert [group["weight_decay"] for group in head] == [0.25, 0.0]
    # and they count: a layer of half the rate moves half as far
    torch.manual_seed(0)
    far, near = (
        after(OptimConfig(name=name, weight_decay=0.0, head_lr=scale))  # type: ignore[arg-type]
        for scale in (1.0, 0.5)
    )
    for key in ("head.fc.weight", "head.fc.bias"):
        expect(near[1][key] - near[0][key], (far[1][key] - far[0][key]) / 2)
    assert torch.equal(near[1]["backbone.stem.conv1.weight"], far[1]["backbone.stem.conv1.weight"])


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_state_goes_on_to_the_bit(name: str) -> None:
    optim = OptimConfig(name=name, layer_decay=0.8, clip_norm=1.0)  # type: ignore[arg-type]
    model = network().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(model, optim, lr=0.01)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))

    def steps(model: Res2NetClassifier, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()
            optimizer.step()

    steps(model, optimizer)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    other = copy.deepcopy(model)
    again = build_optimizer(other, optim, lr=0.5)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    steps(model, optimizer)
    steps(other, again)
    for (key, ours), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), key


@pytest.mark.parametrize(
    ("lr_batch", "rule", "batch", "lr", "line"),
    [
        (0, "linear", 1024, 0.1, ""),
        (256, "linear", 256, 0.1, ""),
        (256, "linear", 1024, 0.4,
         "optim.lr: 0.1 for 256 images, 0.4 for data.global_batch_size=1024 (linear)"),
        (256, "sqrt", 1024, 0.2,
         "optim.lr: 0.1 for 256 images, 0.2 for data.global_batch_size=1024 (sqrt)"),
        (256, "linear", 64, 0.025,
         "optim.lr: 0.1 for 256 images, 0.025 for data.global_batch_size=64 (linear)"),
    ],
)  # fmt: skip
def test_the_rate_for_another_batch(
    lr_batch: int, rule: str, batch: int, lr: float, line: str
) -> None:
    optim = OptimConfig(lr=0.1, lr_batch=lr_batch, lr_rule=rule)  # type: ignore[arg-type]
    found, announcement = scaled_lr(optim, batch)
    assert found == pytest.approx(lr) and announcement == line


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_betas(name: str) -> None:
    optim = OptimConfig(name=name, betas=(0.8, 0.95))  # type: ignore[arg-type]
    groups = build_optimizer(network(), optim, lr=0.1).param_groups
    assert {group["betas"] for group in groups} == {(0.8, 0.95)}
