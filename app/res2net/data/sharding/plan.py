"""Which image goes to which shard, decided before the first is written and stored beside them.

A shard is a range of the ordered images of a split, `per_shard` of them, so each can be written
alone: by any worker, in any order, and by a later process after a kill.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL

from res2net.data.sharding.images import Images, digest
from res2net.data.sharding.pixels import RESAMPLE, Corrupt
from res2net.data.sharding.shard_file import Recipe, member_size, prepared
from res2net.data.sources.shards import DESCRIPTION, SCHEMA, UNFINISHED, read_description
from res2net.errors import InputError, WorkError
from res2net.files.foreign import read_json

_RUNS, _RUN = 16, 16
"""Images looked at to know how large they are: runs of neighbours, which are cheap to read."""

_OPTIONS = {
    "kind": "a source of kind",
    "resize": "--resize",
    "quality": "--quality",
    "shard_bytes": "--shard-size",
    "resample": "filter",
    "pillow": "Pillow",
}
"""What the keys of `Plan.made` are called in messages."""

MAX_SHARDS = 1 << 16  # data.sources.shards.RECORD numbers them with 16 bits


@dataclass(frozen=True)
class Split:
    """How the images of one split are divided."""

    images: int
    per_shard: int

    @property
    def shards(self) -> int:
        return -(-self.images // self.per_shard)

    def range_of(self, shard: int) -> range:
        """The images of a shard."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.images))


@dataclass(frozen=True)
class Plan:
    """What is made of what: all that decides the bytes of the shards."""

    source: str
    class_names: tuple[str, ...]
    made: dict[str, Any]
    """The options and versions, as shards.json tells them."""
    splits: dict[str, Split]
    samples: dict[str, str]
    """Split -> digest of its images' paths and labels."""

    def to_dict(self) -> dict[str, Any]:
        """JSON's types only."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "class_names": list(self.class_names),
            "made": self.made,
            "splits": {
                name: {
                    "images": split.images,
                    "per_shard": split.per_shard,
                    "samples": self.samples[name],
                }
                for name, split in self.splits.items()
            },
        }

    @property
    def shards(self) -> list[tuple[str, int]]:
        """Split and number of each."""
        return [(name, n) for name, split in self.splits.items() for n in range(split.shards)]


def plan_path(destination: Path) -> Path:
    """Where the plan is stored as long as the shards are unfinished."""
    return destination / UNFINISHED / "plan.json"


def find_plan(
    source: str, destination: Path, inputs: Mapping[str, Images], recipe: Recipe, shard_bytes: int
) -> tuple[Plan, bool]:
    """The plan that is stored in the destination or a new one, and whether its shards are complete.

    Raises InputError where the shards that are there are of other images or options.
    """
    first = next(iter(inputs.values()))
    made = {
        "kind": first.kind,
        "resize": recipe.resize,
        "quality": recipe.quality if recipe.resize else None,
        "resample": RESAMPLE.name.lower() if recipe.resize else None,
        "shard_bytes": shard_bytes,
        # another Pillow may make other bytes of the same image; without resizing it makes none
        "pillow": PIL.__version__ if recipe.resize else None,
    }
    samples = {name: digest(images) for name, images in inputs.items()}
    is_complete = (destination / DESCRIPTION).is_file()
    stored = _stored(destination, is_complete)
    if stored is None:
        splits = {
            name: Split(len(images), _per_shard(images, recipe, shard_bytes))
            for name, images in inputs.items()
        }
        if any(split.shards > MAX_SHARDS for split in splits.values()):
            raise InputError(f"more than {MAX_SHARDS:,} shards; give a larger --shard-size")
        return Plan(source, first.class_names, made, splits, samples), False
    _check_same(destination, stored, made, first.class_names, samples)
    splits = {
        name: Split(len(images), int(stored["splits"][name]["per_shard"]))
        for name, images in inputs.items()
    }
    return Plan(str(stored["source"]), first.class_names, made, splits, samples), is_complete


def check_space(destination: Path, plan: Plan, shard_bytes: int, missing: int) -> None:
    """Raises InputError where the file system has less room than the missing shards will take."""
    place = next(place for place in (destination, *destination.parents) if place.is_dir())
    free = shutil.disk_usage(place).free
    # without the last of each split: a small data set fills a small part of its only shard
    needed = (missing - len(plan.splits)) * shard_bytes
    if needed > free:
        raise InputError(
            f"{destination}: about {needed / 1e9:.1f} GB are needed, but {free / 1e9:.1f} GB are "
            "free there"
        )


def _stored(destination: Path, is_complete: bool) -> dict[str, Any] | None:
    """The plan of shards that are there; None: there is nothing yet."""
    if is_complete:
        return read_description(str(destination))
    plan = plan_path(destination)
    if plan.is_file():
        try:
            return dict(read_json(plan))
        except (InputError, TypeError, ValueError) as error:
            raise InputError(f"{plan}: damaged; remove {destination} and begin anew") from error
    return None


def _check_same(
    destination: Path,
    stored: Mapping[str, Any],
    made: Mapping[str, Any],
    class_names: tuple[str, ...],
    samples: Mapping[str, str],
) -> None:
    try:
        before = dict(stored["made"])
        same_images = tuple(stored["class_names"]) == class_names and dict(samples) == {
            name: split["samples"] for name, split in stored["splits"].items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{destination}: its description is damaged ({error!r}); remove it and begin anew"
        ) from error
    differing = [
        f"{name} {_told(key, before.get(key))}, now {_told(key, made[key])}"
        for key, name in _OPTIONS.items()
        if before.get(key) != made[key]
        # without resizing there is neither: that --resize differs says it all
        and not (key in ("quality", "resample", "pillow") and None in (before.get(key), made[key]))
    ]
    otherwise = [f"with {'; '.join(differing)}"] if differing else []
    if not same_images:
        otherwise.append("of other images or labels")
    if otherwise:
        raise InputError(
            f"{destination}: its shards were made {' and '.join(otherwise)}: choose a new folder, "
            "or remove this one"
        )


def _told(key: str, value: Any) -> str:
    if key == "shard_bytes" and value is not None:
        return f"{value / 1_000_000:.15g}"
    return "none" if value is None else str(value)


def _per_shard(images: Images, recipe: Recipe, shard_bytes: int) -> int:
    """How many images fill a shard, by the mean of some spread over the whole split."""
    runs = range(0, len(images), max(1, len(images) // _RUNS))
    indices: Iterator[int] = (
        index for start in runs for index in range(start, min(start + _RUN, len(images)))
    )
    sizes, problem = [], ""
    for index in sorted(set(indices)):
        try:
            content = prepared(images.read(index), recipe)
        except Corrupt as error:  # which is told, or left out, when its turn comes
            problem = problem or f"{images.name(index)} {error}"
        except OSError as error:
            raise WorkError(f"{images.name(index)}: cannot be read ({error})") from error
        else:
            sizes.append(member_size(len(content)))
    if not sizes:
        raise WorkError(f"none of the images looked at can be decoded: {problem}")
    return max(1, shard_bytes * len(sizes) // sum(sizes))
