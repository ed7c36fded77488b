"""`res2net train CONFIG [key=value ...]`: from scratch, fine-tune (model.weights=...), resume."""

from __future__ import annotations

import argparse

from res2net import stopping
from res2net.cli.arguments import add_config_arguments, nodes, workers
from res2net.cli.telling import tell, tell_json
from res2net.config.load import load_config
from res2net.config.schema import Config
from res2net.errors import InputError
from res2net.files.atomic import new_file
from res2net.files.runs import RunDirectory, is_rank_zero


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, such_as="optim.lr=0.2 or run.resume=auto")
    parser.add_argument(
        "--preview",
        metavar="PNG",
        help="only draw the first training images, augmented, with their labels",
    )
    parser.add_argument(
        "--plot-schedule",
        metavar="PNG",
        help="only draw the learning rate over the whole run",
    )
    parser.add_argument(
        "--find-lr",
        nargs="?",
        const="",
        metavar="PNG",
        help="only try learning rates on the run's data and name a good one; may draw the losses",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="only try everything: open the data, train three steps, save, load, reckon",
    )
    for option in ("--devices", "--nodes"):
        parser.add_argument(
            option,
            type=nodes if option == "--nodes" else workers,
            metavar="N",
            help="--dry-run: reckon for so many" + (" per node" if option == "--devices" else ""),
        )
    parser.add_argument("--json", action="store_true", help="print the run's summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    asked = {
        "--preview": arguments.preview,
        "--plot-schedule": arguments.plot_schedule,
        "--find-lr": arguments.find_lr,
        "--dry-run": arguments.dry_run or None,
    }
    asked = {option: path for option, path in asked.items() if path is not None}
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)}: each does its work instead of training; give one")
    for option in ("devices", "nodes"):
        if getattr(arguments, option) and not arguments.dry_run:
            key = {"devices": "devices", "nodes": "num_nodes"}[option]
            raise InputError(f"--{option}: for --dry-run alone; trainer.{key}=N trains on so many")
    if asked:  # nothing will have to be saved
        stopping.stop_listening()
        stopping.end_in_order()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        return dry_run(config, arguments)
    for option, path in asked.items():
        verbs = {"--preview": preview, "--plot-schedule": plot_schedule, "--find-lr": find_lr}
        return verbs[option](config, path, as_json=arguments.json)

    from res2net.training.run import train

    summary = train(config)
    if not is_rank_zero():
        return 0
    if arguments.json:
        tell_json(summary)
        return 0
    path = RunDirectory.of(config.run.dir, config.run.name).path
    top5 = f", top-5 {summary['val/top5']:.2%}" if "val/top5" in summary else ""
    average = f", averaged {summary['val_ema/top1']:.2%}" if "val_ema/top1" in summary else ""
    tell(f"run: {path}  top-1 {summary['val/top1']:.2%}{top5}{average}  (last epoch)")
    return 0


def dry_run(config: Config, arguments: argparse.Namespace) -> int:
    """Try everything instead of training."""
    from res2net.training.rehearsal import dry_run as rehearsal

    tried = rehearsal.dry_run(config, devices=arguments.devices, num_nodes=arguments.nodes)
    if is_rank_zero():
        tell_json(tried.to_dict()) if arguments.json else tell(*tried.lines())
    return 0


def preview(config: Config, path: str, *, as_json: bool) -> int:
    """Draw instead of training."""
    file = new_file(path, (".png",))

    from res2net.training.rehearsal.preview import draw_preview

    images = draw_preview(config, file)
    if as_json:
        tell_json({"preview": str(file), "images": images})
    else:
        tell(f"written: {file}")
    return 0


def plot_schedule(config: Config, path: str, *, as_json: bool) -> int:
    """Draw the learning rate instead of training, and print its ends."""
    file = new_file(path, (".png",))

    from res2net.training.rehearsal import plot_schedule as schedule

    planned = schedule.plot_schedule(config, file)
    if as_json:
        tell_json({"plot": str(file), **planned.to_dict()})
        return 0
    tell(*planned.lines(), f"written: {file}")
    return 0


def find_lr(config: Config, path: str, *, as_json: bool) -> int:
    """Try learning rates instead of training, and print what to write for optim.lr."""
    if path and not path.endswith(".png"):
        raise InputError(
            f"--find-lr {path}: takes a PNG or nothing; put CONFIG and key=value before it"
        )
    file = new_file(path, (".png",)) if path else None

    from res2net.training.rehearsal import find_lr as search

    found = search.find_lr(config, file)
    if not is_rank_zero():
        return 0
    if as_json:
        tell_json({"plot": str(file) if file else None, **found.to_dict()})
        return 0
    tell(
        f"the loss falls fastest at lr {found.suggestion:.2g}, for "
        f"data.global_batch_size={config.data.global_batch_size}: optim.lr={found.optim_lr:.2g}"
    )
    if file:
        tell(f"written: {file}")
    return 0
