"""`res2net bench loader`: its arguments, its table, its JSON."""

import json

import pytest

from res2net.bench import loader
from res2net.cli.main import main
from sharding import make

RESULT = {
    "schema": 1,
    "machine": {"cores": 2, "cpu": "A processor", "gpu": None},
    "work": {
        "source": "shards",
        "files": 2000,
        "image_size": 224,
        "batch_size": 64,
        "threads": 2,
        "device": "cpu",
    },
    "contenders": {
        name: {
            "images_per_second": speed,
            "cpu_ms_per_image": 2.5,
            "memory_mb": 800.0,
            "cores_used_elsewhere": 0.02,
            "turns": [{}, {}],
        }
        for name, speed in (("loader", 1500.0), ("dali", 1530.0), ("torchvision", 600.0))
    },
    "ratios": {
        "loader/dali": {"median": 0.98, "pairs": [0.97, 0.99]},
        "loader/torchvision": {"median": 2.5, "pairs": [2.45, 2.55]},
    },
}


@pytest.fixture
def asked(monkeypatch):
    """What the command asks for; nothing is measured."""
    calls = []

    def measured(config, **options):
        calls.append((config, options))
        return RESULT

    monkeypatch.setattr(loader, "compare_loaders", measured)
    return calls


def test_table(asked, capsys):
    command = "bench loader quickstart data.global_batch_size=32 --pairs=3 --images 640"
    assert main([*command.split(), "--original=files"]) == 0
    ((config, options),) = asked
    assert config.data.global_batch_size == 32
    options.pop("progress")
    assert options == {"pairs": 3, "images": 640, "original": "files"}
    head, _, ours, bare, other, work = capsys.readouterr().out.splitlines()
    assert head.split("  ")[-1].strip() == "memory"
    assert ours.split() == ["loader,", "as", "in", "training", "1,500", "2.50", "800", "MB"]
    assert bare.split() == [
        "DALI",
        "pipeline",
        "alone",
        "1,530",
        "0.98",
        "x",
        "0.97-0.99",
        "2.50",
        "800",
        "MB",
    ]
    assert other.split()[-7:] == ["600", "2.50", "x", "2.45-2.55", "2.50", "800", "MB"]
    assert work == (
        "2,000 shards images at 224 px, batches of 64, 2 threads, cpu; medians of 2 turns; "
        "2 cores, A processor"
    )


def test_json(asked, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/res2net", "bench", "loader", "quickstart", "--json"])
    assert main(["bench", "loader", "quickstart", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("command") == "res2net bench loader quickstart --json"
    assert printed == RESULT
    assert asked[0][1]["pairs"] == 7 and asked[0][1]["images"] == 0


def test_a_busy_machine_is_told(asked, capsys, monkeypatch):
    monkeypatch.setitem(RESULT["contenders"]["dali"], "cores_used_elsewhere", 0.52)
    assert main(["bench", "loader", "quickstart"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("other programs used 0.5 cores")


def test_a_batch_larger_than_the_data(tmp_path, capsys):
    make(tmp_path, {"a": 30, "b": 30})
    arguments = [f"data.root={tmp_path}", "data.global_batch_size=500", "data.val_fraction=0.1"]
    assert main(["bench", "loader", "folder_small", *arguments]) == 2
    assert capsys.readouterr() == (
        "",
        "error: data.global_batch_size=500: there are only 54 training images; choose at most 54\n",
    )


@pytest.mark.parametrize(
    "arguments,told",
    [
        (["loader", "quickstart", "--pairs=0"], "'0' is not an integer from "),
        (["model", "res2net50", "--seconds=0"], "--seconds: '0' is not a number above 0"),
        (["model", "res2net50", "--seconds=-0.1"], "--seconds: '-0.1' is not a number above 0"),
        (["model", "res2net50", "--seconds=nan"], "--seconds: 'nan' is not a number above 0"),
        (["model", "res2net50", "--seconds=inf"], "--seconds: 'inf' is not a number above 0"),
        (["loader"], "CONFIG"),
        (["loader", "quickstart", "data.colour=1"], "data.colour"),
        (["loder"], "did you mean loader?"),
    ],
)
def test_refusals(arguments, told, capsys):
    assert main(["bench", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and told in captured.err and captured.err.count("\n") == 1
