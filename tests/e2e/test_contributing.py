"""CONTRIBUTING.md is right: what it sends to is there, and its changes are all that it takes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runs import clean_environment

HOME = Path(__file__).parents[2]
PAGE = (HOME / "CONTRIBUTING.md").read_text()
CHANGES = dict(
    re.findall(r"^\*\*An? ([\w ]+)\*\*(?:[^\n]+\n)+\n```diff\n(.*?)^```$", PAGE, re.M | re.S)
)

# One process for all, as PyTorch takes seconds to import.
USE = """
import numpy as np
import torch
from sklearn.datasets import load_digits
from res2net.cli.main import main

digits = load_digits()
grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
images = np.repeat(grey[..., None], 3, axis=-1)
for split, part in (("train", slice(0, 128)), ("val", slice(128, 160))):
    np.savez(f"{split}.npz", images=images[part], labels=digits.target[part])

assert main(["models", "res2net14_cifar"]) == 0
settings = ["model.name=res2net14_cifar", "data.source=npz", "data.root=.", "trainer.max_epochs=1"]
assert main(["train", "digits_adamw", *settings]) == 0
assert main(["train", "digits_adamw", "data.source=npz", "data.root=nowhere"]) == 2
assert main(["export", "checkpoints/digits_adamw", "--to=state_dict", "--out=weights.pt"]) == 0
tensors = torch.load("weights.pt", weights_only=True)
assert sum(t.numel() for key, t in tensors.items() if key.endswith(("weight", "bias"))) == 62_154
"""
# What the page says is noticed before all is done.
LEFT_TO_DO = {
    "tests/unit/models/test_variants.py::test_every_variant_is_compared_with_published_sizes",
    "tests/unit/config/test_reference.py::test_the_page_is_what_the_command_prints",
    "tests/unit/config/test_load.py::test_every_recipe_stands_in_the_readme",
    "tests/unit/cli/test_schemas.py::test_forms_of_export_are_those_of_its_schema",
}
SEEN = {
    "tests/unit/models/test_variants.py::test_parameters_and_macs_are_those_of_the_network"
    "[res2net14_cifar]",
    "tests/unit/config/test_load.py::test_a_recipe_holds_differences_only_below_its_header"
    "[digits_adamw]",
    "tests/unit/test_floors.py::test_arrows_go_down[callbacks/note.py]",
    "tests/unit/test_floors.py::test_arrows_go_down[export/state_dict.py]",
}


def make(change: str, tree: Path) -> None:
    """Change files as a block says: ` ` what is there (once), `-` what goes, `+` what comes."""
    for file, text in re.findall(r"^# ((?:app|configs)/\S+)\n((?:[ +@-].*\n)+)", change, re.M):
        path = tree / file
        for piece in text.split("@@\n"):
            lines = [(line[0], f"{line[1:]}\n") for line in piece.splitlines()]
            old = "".join(line for mark, line in lines if mark != "+")
            new = "".join(line for mark, line in lines if mark != "-")
            if not old:
                assert not path.exists(), f"{file} is there already"
                path.write_text(new)
                continue
            before = path.read_text()
            assert before.count(old) == 1, f"{file} does not have this once:\n{old}"
            path.write_text(before.replace(old, new))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which all the changes are made."""
    folder = tmp_path_factory.mktemp("contributing") / "checkout"
    folder.mkdir()
    for name in ("app", "configs", "tests"):
        shutil.copytree(HOME / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(HOME / name, folder)
    for change in CHANGES.values():
        make(change, folder)
    return folder


def python(tree: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {"PYTHONPATH": str(tree / "app")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


def test_all_that_it_names_is_there() -> None:
    paths = set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", PAGE))
    assert len(paths) > 10
    for path in paths:
        assert any((HOME / folder / path).exists() for folder in ("", "app/res2net")), path
    tour, _, _ = PAGE.partition("six files first")[2].partition("\n\n- ")
    assert len(re.findall(r"^\d\. `\S+\.py`", tour, re.M)) == 6
    for test in re.findall(r"`((?:\w+/)*\w+\.py)::(\w+)`", PAGE):
        assert f"def {test[1]}(" in (HOME / "tests" / test[0]).read_text(), test


def test_each_change_works_as_it_stands_there(tree: Path) -> None:
    assert list(CHANGES) == ["variant", "data source", "callback", "recipe", "export"]
    used = python(tree, tree.parent, "-c", USE)
    assert used.returncode == 0, used.stderr
    assert "res2net14_cifar" in used.stdout
    note = tree.parent / "checkpoints/digits_adamw/note.txt"
    assert note.read_text() == "1 epochs\n"


def test_what_is_left_to_do_is_noticed(tree: Path) -> None:
    options = ["-p", "no:cacheprovider", "-q", "-rA", "--tb=line"]
    ran = python(tree, tree, "-m", "pytest", *options, *sorted(SEEN | LEFT_TO_DO)).stdout
    by_result = {
        result: set(re.findall(rf"^{result} (\S+)", ran, re.M)) for result in ("PASSED", "FAILED")
    }
    assert by_result["FAILED"] == LEFT_TO_DO, ran
    assert by_result["PASSED"] == SEEN, ran
    style = python(tree, tree, "-m", "ruff", "check", "--no-cache", "app")
    assert style.returncode == 0, style.stdout
