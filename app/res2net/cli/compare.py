"""`res2net compare RUN RUN ...`: the figures of several runs, and the settings that differ."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from res2net.cli.telling import tell, tell_json
from res2net.errors import InputError
from res2net.files.atomic import new_file
from res2net.files.run_facts import RunFacts, differing, of_the_loss, read_run

NONE = "-"
WIDTH = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", metavar="RUN", nargs="+", help="a run directory; two or more")
    parser.add_argument(
        "--out", metavar="PNG", help="a new file: loss and accuracy of the runs on common axes"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(arguments: argparse.Namespace) -> int:
    if len(arguments.runs) < 2:
        raise InputError(f"{arguments.runs[0]}: only one run; compare takes two or more")
    out = new_file(arguments.out, (".png",)) if arguments.out else None
    runs = [read_run(Path(name)) for name in arguments.runs]
    names = _names(runs)
    differences = differing(runs)
    if out:
        from res2net.plots.comparison import draw_comparison

        metrics = {name: run.metrics for name, run in zip(names, runs, strict=True)}
        draw_comparison(metrics, out, losses_differ_by=of_the_loss(differences))
    if arguments.json:
        rows = [run.row() for run in runs]
        picture = str(out) if out else None
        tell_json({"runs": rows, "differences": differences, "picture": picture})
    else:
        _print_tables(names, runs, differences)
        if out:
            tell(f"written: {out}")
    return 0


def _names(runs: list[RunFacts]) -> list[str]:
    """Directory names, or paths where two are called alike."""
    short = [run.path.absolute().name for run in runs]
    names = short if len(set(short)) == len(runs) else [str(run.path) for run in runs]
    if len(set(names)) < len(runs):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{twice}: named twice; each run stands for itself")
    return names


def _print_tables(
    names: list[str], runs: list[RunFacts], differences: dict[str, list[Any]]
) -> None:
    from res2net.cli.tables import Table

    def table(first: str, headings: list[str]) -> Table:
        made = Table(tight=True)
        made.column(first)
        for text in headings:
            made.column(text, right=True)
        return made

    rows = [run.row() for run in runs]
    ema = any(row["ema_top1"] is not None for row in rows)
    headings = ["model", "params", "epochs", "top-1", "top-5", *(["EMA top-1"] if ema else [])]
    figures = table("run", [*headings, "best (epoch)", "loss", "images/s", "time", "status"])
    for name, row in zip(names, rows, strict=True):
        best = _percent(row["best_top1"])
        cells = [
            row["model"] or NONE,
            f"{row['parameters'] / 1e6:.2f}M" if row["parameters"] else NONE,
            f"{row['epochs']}/{row['max_epochs']}",
            _percent(row["top1"]),
            _percent(row["top5"]),
            *([_percent(row["ema_top1"])] if ema else []),
            best if best == NONE else f"{best} ({row['best_epoch']})",
            NONE if row["loss"] is None else f"{row['loss']:.4f}",
            NONE if row["images_per_second"] is None else f"{row['images_per_second']:,.0f}",
            _time(row["wall_seconds"]),
            row["status"] or NONE,
        ]
        figures.row(name, *cells)
    figures.tell(width=WIDTH)
    tell("")
    if not differences:
        tell("All settings are the same.")
        return
    settings = table("setting", names)
    for key, values in differences.items():
        settings.row(key, *map(_shown, values))
    settings.tell(width=WIDTH)


def _shown(value: Any) -> str:
    if value is None:
        return NONE
    return value or "''" if isinstance(value, str) else json.dumps(value)


def _percent(fraction: float | None) -> str:
    return NONE if fraction is None else f"{fraction:.2%}"


def _time(seconds: float | None) -> str:
    """`1:02:03`: hours, minutes, seconds."""
    if seconds is None:
        return NONE
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
