"""`res2net doctor`: what this machine offers and what is missing."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from socket import gethostname
from typing import TYPE_CHECKING

from res2net.cluster.doctor import examine
from res2net.files.runs import global_rank, is_rank_zero, say

if TYPE_CHECKING:
    from res2net.cluster.doctor import Check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print an object instead")


def run(arguments: argparse.Namespace) -> int:
    """1 if a check failed, on whichever rank, else 0."""
    if sys.stderr.isatty():
        say("looking at this machine; this takes some seconds")
    checks = list(examine())
    if not is_rank_zero():
        host = os.environ.get("SLURMD_NODENAME") or gethostname()
        # what rank 0 could not be told
        for check in checks:
            what = f"{check.name}: {check.value}; {check.advice}"
            print(f"rank {global_rank()} ({host}): {what}", file=sys.stderr)
        return 1 if checks else 0
    if arguments.json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _print_table(checks)
    return 1 if any(check.status == "fail" for check in checks) else 0


def _print_table(checks: Sequence["Check"]) -> None:
    try:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:  # one of the packages whose absence is to be told
        for check in checks:
            print(check.status, check.name, check.value, check.advice, sep="  ")
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("check", "status"):
        table.add_column(heading, no_wrap=True)
    for heading in ("value", "what to do"):
        table.add_column(heading, overflow="fold")
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        status = Text(check.status, style=styles[check.status])
        table.add_row(Text(check.name), status, Text(check.value), Text(check.advice))
    Console(width=None if sys.stdout.isatty() else 500).print(table)
