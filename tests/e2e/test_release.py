"""What is handed out: wheel and sdist, used where there is no checkout."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from schemas import fits

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def build(source: Path, target: Path, *options: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def contents(wheel: Path) -> dict[str, str]:
    """Name -> hash."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: hashlib.md5(archive.read(name)).hexdigest() for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist of this tree, made offline."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, folder)
    return (
        folder / f"res2net_lightning-{VERSION}-py3-none-any.whl",
        folder / f"res2net_lightning-{VERSION}.tar.gz",
    )


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and nothing else in it."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--no-compile", "--target", str(folder)]
    subprocess.run([*pip, *options, str(built[0])], check=True)
    return folder


def ran(installed: Path, tmp_path: Path, environment: dict[str, str], *arguments: str) -> str:
    """stdout of this Python, with the installed package before all others."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_that_a_user_needs_is_inside(installed: Path) -> None:
    package = installed / "res2net"
    for folder, below in (("configs", "configs"), ("slurm", "slurm"), ("app/res2net", "")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = package / below / path.relative_to(ROOT / folder)
                assert copy.read_bytes() == path.read_bytes(), copy
    for name in (
        "py.typed",
        "configs/quickstart.yaml",
        "configs/REFERENCE.md",
        "slurm/train.sbatch",
        "schemas/models.json",
        "weights/shipped/res2net_digits.safetensors",
        "weights/shipped/digit.png",
        "imagenet_classes.tsv",
    ):
        assert (package / name).stat().st_size > 0 or name == "py.typed", name
    top = {path.name for path in installed.iterdir()}
    assert top == {"res2net", f"res2net_lightning-{VERSION}.dist-info", "bin"}


def test_nothing_tells_of_the_machine_that_built_it(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        for name in archive.namelist():
            assert f"{ROOT}/".encode() not in archive.read(name), name
            assert "__pycache__" not in name and not name.endswith((".pyc", ".orig"))


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    wheel, sdist = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    present = {path.name for path in source.iterdir()}
    pages = {path.name for path in ROOT.glob("*.md")}
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"} <= pages
    others = {"CITATION.cff", "LICENSE", "Makefile", "PKG-INFO", "constraints.txt"}
    folders = {"app", "checkpoints", "configs", "data", "slurm", "tests"}
    assert present == pages | others | folders | {"pyproject.toml", ".gitignore"}
    build(source, tmp_path, "-t", "wheel")
    assert contents(tmp_path / wheel.name) == contents(wheel)


def test_outside_the_checkout(installed: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    where = "import res2net.config.load as load; print(load.__file__, *load.recipes())"
    file, *recipes = ran(installed, tmp_path, environment, "-c", where).split()
    assert file == str(installed / "res2net/config/load.py")
    assert {"quickstart", "finetune", "imagenet/paper"} <= set(recipes)

    command = ("-m", "res2net")
    assert ran(installed, tmp_path, environment, *command, "--version") == f"res2net {VERSION}\n"
    models = fits("models", ran(installed, tmp_path, environment, *command, "models", "--json"))
    (shipped,) = [each for model in models for each in model["shipped"]]
    assert shipped["path"].startswith(f"{installed}/")
    options = ("predict", "res2net_digits", "--sample", "--json")
    (predicted,) = fits("predict", ran(installed, tmp_path, environment, *command, *options))
    assert predicted["label"] == "3" and predicted["source"].startswith(f"{installed}/")
    submitted = ("submit", "quickstart", "--dry-run", "--no-check", "--json")
    script = fits("submit", ran(installed, tmp_path, environment, *command, *submitted))["text"]
    assert script.startswith("#!/bin/bash\n")
    assert not os.listdir(tmp_path)


def test_importing_warns_of_nothing(tmp_path: Path) -> None:
    code = "import res2net; from res2net import *; assert res2net.list_models()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == VERSION
    assert {"cff-version", "title", "message", "authors", "license"} <= citation.keys()
    paper = citation["references"][0]
    assert paper["doi"] == "10.1109/TPAMI.2019.2938758" and len(paper["authors"]) == 6
    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")
    ]
    latest = next(heading for heading in headings if heading != "## Unreleased")
    assert latest == f"## {VERSION} ({citation['date-released']})"
