"""Every shipped recipe trains, evaluates, saves and loads: by `--dry-run`, on small photographs."""

from pathlib import Path

import pytest

from res2net.cli.main import main
from res2net.config.load import load_config, recipes
from samples import VARIANT, photo, save_network, small_network
from schemas import fits

NAMES = ["cat", "dog", "owl"]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders for training and validation."""
    root = tmp_path_factory.mktemp("photographs")
    for split, count in (("train", 12), ("val", 2)):
        for name in NAMES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                photo(number, (72, 64)).save(root / split / name / f"{number}.jpg")
    return root


@pytest.mark.parametrize("name", recipes())
def test_three_steps_and_an_evaluation(
    name: str,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    own = load_config(name, [])
    changes = [f"model.name={VARIANT}", "data.global_batch_size=18", "data.eval_batch_size=6"]
    changes += ["data.source=folder", f"data.root={photographs}", "data.subset=1"]
    if own.trainer.precision == "16-mixed":
        changes.append("trainer.precision=bf16-mixed")
    # the sizes of photographs, in proportion: a quarter is read and computed in a sixteenth
    for key, size in (
        ("data.image_size", own.data.image_size),
        ("data.eval_image_size", own.data.eval_image_size),
        ("augment.start_size", own.augment.start_size),
    ):
        if size is not None and size > 100:
            changes.append(f"{key}={size // 4}")
    left = []
    if own.loss.distill == 1:
        left = [save_network(small_network(), tmp_path / "teacher.ckpt", described=False)]
        changes += ["loss.teacher=teacher.ckpt", "model.num_classes=10"]
    assert main(["train", name, "--dry-run", "--devices", "2", "--json", *changes]) == 0
    told = fits("train_dry_run", capsys.readouterr().out)
    assert told["steps"] == 2 * own.trainer.max_epochs
    assert told["batch_per_device"] == 9
    assert (told["train_images"], told["val_images"], told["classes"]) in (
        (36, 6, 3),
        (36, 6, 10),
    )
    assert told["lr_peak"] == pytest.approx(own.optim.lr, rel=0.05)
    assert told["memory_bytes"] > 0 and told["hours"] > 0
    assert sorted(tmp_path.iterdir()) == left, "something was left behind"
