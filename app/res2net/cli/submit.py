"""`res2net submit CONFIG [key=value ...]`: try a training here, then hand it to SLURM."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from res2net.cli.arguments import add_config_arguments, devices_of_node, nodes, workers
from res2net.cli.telling import say, tell, tell_json
from res2net.cluster.submit import (
    Allocation,
    batch_script,
    find_sbatch,
    log_path,
    log_pattern,
    sbatch_command,
    submit,
    write_script,
)
from res2net.config.load import load_config
from res2net.config.schema import Config
from res2net.errors import InputError

if TYPE_CHECKING:
    from res2net.training.rehearsal.dry_run import DryRun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser, such_as="of res2net train")
    what = parser.add_argument_group("what to ask SLURM for (default: as the cluster says)")
    what.add_argument("--nodes", type=nodes, default=1, metavar="N", help="(1)")
    what.add_argument(
        "--gpus", type=devices_of_node, default=1, metavar="N", help="per node; 0: CPUs (1)"
    )
    what.add_argument(
        "--tasks", type=workers, metavar="N", help="processes per node, with --gpus 0 (1)"
    )
    what.add_argument(
        "--cpus", type=workers, metavar="N", help="per process: they decode images (8)"
    )
    what.add_argument("--time", default="", metavar="T", help="limit, as 24:00:00; then requeued")
    what.add_argument("--partition", default="", metavar="P")
    what.add_argument("--account", default="", metavar="A")
    what.add_argument(
        "--array",
        default="",
        metavar="SPEC",
        help="several runs, as 0-4: task N trains NAME-N with run.seed=N; with SETTINGS=FILE in "
        "the environment, with line N of that file",
    )
    what.add_argument("--job-name", default="", metavar="J", help="(run.name)")
    what.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="any other option of sbatch, as qos=high; may be repeated",
    )
    parser.add_argument(
        "--no-check",
        action="store_true",
        help="do not try the training here first, as where the data cannot be read",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show the script; submit and write nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    # as the script does: what is submitted again goes on
    config = load_config(arguments.config, ["run.resume=auto", *arguments.overrides])
    tasks = arguments.tasks or arguments.gpus or 1
    _check(arguments, config, tasks)
    sbatch = "sbatch" if arguments.dry_run else find_sbatch()
    allocation = Allocation(
        job_name=arguments.job_name or config.run.name,
        nodes=arguments.nodes,
        tasks=tasks,
        gpus=arguments.gpus,
        cpus=arguments.cpus,
        time=arguments.time,
        partition=arguments.partition,
        account=arguments.account,
        array=arguments.array,
        more=tuple(arguments.sbatch),
    )
    folder = Path(config.run.dir) / "slurm"
    pattern = log_pattern(folder, config.run.name, array=bool(arguments.array))
    options = {"chdir": str(Path.cwd()), "output": pattern, **allocation.options()}
    text = batch_script(options, [arguments.config, *arguments.overrides], environment=sys.prefix)
    tried = None if arguments.no_check else _rehearse(config, tasks, arguments)
    script = folder / f"{config.run.name}.sbatch"
    if not arguments.dry_run:
        script = write_script(folder, config.run.name, text)
    command = sbatch_command(sbatch, script)
    job = None if arguments.dry_run else submit(command, options)
    log = log_path(options["output"], job or "JOB")
    if arguments.json:
        result = {
            "job": job,
            "log": log,
            "script": str(script),
            "text": text,
            "command": command,
            "rehearsal": tried.to_dict() if tried else None,
        }
        tell_json(result)
        return 0
    lines = tried.lines() if tried else []
    if job is None:
        lines += [
            f"would write {script}:",
            "",
            *text.split("\n"),
            f"and call: {shlex.join(command)}",
        ]
    else:
        lines += [f"script       {script}", f"log          {log}", f"submitted    job {job}"]
    tell(*lines)
    return 0


def _check(arguments: argparse.Namespace, config: Config, tasks: int) -> None:
    """Raises InputError for what does not go together."""
    if arguments.tasks and arguments.gpus:
        raise InputError(
            f"--tasks {arguments.tasks}: there is one process for each GPU, and --gpus "
            f"{arguments.gpus}; give --tasks with --gpus 0"
        )
    trainer = config.trainer
    wanted = {"cpu": arguments.gpus == 0, "cuda": arguments.gpus > 0, "auto": True}
    if not wanted[trainer.accelerator]:
        raise InputError(
            f"trainer.accelerator={trainer.accelerator}: with --gpus {arguments.gpus} choose "
            f"{'cuda' if arguments.gpus else 'cpu'} or auto"
        )
    for key, asked, option in (
        ("devices", tasks, "--gpus (or --gpus 0 --tasks)"),
        ("num_nodes", arguments.nodes, "--nodes"),
    ):
        if (value := getattr(trainer, key)) not in ("auto", str(asked)):
            raise InputError(
                f"trainer.{key}={value}: {option} asks for {asked}; leave it auto, it is read from "
                "the allocation"
            )


def _rehearse(config: Config, tasks: int, arguments: argparse.Namespace) -> DryRun:
    """`res2net train --dry-run` for the devices and nodes asked for, on what this machine has."""
    say("trying the training here first (--no-check skips this)")

    import torch

    from res2net.training.rehearsal.dry_run import dry_run

    if arguments.gpus and not torch.cuda.is_available():  # a login node: what needs a GPU waits
        trainer = replace(config.trainer, accelerator="auto", sync_batchnorm=False)
        if trainer.precision == "16-mixed":
            trainer = replace(trainer, precision="bf16-mixed")
        config = replace(config, trainer=trainer)
    return dry_run(config, devices=tasks, num_nodes=arguments.nodes)
