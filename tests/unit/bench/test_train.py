"""`bench train`: three loops in turn, of which two are the Trainer's."""

import os
from types import SimpleNamespace

import pytest

from res2net.bench.train import MODES, _Switch, compare_loops
from res2net.cli.main import main
from res2net.config.load import load_config
from res2net.errors import InputError
from schemas import fits

SMALL = ("data.global_batch_size=16", "data.image_size=16", "trainer.accelerator=cpu")


def config(*more: str):
    return load_config("quickstart", [*SMALL, "trainer.devices=1", "trainer.num_nodes=1", *more])


def test_the_loader_is_asked_only_when_it_feeds() -> None:
    turns = SimpleNamespace(mode="synthetic")
    batches = iter(_Switch([10, 11, 12, 13, 14, 15], turns))
    assert [next(batches), next(batches)] == [10, 10]
    turns.mode = "fed"
    assert [next(batches), next(batches)] == [11, 12]
    turns.mode = "synthetic"
    assert list(batches) == [12, 12]


def test_blocks_of_each_loop(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    blocks = []
    result = compare_loops(config(), rounds=2, steps=2, progress=lambda: blocks.append(1))
    assert len(blocks) == 2 * len(MODES)
    for mode in MODES:
        loop = result["loops"][mode]
        assert len(loop["blocks"]) == 2
        assert min(loop["blocks"]) > 0
        assert loop["images_per_second"] == pytest.approx(16 / loop["seconds_per_step"])
    bare, synthetic, fed = (result["loops"][mode]["blocks"] for mode in MODES)
    pairs = result["ratios"]["synthetic/bare"]["pairs"]
    assert pairs == pytest.approx([bare[0] / synthetic[0], bare[1] / synthetic[1]])
    pairs = result["ratios"]["fed/synthetic"]["pairs"]
    assert pairs == pytest.approx([synthetic[0] / fed[0], synthetic[1] / fed[1]])
    # DALI's own are removed when the process ends
    assert [name for name in os.listdir(tmp_path) if "autograph" not in name] == []


@pytest.mark.parametrize(
    ("key", "rule"), [("trainer.devices=2", "one device"), ("trainer.accumulate=2", "with 1 alone")]
)
def test_what_is_not_measured(key: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        compare_loops(config(key))


def test_the_verb(capsys) -> None:
    assert main(["bench", "train", "quickstart", *SMALL, "--rounds=1", "--steps=1", "--json"]) == 0
    result = fits("bench_train", capsys.readouterr().out)
    assert set(result["ratios"]) == {"synthetic/bare", "fed/synthetic"}
    assert result["command"].startswith("res2net")
