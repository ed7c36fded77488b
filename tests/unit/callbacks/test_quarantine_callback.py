"""`quarantine.txt` of a run whose disk is full when the first file is left out."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from disks import SmallDisk
from res2net.callbacks.quarantine import Quarantine


def test_a_full_disk_delays_the_list(
    small_disk: Callable[[float], SmallDisk],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    disk, trainer = small_disk(1), SimpleNamespace(is_global_zero=True)
    met: dict[str, str] = {}
    path = disk.path / "quarantine.txt"
    callback: Any = Quarantine(lambda: met, path)
    callback.on_validation_end(trainer, None)
    assert not path.exists()

    disk.fill()
    for name in ("b.jpg", "a.jpg"):
        met[name] = "is empty"
        callback.on_validation_end(trainer, None)
    assert not path.exists()
    disk.free()
    callback.on_validation_end(trainer, None)
    assert path.read_text() == "a.jpg\tis empty\nb.jpg\tis empty\n"
    assert capsys.readouterr().err.splitlines() == [
        f"{path} cannot be written (No space left on device): the run goes on",
        f"{path} is written again",
    ]
