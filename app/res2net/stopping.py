"""Signals that ask a training to stop: only noted here, acted upon between two steps.

A handler that saves by itself comes in the middle of anything: a collective call, a file, another
handler. So SIGTERM (preemption, `scancel`, a shutdown), SIGUSR1 (sent by SLURM before the time
limit), SIGHUP (a terminal that is gone) and the first SIGINT (Ctrl-C) set a flag, which
`callbacks/checkpoint.py` reads. What was ignored before, as under `nohup`, stays so.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
_NOTICE = b"stopping at the next step; Ctrl-C once more ends at once, without saving\n"

_received = 0


def listen() -> None:
    """Note these signals from now on. Processes that this one forks do not."""
    global _received
    _received = 0
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)


def stop_listening() -> None:
    """Let signals end the process again, as they do where nothing is to be saved."""
    for number in _SIGNALS:
        if signal.getsignal(number) is _note:
            ends = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, ends)


def received() -> int:
    """Number of the signal that came last, 0 if none has."""
    return _received


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    if number == signal.SIGINT:
        if _received == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if os.isatty(2) and os.environ.get("LOCAL_RANK", "0") == "0":
            os.write(2, _NOTICE)
    _received = number


os.register_at_fork(after_in_child=stop_listening)
