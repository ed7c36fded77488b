"""`res2net train --preview`: a picture of what the network will see, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from res2net.cli.main import main
from samples import photo


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for number in range(24):
        path = tmp_path / "images" / "train" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number, (64, 64)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


def drawn(name: str, *overrides: str) -> np.ndarray:
    arguments = ["data.root=images", "data.global_batch_size=8", *overrides]
    assert main(["train", "folder_small", *arguments, "--preview", name]) == 0
    assert not Path("checkpoints").exists()
    return np.asarray(Image.open(name).convert("RGB"), dtype=int)


def test_augmentation_shows(folder: Path) -> None:
    plain = drawn("plain.png", "augment.crop=none", "augment.flip=0")
    again = drawn("again.png", "augment.crop=none", "augment.flip=0")
    assert np.array_equal(plain, again)
    erased = drawn("erased.png", "augment.crop=none", "augment.flip=0", "augment.erase=1")
    mean = np.array([124, 116, 104])  # of ImageNet, which erasing leaves
    share = (np.abs(erased - mean).max(axis=2) < 4).mean()
    assert share > 0.05 > (np.abs(plain - mean).max(axis=2) < 4).mean()
    policy = drawn("policy.png", "augment.crop=none", "augment.policy=trivial_augment")
    assert np.abs(policy - plain).mean() > 5


def test_an_existing_picture_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.png").write_bytes(b"mine")
    assert main(["train", "folder_small", "data.root=images", "--preview", "there.png"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert Path("there.png").read_bytes() == b"mine"
