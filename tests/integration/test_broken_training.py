"""Training and evaluation by the command where every kind of broken file lies about."""

import json
import re
from pathlib import Path

import pytest

from broken_files import BROKEN, ODD, WHOLE, folder
from res2net.cli.main import main
from res2net.data.order import TrainOrder
from res2net.data.sources.folder import open_folder

BATCH = 8
SETTINGS = (
    "quickstart",
    "data.source=folder",
    "data.root=set",
    "data.image_size=32",
    f"data.global_batch_size={BATCH}",
    "augment.crop=random_resized",
    "trainer.max_epochs=2",
    "trainer.devices=1",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Broken, odd and whole files in each class of both splits."""
    kinds = {name: content for name, (content, _) in (BROKEN | ODD).items()} | WHOLE
    files: dict[str, bytes] = {}
    for split in ("train", "val"):
        for number, (name, content) in enumerate(sorted(kinds.items())):
            files[f"{split}/{'ant' if number % 2 else 'bee'}/{name}"] = content
    monkeypatch.chdir(tmp_path)
    return folder(tmp_path / "set", files)


def is_broken(name: str) -> bool:
    return Path(name).name in BROKEN


def no_stack_traces(err: str) -> str:
    """What the decoders print themselves of a file, a line each, stays."""
    assert not re.search("Traceback|Critical error|nvidia.dali|C[+][+] context", err), err
    return err


def test_trains_and_tests_through_them(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train = ["train", *SETTINGS, "run.name=through", "data.on_corrupt=skip", "--json"]
    assert main(train) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["status"] == "completed"
    no_stack_traces(err)

    # the last steps of an epoch are dropped, so a file may not have been met
    source = open_folder("set/train")
    order = TrainOrder(count=len(source), seed=0, batch_size=BATCH)
    asked = {source.name(int(i)) for epoch in (0, 1) for i in order.epoch(epoch)}
    lines = Path("checkpoints/through/quarantine.txt").read_text().splitlines()
    met = dict(line.split("\t") for line in lines)
    assert all(map(is_broken, met))
    assert {name for name in asked if is_broken(name)} <= met.keys()
    assert len([name for name in met if "/val/" in name]) == len(BROKEN)
    assert all(re.match("is empty|cannot be decoded|has .* pixels", why) for why in met.values())

    test = ["test", "checkpoints/through", "--json"]
    assert main([*test, "--skip-corrupt"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["images"] == len(ODD) + len(WHOLE)
    assert result["excluded"] == len(BROKEN)

    assert main(test) == 1
    out, err = capfd.readouterr()
    assert out == ""
    last = no_stack_traces(err).splitlines()[-1]
    assert last.startswith("error: set/val/ant/") and is_broken(last.split()[1])
    assert "--skip-corrupt" in last


@pytest.mark.parametrize("seed", range(3))
def test_ends_at_the_first_by_name(
    root: Path, capfd: pytest.CaptureFixture[str], seed: int
) -> None:
    assert main(["train", *SETTINGS, "run.name=ended", f"run.seed={seed}"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    source = open_folder("set/train")
    order = TrainOrder(count=len(source), seed=seed, batch_size=BATCH)
    first = next(name for name in map(source.name, order.epoch(0).tolist()) if is_broken(name))
    last = no_stack_traces(err).splitlines()[-1]
    assert last.startswith(f"error: {first} ") and "data.on_corrupt=skip" in last
