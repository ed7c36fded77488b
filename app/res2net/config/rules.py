"""What the value of each key must hold to beside its type: the one place that knows ranges.

Every number has a lower and an upper bound, so that all that is reckoned from it (bytes, steps,
minutes, arithmetic of 32 and 64 bits) stays within what machines and their libraries can do, and
every text is fit for where it goes. What joins keys or asks the machine: `training/plan.py` and
`training/data.py`.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Rule:
    """What a typed value must hold to; `words` completes the sentence "'-1' is not ..."."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
        above, below: `low` or `high` itself is none of them.
        or_zero: 0 is one, too.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    or_zero: bool = False

    @property
    def words(self) -> str:
        low, high = _figure(self.low), _figure(self.high)
        words = f"between {low} and {high}"
        if self.above or self.below:
            words = f"{'greater than' if self.above else 'at least'} {low} and "
            words += f"{'less than' if self.below else 'at most'} {high}"
        return f"0, or {words}" if self.or_zero else words

    def holds(self, value: float) -> bool:
        if self.or_zero and value == 0:
            return True
        above = self.low < value if self.above else self.low <= value
        return above and (value < self.high if self.below else value <= self.high)


@dataclass(frozen=True)
class Ranges:
    """A list of numbers, all in one range.

    Attributes:
        range: of each.
        words: of the whole list.
        longest: how many there may be.
        ordered: whether they ascend: each at least the one before, or `strictly` greater.
    """

    range: Range
    words: str
    longest: int
    ordered: bool = False
    strictly: bool = False

    def holds(self, values: Sequence[float]) -> bool:
        if len(values) > self.longest or not all(map(self.range.holds, values)):
            return False
        pairs = pairwise(values)
        if self.strictly:
            return all(low < high for low, high in pairs)
        return not self.ordered or all(low <= high for low, high in pairs)


PART_BYTES = 255
"""As long may the name of a file be on the file systems in use."""
NAME_BYTES = 200
"""As long may a run's name be: its directory, and files that are named after it."""
PATH_BYTES = 2000
"""A path with what is put below it stays within Linux's 4096 bytes."""
TEXT_LENGTH = 200
"""Of the name of a variant, which has some twenty characters."""
WANDB_LENGTH, _NOT_FOR_WANDB = 128, set("/\\#?%:")
"""W&B's own rule for the name of a project (`wandb.Settings.validate_project`)."""

_ENDS_LINES = ("Cc", "Zl", "Zp")
"""Control characters, and Unicode's own ends of lines and paragraphs."""

_PLAIN = "without control characters"
_PATH_WORDS = f"a path of at most {PATH_BYTES:,} bytes ({PART_BYTES} a name) {_PLAIN}"


def is_plain(text: str) -> bool:
    """Whether it can be a file's name and stand in one line: without control characters, and
    nothing but characters and what `os.fsdecode` makes of bytes that are not UTF-8."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # a half of a surrogate pair, as YAML and JSON can spell it
        return False
    return not any(unicodedata.category(character) in _ENDS_LINES for character in text)


def _is_path(text: str) -> bool:
    if not is_plain(text):
        return False
    path = os.fsencode(text)
    return len(path) <= PATH_BYTES and all(len(part) <= PART_BYTES for part in path.split(b"/"))


def _is_name(text: str) -> bool:
    """Of a directory."""
    if not is_plain(text) or set(text) & set("/\\"):
        return False
    return text.strip() not in ("", ".", "..") and len(os.fsencode(text)) <= NAME_BYTES


def _figure(number: float) -> str:
    """1000000 -> 1,000,000; 1e-10 and 0.05 as Python writes them."""
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


def _number_or(word: str, most: int) -> Rule:
    """A text that is a word or the digits of a number."""
    return Rule(
        f"{word} or an integer between 1 and {most:,}",
        lambda text: text == word or (_is_count(text) and 1 <= int(text) <= most),
    )


def _is_count(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,9}", text))


_PATH = Rule(_PATH_WORDS, _is_path)

_SHARE = Range(0, 1)
_BELOW_1 = Range(0, 1, below=True)
_ABOVE_0 = Range(0, 1, above=True)
_SEED = Range(0, 2**32 - 1)
_SIDE = Range(8, 4096)
_BATCH = Range(1, 2**20)
_EPOCHS = Range(0, 1_000_000)
_MINUTES = 100_000
_STEPS = 1_000_000_000

RULES: dict[str, Rule | Range | Ranges] = {
    "run.name": Rule(
        "the plain name of a directory, without a slash or control characters, of at most "
        f"{NAME_BYTES} bytes",
        _is_name,
    ),
    "run.dir": Rule(_PATH_WORDS, lambda text: _is_path(text) and text.strip() != ""),
    "run.seed": _SEED,
    "run.resume": _PATH,
    "model.name": Rule(
        f"a name of at most {TEXT_LENGTH} characters {_PLAIN}",
        lambda text: is_plain(text) and text.strip() != "" and len(text) <= TEXT_LENGTH,
    ),
    "model.num_classes": Range(0, 100_000),
    "model.weights": _PATH,
    "model.drop_path": _BELOW_1,
    "data.root": _PATH,
    "data.stage_to": _PATH,
    "data.train_dir": _PATH,
    "data.val_dir": _PATH,
    "data.val_labels": _PATH,
    "data.val_fraction": _BELOW_1,
    "data.split_seed": _SEED,
    "data.global_batch_size": _BATCH,
    "data.eval_batch_size": Range(1, 65_536),
    "data.subset": _ABOVE_0,
    "data.max_pixels": Range(1, 1_000_000_000),  # 3 GB once decoded
    "data.workers": Range(0, 512),
    "data.image_size": _SIDE,
    "data.eval_image_size": Range(8, 4096, or_zero=True),
    "data.crop_fraction": Range(0.1, 1),
    "data.mean": Ranges(_SHARE, "three numbers between 0 and 1", 3),
    "data.std": Ranges(Range(0.001, 1), "three numbers between 0.001 and 1", 3),
    "augment.area": Ranges(
        Range(0.001, 1), "low and high with 0.001 <= low <= high <= 1", 2, ordered=True
    ),
    "augment.ratio": Ranges(
        Range(0.01, 100), "low and high with 0.01 <= low <= high <= 100", 2, ordered=True
    ),
    "augment.pad": Range(0, 512),
    "augment.flip": _SHARE,
    "augment.policy_ops": Range(1, 10),
    "augment.policy_magnitude": Range(0, 30),
    "augment.color_jitter": _SHARE,
    "augment.hue_jitter": Range(0, 0.5),
    "augment.erase": _SHARE,
    "augment.mixup": Range(0.01, 100.0, or_zero=True),
    "augment.cutmix": Range(0.01, 100.0, or_zero=True),
    "augment.mix_probability": _SHARE,
    "augment.cutmix_share": _SHARE,
    "augment.repeats": Range(1, 64),
    "augment.start_size": Range(8, 4096, or_zero=True),
    "augment.grow_from": _EPOCHS,
    "augment.grow_until": _EPOCHS,
    "loss.label_smoothing": _BELOW_1,
    "loss.bce_threshold": _BELOW_1,
    "loss.teacher": _PATH,
    "loss.teacher_weights": _PATH,
    "loss.distill": _SHARE,
    "loss.temperature": Range(0.1, 100),
    "optim.lr": Range(1e-10, 1000),
    "optim.lr_batch": Range(0, 2**20),
    "optim.momentum": _BELOW_1,
    "optim.betas": Ranges(_BELOW_1, "two numbers of at least 0 and below 1", 2),
    # smaller than that it is nothing beside the numbers of 32 bits to which it is added
    "optim.eps": Range(1e-16, 1, or_zero=True),
    "optim.weight_decay": Range(0, 10),
    "optim.layer_decay": Range(0.1, 1),  # the deepest network has some fifty layers
    "optim.head_lr": Range(1e-4, 10_000),
    "optim.freeze": Rule(
        "none, backbone, or a number of stages",
        lambda text: text in ("none", "backbone") or _is_count(text),
    ),
    "optim.clip_norm": Range(1e-6, 1_000_000, or_zero=True),
    "optim.ema_decay": _BELOW_1,
    "optim.ema_every": Range(1, 1_000_000),
    "schedule.warmup_epochs": _EPOCHS,
    "schedule.warmup_start": _SHARE,
    "schedule.end_factor": _SHARE,
    "schedule.step_epochs": Range(0.001, 1_000_000),
    "schedule.milestones": Ranges(
        Range(0, 1_000_000, above=True),
        "at most 100 epochs greater than 0 and up to 1,000,000, each greater than the one before",
        100,
        strictly=True,
    ),
    "schedule.gamma": Range(1e-6, 1),
    "trainer.max_epochs": Range(1, 1_000_000),
    "trainer.devices": _number_or("auto", 1024),
    "trainer.num_nodes": _number_or("auto", 100_000),
    "trainer.accumulate": Range(1, 2**20),
    # below a minute a first batch is taken for a stall; 69 days are longer than any job, and far
    # below where clocks of 64 bits of nanoseconds end
    "trainer.stall_minutes": Range(1, _MINUTES, or_zero=True),
    "checkpoint.every_steps": Range(0, _STEPS),
    "checkpoint.every_minutes": Range(0, _MINUTES),
    "logging.every_steps": Range(1, _STEPS),
    "logging.wandb_project": Rule(
        f"a name of at most {WANDB_LENGTH} characters without / \\ # ? % : and control characters",
        lambda text: (
            is_plain(text)
            and text.strip() != ""
            and len(text) <= WANDB_LENGTH
            and not set(text) & _NOT_FOR_WANDB
        ),
    ),
}
