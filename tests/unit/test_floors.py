"""The floors of the house: who imports whom, inside functions as well as at the top of a file."""

import ast
import sys
from pathlib import Path

import pytest

import res2net

PACKAGE = Path(res2net.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
# From the roof down. Rooms of one floor do not import each other; `config` stands on `errors` and
# the reader of foreign files alone and is open to those who make runs.
FLOORS = """
    __init__ __main__
    cli
    bench demo
    training inference export cluster
    callbacks data zoo
    weights
    models plots
    files preprocessing imagenet
    errors stopping parent memory
"""
FLOOR = {room: level for level, line in enumerate(FLOORS.split("\n")) for room in line.split()}
_READER = {"res2net.files.foreign_yaml"}
READ_CONFIG = ("cli", "bench", "training")


def imports(file: str, *, top: bool = False) -> list[str]:
    """Full names of the imported modules; `top`: without those inside functions."""
    tree = ast.parse(FILES[file].read_text())
    nodes = tree.body if top else list(ast.walk(tree))
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes), "relative"
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return named + [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def forbidden(file: str) -> list[str]:
    here = room(file)
    others = {name.split(".")[1] for name in imports(file) if name.startswith("res2net.")} - {here}
    if here == "config":
        modules = {name for name in imports(file) if name.startswith("res2net.files")}
        return sorted(others - {"errors"} - ({"files"} if modules == _READER else set()))
    if here in READ_CONFIG:
        others -= {"config"}
    return sorted(other for other in others if FLOOR.get(other, -1) <= FLOOR[here])


@pytest.mark.parametrize("file", sorted(FILES))
def test_arrows_go_down(file: str) -> None:
    assert forbidden(file) == []


def test_only_one_room_imports_dali() -> None:
    users = {file for file in FILES if any(n.startswith("nvidia") for n in imports(file))}
    assert {str(Path(user).parent) for user in users} == {"data/dali"}


def test_networks_are_plain_pytorch() -> None:
    known = {*sys.stdlib_module_names, "torch"}
    for file in (file for file in FILES if room(file) == "models"):
        foreign = [name for name in imports(file) if name.split(".")[0] not in known]
        assert [n for n in foreign if not n.startswith(("res2net.models", "res2net.errors"))] == []


def test_pictures_are_drawn_from_plain_values() -> None:
    known = {*sys.stdlib_module_names, "numpy", "matplotlib", "PIL", "res2net"}
    for file in (file for file in FILES if room(file) == "plots"):
        assert {name.split(".")[0] for name in imports(file)} <= known, file
        # half a second, which those who draw nothing need not spend
        assert not [name for name in imports(file, top=True) if "matplotlib" in name], file
        assert "matplotlib.pyplot" not in imports(file), file


def test_using_a_network_needs_no_lightning() -> None:
    rooms = (
        "models",
        "plots",
        "weights",
        "zoo",
        "inference",
        "demo",
        "config",
        "files",
        "preprocessing",
        "imagenet",
        "errors",
    )
    for file in (file for file in FILES if room(file) in rooms):
        assert not [name for name in imports(file) if "lightning" in name.split(".")[0]], file


def test_nothing_is_called_utils() -> None:
    assert not [file for file in FILES if Path(file).stem in ("utils", "util", "helpers", "misc")]
