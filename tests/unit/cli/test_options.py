"""Hostile values of every option and argument of every verb: one line and 2, or what was asked.

The options are those of the parsers themselves, so that a new one is among them. What a verb does
after its checks is replaced, or cannot begin: no model, run or data set is there.
"""

import argparse
import os
import random
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from res2net.cli import bench, data
from res2net.cli.main import VERBS, main
from res2net.files.names import shown

COMMANDS = [
    *([name] for name in VERBS if name not in ("data", "bench")),
    *(["data", name] for name in data.VERBS),
    *(["bench", name] for name in bench.VERBS),
]
WITH_CONFIGURATION = ("train", "test", "submit", "bench loader", "bench train")
"""A tenth of a second each."""
MANY = 10_000
TEXTS = (
    *("", " ", "0", "-1", "1", "1.5", "1e308", "-1e308", "1e-308", "nan", "inf", "-inf", "0x10"),
    *(
        "٣",
        "²",
        "1_000",
        "True",
        "null",
        "[]",
        "{}",
        "a,b",
        "1,2,3",
        "auto",
        "any",
        "=",
        "==",
        "a=",
    ),
    *(
        "\n",
        "a\nb",
        "\r",
        "\t",
        "\x1b[31m",
        "\0",
        "a\0b",
        "\x7f",
        "\x9b",
        "\u2028",
        "\u202e",
        "\u200b",
    ),
    *(
        "\ud800",
        "\udcff",
        "é日本",
        "\U0001f600",
        "%s%n",
        "${oc.env:HOME}",
        "$(touch X)",
        "`touch X`",
    ),
    *(
        "../..",
        "/",
        ".",
        "..",
        "~",
        "*",
        "[",
        "[a",
        "**",
        "-",
        "--",
        "---",
        "-x",
        "--x",
        "/dev/null",
    ),
    *("/proc/self/mem", "/etc/shadow", "x" * 256, "x" * 5_000, "x" * MANY, "a/" * 5_000, "9" * 20),
    *("9" * MANY, "-" + "9" * 400, "é" * 200, "no/such/place.png", "no.csv", "x.png", "new.npz"),
    *(
        "[red]x[/red]",
        "=cmd|' /C calc'!A0",
        "http://127.0.0.1:9/x",
        "s3://a/b",
        "key=value",
        "a b=c",
    ),
    *("run.name=a\nb", "optim.lr=nan", "data.root=" + "x" * 5_000, "run.dir=a\0b", "model.name="),
)


class Worked(Exception):
    """A verb came past its checks."""


def work(*arguments: Any, **more: Any) -> Any:
    raise Worked


WORK = {
    "res2net.training.run.train": "train",
    "res2net.training.rehearsal.dry_run.dry_run": "train --dry-run",
    "res2net.training.rehearsal.preview.draw_preview": "train --preview",
    "res2net.training.rehearsal.plot_schedule.plot_schedule": "train --plot-schedule",
    "res2net.training.rehearsal.find_lr.find_lr": "train --find-lr",
    "res2net.bench.loader.compare_loaders": "bench loader",
    "res2net.bench.train.compare_loops": "bench train",
    "res2net.bench.model.compare_models": "bench model",
    "res2net.bench.suite.run_suite": "bench suite",
    "res2net.cli.data_download.fetch": "data download",
    "res2net.cli.export._export": "export",
    "res2net.training.evaluation.test.evaluate": "test",
    "res2net.cli.doctor.examine": "doctor",
    "res2net.cli.submit.submit": "submit",
    "res2net.demo.server.serve": "demo",
    "res2net.inference.predictor.Predictor": "predict",
    "res2net.inference.features.FeatureExtractor": "features",
    "res2net.inference.cam.Explainer": "cam and demo",
    "res2net.files.download.download": "published weights",
}


def parser_of(command: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    import_module("res2net.cli." + "_".join(command)).add_arguments(parser)
    return parser


def examples(command: list[str], count: int) -> Iterator[list[str]]:
    """Arguments: what is required, of any value, and one to three options of any value."""
    chance = random.Random(" ".join(command))
    actions = [a for a in parser_of(command)._actions if a.dest != "help"]
    options = [a for a in actions if a.option_strings]
    positional = [a for a in actions if not a.option_strings]

    def value(action: argparse.Action) -> str:
        if action.choices and chance.random() < 0.5:
            return str(chance.choice(list(action.choices)))
        return chance.choice(TEXTS)

    def usual(action: argparse.Action) -> str:
        if action.choices:
            return str(next(iter(action.choices)))
        return {"CONFIG": "quickstart", "key=value": "optim.lr=0.1"}.get(
            str(action.metavar), "res2net_digits"
        )

    for number in range(count):
        hostile = chance.randrange(len(positional) + 1) if number % 2 else len(positional)
        arguments = []
        for place, action in enumerate(positional):
            if action.nargs in ("*", "?") and place != hostile and chance.random() < 0.5:
                continue
            arguments.append(value(action) if place == hostile else usual(action))
        # each option in turn first
        chosen = [options[number // 2 % len(options)]] if options else []
        chosen += chance.sample(options, chance.randrange(min(2, len(options)) + 1))
        for action in chosen + [a for a in options if a.required and a not in chosen]:
            name = chance.choice(action.option_strings)
            if action.nargs == 0:
                arguments.append(name)
            elif chance.random() < 0.5:
                arguments.append(f"{name}={value(action)}")
            else:
                arguments += [name, value(action)]
        yield arguments


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_hostile_options(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = 30 if " ".join(command) in WITH_CONFIGURATION else 200
    counts = drawn(command, count, tmp_path, monkeypatch, capsys)
    assert sum(counts.values()) == count
    assert counts[2] > count / 8 or command == ["doctor"], counts


@pytest.mark.soak
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_many_hostile_options(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    counts = drawn(command, 1_000, tmp_path, monkeypatch, capsys)
    assert counts[2] > 100 or command == ["doctor"], counts


def drawn(
    command: list[str],
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[int | str, int]:
    """How many ended with which exit code, or came to their work."""
    for place in WORK:
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(import_module(module), name, work)
    monkeypatch.setattr("res2net.cli.submit.find_sbatch", lambda: "sbatch")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=open(os.devnull, "rb")))  # noqa: SIM115
    monkeypatch.chdir(tmp_path)
    counts: dict[int | str, int] = {0: 0, 2: 0, "worked": 0}
    for arguments in examples(command, count):
        if command == ["submit"]:
            arguments.append("--no-check")
            arguments.append("--dry-run")
        try:
            code: Any = main([*command, *arguments])
        except Worked:
            code = "worked"
        printed = capsys.readouterr()
        case = " ".join(shown(word, longest=70) for word in (*command, *arguments))
        assert code in counts, (case, code, printed)
        counts[code] += 1
        if code == 2:
            assert printed.out == "", (case, printed)
            assert printed.err.count("\n") == 1 and printed.err.startswith("error: "), case
        for text in (printed.out, printed.err):
            assert shown(text.replace("\n", ""), longest=10**7) == text.replace("\n", ""), case
        assert os.listdir(tmp_path) == [], case
    return counts
