"""`res2net train CONFIG [key=value ...]`: from scratch, fine-tune (model.weights=...), resume."""

from __future__ import annotations

import argparse
import json

from res2net.config.load import load_config
from res2net.config.schema import Config
from res2net.files.atomic import new_file
from res2net.files.runs import RunDirectory, is_rank_zero


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a YAML, or the name of a shipped recipe")
    parser.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="changes of the configuration, as optim.lr=0.2 or run.resume=auto",
    )
    parser.add_argument(
        "--preview",
        metavar="PNG",
        help="only draw the first training images, augmented, with their labels",
    )
    parser.add_argument("--json", action="store_true", help="print the run's summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.overrides)
    if arguments.preview:
        return preview(config, arguments.preview, as_json=arguments.json)

    from res2net.training.run import train

    summary = train(config)
    if not is_rank_zero():
        return 0
    if arguments.json:
        print(json.dumps(summary))
        return 0
    path = RunDirectory.of(config.run.dir, config.run.name).path
    top5 = f", top-5 {summary['val/top5']:.2%}" if "val/top5" in summary else ""
    print(f"run: {path}  top-1 {summary['val/top1']:.2%}{top5}  (last epoch)")
    return 0


def preview(config: Config, path: str, *, as_json: bool) -> int:
    """Draw instead of training."""
    file = new_file(path, (".png",))

    from res2net.training.preview import draw_preview

    images = draw_preview(config, file)
    print(json.dumps({"preview": str(file), "images": images}) if as_json else f"written: {file}")
    return 0
