"""Changes of a configuration drawn from its schema: what a user may type, and what nobody would."""

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from res2net.config.rules import RULES, Range, Ranges
from res2net.config.values import HINTS

Changes = list[tuple[str, str]]

VARIANTS = ("res2net20_cifar", "resnet20_cifar")
"""Valid choices of `model.name`: networks that are built in a blink."""
SOURCES = ("folder", "shards", "digits")
"""Of `data.source`: CIFAR would be downloaded."""

NOBODYS = (
    *("", " ", "0", "-1", "1", "0.5", "1e308", "-1e308", "1e-308", "-0.0", "nan", "inf", "-inf"),
    *("2147483647", "2147483648", "4294967295", "4294967296", "9223372036854775807", "1e18"),
    *("9" * 400, "9" * 5000, "1" * 10_000, "x" * 10_000, "ü" * 300, "/".join(["a" * 100] * 60)),
    *("true", "null", "~", "None", "on", "auto", "none", "007", "1_000", "0x10", "1e3", "1,5"),
    *("[]", "[1,2]", "[1e308,1e308,1e308]", "[nan,nan,nan]", "[0.5,0.5]", "[[1]]", "(1", "{a: 1}"),
    *("1," * 5000, "${oc.env:HOME}", "${run.seed}", "${", "???", "$HOME", "~/x", "`id`", "$(id)"),
    *("a\0b", "a\nb", "a\rb", "\x1b[31mred", "a\x85b", "a\u2028b", "\u202egnp.exe", "😀", "日本"),
    *("١٢", "²", "½", "caf\udce9", "\ud800", ".", "..", "../..", "/", "a/b", "a\\b", "C:\\x", "-x"),
    *(
        "/dev/null",
        "/dev/zero",
        "/nowhere/at/all",
        "images",
        "start.pth",
        "mine.txt",
        "--json",
        "=",
        "a=b",
    ),
)


def changes() -> st.SearchStrategy[Changes]:
    """Some keys with values of any kind, or some at the ends of their ranges together."""
    anything = st.sampled_from(sorted(HINTS)).flatmap(lambda key: _pair(key, st.one_of(
        st.sampled_from(NOBODYS), st.text(max_size=30), st.floats().map(str),
        st.integers().map(str), valid(key)
    )))  # fmt: skip
    extremes = st.sampled_from(sorted(HINTS)).flatmap(lambda key: _pair(key, valid(key)))
    unknown = st.tuples(st.one_of(st.text(max_size=20), st.sampled_from(NOBODYS)), st.just("1"))
    return st.one_of(
        st.lists(anything, min_size=1, max_size=2),
        st.lists(extremes, min_size=1, max_size=3),
        st.lists(extremes, min_size=2, max_size=4),
        st.lists(st.one_of(anything, unknown), min_size=1, max_size=2),
    )


def valid(key: str) -> st.SearchStrategy[str]:
    """Values that a key's own rule takes: its bounds and what lies between, or its choices."""
    hint, rule = HINTS[key], RULES.get(key)
    match rule:
        case Range():
            return _within(rule, hint)
        case Ranges():
            lengths = (rule.longest,) if len(get_args(hint)) == rule.longest else (0, 1, 3)
            each = _within(rule.range, float).map(float)
            return st.sampled_from(lengths).flatmap(
                lambda count: st.lists(each, min_size=count, max_size=count).map(_listed)
            )
    if hint is bool:
        return st.sampled_from(["true", "false"])
    if get_origin(hint) is Literal:
        return st.sampled_from(SOURCES if key == "data.source" else get_args(hint))
    return st.sampled_from(_TEXTS.get(key, ("", "images", "start.pth", "nowhere")))


def bounds(key: str) -> list[str]:
    """Both ends of a number's range, without those that are no part of it."""
    rule, kind = RULES[key], HINTS[key]
    assert isinstance(rule, Range)
    ends = [] if rule.above else [rule.low]
    ends += [] if rule.below else [rule.high]
    return [str(kind(end)) for end in ends]


_TEXTS: dict[str, Sequence[str]] = {
    "run.name": ("quickstart", "a", "ü" * 100, "a b", " x ", "b" * 200, "it's"),
    "run.dir": ("checkpoints", "a/b/c", "images", "start.pth", "/dev/null", "."),
    "run.resume": ("", "auto", "start.pth", "nowhere.ckpt", "images"),
    "model.name": VARIANTS,
    "optim.freeze": ("none", "backbone", "0", "1", "3", "4", "999999999"),
    "trainer.devices": ("auto", "1", "2", "1024"),
    "trainer.num_nodes": ("auto", "1", "2", "100000"),
    "logging.wandb_project": ("res2net", "x" * 128, "日本"),
}


def _within(range_: Range, kind: type) -> st.SearchStrategy[str]:
    ends: list[Any] = [kind(range_.low), kind(range_.high)]
    between = (
        st.integers(ends[0], ends[1])
        if kind is int
        else st.floats(ends[0], ends[1], exclude_min=range_.above, exclude_max=range_.below)
    )
    few = st.integers(ends[0], min(ends[1], ends[0] + 20)) if kind is int else between
    return st.one_of(st.sampled_from(ends), few, between).map(str)


def _listed(values: list[float]) -> str:
    return "[" + ",".join(map(str, sorted(values))) + "]"


def _pair(key: str, value: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    return value.map(lambda text: (key, text))
