"""Two legs of a run, and between them other images under the same names; through the command."""

import os
import shutil
from pathlib import Path

import torch

from ranks import start
from sharding import jpeg, make

SETTINGS = (
    "quickstart",
    "data.source=folder",
    "data.root=images",
    "data.image_size=32",
    "data.global_batch_size=4",
    "data.eval_batch_size=4",
    "schedule.warmup_epochs=0",
    "checkpoint.every_steps=1",
    "logging.wandb=disabled",
    "run.name=mine",
    "run.resume=auto",
)
ONE, TWO = (*SETTINGS, "trainer.max_epochs=1"), (*SETTINGS, "trainer.max_epochs=2")


def leg(
    folder: Path,
    environment: dict[str, str],
    *arguments: str,
    code: int,
    ranks: int,
    prepare: object = None,
) -> str:
    """What all ranks said, which all end with this code."""
    for log in folder.glob("log-*"):
        log.unlink()
    processes = start(folder, environment, *arguments, ranks=ranks, prepare=prepare)  # type: ignore
    for process in processes:
        process.join(100)
    said = "".join(log.read_text() for log in sorted(folder.glob("log-*")))
    assert [process.exitcode for process in processes] == [code] * ranks, said
    return said


def files(run: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def refused(folder: Path, environment: dict[str, str], *arguments: str, ranks: int) -> str:
    """The one line of all ranks; nothing is changed."""
    before = files(folder / "checkpoints")
    said = leg(folder, environment, *arguments, code=2, ranks=ranks)
    assert files(folder / "checkpoints") == before
    (line,) = [line for line in said.splitlines() if "images" in line]
    assert line.startswith("error: ")
    return line


def elsewhere() -> None:
    """The second rank is on a node with other data."""
    if os.environ.get("LOCAL_RANK") == "1":
        os.chdir("other-node")


def test_images_that_were_replaced_between_two_legs(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    folders = {"train/ant": 6, "train/bee": 4, "val/ant": 2, "val/bee": 2}
    images = make(tmp_path / "images", folders)
    make(tmp_path / "other-node/images", folders | {"train/ant": 5, "train/bee": 5})
    said = leg(tmp_path, environment, *ONE, code=2, ranks=2, prepare=elsewhere)
    assert said.count("error: ranks 0 and 1 see different images") == 1
    assert not (tmp_path / "checkpoints").exists()

    leg(tmp_path, environment, *ONE, code=0, ranks=1)
    for name, what, ranks in (
        ("train/bee/1.jpg", "training", 2),
        ("val/ant/0.jpg", "validation", 1),
    ):
        path = images / name
        kept, status = path.read_bytes(), path.stat()
        path.write_bytes(jpeg(1234))  # another photograph under the same name
        os.utime(path, (status.st_atime, status.st_mtime))  # and as old
        assert path.stat().st_size != len(kept)
        line = refused(tmp_path, environment, *TWO, ranks=ranks)
        assert f"the {what} images have changed since the run began: images/{name} " in line
        assert "run.name=NAME" in line
        path.write_bytes(kept)
    path.write_bytes(kept[:-10] + b"0123456789")  # of the same size
    os.utime(path, (status.st_atime, status.st_mtime))
    assert "has another content" in refused(tmp_path, environment, *TWO, ranks=1)
    path.write_bytes(kept)
    shutil.copytree(images, tmp_path / "copy", copy_function=shutil.copyfile)
    shutil.rmtree(images)
    (tmp_path / "copy").rename(images)
    said = leg(tmp_path, environment, *TWO, code=0, ranks=1)
    assert said.count("images were copied or touched since the run began") == 2
    assert "resuming from" in said


def without_record(checkpoint: Path) -> None:
    """As version 0.1.0 wrote it."""
    state = torch.load(checkpoint, weights_only=True)
    for rank in state["ranks"]:
        del rank["data"]["images"]
    state["callbacks"] = {k: v for k, v in state["callbacks"].items() if "Predictions" not in k}
    torch.save(state, checkpoint)


def test_a_file_that_was_mended_and_a_state_of_the_former_version(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    images = make(tmp_path / "images", {"train/ant": 4, "train/bee": 4, "val/ant": 2, "val/bee": 2})
    broken = images / "val/bee/1.jpg"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    said = leg(tmp_path, environment, *ONE, code=1, ranks=1)
    assert f"{broken.relative_to(tmp_path)} cannot be decoded: mend the file" in said
    broken.write_bytes(good)
    said = leg(tmp_path, environment, *ONE, code=0, ranks=1)  # as it was told to
    assert "resuming from" in said

    without_record(tmp_path / "checkpoints/mine/last.ckpt")
    said = leg(tmp_path, environment, *TWO, code=0, ranks=1)
    assert said.count("the state of version 0.1.0 tells of its images only how many") == 1
    (images / "train/ant/0.jpg").write_bytes(jpeg(1234))
    longer = (*SETTINGS, "trainer.max_epochs=3")
    assert "images/train/ant/0.jpg has another size" in refused(
        tmp_path, environment, *longer, ranks=1
    )
