"""The teacher: who may teach, in which order its outputs come, and what is learnt of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch

from res2net.config.schema_learning import LossConfig
from res2net.errors import InputError
from res2net.imagenet import class_names as imagenet_names
from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.training.loss.distillation import Teacher, distillation_loss, open_teacher
from samples import NAMES, PREPROCESSING, VARIANT, save_network, small_network


@pytest.fixture(scope="module")
def network() -> Res2NetClassifier:
    return small_network()


@pytest.fixture(scope="module")
def file(network: Res2NetClassifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(network, tmp_path_factory.mktemp("teacher") / "last.ckpt")


def opened(
    teacher: object,
    names: Sequence[str] = NAMES,
    preprocessing: Preprocessing = PREPROCESSING,
    *,
    channels_last: bool = False,
    weights: object = "",
) -> Teacher | None:
    return open_teacher(
        LossConfig(teacher=str(teacher), teacher_weights=str(weights)),
        class_names=names,
        preprocessing=preprocessing,
        channels_last=channels_last,
    )


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_gives_the_networks_logits_in_evaluation_without_gradient(
    file: Path, network: Res2NetClassifier, images: torch.Tensor, channels_last: bool
) -> None:
    teacher = opened(file, channels_last=channels_last)
    assert teacher is not None
    before = {name: value.clone() for name, value in teacher.network.state_dict().items()}
    logits = teacher(images)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-5)
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())
    assert all(torch.equal(v, before[n]) for n, v in teacher.network.state_dict().items())
    conv = next(p for p in teacher.network.parameters() if p.ndim == 4 and p.shape[2] > 1)
    assert conv.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_the_student_learns_from_it(file: Path, images: torch.Tensor, precision: str) -> None:
    teacher = opened(file)
    assert teacher is not None
    student = torch.nn.Linear(3 * 32 * 32, 10)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "autocast"):
        taught, learnt = teacher(images), student(images.flatten(1))
        loss = distillation_loss(learnt, taught, 2.0)
    assert taught.dtype == (torch.bfloat16 if precision == "autocast" else torch.float32)
    assert loss.dtype == torch.float32
    loss.backward()
    assert student.weight.grad is not None and student.weight.grad.abs().sum() > 0


def test_any_loss_can_use_its_logits_and_none_reaches_the_images(
    file: Path, images: torch.Tensor
) -> None:
    teacher = opened(file)
    assert teacher is not None
    taught = teacher(images.requires_grad_())
    assert not taught.requires_grad
    learnt = torch.ones_like(taught, requires_grad=True)
    (learnt * taught).sum().backward()  # keeps them as they are
    assert torch.equal(learnt.grad, taught)


def test_a_module_that_has_it_neither_saves_nor_trains_it(file: Path) -> None:
    class Student(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.teacher = opened(file)

    student = Student().train()
    assert set(student.state_dict()) == {"layer.weight", "layer.bias"}
    assert len(list(student.parameters())) == 2
    assert student.teacher is not None and not student.teacher.network.training


def test_follows_the_images(file: Path, images: torch.Tensor) -> None:
    teacher = opened(file, NAMES[::-1])
    assert teacher is not None
    assert teacher(images).device.type == "cpu"
    assert teacher(images.to("meta")).device.type == "meta"  # holds no numbers: asking raises


def test_other_order_of_the_classes(
    file: Path, network: Res2NetClassifier, images: torch.Tensor
) -> None:
    order = np.random.default_rng(0).permutation(10)
    teacher = opened(file, [NAMES[i] for i in order])
    assert teacher is not None
    with torch.no_grad():
        expected = network(images)[:, order]
    torch.testing.assert_close(teacher(images), expected, rtol=1e-4, atol=1e-5)


def test_imagenet_by_ids_or_by_names(network: Res2NetClassifier, tmp_path: Path) -> None:
    names = [*imagenet_names()][:10]
    file = save_network(network, tmp_path / "ids.ckpt", class_names=names)
    english = [imagenet_names()[name] for name in names]
    teacher, turned = opened(file, english), opened(file, english[::-1])
    assert teacher is not None and teacher.order is None
    assert turned is not None and turned.order is not None
    assert turned.order.tolist() == [*range(10)][::-1]


def test_a_variant_with_weights(network: Res2NetClassifier, file: Path) -> None:
    teacher = opened(VARIANT, weights=file)
    assert teacher is not None
    own = network.state_dict()
    assert all(torch.equal(v, own[n]) for n, v in teacher.network.state_dict().items())


def test_none() -> None:
    assert opened("") is None


def refusal(*args: object, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        opened(*args, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_who_may_not_teach(file: Path, network: Res2NetClassifier, tmp_path: Path) -> None:
    assert "10 classes, this run 9" in refusal(file, NAMES[:9])
    assert "'other' is not among them" in refusal(file, [*NAMES[:9], "other"])
    assert "data.mean=[0.5,0.4,0.3], this run has [0.5,0.5,0.5]" in refusal(
        file, preprocessing=replace(PREPROCESSING, mean=(0.5, 0.5, 0.5))
    )
    assert "data.std=" in refusal(
        file, preprocessing=replace(PREPROCESSING, std=(0.229, 0.224, 0.226))
    )
    twice = save_network(network, tmp_path / "twice.ckpt", class_names=[*NAMES[:9], NAMES[0]])
    assert "twice" in refusal(twice, [*NAMES[1:9], NAMES[0], NAMES[0]])
    assert refusal(VARIANT).startswith(f"loss.teacher={VARIANT}: a variant without weights")
    missing = tmp_path / "missing.ckpt"
    assert refusal(missing).startswith(f"loss.teacher={missing}: ")
    assert "loss.teacher_weights=in1k" in refusal("", weights="in1k")


def test_another_size_of_images_is_no_matter(file: Path) -> None:
    assert opened(file, preprocessing=replace(PREPROCESSING, image_size=64)) is not None


# The loss


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 6, 10, generator=generator)
    return student, teacher


@pytest.mark.parametrize("temperature", [1.0, 4.0, 0.5])
def test_kl_divergence(temperature: float) -> None:
    def softmax(rows: torch.Tensor) -> np.ndarray:
        powers = np.exp(rows.double().numpy() / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    student, teacher = logits()
    p, q = softmax(teacher), softmax(student)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean()
    assert distillation_loss(student, teacher, temperature).item() == pytest.approx(expected, 1e-5)
    assert distillation_loss(teacher, teacher, temperature).item() == pytest.approx(0, abs=1e-6)


def test_its_gradient_is_that_of_cross_entropy_with_the_teachers_probabilities() -> None:
    student, teacher = (part.requires_grad_() for part in logits())
    distillation_loss(student, teacher.detach(), 1.0).backward()
    expected = (student.softmax(1) - teacher.softmax(1)) / len(student)
    torch.testing.assert_close(student.grad, expected.detach())


def test_computed_in_float32() -> None:
    student, teacher = (part.bfloat16() for part in logits())
    value = distillation_loss(student, teacher, 2.0)
    assert torch.equal(value, distillation_loss(student.float(), teacher.float(), 2.0))
