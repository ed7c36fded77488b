"""Every key has bounds, and what lies beyond them is refused in one line."""

import math
from typing import get_origin

import pytest

from res2net.config.rules import RULES, Range, Ranges, Rule
from res2net.config.values import HINTS, typed_value
from res2net.errors import InputError

NUMBERS = [key for key, hint in HINTS.items() if hint in (int, float)]
LISTS = [key for key, hint in HINTS.items() if get_origin(hint) is tuple]
TEXTS = [key for key, hint in HINTS.items() if hint is str]
MAY_BE_EMPTY = {
    *("run.resume", "model.weights", "data.root", "data.stage_to", "data.train_dir"),
    *("data.val_dir", "data.val_labels", "loss.teacher", "loss.teacher_weights"),
}


def refused(key: str, text: str) -> str:
    with pytest.raises(InputError) as caught:
        typed_value(key, text)
    message = str(caught.value)
    assert message.startswith(f"{key}: ") and len(message) < 400
    assert "\n" not in message
    return message


def bounds(key: str) -> Range:
    """Of a number, or of each of a list."""
    rule = RULES.get(key)
    assert isinstance(rule, Range | Ranges), f"{key}: without bounds in config/rules.py"
    return rule.range if isinstance(rule, Ranges) else rule


def test_rules_are_of_keys_that_exist() -> None:
    assert not RULES.keys() - HINTS.keys()


@pytest.mark.parametrize("key", NUMBERS + LISTS)
def test_a_number_has_bounds_on_both_sides(key: str) -> None:
    found = bounds(key)
    assert math.isfinite(found.low) and math.isfinite(found.high) and found.low < found.high
    # what is reckoned of it in 64 bits, in milliseconds or in bytes stays far within
    assert found.low >= 0 and found.high <= 2**32


@pytest.mark.parametrize("key", NUMBERS)
def test_the_bounds_themselves_are_taken_and_what_is_beyond_is_refused(key: str) -> None:
    found, kind = bounds(key), HINTS[key]
    below = found.low / 2 if found.or_zero and kind is float else found.low - 1
    for bound, beyond, excluded in (
        (found.low, below, found.above),
        (found.high, found.high + 1, found.below),
    ):
        assert found.words in refused(key, str(kind(beyond)))
        if excluded:
            refused(key, str(kind(bound)))
        else:
            assert typed_value(key, str(kind(bound))) == bound
    if found.or_zero:
        assert typed_value(key, "0") == 0
    for text in ("1e308", "-1e308", "nan", "inf", "-inf", "", " ", "9" * 5000, str(2**63), "0x10"):
        refused(key, text)


@pytest.mark.parametrize("key", LISTS)
def test_lists_of_numbers_have_bounds_and_a_length(key: str) -> None:
    rule = RULES[key]
    assert isinstance(rule, Ranges)
    for text in ("[1e308]", "[nan,nan]", "nan,nan,nan", "[1,1e308]", "0.5," * 100_000, "[[1]]"):
        refused(key, text)
    ascending = ",".join(f"{0.5 + index / 1000}" for index in range(rule.longest))
    assert len(typed_value(key, ascending)) == rule.longest
    refused(key, f"{ascending},0.99")


@pytest.mark.parametrize("key", TEXTS)
def test_a_text_is_fit_for_where_it_goes(key: str) -> None:
    assert isinstance(RULES.get(key), Rule), f"{key}: without a rule in config/rules.py"
    for text in ("a\0b", "a\nb", "\x1b[2J", "a\x7f", "a\x85b", "a\u2028b", "\ud800", "a" * 10_000):
        refused(key, text)
    if key in MAY_BE_EMPTY:
        assert typed_value(key, "") == ""
    else:
        refused(key, "")


@pytest.mark.parametrize("key", ["run.dir", "data.root", "model.weights"])
def test_paths_are_as_long_as_file_systems_take_them(key: str) -> None:
    part = "ü" * 127  # of two bytes each
    assert typed_value(key, part) == part
    refused(key, "ü" * 128)
    assert typed_value(key, "/".join([part] * 7))
    refused(key, "/".join([part] * 8))
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")  # what a file may be called on Linux
    assert typed_value(key, odd) == odd


@pytest.mark.parametrize(
    ("key", "word"), [("trainer.devices", "auto"), ("trainer.num_nodes", "auto"),
                      ("optim.freeze", "none")],
)  # fmt: skip
def test_numbers_in_texts_have_bounds_too(key: str, word: str) -> None:
    assert typed_value(key, word) == word and typed_value(key, "3") == "3"
    for text in ("1" * 10, "1" * 5000, "-1", "1.5", "١", "²", "1 ", "nan"):
        refused(key, text)


@pytest.mark.parametrize("text", ["a/b", "a%b", "a" * 129, "a:b", "a#b", " "])
def test_the_project_is_one_that_wandb_takes(text: str) -> None:
    refused("logging.wandb_project", text)


def test_a_key_and_a_value_of_any_length_make_a_short_line() -> None:
    for key in ("x" * 10_000, "optim." + "x" * 10_000, "optim.lr." + "x" * 10_000):
        with pytest.raises(InputError, match="no such key") as caught:
            typed_value(key, "1")
        assert len(str(caught.value)) < 300
    with pytest.raises(InputError, match="given to a group") as caught:
        typed_value("optim", ["x"] * 10_000)
    assert len(str(caught.value)) < 500
