"""Whatever a configuration holds: all that comes before training takes it or says why not.

Random changes go through `res2net train CONFIG key=value ... --dry-run` up to the steps that it
tries (`_rehearse`): the exit code is 0 or 2, at 2 stderr is one line, nothing is created, and no
exception leaves. What is tried after that is tried for the ends of each range, one by one.
"""

import contextlib
import functools
import io
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sklearn.datasets
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from config_changes import Changes, bounds, changes
from res2net import create_model
from res2net.cli.main import main
from res2net.config.rules import RULES, Range
from res2net.errors import InputError
from res2net.training.rehearsal import dry_run

SMALL = ("data.root=images", "model.name=res2net20_cifar", "data.global_batch_size=4")
BASES = (
    ("quickstart",),
    ("quickstart", "optim.name=adamw", "optim.ema_decay=0.9", "augment.mixup=0.2"),
    ("quickstart", "trainer.accumulate=2", "schedule.name=step", "data.source=digits"),
    ("folder_small", *SMALL),
    ("finetune_head", *SMALL, "model.weights=start.pth"),
    ("imagenet/rsb_a2", *SMALL, "trainer.precision=32-true"),
    ("imagenet/progressive_16", *SMALL, "trainer.devices=1", "trainer.num_nodes=1"),
)
GUARD = 60.0
"""Seconds that no example takes, on the slowest machine."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where there are images and weights; nothing is downloaded, and the digits are read once."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))  # W&B makes a cache there
    for split, name in ((s, n) for s in ("train", "val") for n in ("ant", "bee")):
        folder = here / "images" / split / name
        folder.mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (16, 16), (40 * index, 0, 0)).save(folder / f"{index}.png")
    torch.save(create_model("res2net20_cifar", num_classes=2).state_dict(), "start.pth")
    Path("mine.txt").write_text("no weights")

    def offline(*arguments: Any, **options: Any) -> None:
        raise InputError("no network in this test")

    monkeypatch.setattr("res2net.files.download.download", offline)
    monkeypatch.setattr("res2net.data.sources.opening.load_cifar", offline)
    digits = functools.cache(sklearn.datasets.load_digits)
    monkeypatch.setattr(sklearn.datasets, "load_digits", digits)
    return here


def checked(base: tuple[str, ...], drawn: Changes, *, as_yaml: bool = False) -> int:
    """The exit code of the whole check; fails where a promise is broken."""
    recipe, *overrides = base
    if as_yaml:
        tree: dict[str, Any] = {"extends": recipe}
        for key, text in drawn:
            group, _, leaf = key.partition(".")
            tree[group] = {**tree.get(group, {}), leaf: text} if leaf else text
        # not below where nothing may be created
        file = Path("../drawn.yaml")
        file.write_text(yaml.dump(tree, allow_unicode=False), "utf-8", "surrogatepass")
        arguments = ["train", str(file), *overrides]
    else:
        arguments = ["train", recipe, *overrides, *(f"{key}={text}" for key, text in drawn)]
    before, since = listing(), time.monotonic()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*arguments, "--dry-run"])
    said = err.getvalue()
    assert code in (0, 2), (arguments, code, said)
    if code == 2:
        assert said.startswith("error: ") and said.endswith("\n"), (arguments, said)
        assert len(said.splitlines()) == 1 and len(said) < 4000, (arguments, said)
        assert out.getvalue() == ""
    assert "Traceback" not in said
    assert listing() == before, (arguments, "something was created")
    assert time.monotonic() - since < GUARD, arguments
    return code


def listing() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*"))


def fuzz(examples: int) -> Counter[int]:
    """Exit code -> how often."""
    codes: Counter[int] = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(BASES), changes(), st.sampled_from([False, False, False, True]))
    def run(base: tuple[str, ...], drawn: Changes, as_yaml: bool) -> None:
        codes[checked(base, drawn, as_yaml=as_yaml)] += 1

    run()
    return codes


def test_changes_of_any_kind_are_taken_or_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "_rehearse", _told)
    codes = fuzz(500)
    assert codes[0] >= 100 and codes[2] >= 100, codes


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_ten_thousand_changes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "_rehearse", _told)
    codes = fuzz(10_000)
    print(f"config fuzz: {codes[0]} taken, {codes[2]} refused")
    assert codes[0] >= 2000 and codes[2] >= 2000, codes


NEEDS = {
    "augment.policy_ops": ("augment.policy=rand_augment",),
    "augment.policy_magnitude": ("augment.policy=rand_augment",),
    "augment.cutmix_share": ("augment.mixup=1", "augment.cutmix=1"),
    "augment.mix_probability": ("augment.mixup=1",),
    "augment.start_size": ("augment.crop=random_resized", "augment.grow_until=1"),
    "augment.grow_from": ("augment.crop=random_resized", "augment.start_size=8"),
    "augment.grow_until": ("augment.crop=random_resized", "augment.start_size=8"),
    "loss.bce_threshold": ("loss.name=bce",),
    "loss.distill": ("loss.teacher=res2net_digits",),
    "loss.temperature": ("loss.teacher=res2net_digits",),
    "optim.eps": ("optim.name=adamw", "optim.lr=0.001"),
    "optim.ema_every": ("optim.ema_decay=0.9",),
    "schedule.step_epochs": ("schedule.name=step",),
    "schedule.gamma": ("schedule.name=step", "schedule.step_epochs=0.3"),
    "schedule.warmup_start": ("schedule.warmup_epochs=1",),
}
"""What a key takes to count."""
HEAVY = {("data.image_size", "4096"), ("data.eval_image_size", "4096")}
"""Gigabytes and minutes, as they should."""


@pytest.mark.soak
@pytest.mark.timeout(5400)
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("key", [key for key, rule in RULES.items() if isinstance(rule, Range)])
def test_what_the_dry_run_takes_is_trained(
    key: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At both ends of each range, with the steps that are tried, and then for an epoch."""
    few = ("data.subset=0.05", "data.global_batch_size=16", "schedule.warmup_epochs=0")
    for number, end in enumerate(bounds(key)):
        if (key, end) in HEAVY:
            continue
        arguments = [
            *("train", "quickstart", *few, "trainer.max_epochs=1", *NEEDS.get(key, ())),
            *(f"{key}={end}", f"run.name=n{number}"),
        ]
        codes, lines = [], []
        for option in (["--dry-run"], []):
            if (key, end) == ("trainer.max_epochs", "1000000") and not option:
                codes.append(codes[0])  # days
                continue
            codes.append(main([*arguments, *option]))
            lines.append(capsys.readouterr().err.splitlines()[-1:])
        assert codes[0] in (0, 2), (arguments, lines)
        diverged = codes[1] == 1 and "not finite" in str(lines[-1])
        assert codes[1] == codes[0] or diverged, (arguments, codes, lines)
        assert Path(f"checkpoints/n{number}").exists() == (codes[0] == 0 and len(lines) == 2)


def _told(*arguments: Any) -> Any:
    """Instead of the steps: what they would tell."""

    class Told:
        def lines(self) -> list[str]:
            return ["all is well"]

    return Told()
