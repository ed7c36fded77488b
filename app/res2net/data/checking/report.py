"""What a check found, for people and programs: figures, and a row for each finding."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from res2net.data.checking.folder import Folder, Strays
from res2net.data.checking.run import Findings, Place
from res2net.files.atomic import atomic_write
from res2net.files.csv_table import CsvTable

SHORT_SIDE = 224
"""What most recipes crop: a shorter side is enlarged for them."""

Kind = Literal["broken", "odd", "leak", "duplicate", "ignored"]


class Row(NamedTuple):
    """One file and what is wrong with it; of leaks and duplicates the same group has the bytes."""

    kind: Kind
    detail: str
    file: str
    split: str = ""
    class_name: str = ""
    group: int | None = None


def rows(findings: Findings, strays: Strays) -> Iterator[Row]:
    """All findings, kind by kind; images in the order of the data set."""
    for place, detail in _noted(findings, findings.broken):
        yield Row("broken", detail, place.name, place.split, place.class_name)
    for place, detail in _noted(findings, findings.odd):
        yield Row("odd", detail, place.name, place.split, place.class_name)
    leaks: list[Row] = []
    duplicates: list[Row] = []
    for group, numbers in enumerate(findings.same(), start=1):
        places = [findings.place(int(number)) for number in numbers]
        leaking = len({place.split for place in places}) > 1
        detail = f"{len(places):,} files with the same bytes"
        if len({place.class_name for place in places}) > 1:
            detail += ", in different classes"
        kind: Kind = "leak" if leaking else "duplicate"
        (leaks if leaking else duplicates).extend(
            Row(kind, detail, place.name, place.split, place.class_name, group) for place in places
        )
    yield from leaks
    yield from duplicates
    for path in strays.broken_links:
        yield Row("ignored", "broken link", path)
    for path in strays.odd_folders:
        yield Row("ignored", "a folder, named as an image; what is in it is read", path)
    for path in strays.not_images:
        yield Row("ignored", "not named as an image", path)
    for path in strays.hidden:
        yield Row("ignored", "hidden", path)


def figures(directory: str, folder: Folder, findings: Findings) -> dict[str, Any]:
    """Counts and sizes, as `res2net data check --json` prints them before its lists."""
    seconds = findings.seconds
    return {
        "directory": directory,
        "images": len(findings),
        "bytes": int(findings.file_bytes.sum()),
        "seconds": seconds,
        "images_per_second": len(findings) / seconds if seconds else None,
        "splits": _splits(folder, findings),
        "problems": _problems(folder),
        "sizes": _sizes(findings),
        "formats": dict(findings.formats.most_common()),
        "modes": dict(findings.modes.most_common()),
    }


def lists(all_rows: Iterable[Row]) -> dict[str, Any]:
    """The rows as JSON's lists: images, and groups of images with the same bytes."""
    found: dict[str, Any] = {kind: [] for kind in ("broken", "odd", "ignored")}
    groups: dict[str, dict[int, dict[str, Any]]] = {"leak": {}, "duplicate": {}}
    for row in all_rows:
        file = {"file": row.file, "split": row.split, "class": row.class_name}
        if row.group is not None:
            group = groups[row.kind].setdefault(row.group, {"detail": row.detail, "files": []})
            group["files"].append(file)
        elif row.kind == "ignored":
            found["ignored"].append({"file": row.file, "detail": row.detail})
        else:
            found[row.kind].append(file | {"detail": row.detail})
    return found | {
        "leaks": list(groups["leak"].values()),
        "duplicates": list(groups["duplicate"].values()),
    }


def write_csv(file: Path, all_rows: Iterable[Row]) -> None:
    """A line a row, under the line kind,detail,split,class,file,group."""
    with atomic_write(file) as stream:
        # Names need not be UTF-8: their bytes are written as they are.
        text = io.TextIOWrapper(stream, "utf-8", errors="surrogateescape", newline="")
        table = CsvTable(text, keep_bytes=True)
        table.row(["kind", "detail", "split", "class", "file", "group"])
        for row in all_rows:
            group = "" if row.group is None else row.group
            table.row([row.kind, row.detail, row.split, row.class_name, row.file, group])
        text.flush()
        text.detach()


def _noted(findings: Findings, notes: dict[str, Any]) -> Iterator[tuple[Place, str]]:
    if not notes:
        return
    texts = list(notes)
    numbers = np.concatenate([np.asarray(images) for images in notes.values()])
    which = np.repeat(np.arange(len(texts)), [len(images) for images in notes.values()])
    for place in np.lexsort((which, numbers)):
        yield findings.place(int(numbers[place])), texts[which[place]]


def _splits(folder: Folder, findings: Findings) -> dict[str, Any]:
    splits = {}
    for split, start in zip(folder.splits, findings.starts, strict=False):
        names = split.source.class_names
        counts = folder.counts(split)
        used = np.flatnonzero(counts)
        few, many = used[counts[used].argmin()], used[counts[used].argmax()]
        end = start + len(split.source)
        splits[split.name] = {
            "images": len(split.source),
            "bytes": int(findings.file_bytes[start:end].sum()),
            "classes": 0 if split.name in folder.unlabelled else len(used),
            "smallest": {"class": names[few], "images": int(counts[few])},
            "largest": {"class": names[many], "images": int(counts[many])},
            "imbalance": float(counts[many] / counts[few]),
            "counts": {names[number]: int(counts[number]) for number in used},
        }
    return splits


def _problems(folder: Folder) -> list[dict[str, Any]]:
    """What training would refuse, with the classes it is about."""
    problems: list[dict[str, Any]] = [
        {"problem": text, "classes": []} for text in folder.problems
    ] + [
        {"problem": f"class folders without images in {split}", "classes": classes}
        for split, classes in folder.empty_classes.items()
        if classes
    ]
    labelled = [split for split in folder.splits if split.name not in folder.unlabelled]
    if not labelled or labelled[0] is not folder.splits[0]:
        return problems
    train, *others = labelled
    in_train = folder.counts(train) > 0
    for split in others:
        here = folder.counts(split) > 0
        names = np.array(split.source.class_names, dtype=object)
        empty = {"", *folder.empty_classes.get(split.name, [])}
        for lack, classes in (
            (f"classes of {split.name} that {train.name} lacks", names[here & ~in_train]),
            (f"classes of {train.name} that {split.name} lacks", names[in_train & ~here]),
        ):
            if lacking := [name for name in classes if name not in empty]:
                problems.append({"problem": lack, "classes": lacking})
    return problems


def _sizes(findings: Findings) -> dict[str, Any] | None:
    known = findings.sizes[findings.whole & (findings.sizes > 0).all(axis=1)]
    if not len(known):
        return None
    result: dict[str, Any] = {
        name: {"min": int(side.min()), "median": float(np.median(side)), "max": int(side.max())}
        for name, side in (("width", known[:, 0]), ("height", known[:, 1]))
    }
    below = float((known.min(axis=1) < SHORT_SIDE).mean())
    return result | {f"short_side_below_{SHORT_SIDE}": below}
