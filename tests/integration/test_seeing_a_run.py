"""A run that is stopped and resumed: what its pictures, W&B's files and `metrics.csv` say."""

import csv
import json
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from ranks import train
from runs import Run
from wandb_files import history, records

SETTINGS = ("quickstart", "run.name=seen", "logging.wandb=offline", "logging.every_steps=5")


def test_the_union_of_the_legs_is_the_table(
    tmp_path: Path, command: Run, environment: dict[str, str]
) -> None:
    # a short path: W&B's sockets lie in it
    with tempfile.TemporaryDirectory() as temporary:
        first = environment | {"TMPDIR": str(Path(temporary, "first"))}
        Path(first["TMPDIR"]).mkdir()
        train(tmp_path, first, *SETTINGS, "trainer.max_epochs=1", ranks=1, drawn=True)
        # W&B names a leg's folder by the second it starts in: the command takes longer to start
        environment["TMPDIR"] = temporary
        done = command("train", *SETTINGS, "trainer.max_epochs=2", "run.resume=auto")
        left = [path.name for path in Path(temporary).iterdir()]
    assert not [name for name in left if "wandb" in name or "autograph" in name]
    assert "upload by: wandb sync" in done.stderr
    run = tmp_path / "checkpoints/seen"

    legs = sorted((run / "wandb").glob("offline-run-*"))
    identifier = (run / "wandb-run-id").read_text().strip()
    assert len(legs) == 2
    assert all(leg.name.endswith(identifier) for leg in legs)
    values: dict[tuple[int, str], Any] = {}
    for leg in legs:
        (log,) = leg.glob("run-*.wandb")
        axes = [r.metric for r in records(log) if r.WhichOneof("record_type") == "metric"]
        assert [m.step_metric for m in axes if m.glob_name == "*"] == ["trainer/global_step"]
        for row in history(leg):
            step = row["trainer/global_step"]
            for key, value in row.items():
                if key.startswith(("train/", "val/")) and not key.startswith("val/mistakes"):
                    assert values.get((step, key), value) == value
                    values[step, key] = value
    with (run / "metrics.csv").open(newline="") as file:
        expected = {
            (int(row["step"]), f"{row['split']}/{row['key']}"): float(row["value"])
            for row in csv.DictReader(file)
        }
    assert len(expected) > 40
    assert values == expected

    summary = json.loads((run / "summary.json").read_text())
    assert summary["val/top1"] == values[summary["steps"], "val/top1"]
    pictures = ("confusion", "curves", "per_class", "throughput", "worst")
    last = history(legs[-1])[-1]
    for name in pictures:
        with Image.open(run / "plots" / f"{name}.png") as picture:
            assert (picture.width, picture.height) == (
                last[f"plots/{name}/width"],
                last[f"plots/{name}/height"],
            )
    wrong = round((1 - summary["val/top1"]) * 360)
    assert last["val/mistakes/nrows"] == min(100, wrong)
