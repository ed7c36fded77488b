"""The module's steps against plain PyTorch, and what it puts into a checkpoint."""

import io
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from res2net.callbacks.ema import Average
from res2net.config.schema_data import AugmentConfig
from res2net.config.schema_learning import LossConfig, OptimConfig, ScheduleConfig
from res2net.training.classifier import Distillation, ImageClassifier, Learning
from res2net.training.loss.distillation import Teacher, distillation_loss
from res2net.training.loss.losses import Loss
from res2net.training.loss.mixing import build_mixing
from res2net.training.optim.freezing import freeze_parts, frozen_parts
from res2net.zoo import create_model


def learning(
    loss: LossConfig | None = None,
    optim: OptimConfig | None = None,
    schedule: ScheduleConfig | None = None,
    **options: Any,
) -> Learning:
    optim = optim or OptimConfig()
    return Learning(
        loss=Loss(loss or LossConfig(), num_classes=7),
        optim=optim,
        schedule=schedule or ScheduleConfig(),
        lr=optim.lr,
        steps_per_epoch=2,
        max_epochs=4,
        **options,
    )


def classifier(**options: Any) -> ImageClassifier:
    torch.manual_seed(0)
    model = create_model("res2net20_cifar", num_classes=7)
    return ImageClassifier(model, **options)


def batch(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(labels), 3, 16, 16, generator=generator)
    return images.to(memory_format=torch.channels_last), torch.tensor(labels)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_training_step_is_the_smoothed_cross_entropy(label_smoothing: float) -> None:
    module = classifier(learning=learning(LossConfig(label_smoothing=label_smoothing))).eval()
    images, labels = batch([0, 6, 3])
    outputs = module.training_step((images, labels), 0)
    logits = module.model(images)
    goal = (1 - label_smoothing) * F.one_hot(labels, 7) + label_smoothing / 7
    loss = -(goal * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(outputs["loss"], loss)
    assert outputs["loss"].requires_grad
    assert torch.equal(outputs["batch_loss"], outputs["loss"])
    torch.testing.assert_close(outputs["logits"], logits)
    assert not outputs["batch_loss"].requires_grad and not outputs["logits"].requires_grad


def test_a_mixed_batch_is_learnt_with_its_mixed_targets() -> None:
    mixing = build_mixing(AugmentConfig(mixup=1.0), num_classes=7)
    module = classifier(learning=learning(mixing=mixing)).eval()
    images, labels = batch([0, 6, 3])
    torch.manual_seed(5)
    outputs = module.training_step((images, labels), 0)
    torch.manual_seed(5)
    assert mixing is not None
    mixed, targets = mixing(images, labels)
    logits = module.model(mixed)
    torch.testing.assert_close(outputs["loss"], -(targets * logits.log_softmax(1)).sum(1).mean())
    assert torch.equal(outputs["labels"], targets.argmax(1))
    assert not torch.equal(mixed, images)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_teacher_counts_by_its_share(share: float) -> None:
    teacher = Teacher(create_model("resnet20_cifar", num_classes=7))
    distillation = Distillation(teacher, share, temperature=2.0)
    module = classifier(learning=learning(distillation=distillation)).eval()
    images, labels = batch([0, 6, 3])
    outputs = module.training_step((images, labels), 0)
    logits = module.model(images)
    hard = F.cross_entropy(logits, labels)
    soft = distillation_loss(logits, teacher(images), 2.0)
    torch.testing.assert_close(outputs["loss"], (1 - share) * hard + share * soft)
    assert not any("teacher" in key or "network" in key for key in module.state_dict())


def test_frozen_parts_do_not_train() -> None:
    model = create_model("res2net20_cifar", num_classes=7)
    frozen = frozen_parts(model, "1")
    freeze_parts(frozen)
    module = ImageClassifier(model, learning=learning(frozen=frozen))
    assert module.training and not frozen[0].training  # Lightning does not call train()
    module.train()
    assert module.training and module.model.head.training and not frozen[0].training
    before = {key: value.clone() for key, value in module.model.state_dict().items()}
    optimizer = module.configure_optimizers()["optimizer"]
    for _ in range(2):
        module.training_step(batch([0, 6, 3]), 0)["loss"].backward()
        optimizer.step()
    after = module.model.state_dict()
    still = {key for key in after if torch.equal(before[key], after[key])}
    assert still == {
        key for key in after if key.startswith(("backbone.stem.", "backbone.stages.0."))
    }


def test_averaged_weights_are_evaluated_beside_the_weights() -> None:
    average = Average(decay=0.9, every=1)
    module = classifier(average=average).eval()
    images, labels = batch([5, 2, -1])
    with torch.no_grad():
        assert set(module.validation_step((images, labels), 0)) == {"losses", "logits"}
        average.network = create_model("res2net20_cifar", num_classes=7).eval()
        outputs = module.validation_step((images, labels), 0)
        logits = average.network(images)
    torch.testing.assert_close(outputs["ema_logits"], logits)
    assert outputs["ema_losses"][2] == 0 and not torch.equal(outputs["logits"], logits)


def test_a_validation_step_gives_each_image_its_own_loss_and_padding_none() -> None:
    module = classifier(learning=learning(LossConfig(label_smoothing=0.1))).eval()
    images, labels = batch([5, 2, -1, -1])
    with torch.no_grad():
        outputs = module.validation_step((images, labels), 0)
        logits = module.model(images)
    # never smoothed: val/loss is comparable between recipes
    expected = -logits.log_softmax(1)[[0, 1], [5, 2]]
    torch.testing.assert_close(outputs["losses"], torch.cat([expected, torch.zeros(2)]))
    torch.testing.assert_close(outputs["logits"], logits)


def test_a_validation_step_scores_in_float32_whatever_the_network_runs_in() -> None:
    module = classifier().eval().to(torch.bfloat16)
    images, labels = batch([5, 2])
    outputs = module.validation_step((images.bfloat16(), labels), 0)
    assert outputs["logits"].dtype == outputs["losses"].dtype == torch.float32


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_as_asked(channels_last: bool) -> None:
    weight = classifier(channels_last=channels_last).model.backbone.stem.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_the_learning_rate_follows_the_schedule_by_steps() -> None:
    module = classifier(
        learning=learning(
            optim=OptimConfig(lr=0.4, weight_decay=0.3),
            schedule=ScheduleConfig(warmup_epochs=1, end_factor=0.25),
        )
    )
    configured = module.configure_optimizers()
    optimizer, settings = configured["optimizer"], configured["lr_scheduler"]
    assert settings["interval"] == "step"
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        settings["scheduler"].step()
    assert rates[:3] == pytest.approx([0.004, 0.202, 0.4])
    assert rates[5] == pytest.approx(0.4 * (0.25 + 0.75 / 2))  # half-way from step 2 to step 8
    assert settings["scheduler"].get_last_lr()[0] == pytest.approx(0.1)


def test_a_checkpoint_says_what_it_is_and_opens_without_code() -> None:
    identity = {"schema": 1, "model": "res2net20_cifar", "config": {"optim": {"lr": 0.1}}}
    module = classifier(identity=identity, learning=learning())
    checkpoint = {
        "state_dict": module.state_dict(),
        "lr_schedulers": [module.configure_optimizers()["lr_scheduler"]["scheduler"].state_dict()],
    }
    module.on_save_checkpoint(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    read = torch.load(file, weights_only=True)
    assert read["res2net"] == identity
    assert set(read["state_dict"]) == {f"model.{key}" for key in module.model.state_dict()}
