"""What a file of a stranger says is data: nothing is done on its word, nothing ends it badly."""

import json
import os
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from foreign_bytes import HOLDER, run_files
from res2net.cli.main import main
from res2net.config.load import load_config, to_dict
from res2net.errors import InputError
from res2net.files.runs import RunDirectory, identity
from res2net.training.images import _undecodable
from res2net.training.start import find_start
from samples import NAMES, PREPROCESSING, VARIANT, photo, small_network

pytestmark = pytest.mark.usefixtures("place")
SECRET = "a-key-that-nobody-may-see"
CONFIG = to_dict(load_config("quickstart", []))
Say = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, from which nothing is fetched."""

    def urlopen(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("SECRET", SECRET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def all_below(place: Path) -> list[str]:
    return sorted(str(path) for path in place.rglob("*"))


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command that is refused in one line and makes nothing; returns the line."""

    def run(*arguments: str) -> str:
        before = all_below(place)
        code = main(list(arguments))
        out, err = capsys.readouterr()
        assert code == 2, err
        assert all_below(place) == before
        assert SECRET not in out + err
        line = err.splitlines()[-1]
        assert line.startswith("error: ") and len(line) < 1500 and not out
        told = err.splitlines()[:-1]
        assert all(" images: data." in other for other in told) and len(told) <= 1
        return line

    return run


@cache
def tensors() -> dict[str, torch.Tensor]:
    return small_network().state_dict()


def store(path: Path, *, config: Any = CONFIG, **changes: Any) -> str:
    """A file of weights that says so; its kind is that of its suffix."""
    said: dict[str, Any] = identity(
        VARIANT,
        num_classes=10,
        class_names=NAMES,
        preprocessing=PREPROCESSING.to_dict(),
        config=CONFIG,
    )
    said |= {"config": config} | changes
    if path.suffix == ".safetensors":
        save_file(tensors(), path, metadata={"res2net": json.dumps(said)})
    else:
        torch.save({"state_dict": tensors(), "res2net": said}, path)
    return str(path)


def with_data(**keys: Any) -> dict[str, Any]:
    data = CONFIG["data"] | {"source": "folder"} | keys
    return CONFIG | {"data": data}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (with_data(root="/nope/${oc.env:SECRET}"), "is not plain text: ??? and ${...} are not"),
        (with_data(root="???"), "is not plain text"),
        (with_data(val_dir="${run.dir}"), "is not plain text"),
        (with_data(root="there/not"), "there/not: no such folder"),
        (with_data(root="a\nb"), ""),
        (with_data(root="x" * 5000), ""),
        (with_data(root=""), "data/folder: no such folder"),
        (with_data(source="shards", root="there/not"), "there/not: no such folder"),
        (with_data(source="cifar10", root=""), "data/cifar10: cifar10 is not there"),
        (with_data(source="cifar100", root="there/not"), "no reason to download it"),
        (with_data(source="cifar10", root="/proc/self/nowhere"), "no reason to download it"),
        (with_data(root=7), "7: no such folder"),
        (with_data(root=["a"]), "data.root: [a] is not one value"),
        (with_data(image_size=-1), "data.image_size: '-1' is not"),
        (with_data(mean=[1, 2]), "data.mean: [1, 2] is not a list of 3 numbers"),
        (CONFIG | {"data": None}, "config is no table of groups of plain values"),
        (CONFIG | {"data": [1]}, "config is no table of groups of plain values"),
        (CONFIG | {"data": {"root": {"a": 1}}}, "config is no table of groups of plain values"),
        (CONFIG | {"else": {"root": 1}}, "else.root: no such key"),
        ([1, 2], "config is no table of groups of plain values"),
        ("quickstart", "config is no table of groups of plain values"),
        (7, "config is no table of groups of plain values"),
    ],
)
def test_no_word_of_a_configuration_is_obeyed(
    refused: Say, place: Path, config: Any, reason: str
) -> None:
    assert reason in refused("test", store(place / "a.safetensors", config=config))


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
@pytest.mark.parametrize("option", [(), ("--recalibrate-bn", "64")])
def test_nor_is_that_of_a_checkpoint(
    refused: Say, place: Path, name: str, option: tuple[str, ...]
) -> None:
    for keys, reason in (
        ({"root": "/nope/${oc.env:SECRET}"}, "is not plain text: ??? and ${...} are not filled in"),
        ({"source": "cifar10", "root": "there/not"}, "no reason to download it"),
    ):
        assert reason in refused("test", store(place / name, config=with_data(**keys)), *option)


def test_where_files_and_runs_belong_is_not_taken_from_a_file(place: Path, refused: Say) -> None:
    keys = {"dir": "elsewhere", "name": "other", "resume": "elsewhere/last.ckpt", "seed": 0}
    config = with_data(root="none", stage_to="staged") | {"run": keys}
    config["model"] = CONFIG["model"] | {"weights": "in1k"}
    config["loss"] = CONFIG["loss"] | {"teacher_weights": "in1k", "teacher": VARIANT}
    assert "none: no such folder" in refused("test", store(place / "a.safetensors", config=config))


def test_images_that_are_there_are_read_and_told(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(NAMES):
        for split in ("train", "val"):
            (place / "mine" / split / name).mkdir(parents=True)
            photo(number).save(place / "mine" / split / name / "a.png")
    file = store(place / "a.safetensors", config=with_data(root="mine", val_dir="val"))
    before = all_below(place)
    assert main(["test", file, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["images"] == 10
    assert (
        f"validation images: data.source=folder data.root=mine data.val_dir=val, as {file}" in err
    )
    assert all_below(place) == before
    assert main(["test", file, "--data", "mine/val"]) == 0
    assert "as " + file not in capsys.readouterr().err  # the user's own choice needs no telling


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_size": 10**9}, "image_size=1000000000: expected an integer from 1 to 4096"),
        ({"image_size": "32"}, "image_size='32': expected an integer"),
        ({"image_size": True}, "image_size=True: expected an integer"),
        ({"image_size": 4096, "crop_fraction": 0.2}, "a short side of more than 8,192"),
        ({"crop_fraction": 1e-12}, "a short side of more than 8,192"),
        ({"crop_fraction": -1.0}, "crop_fraction=-1.0: expected a number above 0"),
        ({"crop_fraction": True}, "crop_fraction=True: expected a number above 0"),
        ({"mean": [1e300] * 3}, "expected three numbers from -1000 to 1000"),
        ({"std": [0, 0, 0]}, "std=[0, 0, 0]: expected three numbers from 0.001 to 1000"),
        ({"std": [1, 1]}, "std=[1, 1]: expected three numbers"),
        ({"std": "x" * 900}, "expected three numbers"),
        ({"std": "x" * 2000}, "preprocessing is no table of plain values"),
        ({"interpolation": ["bilinear"]}, "expected one of bilinear, bicubic"),
        ({"mean": {"a": 1}}, "preprocessing is no table of plain values"),
    ],
)
def test_preprocessing_out_of_all_bounds(
    refused: Say, place: Path, changes: dict[str, Any], reason: str
) -> None:
    # one in two as a checkpoint
    name = "a.safetensors" if len(reason) % 2 else "a.ckpt"
    file = store(place / name, preprocessing=PREPROCESSING.to_dict() | changes)
    line = refused("predict", file, "--sample")
    assert "its description 'res2net' is damaged: preprocessing" in line and reason in line


@pytest.mark.parametrize(
    ("key", "value"), [("image_size", float("inf")), ("crop_fraction", float("nan"))]
)
def test_numbers_that_are_none(refused: Say, place: Path, key: str, value: float) -> None:
    said = PREPROCESSING.to_dict() | {key: value}
    line = refused("predict", store(place / "a.ckpt", preprocessing=said), "--sample")
    assert f"{key}={value}: expected" in line
    # JSON has no such numbers
    line = refused("predict", store(place / "a.safetensors", preprocessing=said), "--sample")
    assert "is no number of JSON" in line


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "more than 32 deep"),
        ('{"a":' * 900 + "1" + "}" * 900, "more than 32 deep"),
        ("9" * 5000, "an integer of 5000 digits"),
        ('{"schema": "\\ud800"}', "a text that is no Unicode"),
        ('{"schema": ' + "1" * 400 + "}", "an integer of 400 digits"),
        ('{"schema": 1.5}', "has schema 1.5, this version reads 1"),
        ('{"schema": true}', "this version reads 1"),
        ('{"schema": 1}', "is damaged: lacks 'model'"),
    ],
)
def test_metadata_of_safetensors(refused: Say, place: Path, text: str, reason: str) -> None:
    save_file(tensors(), place / "a.safetensors", metadata={"res2net": text})
    assert reason in refused("predict", str(place / "a.safetensors"), "--sample")


# --- Run directories -----------------------------------------------------------------------------


@pytest.fixture
def run(place: Path) -> Path:
    """A run and another one, `good`, beside it."""
    files = run_files(place / "made")
    for folder in (place / "run", place / "good"):
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return place / "run"


LOOKS = [("status", "run"), ("status", "run", "good", "--json"), ("compare", "run", "good")]
RESUME = ("train", "quickstart", "run.dir=.", "run.name=run", "run.resume=auto", "--dry-run")
DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", DEEP),
        ("config.yaml", b"a: " + b"{b: " * 3000),
        ("config.yaml", b"[1, 2]"),
        ("config.yaml", b"data: [1]\ntrainer: 7\nlogging:"),
        ("config.yaml", b"\xff\xfed\0a\0t\0a\0:\0"),
        ("config.yaml", b"x" * 300_000),
        ("summary.json", DEEP),
        ("summary.json", b'{"best": [1], "steps": "many", "wall_seconds": "long"}'),
        ("summary.json", b'{"steps": 1e999, "restarts": NaN}'),
        ("summary.json", b'{"best": {"epoch": "last", "val/top1": {}}}'),
        ("heartbeat", b"1 1 nan\n"),
        ("heartbeat", b"1 1 1e308\n"),
        ("heartbeat", b"9" * 5000 + b" 1 1\n"),
        ("heartbeat", b"-5 -5 -5\n"),
        ("metrics.csv", b"step,epoch,split,key,value\n1,0,train,loss," + b"1" * 300_000 + b"\n"),
        ("metrics.csv", b"step,epoch,split,key,value\n1,-1,val,top1,1\n"),
        ("metrics.csv", b"step,epoch,split,key,value\n1,0,train,images_per_second,1e-320\n"),
        ("metrics.csv", b'step,epoch,split,key,value\n"1,0,val,top1,1\n'),
        ("lock", DEEP[:9000]),
        ("lock", b'{"pid": ' + b"9" * 5000 + b"}"),
        ("lock", HOLDER.to_json().replace("2026", "2026" * 2000).encode()),
        ("last.ckpt", b"PK\x03\x04" + b"\0" * 100),
        ("wandb-run-id", b"../../x\n" * 1000),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_no_content_of_a_run_ends_a_look_at_it_otherwise_than_in_order(
    run: Path, name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / name).write_bytes(content)
    for look in LOOKS:
        code = main(list(look))
        err = capsys.readouterr().err.splitlines()
        assert code in (0, 2)
        assert code == 0 or (len(err) == 1 and err[0].startswith("error: ") and len(err[0]) < 1500)
    with suppress(InputError):
        find_start(load_config(RESUME[1], RESUME[2:5]), RunDirectory(Path("run")))


FILES = ["config.yaml", "summary.json", "metrics.csv", "heartbeat", "lock", "last.ckpt",
         "nonfinite.txt", "quarantine.txt", "stalled-rank0.txt"]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "circle"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_is_neither_waited_for_nor_read(run: Path, name: str, kind: str) -> None:
    path = run / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    for look in LOOKS:
        assert main(list(look)) in (0, 2)
    with suppress(InputError):
        find_start(load_config(RESUME[1], RESUME[2:5]), RunDirectory(Path("run")))


@pytest.mark.parametrize("name", ["metrics.csv", "heartbeat", "stalled-rank0.txt", "plots"])
def test_a_run_does_not_write_where_a_link_in_it_leads(
    run: Path, place: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = place / "mine"
    mine.mkdir() if name == "plots" else mine.write_text("mine\n")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine)
    assert main([word for word in RESUME if word != "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: run/{name}: is a link or no plain file")
    assert mine.is_dir() or mine.read_text() == "mine\n"


@pytest.mark.parametrize("content", [DEEP, b"{}" * 3, b'{"training": {"0": [[[1]]]}}', None])
def test_a_record_of_images_that_is_none_excuses_none(run: Path, content: bytes | None) -> None:
    path = RunDirectory(run).undecodable(0)
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    assert _undecodable(RunDirectory(run)) == {}


def test_locks_that_follow_each_other_in_a_circle(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "b" * 32
    (run / "lock").write_text(HOLDER.to_json())
    (run / f".lock.after-{HOLDER.token}").write_text(HOLDER.to_json().replace(HOLDER.token, other))
    (run / f".lock.after-{other}").write_text(HOLDER.to_json())
    for look in LOOKS:
        assert main(list(look)) == 0
    assert main(list(RESUME)) == 2
    assert "is being trained by process 123 on node7" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["optim: " + "{a: " * 3000, "[" * 100_000, "- " * 3000])
def test_a_recipe_that_is_nested_too_deep(refused: Say, place: Path, text: str) -> None:
    (place / "deep.yaml").write_text(text)
    for verb in (("train", "--dry-run"), ("test",), ("submit", "--dry-run")):
        line = refused(verb[0], "deep.yaml", *verb[1:])
        assert "deep.yaml: holds lists or tables more than 32 deep" in line
