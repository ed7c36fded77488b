"""`res2net doctor`: what this machine offers and what is missing."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from socket import gethostname
from typing import TYPE_CHECKING

from res2net.cli.telling import say, tell, tell_json
from res2net.cluster.doctor import examine
from res2net.files.runs import global_rank, is_rank_zero

if TYPE_CHECKING:
    from res2net.cluster.doctor import Check


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print an object instead")


def run(arguments: argparse.Namespace) -> int:
    """1 if a check failed, on whichever rank, else 0."""
    if sys.stderr.isatty() and is_rank_zero():
        say("looking at this machine; this takes some seconds")
    checks = list(examine())
    if not is_rank_zero():
        host = os.environ.get("SLURMD_NODENAME") or gethostname()
        # what rank 0 could not be told
        for check in checks:
            what = f"{check.name}: {check.value}; {check.advice}"
            say(f"rank {global_rank()} ({host}): {what}")
        return 1 if checks else 0
    if arguments.json:
        tell_json({"checks": [asdict(check) for check in checks]}, indent=2)
    else:
        _print_table(checks)
    return 1 if any(check.status == "fail" for check in checks) else 0


def _print_table(checks: Sequence["Check"]) -> None:
    try:
        from res2net.cli.tables import Styled, Table
    except ImportError:  # one of the packages whose absence is to be told
        for check in checks:
            tell("  ".join((check.status, check.name, check.value, check.advice)))
        return
    table = Table()
    for heading in ("check", "status"):
        table.column(heading, whole=True)
    for heading in ("value", "what to do"):
        table.column(heading)
    styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for check in checks:
        table.row(check.name, Styled(check.status, styles[check.status]), check.value, check.advice)
    table.tell(width=500)
