"""`res2net status`: what it prints of one run and of several, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metrics_rows import write_metrics
from res2net.cli.main import main
from res2net.files.lock import Lock
from schemas import fits


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`one` was killed in its third epoch, `two` has ended."""
    monkeypatch.chdir(tmp_path)
    for name, ending in (("one", "running"), ("two", "completed")):
        path = Path(name)
        path.mkdir()
        config = {"model": {"name": "res2net20_cifar"}, "data": {"global_batch_size": 1000}}
        (path / "config.yaml").write_text(yaml.safe_dump(config | {"trainer": {"max_epochs": 3}}))
        write_metrics(path / "metrics.csv", epochs=3 if name == "two" else 2)
        summary = {
            "status": ending,
            "best": {"epoch": 1, "val/top1": 0.8125},
            "steps": 66 if name == "two" else 44,
            "steps_executed": 1070,
            "steps_per_epoch": 22,
            "restarts": 2,
        }
        (path / "summary.json").write_text(json.dumps(summary))


def lines(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The rows of a table by their first word."""
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {row[0]: row[1].rstrip() for row in rows if len(row) == 2}


def test_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("one/quarantine.txt").write_text("a.jpg\tis empty\n")
    lock = Lock(Path("one/lock"))
    lock.acquire()
    assert main(["status", "one"]) == 0
    lock.release()
    rows = lines(capsys)
    assert rows["state"] == "running" and rows["model"] == "res2net20_cifar"
    assert rows["progress"] == "step 0 of 66, epochs 0.0/3" and rows["done"] == "0.0%"
    assert rows["time"] == "left   0:00:13 at 5,000 images/s, validations aside"
    assert rows["val/top1"] == "75.00%" and rows["best"] == "81.25% (2)"
    assert rows["checkpoint"] == "none yet"
    assert rows["restarts"] == "2, steps done again or to be done again: 1,070"
    assert rows["trained"].startswith("by  process ")
    assert rows["see"] == "quarantine.txt: 1 images could not be decoded: left out"
    assert rows["next"] == "nothing"


def test_several_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "two", "one"]) == 0
    rows = lines(capsys)
    two = "completed  100.0%  3.0/3 - 75.00% 81.25% (2) - 2 1,004 res2net test two;"
    assert rows["two"].split()[:12] == two.split()[:12]
    assert rows["one"].split()[:4] == ["killed", "0.0%", "0.0/3", "0:00:13"]
    assert rows["one"].endswith("nothing was saved: run.resume=auto starts anew")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    lock = Lock(Path("one/lock"))
    lock.acquire()
    assert main(["status", "one", "two", "--json"]) == 0
    lock.release()
    one, two = fits("status", capsys.readouterr().out)["runs"]
    assert (one["run"], one["state"], one["steps"], one["checkpoint"]) == (
        "one",
        "running",
        66,
        None,
    )
    assert one["holder"]["pid"] == os.getpid()
    assert (two["run"], two["state"], two["step"], two["holder"]) == ("two", "completed", 66, None)


def test_a_name_that_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    Path("one").rename("a\x1b[31mb")
    assert main(["status", "a\x1b[31mb"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = "nowhere: not a run: is no directory; expected checkpoints/<run.name>\n"
    assert main(["status", "nowhere", "nowhere"]) == 2
    assert capsys.readouterr() == ("", f"error: {words}")
    # as the folder of batch scripts in checkpoints/*/
    assert main(["status", "one", "nowhere"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("run") and err == f"left out: {words}"
    assert main(["status"]) == 2
    assert "RUN" in capsys.readouterr().err


def test_it_starts_without_pytorch() -> None:
    code = (
        "import sys; from res2net.cli.main import main; assert main(['status', 'one']) == 0; "
        "assert not {'torch', 'lightning', 'matplotlib', 'omegaconf', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
