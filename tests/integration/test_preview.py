"""`res2net train --preview`: a picture of what the network will see, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from res2net.cli.main import main
from res2net.plots.tiles import draw_tiles
from res2net.training.rehearsal import preview
from samples import photo
from schemas import fits


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


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn("few.png", "--json")
    assert fits("train_preview", capsys.readouterr().out) == {"preview": "few.png", "images": 48}


def test_what_there_is_is_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images than a batch, or than it accumulates; views taken before Mixup say so."""
    notes = []

    def noted(tiles: list[object], file: Path, *, title: str, note: str) -> None:
        notes.append(note)
        draw_tiles(tiles, file, title=title, note=note)

    monkeypatch.setattr(preview, "draw_tiles", noted)
    drawn("few.png", "data.global_batch_size=500")
    drawn("fewer.png", "data.global_batch_size=2", "trainer.accumulate=50", "augment.mixup=0.2")
    drawn("cut.png", "augment.cutmix=1")
    few, fewer, cut = notes
    size = few.rpartition(",")[2]
    assert few == f"48 views of {few.split()[3]} training images, augmented,{size}"
    assert "augmented before mixing," in fewer and "augmented before mixing," in cut


def test_an_existing_picture_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.png").write_bytes(b"mine")
    assert main(["train", "folder_small", "data.root=images", "--preview", "there.png"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert Path("there.png").read_bytes() == b"mine"
