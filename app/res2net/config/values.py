"""What a text means at a key: its type, its range, or one line that says what is wrong with it."""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from res2net.config.schema import Config
from res2net.errors import InputError

GROUPS: dict[str, type] = get_type_hints(Config)
HINTS: dict[str, Any] = {
    f"{group}.{leaf}": hint
    for group, schema in GROUPS.items()
    for leaf, hint in get_type_hints(schema).items()
}
_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class _Rule:
    """What a typed value must hold to; `words` completes the sentence "'-1' is not ..."."""

    words: str
    holds: Callable[[Any], bool]


_POSITIVE_INT = _Rule("1 or more", lambda value: value >= 1)
_NOT_NEGATIVE = _Rule("0 or more", lambda value: value >= 0)
_POSITIVE = _Rule("greater than 0", lambda value: value > 0)
_FRACTION = _Rule("between 0 and 1", lambda value: 0 <= value <= 1)
_FRACTION_OR_ZERO = _Rule("at least 0 and less than 1", lambda value: 0 <= value < 1)
_FRACTION_ABOVE_ZERO = _Rule("greater than 0 and at most 1", lambda value: 0 < value <= 1)
_SEED = _Rule("between 0 and 4294967295", lambda value: 0 <= value < 2**32)
_NOT_EMPTY = _Rule("a name", lambda text: text.strip() != "")
_COUNT = _Rule(
    "auto or a positive integer", lambda text: bool(re.fullmatch(r"auto|[1-9]\d*", text))
)

# Rules that concern one key alone. Those that join keys or ask the machine: training/plan.py.
_RULES: dict[str, _Rule] = {
    "run.name": _Rule(
        "the plain name of a directory, without a slash",
        lambda text: text.strip() not in ("", ".", "..") and not set(text) & set("/\\\0\n"),
    ),
    "run.dir": _NOT_EMPTY,
    "run.seed": _SEED,
    "model.name": _NOT_EMPTY,
    "model.num_classes": _NOT_NEGATIVE,
    "data.val_fraction": _FRACTION_OR_ZERO,
    "data.split_seed": _SEED,
    "data.global_batch_size": _POSITIVE_INT,
    "data.eval_batch_size": _POSITIVE_INT,
    "data.subset": _FRACTION_ABOVE_ZERO,
    "data.max_pixels": _POSITIVE_INT,
    "data.workers": _NOT_NEGATIVE,
    "data.image_size": _Rule("8 or more", lambda value: value >= 8),
    "data.eval_image_size": _Rule("0, or 8 or more", lambda value: value == 0 or value >= 8),
    "data.crop_fraction": _FRACTION_ABOVE_ZERO,
    "data.mean": _Rule(
        "three numbers between 0 and 1", lambda rgb: all(0 <= value <= 1 for value in rgb)
    ),
    "data.std": _Rule(
        "three numbers greater than 0 and at most 1",
        lambda rgb: all(0 < value <= 1 for value in rgb),
    ),
    "augment.area": _Rule(
        "low and high with 0 < low <= high <= 1", lambda pair: 0 < pair[0] <= pair[1] <= 1
    ),
    "augment.ratio": _Rule(
        "low and high with 0 < low <= high", lambda pair: 0 < pair[0] <= pair[1]
    ),
    "augment.pad": _NOT_NEGATIVE,
    "augment.flip": _FRACTION,
    "augment.policy_ops": _POSITIVE_INT,
    "augment.policy_magnitude": _Rule("between 0 and 30", lambda value: 0 <= value <= 30),
    "augment.color_jitter": _FRACTION,
    "augment.hue_jitter": _Rule("between 0 and 0.5", lambda value: 0 <= value <= 0.5),
    "augment.erase": _FRACTION,
    "augment.repeats": _POSITIVE_INT,
    "augment.start_size": _Rule("0, or 8 or more", lambda value: value == 0 or value >= 8),
    "augment.grow_from": _NOT_NEGATIVE,
    "augment.grow_until": _NOT_NEGATIVE,
    "augment.mixup": _NOT_NEGATIVE,
    "augment.cutmix": _NOT_NEGATIVE,
    "augment.mix_probability": _FRACTION,
    "augment.cutmix_share": _FRACTION,
    "model.drop_path": _FRACTION_OR_ZERO,
    "loss.label_smoothing": _FRACTION_OR_ZERO,
    "loss.bce_threshold": _FRACTION_OR_ZERO,
    "loss.distill": _FRACTION,
    "loss.temperature": _POSITIVE,
    "optim.lr": _POSITIVE,
    "optim.lr_batch": _NOT_NEGATIVE,
    "optim.momentum": _FRACTION_OR_ZERO,
    "optim.betas": _Rule(
        "two numbers of at least 0 and below 1", lambda pair: all(0 <= value < 1 for value in pair)
    ),
    "optim.eps": _NOT_NEGATIVE,
    "optim.weight_decay": _NOT_NEGATIVE,
    "optim.layer_decay": _FRACTION_ABOVE_ZERO,
    "optim.head_lr": _POSITIVE,
    "optim.freeze": _Rule(
        "none, backbone, or a number of stages",
        lambda value: value in ("none", "backbone") or value.isdecimal(),
    ),
    "optim.clip_norm": _NOT_NEGATIVE,
    "optim.ema_decay": _FRACTION_OR_ZERO,
    "optim.ema_every": _POSITIVE_INT,
    "schedule.warmup_epochs": _NOT_NEGATIVE,
    "schedule.warmup_start": _FRACTION,
    "schedule.end_factor": _FRACTION,
    "schedule.step_epochs": _POSITIVE,
    "schedule.milestones": _Rule(
        "epochs greater than 0, each greater than the one before",
        lambda epochs: all(a < b for a, b in zip((0, *epochs), epochs, strict=False)),
    ),
    "schedule.gamma": _FRACTION_ABOVE_ZERO,
    "trainer.max_epochs": _POSITIVE_INT,
    "trainer.devices": _COUNT,
    "trainer.num_nodes": _COUNT,
    "trainer.accumulate": _POSITIVE_INT,
    "checkpoint.every_steps": _NOT_NEGATIVE,
    "checkpoint.every_minutes": _NOT_NEGATIVE,
    "trainer.stall_minutes": _NOT_NEGATIVE,
    "logging.every_steps": _POSITIVE_INT,
    "logging.wandb_project": _NOT_EMPTY,
}


def rule_of(key: str) -> str:
    """What the value of a key must be beside its type, in words; empty: anything of the type."""
    return _RULES[key].words if key in _RULES else ""


def typed_value(key: str, text: str | list[str]) -> Any:
    """The value that `text` means at `key`. Raises InputError: unknown key, wrong type, range."""
    if key in GROUPS:
        names = ", ".join(field.name for field in fields(GROUPS[key]))
        raise InputError(f"{key}: {shown(text)} given to a group; its keys are {names}")
    if key not in HINTS:
        raise InputError(unknown_key(key))
    rule = _RULES.get(key)
    try:
        value = _converted(HINTS[key], text)
        if rule and not rule.holds(value):
            raise ValueError(rule.words)
    except ValueError as error:
        raise InputError(f"{key}: {shown(text)} is not {error}") from None
    return value


def stored_value(key: str, value: Any) -> Any:
    """The value at `key` of a stored configuration, held to the same rules as one that is written.

    Raises InputError: as `typed_value`; or what is stored is neither text nor number nor a list.
    """
    if isinstance(value, (list, tuple)):
        return typed_value(key, [_written(key, item) for item in value])
    return typed_value(key, _written(key, value))


def _written(key: str, value: Any) -> str:
    if isinstance(value, (bool, float, str)):
        return str(value)
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    what = "an integer beyond 64 bits" if isinstance(value, int) else f"a {type(value).__name__}"
    raise InputError(f"{key[:80]}: {what} is stored there")


def _converted(hint: Any, text: str | list[str]) -> Any:
    """Raises ValueError with the words that complete "'abc' is not ..."."""
    if get_origin(hint) is tuple:
        return _numbers(None if Ellipsis in get_args(hint) else len(get_args(hint)), text)
    if isinstance(text, list):
        raise ValueError("one value")
    if hint is str:
        # OmegaConf's own signs for a missing value and for a reference.
        if text == MISSING or "${" in text:
            raise ValueError(f"plain text: {MISSING} and ${{...}} are not filled in")
        return text
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError(f"one of {', '.join(get_args(hint))}")
        return text
    if hint is bool:
        if text.lower() not in _BOOLS:
            raise ValueError("true or false")
        return _BOOLS[text.lower()]
    return _number(hint, text)


def _numbers(count: int | None, text: str | list[str]) -> tuple[float, ...]:
    """`count` numbers, or as many as there are."""
    if isinstance(text, str):
        text = re.sub(r"^\s*[\[(]|[\])]\s*$", "", text).strip()
        text = text.split(",") if text else []
    try:
        numbers = tuple(float(_number(float, part)) for part in text)
    except ValueError:
        raise ValueError(
            "a list of numbers" if count is None else f"a list of {count} numbers"
        ) from None
    if count not in (None, len(numbers)):
        raise ValueError(f"a list of {count} numbers")
    return numbers


def _number(kind: type[int] | type[float], text: str) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        raise ValueError("an integer" if kind is int else "a number") from None
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def shown(text: str | list[str]) -> str:
    """How a message shows what was written."""
    return repr(text) if isinstance(text, str) else f"[{', '.join(text)}]"


def unknown_key(key: str) -> str:
    """The line that says so, with the nearest known keys."""
    above = key.rpartition(".")[0]
    if above in HINTS:
        return f"{key}: no such key; {above} takes one value"
    if near := _nearest(key):
        return f"{key}: no such key; did you mean {' or '.join(near)}?"
    if above in GROUPS:
        names = ", ".join(field.name for field in fields(GROUPS[above]))
        return f"{key}: no such key; those of {above} are {names}"
    return f"{key}: no such key; the groups are {', '.join(GROUPS)}"


def _nearest(key: str) -> list[str]:
    """Known keys most like `key`, at most three; none if none is like it."""
    group, _, leaf = key.lower().rpartition(".")

    def likeness(known: str) -> float:
        known_group, _, known_leaf = known.partition(".")
        score = difflib.SequenceMatcher(None, leaf, known_leaf).ratio()
        if leaf in known_leaf.split("_") or f"_{known_leaf}".endswith(f"_{leaf}"):
            score = max(score, 0.85)
        if _initials(leaf) == known_leaf or _initials(known_leaf) == leaf:
            score = max(score, 0.85)
        return score + (0.15 if group == known_group else 0.0)

    scores = {known: likeness(known) for known in HINTS}
    best = max(scores.values())
    if best < 0.65:
        return []
    near = [known for known, score in scores.items() if score >= best - 0.05]
    return sorted(near, key=lambda known: -scores[known])[:3]


def _initials(leaf: str) -> str:
    """learning_rate -> lr: the field's usual abbreviations."""
    return "".join(word[:1] for word in leaf.split("_"))
