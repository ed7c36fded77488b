"""Rows become curves over epochs."""

from pathlib import Path

import pytest

from metrics_rows import write_metrics
from res2net.files.metrics import read_metrics


def test_steps_become_epochs(tmp_path: Path) -> None:
    metrics = read_metrics(write_metrics(tmp_path / "metrics.csv", epochs=2.5, top5=False))
    assert metrics.unit == "epoch"
    assert [x for x, _ in metrics.curves["val", "top1"]] == [1, 2]
    assert metrics.curves["train", "lr"][-1][0] == pytest.approx(50 / 22)
    assert metrics.end == pytest.approx(50 / 22)
    assert not metrics.curves["val", "top5"]


def test_before_the_first_epoch_ends_x_counts_steps(tmp_path: Path) -> None:
    metrics = read_metrics(write_metrics(tmp_path / "metrics.csv", epochs=0.5))
    assert (metrics.unit, metrics.end) == ("step", 10)
    assert read_metrics(write_metrics(tmp_path / "none.csv", epochs=0)).end == 0


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "step,epoch,split,key,value\n1,0,train\n"])
def test_another_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError):
        read_metrics(tmp_path / "metrics.csv")
