"""From a recipe and `key=value` arguments to one frozen `Config`, and back to YAML.

Every value, from a YAML as from the command line, is taken as text and typed by the schema. So a
run called 007, on or 12:30 keeps its name, and 1e-4 is a number wherever it stands: YAML and
OmegaConf each guess types by rules of their own, and guess them differently.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from res2net.config.schema import Config
from res2net.config.values import (
    GROUPS,
    HINTS,
    shown,
    stored_value,
    typed_value,
    unknown_key,
)
from res2net.errors import InputError
from res2net.files.foreign_yaml import Items, Node, Scalar, Table, compose_yaml

_EXTENDS = "extends"
_LONGEST_KEY = 80
_LONGEST_CHAIN = 20


def load_config(source: str, overrides: Sequence[str]) -> Config:
    """Schema defaults < the YAML that `source` names < `key=value` of `overrides`.

    `source` is a path, with or without `.yaml`, or the name of a shipped recipe (`recipes`). A
    YAML may name one other with `extends:`, relative to itself or shipped. Of a key given twice in
    `overrides` the last counts. `run.name` defaults to the name of the YAML, `imagenet_paper` for
    the recipe `imagenet/paper`.

    Raises InputError, in one line that lists all problems: a file that is missing or no YAML,
    unknown keys, values of the wrong type or out of their range.
    """
    problems: list[str] = []
    given: list[_Given] = []
    try:
        path = _find(source, Path())
        shipped = {recipe: name for name, recipe in recipes().items()}
        name = shipped.get(path.resolve(), path.stem).replace("/", "_")
        given += [_Given("run.name", name, "")]
        given += _read(path, (), problems)
    except InputError as error:
        problems.append(str(error))
    given += _read_arguments(overrides, problems)

    values: dict[str, dict[str, Any]] = {}
    for item in given:
        try:
            value = typed_value(item.key, item.text)
        except InputError as error:
            problems.append(f"{error}{item.where}")
        else:
            group, leaf = item.key.split(".")
            values.setdefault(group, {})[leaf] = value
    if problems:
        raise InputError("; ".join(problems))
    # every value is typed already
    return Config(**{group: schema(**values.get(group, {})) for group, schema in GROUPS.items()})


def recipes() -> dict[str, Path]:
    """The shipped recipes by name: `quickstart`, `imagenet/paper`, ..."""
    package = Path(__file__).resolve().parents[1]
    folder = package / "configs"  # in the wheel
    if not folder.is_dir():
        folder = package.parents[1] / "configs"  # in a checkout
    found = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    """Group -> key -> value, of str, numbers, bool and lists only: a checkpoint can hold it."""
    return {
        group: {leaf: _plain(value) for leaf, value in leaves.items()}
        for group, leaves in asdict(config).items()
    }


def from_dict(tree: Any) -> Config:
    """Undo `to_dict`; a key that is missing takes its default.

    What is stored is taken as it was written, as a YAML is: nothing in it is filled in.

    Raises:
        InputError: it is no table of groups, or has keys or values that this version does not know.
    """
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    problems = []
    for key, value in _flat(tree).items():
        try:
            typed = stored_value(key, value)
        except InputError as error:
            problems.append(str(error))
        else:
            group, leaf = key.split(".")
            groups[group][leaf] = typed
    if problems:
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise InputError(f"stored configuration: {'; '.join(problems[:5])}{more}")
    return Config(**{group: GROUPS[group](**leaves) for group, leaves in groups.items()})


def to_yaml(config: Config) -> str:
    """Every key with its value, defaults too; `load_config` reads it back to an equal Config."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def differences(old: Any, new: Config) -> dict[str, tuple[Any, Any]]:
    """Full key -> (old value, new value) where the two differ; `old` is what `to_dict` gave.

    A key that `old` lacks, as it was written before the key existed, counts as the default; of a
    key that exists no more the new value is None.

    Raises InputError where `old` is no table of groups.
    """
    former = _flat({group: asdict(schema()) for group, schema in GROUPS.items()}) | _flat(old)
    present = _flat(to_dict(new))
    return {
        key: (value, present.get(key)) for key, value in former.items() if value != present.get(key)
    }


def _flat(tree: Any) -> dict[str, Any]:
    """Full key -> value of what a file says; the values may still be anything."""
    if not isinstance(tree, Mapping):
        raise InputError(f"stored configuration: a {_kind(tree)}, not a table of groups")
    flat = {}
    for group, leaves in tree.items():
        if not isinstance(leaves, Mapping):
            what = f"a {_kind(leaves)}, not a table of keys"
            raise InputError(f"stored configuration: {str(group)[:80]}: {what}")
        for leaf, value in leaves.items():
            key = f"{group}.{leaf}"
            if len(key) > _LONGEST_KEY:
                raise InputError(f"stored configuration: {key[:_LONGEST_KEY]}...: no such key")
            flat[key] = _plain(value)
    return flat


def _kind(value: Any) -> str:
    return type(value).__name__


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class _Dumper(yaml.SafeDumper):
    """Writes [0.08, 1.0] in one line; everything else as a block."""

    def represent_list(self, data: Any) -> yaml.SequenceNode:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _Dumper.represent_list)


# --- Reading: YAML and arguments -> key and text -------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """One value as it was written."""

    key: str
    text: str | list[str]
    where: str
    """" (file, line 3)", or nothing for the command line."""


def _find(name: str, folder: Path) -> Path:
    """The YAML that `name` means: a file seen from `folder`, else a shipped recipe."""
    try:
        for path in (folder / name, folder / f"{name}.yaml"):
            if path.is_file():
                return path
        is_folder = (folder / name).is_dir()
    except (OSError, ValueError) as error:
        raise InputError(f"{name!r}: cannot be opened: {error}") from error
    shipped = recipes()
    wanted = name.removesuffix(".yaml")
    if wanted in shipped:
        return shipped[wanted]
    what = "is a folder, not a YAML file" if is_folder else "no such file or recipe"
    # `configs/quickstart.yaml`, written outside the checkout, means quickstart.
    near = difflib.get_close_matches(wanted.removeprefix("configs/"), shipped, n=3, cutoff=0.5)
    if near:
        raise InputError(f"{name!r}: {what}; did you mean {' or '.join(near)}?")
    raise InputError(f"{name!r}: {what} (recipes: {', '.join(shipped)})")


def _read(path: Path, above: tuple[Path, ...], problems: list[str]) -> list[_Given]:
    """What the YAML and those that it extends hold, the furthest first; `above` extend it."""
    if path.resolve() in [other.resolve() for other in above]:
        circle = " -> ".join(str(other) for other in (*above, path))
        problems.append(f"{_EXTENDS} goes round in a circle: {circle}")
        return []
    if len(above) >= _LONGEST_CHAIN:
        problems.append(f"{path}: more than {_LONGEST_CHAIN} files extend each other")
        return []
    try:
        root = _compose(path)
    except InputError as error:
        problems.append(str(error))
        return []
    inherited: list[_Given] = []
    own: list[_Given] = []
    for item in _walk(root, "", path, {}, problems) if root else ():
        if item.key != _EXTENDS:
            own.append(item)
        elif not isinstance(item.text, str) or not item.text:
            problems.append(f"{_EXTENDS}: {shown(item.text)} is not one file{item.where}")
        else:
            try:
                parent = _find(item.text, path.parent)
            except InputError as error:
                problems.append(f"{_EXTENDS}: {error}{item.where}")
            else:
                inherited = _read(parent, (*above, path), problems)
    return inherited + own


def _compose(path: Path) -> Table | None:
    """The YAML's tree, None if it is empty. Raises InputError if it is not a mapping."""
    try:
        root = compose_yaml(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if root is None or (isinstance(root, Scalar) and not root.text):
        return None
    if not isinstance(root, Table):
        raise InputError(f"{path}: holds no groups of keys such as 'optim:' at its top")
    return root


def _walk(
    table: Table, prefix: str, path: Path, lines: dict[str, int], problems: list[str]
) -> Iterator[_Given]:
    """Yield the leaves below `table`; `lines` remembers on which line each key stood."""
    for name, value in table.pairs:
        where = f" ({path}, line {name.line})"
        if not isinstance(name, Scalar):
            problems.append(f"a list or mapping stands where a key should{where}")
            continue
        key = prefix + name.text
        if key in lines:
            problems.append(f"{key}: given twice ({path}, lines {lines[key]} and {name.line})")
            continue
        lines[key] = name.line
        if isinstance(value, Table):
            if key in GROUPS:
                yield from _walk(value, f"{key}.", path, lines, problems)
            elif key in HINTS or key == _EXTENDS:
                problems.append(f"{key}: takes one value, not keys of its own{where}")
            else:
                problems.append(unknown_key(key) + where)
        elif isinstance(value, Items):
            yield _Given(key, [_text_of(item) for item in value.items], where)
        elif value.text or key not in GROUPS:  # a group may stand there empty
            yield _Given(key, value.text, where)


def _text_of(node: Node) -> str:
    return node.text if isinstance(node, Scalar) else "[...]"


def _read_arguments(arguments: Sequence[str], problems: list[str]) -> Iterator[_Given]:
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if equals and key.strip() not in ("", key):
            plain = f"{key.strip():.60}={text.strip():.60}"
            problems.append(f"{shown(argument)}: no blanks around the key and its =, as in {plain}")
        elif key and equals:
            yield _Given(key, text, "")
        else:  # `optim.lr = 0.05` comes as three arguments
            blanks = " without blanks around =" if equals else ""
            problems.append(f"{shown(argument)} is not key=value{blanks}, such as optim.lr=0.05")
