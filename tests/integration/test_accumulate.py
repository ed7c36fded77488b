"""A global batch cut into devices and accumulated batches is the same global batch."""

from pathlib import Path

import torch

from ranks import train
from res2net.training.classifier import Batch, ImageClassifier
from res2net.zoo import create_model
from runs import read_state

SETTINGS = (
    "quickstart",
    "trainer.max_epochs=1",
    "data.global_batch_size=32",
    "data.subset=0.12",
    "schedule.warmup_epochs=0",
    "augment.crop=none",  # DALI draws its crops for each rank
    "optim.lr=0.01",
)


def prepare() -> None:
    """BN with fixed statistics, as those of a batch hang on how the batch is cut; and each batch
    says whether gradients will be exchanged after it."""
    trains, steps = ImageClassifier.train, ImageClassifier.training_step

    def train_but_norms(self: ImageClassifier, mode: bool = True) -> ImageClassifier:
        trains(self, mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        return self

    def step_aloud(self: ImageClassifier, batch: Batch, batch_idx: int) -> dict[str, torch.Tensor]:
        exchanged = getattr(self.trainer.strategy.model, "require_backward_grad_sync", None)
        print("exchanged:", exchanged, flush=True)
        return steps(self, batch, batch_idx)

    ImageClassifier.train = train_but_norms  # type: ignore[method-assign]
    ImageClassifier.training_step = step_aloud  # type: ignore[method-assign]


def test_one_rank_of_32_is_two_ranks_of_8_twice(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    states = {}
    for ranks, accumulate in ((1, 1), (2, 2)):
        name = f"cut-{ranks}"
        cut = (f"run.name={name}", f"trainer.accumulate={accumulate}")
        train(tmp_path, environment, *SETTINGS, *cut, ranks=ranks, prepare=prepare)
        states[ranks] = read_state(tmp_path / "checkpoints" / name / "last.ckpt")
    assert states[1]["global_step"] == states[2]["global_step"] == 5
    one, two = (states[ranks]["state_dict"] for ranks in (1, 2))
    torch.manual_seed(0)
    start = create_model("res2net20_cifar", num_classes=10).state_dict()
    for key, value in one.items():
        if "running_" not in key and value.is_floating_point():
            assert not torch.allclose(value, start[key.removeprefix("model.")], rtol=0, atol=1e-4)
            torch.testing.assert_close(two[key], value, rtol=0, atol=1e-6)
    said = [line for line in (tmp_path / "log-1").read_text().splitlines() if "exchanged" in line]
    assert said == ["exchanged: False", "exchanged: True"] * 5
