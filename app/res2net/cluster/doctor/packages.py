"""Whether what the project requires is installed and can be imported."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

from res2net.cluster.doctor.check import Check, one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "res2net-lightning"

# The modules whose names are not their distributions'.
_MODULES = {"nvidia-dali-cuda130": "nvidia.dali", "pillow": "PIL", "pyyaml": "yaml"}


def res2net() -> Iterator[Check]:
    yield Check("res2net", "ok", metadata.version(DISTRIBUTION))
    yield Check("python", "ok", f"{platform.python_version()} ({sys.executable})")


def packages() -> Iterator[Check]:
    from packaging.requirements import Requirement

    for line in metadata.requires(DISTRIBUTION) or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        yield _package(requirement)
    if sys.platform != "linux":
        yield Check(
            "system",
            "warn",
            platform.system(),
            "training needs Linux or WSL2; predicting and converting work here",
        )


def _package(requirement: Requirement) -> Check:
    name = requirement.name
    wanted = f"{name}{requirement.specifier}"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "fail", "not installed", f"pip install '{wanted}'")
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, "fail", f"{version} is too old", f"pip install '{wanted}'")
    try:
        importlib.import_module(_MODULES.get(name, name))
    # Libraries that do not match raise ImportError, OSError, RuntimeError, AttributeError.
    except Exception as error:
        broken = f"{version} cannot be imported: {one_line(error)}"
        return Check(name, "fail", broken, f"pip install --force-reinstall '{wanted}'")
    return Check(name, "ok", version)


def versions() -> dict[str, str]:
    """Of this package, of Python and of what is required, by name; `missing` where it is not."""
    from packaging.requirements import Requirement

    found = {"python": platform.python_version()}
    names = [Requirement(line).name for line in metadata.requires(DISTRIBUTION) or ()]
    for name in (DISTRIBUTION, *names):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
