"""`res2net data shard`: its lines, its JSON, its refusals."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from res2net.cli.main import main
from res2net.data.sources.opening import open_sources
from runs import COMMAND
from samples import encoded, photo
from schemas import fits


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images of two classes in `pets`, below the working directory."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("cat/a", "cat/b", "cat/c", "dog/a", "dog/b", "dog/c")):
        file = tmp_path / "pets" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(photo(seed), "JPEG"))
    return tmp_path / "pets"


def test_one_line_at_the_end(folder, capsys):
    assert main(["data", "shard", "pets", "out", "--workers=1"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("out: 6 images in 1 shard, 0.0 MB, ")
    assert captured.out.endswith(" images/s\n")
    train, val = open_sources("shards", "out", val_fraction=0.34)
    assert (len(train), len(val)) == (3, 3)

    assert main(["data", "shard", "pets", "out"]) == 0
    assert capsys.readouterr().out == "out: already complete: 6 images in 1 shard, 0.0 MB\n"


def test_json(folder, capsys):
    (folder / "dog/b.jpg").write_bytes(b"")
    assert main(["data", "shard", "pets", "out", "--resize=24", "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert "pets/dog/b.jpg is empty; 0 of 1 shard finished" in captured.err
    command = ["data", "shard", "pets", "out", "--resize=24", "--on-corrupt=skip", "--json"]
    assert main(command) == 0
    result = fits("data_shard", capsys.readouterr().out)
    size = os.path.getsize("out/train-000000.tar")
    speed = result.pop("images_per_second")
    assert speed > 0
    assert result == {
        "directory": "out",
        "images": 5,
        "left_out": 1,
        "shards": 1,
        "bytes": size,
        "images_now": 6,
    }
    assert main(["data", "shard", "pets", "out", "--resize=24"]) == 0
    assert capsys.readouterr().out.endswith(" MB, 1 image left out, see quarantine.txt\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "out"], "none: no such file or folder"),
        (["pets/cat/a.jpg", "out"], "pets/cat/a.jpg: expected a folder, ILSVRC2012_img_train.tar"),
        (["pets", "pets/out"], "pets/out: lies in pets"),
        (["pets", "out", "--quality=80"], "--quality 80: only the images that --resize makes"),
        (["pets", "/proc/out"], "/proc/out: no shards can be written there (No such file"),
        (["none", "pets/cat/a.jpg/out"], "pets/cat/a.jpg/out: no shards can be written there ("),
        (["none", "pets/cat/a.jpg"], "pets/cat/a.jpg: exists already and holds no shards"),
        (
            ["pets", "out", "--resize=9", "--quality=101"],
            "res2net data shard: argument --quality: '101'",
        ),
        (["pets", "out", "--labels=none.txt"], "none.txt: no such file of labels"),
        (["pets", "out", "--labels=pets/cat/a.jpg"], "data.val_labels="),
        (["pets", "out", "--expect=7"], "pets: train has 6 images, not 7"),
        (["pets", "out", "--expect=6,1"], "pets: val has 0 images, not 1"),
        (["pets", "out", "--expect=all"], "res2net data shard: argument --expect: 'all' is not N"),
        (["pets", "out", "--expect=1,2,3"], "res2net data shard: argument --expect: '1,2,3'"),
        (["pets", "out", "--resize=0"], "res2net data shard: argument --resize: '0'"),
        (["pets"], "res2net data shard: the following arguments are required: DST"),
    ],
)
def test_bad_input_makes_nothing(folder, arguments, message, capsys):
    assert main(["data", "shard", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert os.listdir() == ["pets"] and sorted(os.listdir("pets")) == ["cat", "dog"]


def test_lines_about_counts_and_options(folder, capsys):
    def refused(*arguments):
        assert main(["data", "shard", "pets", "out", *arguments]) == 2
        return capsys.readouterr().err.removeprefix("error: ").removesuffix("\n")

    assert refused("--expect=foo") == (
        "res2net data shard: argument --expect: 'foo' is not N (training images), N,M (training "
        "and validation images, such as 1281167,50000) or any"
    )
    assert refused("--quality=80") == (
        "--quality 80: only the images that --resize makes become JPEG; give --resize N too, or "
        "leave --quality out"
    )
    assert main(["data", "shard", "pets", "out", "--resize=24", "--expect=6"]) == 0
    capsys.readouterr()
    anew = ": choose a new folder, or remove this one"
    made = f"{Path.cwd()}/out: its shards were made with"
    assert refused("--resize=16", "--quality=50") == (
        f"{made} --resize 24, now 16; --quality 90, now 50{anew}"
    )
    assert (
        refused("--shard-size=3") == f"{made} --resize 24, now none; --shard-size 256, now 3{anew}"
    )
    (folder / "dog/d.jpg").write_bytes(encoded(photo(9), "JPEG"))
    assert refused("--resize=24").endswith(
        f"/out: its shards were made of other images or labels{anew}"
    )
    assert "--resize 24, now none and of other images or labels" in refused()


def test_one_image_is_not_images(folder, capsys):
    (folder / "val/cat").mkdir(parents=True)
    (folder / "cat/a.jpg").rename(folder / "val/cat/a.jpg")
    assert main(["data", "shard", "pets", "out", "--expect=5,2"]) == 2
    assert "pets: val has 1 image, not 2; " in capsys.readouterr().err


def test_an_end_from_the_keyboard_keeps_what_is_finished(folder):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for number in range(1200):  # more than are done before the signal comes
        (folder / f"cat/{number}.jpg").write_bytes(encoded(Image.fromarray(noise), "JPEG"))
    options = ["--resize=200", "--workers=2", "--shard-size=1"]
    process = subprocess.Popen(
        [COMMAND, "data", "shard", "pets", "out", *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not Path("out/.unfinished/train-000000.npz").exists():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.match(r"interrupted with \d+ of \d+ shards finished", told) and told.count("\n") == 1
    assert not list(Path("out").glob(".*.tmp"))


def test_help_needs_neither_numpy_nor_torch():
    code = (
        "import sys\n"
        "from res2net.cli.main import main\n"
        "assert main(['data', 'shard', '--help']) == 0\n"
        "assert not {'numpy', 'torch', 'PIL', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--on-corrupt" in done.stdout
