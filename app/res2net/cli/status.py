"""`res2net status RUN ...`: what runs are doing, how far they are, and what to do next."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from res2net.cli.telling import say, tell_json
from res2net.cluster.status import Status, status
from res2net.errors import InputError
from res2net.files.holder import Holder

NONE = "-"
WIDTH = 500
STYLES = {
    "running": "green",
    "completed": "green",
    "waiting": "yellow",
    "silent": "bold yellow",
    "killed": "bold red",
    "failed": "bold red",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run directory")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    found, refused = [], []
    for name in arguments.runs:
        try:
            found.append(status(Path(name)))
        except InputError as error:
            refused.append(error)
    if not found:
        raise refused[0]
    for problem in refused:  # as the folder of batch scripts among the runs: checkpoints/*/
        say(f"left out: {problem}")
    if arguments.json:
        tell_json({"runs": [asdict(one) for one in found]})
    else:
        _print_one(found[0]) if len(found) == 1 else _print_many(found)
    return 0


def _print_one(one: Status) -> None:
    saved = one.checkpoint
    holder = one.holder
    rows = {
        "run": one.run,
        "state": one.state,
        "model": one.model or NONE,
        "progress": f"step {_of(one.step, one.steps)}, epochs {_epochs(one)}",
        "done": _percent_done(one),
        "time left": _left(one),
        "val/top1": _percent(one.top1),
        "best": _best(one),
        "checkpoint": f"{saved.name}, {_saved(one)}, {saved.bytes / 1e6:,.1f} MB"
        if saved
        else "none yet",
        "last step": _ago(one.seconds_since_step),
        "restarts": f"{NONE if one.restarts is None else one.restarts}, "
        f"steps done again or to be done again: {one.steps_lost:,}",
        "trained by": _who(holder) if holder else "nobody",
    }
    from res2net.cli.tables import Styled, Table

    table = Table(header=False)
    table.column(whole=True)
    table.column()
    for name, value in rows.items():
        style = STYLES.get(value, "") if name == "state" else ""
        table.row(name, Styled(value, style))
    for remark in one.remarks:
        table.row("see", remark)
    table.row("next", one.next)
    table.tell(width=WIDTH)


def _print_many(found: Sequence[Status]) -> None:
    from res2net.cli.tables import Styled, Table

    table = Table(tight=True)
    table.column("run")
    table.column("state", whole=True)
    for heading in ("done", "epochs", "left", "top-1", "best (epoch)", "saved", "restarts", "lost"):
        table.column(heading, right=True, whole=True)
    table.column("next")
    for one in found:
        cells = [
            _percent_done(one),
            _epochs(one),
            _left(one).partition(" ")[0],
            _percent(one.top1),
            _best(one),
            _ago(one.checkpoint.age_seconds) if one.checkpoint else NONE,
            NONE if one.restarts is None else str(one.restarts),
            f"{one.steps_lost:,}",
        ]
        todo = "; ".join([one.next, *(remark.partition(":")[0] for remark in one.remarks)])
        state = Styled(one.state, STYLES.get(one.state, ""))
        table.row(one.run, state, *cells, todo)
    table.tell(width=WIDTH)


def _of(part: int, whole: int | None) -> str:
    return f"{part:,} of {whole:,}" if whole else f"{part:,}"


def _percent_done(one: Status) -> str:
    return f"{one.step / one.steps:.1%}" if one.steps else NONE


def _epochs(one: Status) -> str:
    done = NONE if one.epochs is None else f"{one.epochs:.1f}"
    return f"{done}/{one.max_epochs}" if one.max_epochs else done


def _left(one: Status) -> str:
    if one.seconds_left is None or one.images_per_second is None:
        return NONE
    speed = f"at {one.images_per_second:,.0f} images/s, validations aside"
    return f"{_time(one.seconds_left)} {speed}"


def _best(one: Status) -> str:
    best = _percent(one.best_top1)
    return best if one.best_epoch is None else f"{best} ({one.best_epoch})"


def _saved(one: Status) -> str:
    assert one.checkpoint is not None
    step = one.checkpoint.step
    at = "step not known" if step is None else f"step {step:,}"
    return f"{at}, {_ago(one.checkpoint.age_seconds)}"


def _who(holder: dict[str, Any]) -> str:
    return str(Holder(**holder))


def _percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{fraction:.2%}"


def _ago(seconds: float | None) -> str:
    return NONE if seconds is None else f"{_time(seconds)} ago"


def _time(seconds: float) -> str:
    """`1:02:03`: hours, minutes, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
