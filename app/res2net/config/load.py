"""From a recipe and `key=value` arguments to one frozen `Config`, and back to YAML.

Every value, from a YAML as from the command line, is taken as text and typed by the schema. So a
run called 007, on or 12:30 keeps its name, and 1e-4 is a number wherever it stands: YAML and
OmegaConf each guess types by rules of their own, and guess them differently.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from res2net.config.schema import Config
from res2net.config.values import GROUPS, HINTS, shown, typed_value, unknown_key
from res2net.errors import InputError

_EXTENDS = "extends"


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
    tree = OmegaConf.merge(OmegaConf.structured(Config), values)
    return cast(Config, OmegaConf.to_object(tree))


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


def from_dict(tree: Mapping[str, Mapping[str, Any]]) -> Config:
    """Undo `to_dict`; a key that is missing takes its default.

    Raises InputError for keys or values that this version does not know.
    """
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), dict(tree))
        return cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise InputError(f"stored configuration: {str(error).splitlines()[0]}") from error


def to_yaml(config: Config) -> str:
    """Every key with its value, defaults too; `load_config` reads it back to an equal Config."""
    return yaml.dump(to_dict(config), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def differences(old: Mapping[str, Mapping[str, Any]], new: Config) -> dict[str, tuple[Any, Any]]:
    """Full key -> (old value, new value) where the two differ; `old` is what `to_dict` gave.

    A key that `old` lacks, as it was written before the key existed, counts as the default; of a
    key that exists no more the new value is None.
    """
    former = _flat({group: asdict(schema()) for group, schema in GROUPS.items()}) | _flat(old)
    present = _flat(to_dict(new))
    return {
        key: (value, present.get(key)) for key, value in former.items() if value != present.get(key)
    }


def _flat(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{group}.{leaf}": _plain(value)
        for group, leaves in tree.items()
        for leaf, value in leaves.items()
    }


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


def _compose(path: Path) -> yaml.MappingNode | None:
    """The YAML's tree, None if it is empty. Raises InputError if it is not a mapping."""
    try:
        # BaseLoader resolves no types: every scalar stays the text that was written.
        root = yaml.compose(path.read_text("utf-8"), yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{path}{place}: broken YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: broken YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if root is None or root.value == "":
        return None
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path}: holds no groups of keys such as 'optim:' at its top")
    return root


def _walk(
    node: yaml.MappingNode, prefix: str, path: Path, lines: dict[str, int], problems: list[str]
) -> Iterator[_Given]:
    """Yield the leaves below `node`; `lines` remembers on which line each key stood."""
    for name, value in node.value:
        line = name.start_mark.line + 1
        where = f" ({path}, line {line})"
        if not isinstance(name, yaml.ScalarNode):
            problems.append(f"a list or mapping stands where a key should{where}")
            continue
        key = prefix + name.value
        if key in lines:
            problems.append(f"{key}: given twice ({path}, lines {lines[key]} and {line})")
            continue
        lines[key] = line
        if isinstance(value, yaml.MappingNode):
            if key in GROUPS:
                yield from _walk(value, f"{key}.", path, lines, problems)
            elif key in HINTS or key == _EXTENDS:
                problems.append(f"{key}: takes one value, not keys of its own{where}")
            else:
                problems.append(unknown_key(key) + where)
        elif isinstance(value, yaml.SequenceNode):
            yield _Given(key, [_text_of(item) for item in value.value], where)
        elif value.value or key not in GROUPS:  # a group may stand there empty
            yield _Given(key, value.value, where)


def _text_of(node: yaml.Node) -> str:
    return node.value if isinstance(node, yaml.ScalarNode) else "[...]"


def _read_arguments(arguments: Sequence[str], problems: list[str]) -> Iterator[_Given]:
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if equals and key.strip() not in ("", key):
            plain = f"{key.strip()}={text.strip()}"
            problems.append(f"{argument!r}: no blanks around the key and its =, as in {plain}")
        elif key and equals:
            yield _Given(key, text, "")
        else:  # `optim.lr = 0.05` comes as three arguments
            blanks = " without blanks around =" if equals else ""
            problems.append(f"{argument!r} is not key=value{blanks}, such as optim.lr=0.05")
