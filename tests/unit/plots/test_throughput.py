"""Speed and memory, where they were logged."""

from pathlib import Path

import numpy as np
from PIL import Image

from metrics_rows import write_metrics
from res2net.plots.throughput import draw_throughput

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def test_memory_has_a_chart_of_its_own_where_it_was_logged(tmp_path: Path) -> None:
    widths = []
    for memory in (False, True):
        metrics = write_metrics(tmp_path / "metrics.csv", epochs=3, memory=memory)
        assert draw_throughput(metrics, tmp_path / "plots" / "speed.png")
        picture = np.asarray(Image.open(tmp_path / "plots" / "speed.png").convert("RGB"))
        widths.append(picture.shape[1])
        # a level line at 5,000 of 0 to 5,000 and a bit: in the upper part, over most of the width
        rows, columns = np.nonzero((picture == BLUE).all(axis=2)[100:])
        assert np.ptp(columns) > 400
        assert rows.max() < 60
        assert (picture == VERMILLION).all(axis=2).any() == memory
    assert widths == [600, 1200]


def test_without_a_row_nothing_is_drawn(tmp_path: Path) -> None:
    metrics = write_metrics(tmp_path / "metrics.csv", epochs=0.2)
    assert not draw_throughput(metrics, tmp_path / "speed.png")
    assert not (tmp_path / "speed.png").exists()
