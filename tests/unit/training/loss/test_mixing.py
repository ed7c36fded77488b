"""Mixed batches against the formulas of the papers, given the same draws."""

import math

import pytest
import torch

from res2net.config.schema_data import AugmentConfig
from res2net.training.loss.mixing import build_mixing

K = 4


def batch(count: int = 5, size: tuple[int, int] = (12, 10)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, *size, generator=generator)
    return images, torch.randint(K, (count,), generator=generator)


def beta(alpha: float) -> float:
    """The next share that torch's generator gives."""
    concentration = torch.full((1, 2), alpha)
    return float(torch._sample_dirichlet(concentration)[0, 0])


def soft(labels: torch.Tensor, share: float) -> torch.Tensor:
    """Rows: `share` for the image's own class, the rest for that of the image before it."""
    rows = torch.zeros(len(labels), K, dtype=torch.float64)
    for row, label in enumerate(labels.tolist()):
        rows[row, label] += share
        rows[row, labels[row - 1]] += 1 - share  # row - 1 = -1 is the last
    return rows


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_mixup(seed: int, count: int) -> None:
    images, labels = batch(count)
    mixing = build_mixing(AugmentConfig(mixup=0.3), num_classes=K)
    assert mixing is not None
    torch.manual_seed(seed)
    mixed, targets = mixing(images, labels)
    torch.manual_seed(seed)
    torch.rand(2)
    share = beta(0.3)
    for row in range(count):
        expected = share * images[row].double() + (1 - share) * images[row - 1].double()
        torch.testing.assert_close(mixed[row].double(), expected, rtol=1e-5, atol=1e-6)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.double(), soft(labels, share), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_cutmix(seed: int, count: int) -> None:
    images, labels = batch(count)
    mixing = build_mixing(AugmentConfig(cutmix=1.0), num_classes=K)
    assert mixing is not None
    torch.manual_seed(seed)
    mixed, targets = mixing(images, labels)
    torch.manual_seed(seed)
    torch.rand(2)
    share, (height, width) = beta(1.0), images.shape[2:]
    x, y = int(torch.randint(width, (1,))), int(torch.randint(height, (1,)))
    # the half sides of a rectangle of area (1 - share) * H * W around (x, y), cut at the borders
    half_width = int(math.sqrt(1 - share) * width / 2)
    half_height = int(math.sqrt(1 - share) * height / 2)
    inside = torch.zeros(height, width, dtype=torch.bool)
    for i in range(height):
        for j in range(width):
            inside[i, j] = (
                y - half_height <= i < y + half_height and x - half_width <= j < x + half_width
            )
    for row in range(count):
        assert torch.equal(mixed[row], torch.where(inside, images[row - 1], images[row]))
    kept = 1 - inside.double().mean().item()
    torch.testing.assert_close(targets.double(), soft(labels, kept), rtol=1e-6, atol=1e-7)


def kinds(augment: AugmentConfig, batches: int = 400) -> dict[str, float]:
    """Shares of the batches that are left alone, mixed up, and cut."""
    images, labels = batch(3, (8, 8))
    mixing = build_mixing(augment, num_classes=K)
    assert mixing is not None
    counts = {"none": 0, "mixup": 0, "cutmix": 0}
    torch.manual_seed(0)
    for _ in range(batches):
        mixed, targets = mixing(images, labels)
        if targets is labels:
            assert mixed is images
            counts["none"] += 1
        else:  # CutMix takes pixels as they are
            whole = ((mixed == images) | (mixed == images.roll(1, 0))).all()
            counts["cutmix" if whole else "mixup"] += 1
    return {name: count / batches for name, count in counts.items()}


def test_switched_per_batch() -> None:
    shares = kinds(
        AugmentConfig(mixup=1.0, cutmix=1.0, mix_probability=0.6, cutmix_share=0.75), 2000
    )
    # three standard deviations of 2,000 draws
    assert shares == pytest.approx({"none": 0.4, "mixup": 0.15, "cutmix": 0.45}, abs=0.034)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"mixup": 1.0, "cutmix_share": 1.0}, "mixup"),  # its share says nothing without it
        ({"cutmix": 1.0, "cutmix_share": 0.0}, "cutmix"),
        ({"mixup": 1.0, "cutmix": 1.0, "cutmix_share": 1.0}, "cutmix"),
        ({"mixup": 1.0, "cutmix": 1.0, "cutmix_share": 0.0}, "mixup"),
    ],
)
def test_the_only_one_that_is_on_mixes_every_batch(options: dict, kind: str) -> None:
    assert kinds(AugmentConfig(**options))[kind] == 1


@pytest.mark.parametrize(
    "options", [{}, {"mixup": 0.2, "cutmix": 1.0, "mix_probability": 0.0}, {"cutmix_share": 1.0}]
)
def test_nothing_to_mix(options: dict) -> None:
    assert build_mixing(AugmentConfig(**options), num_classes=K) is None


def test_a_function_of_torchs_generator_alone() -> None:
    images, labels = batch()
    augment = AugmentConfig(mixup=0.2, cutmix=1.0, mix_probability=0.8)
    first = build_mixing(augment, num_classes=K)
    assert first is not None
    torch.manual_seed(3)
    for _ in range(5):
        first(images, labels)
    state = torch.get_rng_state()
    went_on = [first(images, labels) for _ in range(10)]
    torch.set_rng_state(state)
    second = build_mixing(augment, num_classes=K)  # as a resumed run makes it
    assert second is not None
    for mixed, targets in went_on:
        again, targets_again = second(images, labels)
        assert torch.equal(mixed, again) and torch.equal(targets, targets_again)
    assert len({float(mixed[0].sum()) for mixed, _ in went_on}) > 5


@pytest.mark.parametrize("options", [{"mixup": 0.5}, {"cutmix": 1.0}])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_format_and_type_stay_and_the_device_is_asked_for_nothing(
    options: dict, channels_last: bool, dtype: torch.dtype, device: str
) -> None:
    form = torch.channels_last if channels_last else torch.contiguous_format
    images, labels = batch()
    images = images.to(device, dtype).contiguous(memory_format=form)
    mixing = build_mixing(AugmentConfig(**options), num_classes=K)
    assert mixing is not None
    mixed, targets = mixing(images, labels.to(device))  # "meta" holds no numbers: asking raises
    assert mixed.is_contiguous(memory_format=form)
    assert (mixed.dtype, mixed.shape) == (dtype, images.shape)
    assert (targets.dtype, targets.shape) == (torch.float32, (len(labels), K))
    assert targets.device.type == device
