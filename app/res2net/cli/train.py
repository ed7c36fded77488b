"""`res2net train CONFIG [key=value ...]`: from scratch, fine-tune (model.weights=...), resume."""

from __future__ import annotations

import argparse
import json

from res2net.config.load import load_config
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
    parser.add_argument("--json", action="store_true", help="print the run's summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    config = load_config(arguments.config, arguments.overrides)

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
