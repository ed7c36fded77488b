"""Shards read from a node's own disk: bit for bit the training that reads them where they lie."""

from pathlib import Path

from ranks import train
from res2net.data.sharding.writer import write_shards
from runs import differences, read_state, rows
from sharding import make

SETTINGS = (
    "quickstart",
    "trainer.max_epochs=2",
    "data.source=shards",
    "data.root=shards",
    "data.image_size=32",
    "data.global_batch_size=8",
    "data.eval_batch_size=8",
    "data.on_corrupt=skip",
    "augment.crop=random_resized",
    "checkpoint.every_steps=1",
    "logging.wandb=disabled",
    "run.resume=auto",
)


def test_copied_killed_and_copied_elsewhere(tmp_path: Path, environment: dict[str, str]) -> None:
    make(tmp_path / "folder", {f"{split}/{c}": 12 for split in ("train", "val") for c in "ab"})
    for split in ("train", "val"):
        (tmp_path / f"folder/{split}/a/broken.jpg").write_bytes(b"\xff\xd8no image" * 20)
    write_shards(str(tmp_path / "folder"), str(tmp_path / "shards"), shard_bytes=12_000)

    train(tmp_path, environment, *SETTINGS, "run.name=plain")
    staged = (*SETTINGS, "run.name=staged", "data.stage_to=$NODE_DISK/x")
    run = tmp_path / "checkpoints/staged"
    one, two = (environment | {"NODE_DISK": str(tmp_path / disk)} for disk in ("one", "two"))
    train(tmp_path, one, *staged, run=run, kill_at=3)
    train(tmp_path, two, *staged, "data.stage_to=$NODE_DISK")

    plain = tmp_path / "checkpoints/plain"
    assert differences(read_state(plain / "last.ckpt"), read_state(run / "last.ckpt")) == []
    assert rows(plain) == rows(run)
    told = (run / "quarantine.txt").read_text()
    assert told == (plain / "quarantine.txt").read_text()
    assert "shards/train-0" in told and str(tmp_path / "one") not in told

    for place in ("one/x", "two"):
        (folder,) = (tmp_path / place).iterdir()
        copies = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
        assert copies == {p.name: p.read_bytes() for p in (tmp_path / "shards").glob("*.tar")}
    logs = [(tmp_path / f"log-{rank}").read_text() for rank in range(2)]
    # either rank copies, and tells
    assert sum(f"to {folder}" in log for log in logs) == 1
    assert sum(log.count(" GB in ") for log in logs) == 2  # once to each disk
