"""The module's steps against plain PyTorch, and what it puts into a checkpoint."""

import io

import pytest
import torch
from torch.nn import functional as F

from res2net.config.schema import OptimConfig, ScheduleConfig
from res2net.training.classifier import ImageClassifier
from res2net.zoo import create_model


def classifier(**options: object) -> ImageClassifier:
    torch.manual_seed(0)
    model = create_model("res2net20_cifar", num_classes=7)
    return ImageClassifier(model, **options)  # type: ignore[arg-type]


def batch(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(len(labels), 3, 16, 16, generator=generator)
    return images.to(memory_format=torch.channels_last), torch.tensor(labels)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_training_step_is_the_smoothed_cross_entropy(label_smoothing: float) -> None:
    module = classifier(optim=OptimConfig(label_smoothing=label_smoothing)).eval()
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


def test_a_validation_step_gives_each_image_its_own_loss_and_padding_none() -> None:
    module = classifier(optim=OptimConfig(label_smoothing=0.1)).eval()
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
        optim=OptimConfig(lr=0.4, weight_decay=0.3),
        schedule=ScheduleConfig(warmup_epochs=1, end_factor=0.25),
        steps_per_epoch=2,
        max_epochs=4,
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
    module = classifier(identity=identity, optim=OptimConfig(), schedule=ScheduleConfig())
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
