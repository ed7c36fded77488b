"""Losses against timm, torch and plain numpy on the same numbers."""

import numpy as np
import pytest
import torch
from timm.data.mixup import mixup_target
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional as F

from res2net.config.schema_learning import LossConfig
from res2net.errors import InputError
from res2net.training.loss.losses import Loss, balanced_weights

N, K = 12, 5
COUNTS = np.array([40, 1, 0, 7, 12])


@pytest.fixture
def logits() -> torch.Tensor:
    return 3 * torch.randn(N, K, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(K, (N,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def soft(labels: torch.Tensor) -> torch.Tensor:
    return 0.7 * F.one_hot(labels, K) + 0.3 * F.one_hot(labels.flip(0), K)


def assert_equal(ours: torch.Tensor, theirs: torch.Tensor | float) -> None:
    assert ours.shape == ()
    torch.testing.assert_close(ours, torch.as_tensor(theirs, dtype=ours.dtype), rtol=2e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, soft: torch.Tensor, smoothing: float
) -> None:
    loss = Loss(LossConfig(label_smoothing=smoothing), num_classes=K)
    assert_equal(loss(logits, labels), LabelSmoothingCrossEntropy(smoothing)(logits, labels))
    assert_equal(loss(logits, soft), F.cross_entropy(logits, soft, label_smoothing=smoothing))
    if not smoothing:
        assert_equal(loss(logits, soft), SoftTargetCrossEntropy()(logits, soft))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bce(
    logits: torch.Tensor,
    labels: torch.Tensor,
    soft: torch.Tensor,
    smoothing: float,
    threshold: float,
) -> None:
    config = LossConfig(name="bce", label_smoothing=smoothing, bce_threshold=threshold)
    loss = Loss(config, num_classes=K)
    timm = BinaryCrossEntropy(smoothing, target_threshold=threshold or None)
    assert_equal(loss(logits, labels), timm(logits, labels))
    if not smoothing:
        assert_equal(loss(logits, soft), timm(logits, soft))


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.34])  # 0.35 is smoothed to 0.335
def test_soft_targets_are_smoothed_as_timm_smooths_what_it_mixes(
    logits: torch.Tensor, labels: torch.Tensor, threshold: float
) -> None:
    mixed = mixup_target(labels, K, lam=0.65, smoothing=0.0)
    smooth = mixup_target(labels, K, lam=0.65, smoothing=0.1)
    loss = Loss(LossConfig(label_smoothing=0.1), num_classes=K)
    assert_equal(loss(logits, mixed), SoftTargetCrossEntropy()(logits, smooth))
    config = LossConfig(name="bce", label_smoothing=0.1, bce_threshold=threshold)
    timm = BinaryCrossEntropy(0.0, target_threshold=threshold or None)
    assert_equal(Loss(config, num_classes=K)(logits, mixed), timm(logits, smooth))


def test_balanced_weights_are_one_in_the_mean_over_the_images() -> None:
    weights = balanced_weights(COUNTS)
    assert weights[2] == 1
    present = COUNTS > 0
    np.testing.assert_allclose((weights * COUNTS)[present], COUNTS.sum() / 4)
    assert (weights * COUNTS).sum() / COUNTS.sum() == pytest.approx(1)
    np.testing.assert_array_equal(balanced_weights(np.array([3, 3])), [1, 1])


def plain_loss(config: LossConfig, logits: np.ndarray, target: np.ndarray, w: np.ndarray) -> float:
    """One image's, in float64, by the definitions."""
    s = config.label_smoothing
    smooth = [(1 - s) * t + s / K for t in target]
    if config.name == "cross_entropy":
        log_sum = np.log(np.exp(logits).sum())
        return sum(w[c] * smooth[c] * (log_sum - logits[c]) for c in range(K))
    if config.bce_threshold:
        smooth = [float(t > config.bce_threshold) for t in smooth]
    yes = 1 / (1 + np.exp(-logits))
    terms = [-t * np.log(p) - (1 - t) * np.log(1 - p) for t, p in zip(smooth, yes, strict=True)]
    return float(np.mean(terms) * sum(w[c] * target[c] for c in range(K)))


@pytest.mark.parametrize(
    ("name", "smoothing", "threshold"),
    [
        ("cross_entropy", 0.0, 0.0),
        ("cross_entropy", 0.1, 0.0),
        ("bce", 0.0, 0.0),
        ("bce", 0.1, 0.0),
        ("bce", 0.1, 0.2),
    ],
)
def test_class_weights(
    logits: torch.Tensor,
    labels: torch.Tensor,
    soft: torch.Tensor,
    name: str,
    smoothing: float,
    threshold: float,
) -> None:
    config = LossConfig(
        name=name,  # type: ignore[arg-type]
        label_smoothing=smoothing,
        bce_threshold=threshold,
        class_weights="balanced",
    )
    loss = Loss(config, num_classes=K, counts=COUNTS)
    weights = balanced_weights(COUNTS)
    for targets, given in ((F.one_hot(labels, K), labels), (soft, soft)):
        rows = zip(logits.double().numpy(), targets.double().numpy(), strict=True)
        expected = sum(plain_loss(config, row, target, weights) for row, target in rows) / N
        assert_equal(loss(logits, given), expected)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_balanced_is_the_loss_over_a_set_with_equally_many_images_of_each_class(name: str) -> None:
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 3, 3])  # 2 and 4 have none
    logits = torch.randn(len(labels), K, generator=torch.Generator().manual_seed(2))
    repeats = torch.tensor([1, 2, 0, 3, 0])[labels]
    config = LossConfig(name=name, class_weights="balanced")  # type: ignore[arg-type]
    weighted = Loss(config, num_classes=K, counts=np.bincount(labels, minlength=K))
    plain = Loss(LossConfig(name=name), num_classes=K)  # type: ignore[arg-type]
    repeated = plain(logits.repeat_interleave(repeats, 0), labels.repeat_interleave(repeats))
    assert_equal(weighted(logits, labels), repeated)


def test_batches_and_parts_of_a_batch_give_the_same_gradient(labels: torch.Tensor) -> None:
    config = LossConfig(class_weights="balanced", label_smoothing=0.1)
    loss = Loss(config, num_classes=K, counts=COUNTS)
    whole = torch.zeros(N, K, requires_grad=True)
    loss(whole, labels).backward()
    parts = torch.zeros(N, K, requires_grad=True)
    for part in (slice(0, 6), slice(6, 12)):
        (loss(parts[part], labels[part]) / 2).backward()
    torch.testing.assert_close(parts.grad, whole.grad)


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_computed_in_float32_whatever_the_precision(
    logits: torch.Tensor, labels: torch.Tensor, name: str, weights: str
) -> None:
    config = LossConfig(name=name, class_weights=weights)  # type: ignore[arg-type]
    loss = Loss(config, num_classes=K, counts=COUNTS)
    low = logits.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(low, labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(low.float(), labels))
    far = torch.full((1, K), -6e4).half()
    assert loss(far, torch.tensor([1])).isfinite()


def test_weights_move_with_the_module_but_are_not_saved() -> None:
    config = LossConfig(class_weights="balanced")
    loss = Loss(config, num_classes=K, counts=COUNTS)
    assert loss.state_dict() == {}
    assert loss.to("meta").weight.device.type == "meta"


@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
@pytest.mark.parametrize("weights", ["none", "balanced"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_asks_the_device_for_nothing(name: str, weights: str, dtype: torch.dtype) -> None:
    config = LossConfig(name=name, class_weights=weights, label_smoothing=0.1)  # type: ignore
    loss = Loss(config, num_classes=K, counts=COUNTS).to("meta")  # holds no numbers: asking raises
    shape = (N,) if dtype == torch.int64 else (N, K)
    targets = torch.zeros(shape, dtype=dtype, device="meta")
    assert loss(torch.zeros(N, K, device="meta"), targets).shape == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bce_threshold": 0.2}, "only loss.name=bce"),
        ({"name": "bce", "bce_threshold": 0.01, "label_smoothing": 0.1}, "0.92 and any other 0.02"),
        ({"name": "bce", "bce_threshold": 0.95, "label_smoothing": 0.1}, "choose between"),
    ],
)
def test_thresholds_that_tell_nothing_are_refused(options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Loss(LossConfig(**options), num_classes=K)
    assert "\n" not in str(caught.value)
