"""`res2net features`: the pooled features of images, in one file."""

import argparse
import json
import time

from res2net.cli.images import add_image_arguments, find_images, reading
from res2net.data.sources.scan import counted
from res2net.errors import WorkError
from res2net.files.atomic import new_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_image_arguments(parser)
    parser.add_argument(
        "--out",
        metavar="FILE",
        required=True,
        help="a new file: .npz (arrays `features` float32 (N, C) and `sources` str (N,), for "
        "numpy.load) or .csv (a row an image: source,f0,f1,...; for few images)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError, and WorkError if not all images could be read or the file written."""
    from res2net.inference.feature_file import SUFFIXES, write_features

    file = new_file(arguments.out, SUFFIXES)
    images = find_images(arguments.images)

    from res2net.inference.features import FeatureExtractor  # PyTorch takes seconds

    extractor = FeatureExtractor(
        arguments.model,
        weights=arguments.weights,
        checkpoint=arguments.checkpoint,
        device=arguments.device,
        batch_size=arguments.batch_size,
        ema=arguments.ema,
    )
    start = time.perf_counter()
    with reading(images, doing="extracting") as taken:
        batches = extractor.stream(taken.images, on_unreadable=taken.on_unreadable)
        count = write_features(file, batches, num_features=extractor.num_features)
    speed = count / (time.perf_counter() - start)

    if arguments.json:
        result = {
            "file": str(file),
            "images": count,
            "unreadable": taken.unreadable,
            "num_features": extractor.num_features,
            "images_per_second": speed,
        }
        print(json.dumps(result))
    else:
        print(
            f"{file}: {counted(count, 'image')}, {extractor.num_features} features each, "
            f"{speed:.1f} images/s"
        )
    if taken.unreadable:
        raise WorkError(
            f"{taken.unreadable:,} of {counted(len(images), 'image')} could not be read, see "
            f"above; the features of the other {count:,} are in {file}"
        )
    return 0
