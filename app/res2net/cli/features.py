"""`res2net features`: features of images in one file, and how well a line tells their classes."""

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from res2net.cli.arguments import SHORT, asked_preprocessing, seed
from res2net.cli.images import (
    add_image_arguments,
    add_loader_argument,
    choose_loader,
    find_images,
    reading,
)
from res2net.cli.telling import plain_warnings, say_problems, shown, tell, tell_json, tell_lost
from res2net.data.sources.scan import counted
from res2net.errors import InputError, WorkError
from res2net.files.atomic import new_file
from res2net.files.csv_table import FORM

if TYPE_CHECKING:
    import numpy as np

    from res2net.inference.feature_forms import Batches
    from res2net.inference.labelled import Labels
    from res2net.inference.probe import ProbeResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a new file: .npz or .safetensors (`features` float32 (N, C) and `sources`), "
        f".parquet, or .csv for few images ({FORM}); with labels where the images lie in folders "
        "of classes",
    )
    parser.add_argument(
        "--stage",
        type=_stage,
        default="pooled",
        metavar="N|all|pooled",
        help="of which stage, averaged over its places: from 1 to as many as the model has; all: "
        "of each, as arrays `stage1`, `stage2` and on instead of `features`; pooled: the "
        "classifier's input (pooled)",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="fit a linear classifier to the features of images in folders of classes, and print "
        "its accuracy on a fifth of them that it has not seen; needs scikit-learn",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of the probe's split (0)"
    )
    add_loader_argument(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if not all images could be read or the file written."""
    from res2net.inference.feature_file import SUFFIXES, check_form, write_features
    from res2net.inference.labelled import labels_of_folders

    if arguments.out is None and not arguments.probe:
        raise InputError("--out FILE is missing: where the features go (--probe alone needs none)")
    file = None
    if arguments.out is not None:
        file = new_file(arguments.out, SUFFIXES)
        check_form(file)
    problems: list[InputError] = []
    images = find_images(arguments.images, problems.append)
    labels = labels_of_folders(arguments.images, images)
    if arguments.probe:
        _check_probe(labels, images)
    say_problems(problems)
    loader = choose_loader(arguments.loader, len(images))

    from res2net.inference.features import FeatureExtractor  # PyTorch takes seconds

    with plain_warnings():
        extractor = FeatureExtractor(
            arguments.model,
            weights=arguments.weights,
            checkpoint=arguments.checkpoint,
            device=arguments.device,
            batch_size=arguments.batch_size,
            ema=arguments.ema,
            stage=arguments.stage,
            preprocessing=asked_preprocessing(arguments),
        )
    start = time.perf_counter()
    kept: list[tuple[Sequence[str], np.ndarray]] = []
    with reading(images, doing="extracting") as taken:
        stream = extractor.stream(images, on_unreadable=taken.on_unreadable, loader=loader)
        batches: Batches = taken.follow(stream, lambda batch: len(batch[0]))
        if arguments.probe:
            batches = _keep(batches, kept)
        if file is not None:
            count = write_features(file, batches, parts=extractor.parts, labels=labels)
        else:
            count = sum(len(sources) for sources, _ in batches)
    speed = count / (time.perf_counter() - start)

    result: dict[str, Any] = {
        "file": str(file) if file else None,
        "images": count,
        "unreadable": taken.unreadable,
        "num_features": extractor.num_features,
        "parts": dict(extractor.parts),
        "classes": len(labels.class_names) if labels else None,
        "images_per_second": speed,
    }
    lines = [
        f"{shown(file or arguments.model)}: {counted(count, 'image')}, "
        f"{extractor.num_features} features "
        f"each, {f'{len(labels.class_names):,} classes, ' if labels else ''}{speed:.1f} images/s"
    ]
    if labels is not None and arguments.probe:
        found = _probe(kept, labels, arguments.seed)
        result["probe"] = asdict(found)
        lines.append(_describe(found))
    tell_json(result) if arguments.json else tell(*lines)

    tell_lost(
        "features",
        f"are in {file}" if file else "were used",
        given=len(images),
        unreadable=taken.unreadable,
        problems=bool(problems),
    )
    return 0


def _check_probe(labels: "Labels | None", images: Sequence[str]) -> None:
    from res2net.inference.probe import check_probe

    if labels is None:
        raise InputError(
            "--probe: these images have no labels; give one folder, which has a folder for each "
            "class (DIR/cat/1.jpg, DIR/dog/2.jpg)"
        )
    check_probe(labels.of(images), labels.class_names)


def _keep(
    batches: "Batches", kept: list[tuple[Sequence[str], "np.ndarray"]]
) -> Iterator[tuple[Sequence[str], "np.ndarray"]]:
    """The same, put into `kept` as well."""
    for batch in batches:
        kept.append(batch)
        yield batch


def _probe(
    kept: list[tuple[Sequence[str], "np.ndarray"]], labels: "Labels", seed: int
) -> "ProbeResult":
    import numpy as np

    from res2net.inference.probe import check_probe, probe

    if not kept:
        raise WorkError("not one image could be read, so there is nothing to fit")
    sources = [source for names, _ in kept for source in names]
    truth = labels.of(sources)
    check_probe(truth, labels.class_names)  # once more: some images may have been unreadable
    return probe(np.concatenate([rows for _, rows in kept]), truth, seed=seed)


def _describe(found: "ProbeResult") -> str:
    return (
        f"linear probe: {found.top1:.2%} of {counted(found.held_out, 'image')} held out "
        f"({found.train_top1:.2%} of the {found.train:,} it was fitted to; {found.classes:,} "
        f"classes, the most frequent has {found.chance:.2%}; stratified split of seed {found.seed})"
    )


def _stage(text: str) -> int | str:
    if text in ("all", "pooled"):
        return text
    if not re.fullmatch("[1-9][0-9]?", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"'{shown(text, longest=SHORT)}' is no stage: 1 and on, all or pooled"
        )
    return int(text)
