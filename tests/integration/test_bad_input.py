"""What a hurried person gets wrong: one line that helps, exit code 2, nothing created."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from res2net import create_model
from res2net.cli.main import main

Refused = Callable[..., str]


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Runs a command that must be refused; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert sorted(tmp_path.rglob("*")) == before, "something was created"
        return err.strip()

    return run


def folder(root: Path, classes: dict[str, int]) -> None:
    """Class folders with so many images each."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (32, 32)).save(root / name / f"{index}.png")


def test_misspelt_key(refused: Refused) -> None:
    assert "optim.learning_rate" in (
        line := refused("train", "quickstart", "optim.learning_rate=1")
    )
    assert "did you mean optim.lr" in line


def test_wrong_type(refused: Refused) -> None:
    line = refused("train", "quickstart", "trainer.max_epochs=ten")
    assert re.search(r"trainer\.max_epochs.*'ten'.*integer", line)


def test_two_problems_at_once(refused: Refused) -> None:
    line = refused("train", "quickstart", "optim.lr=-1", "trainer.precision=fp8")
    assert "optim.lr" in line and "between 1e-10 and 1,000" in line
    assert "trainer.precision" in line and "bf16-mixed" in line


def test_unknown_variant(refused: Refused) -> None:
    line = refused("train", "quickstart", "model.name=res2net50_26w_5s")
    assert "res2net50_26w_5s" in line and "res2net50_26w_4s" in line


def test_missing_data_folder(refused: Refused) -> None:
    line = refused("train", "folder_small", "data.root=nowhere")
    assert "data.root" in line and "nowhere" in line


def test_empty_class_folder(refused: Refused, tmp_path: Path) -> None:
    folder(tmp_path / "set/train", {"ant": 2, "bee": 0, "cat": 2})
    line = refused("train", "folder_small", "data.root=set")
    assert "bee" in line and "ant" not in line


def test_class_in_val_that_train_lacks(refused: Refused, tmp_path: Path) -> None:
    folder(tmp_path / "set/train", {"ant": 2, "bee": 2})
    folder(tmp_path / "set/val", {"ant": 2, "wasp": 2})
    line = refused("train", "folder_small", "data.root=set")
    assert "wasp" in line


def test_fewer_images_than_a_batch(refused: Refused, tmp_path: Path) -> None:
    folder(tmp_path / "set/train", {"ant": 4, "bee": 4})
    line = refused("train", "folder_small", "data.root=set", "data.global_batch_size=64")
    assert "data.global_batch_size=64" in line and "training images" in line


def test_more_devices_than_there_are(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    line = refused("train", "quickstart", "trainer.accelerator=cuda", "trainer.devices=4")
    assert "trainer.devices=4: this machine has 2 CUDA devices" in line


def test_batch_not_divisible(refused: Refused) -> None:
    line = refused("train", "quickstart", "data.global_batch_size=100", "trainer.accumulate=3")
    assert "data.global_batch_size=100" in line and "99 and 102" in line


def test_precision_that_the_cpu_lacks(refused: Refused) -> None:
    line = refused("train", "quickstart", "trainer.precision=16-mixed", "trainer.accelerator=cpu")
    assert "16-mixed" in line and "bf16-mixed" in line


def test_existing_run(refused: Refused, tmp_path: Path) -> None:
    run = tmp_path / "checkpoints/quickstart"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("run: {name: quickstart}\n")
    (run / "last.ckpt").touch()
    line = refused("train", "quickstart")
    assert "run.resume=auto" in line and "run.name=NAME" in line


def test_directory_that_is_no_run(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "checkpoints/quickstart/mine").mkdir(parents=True)
    assert "is not a run" in refused("train", "quickstart", "run.resume=auto")


def test_weights_of_another_architecture(refused: Refused, tmp_path: Path) -> None:
    with torch.device("meta"):
        other = create_model("res2net50_26w_4s", num_classes=10)
    state = {key: torch.zeros(tensor.shape) for key, tensor in other.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    line = refused("train", "quickstart", "model.weights=other.pth")
    assert "other.pth" in line and "do not fit res2net20_cifar" in line


def test_resume_from_a_file_of_weights(refused: Refused, tmp_path: Path) -> None:
    torch.save(create_model("res2net20_cifar").state_dict(), tmp_path / "weights.pth")
    line = refused("train", "quickstart", "run.resume=weights.pth")
    assert "model.weights=weights.pth" in line


@pytest.mark.parametrize("key", ["run.resume", "model.weights", "loss.teacher"])
@pytest.mark.timeout(60)
def test_a_device_is_no_file(refused: Refused, key: str) -> None:
    """One without an end was read for ever."""
    assert "/dev/zero" in refused("train", "quickstart", f"{key}=/dev/zero")


def test_unknown_verb(refused: Refused) -> None:
    line = refused("trian", "quickstart")
    assert "'trian'" in line and "did you mean train" in line


def test_broken_yaml(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("model:\n  name: [res2net20_cifar\n")
    line = refused("train", "mine.yaml")
    assert "mine.yaml" in line and "line" in line


def test_test_without_weights_or_images(refused: Refused, tmp_path: Path) -> None:
    assert "--weights" in refused("test", "res2net20_cifar")
    torch.save(create_model("res2net20_cifar").state_dict(), tmp_path / "weights.pth")
    assert "--data" in refused("test", "res2net20_cifar", "--weights=weights.pth")


def test_test_on_folders_that_are_not_the_classes(refused: Refused, tmp_path: Path) -> None:
    torch.save(create_model("res2net20_cifar").state_dict(), tmp_path / "weights.pth")
    folder(tmp_path / "some", {"cat": 1, "dog": 1, "ship": 1})
    line = refused("test", "res2net20_cifar", "--weights=weights.pth", "--data=some")
    assert "3 class folders" in line and "10 outputs" in line


def test_statistics_of_one_value(refused: Refused, tmp_path: Path) -> None:
    with torch.device("meta"):
        network = create_model("res2net50_26w_4s", num_classes=10)
    state = {key: torch.zeros(tensor.shape) for key, tensor in network.state_dict().items()}
    torch.save(state, tmp_path / "weights.pth")
    folder(tmp_path / "some", {str(digit): 1 for digit in range(10)})
    line = refused(
        *("test", "res2net50_26w_4s", "--weights=weights.pth", "--data=some", "--image-size=32"),
        *("--recalibrate-bn=4", "--batch-size=1"),
    )
    assert "batch norm takes two or more: give --batch-size 2 or more" in line


def test_batch_of_nothing(refused: Refused) -> None:
    assert "'0' is not an integer from " in refused("test", "any", "--batch-size=0")


def test_unknown_model(refused: Refused) -> None:
    assert "res2net50_26w_4s" in refused("test", "res2net50_26w_4")
