"""Signals that ask a training to stop: only noted here, acted upon between two steps.

A handler that saves by itself comes in the middle of anything: a collective call, a file, another
handler. So SIGTERM (preemption, `scancel`, a shutdown), SIGUSR1 (sent by SLURM before the time
limit), SIGHUP (a terminal that is gone) and the first SIGINT (Ctrl-C) set a flag, which
`callbacks/checkpoint.py` reads; once it has saved, Ctrl-C is not heard while all is closed, for
`PATIENCE` seconds at most. What was ignored before, as under `nohup`, stays so.

Where nothing is to be saved, SIGTERM and SIGHUP end the work as Ctrl-C does: by an exception, so
that half-written files are removed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_NOTICE = b"stopping at the next step; Ctrl-C once more ends at once, without saving\n"

PATIENCE = 20.0
"""Seconds for closing what a stopped training has open; something may hang in it."""

_received = 0
_saved_at: float | None = None


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. Args: the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"by {signal.Signals(number).name}")
        self.number = number


def listen() -> None:
    """Note these signals from now on. Processes that this one forks do not."""
    global _received, _saved_at
    _received, _saved_at = 0, None
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP raise `Ended` from now on. Processes that this one forks do not."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python allows it there alone
    for number in _ENDING:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _raise)


def stop_listening() -> None:
    """Let signals end the process at once again; those that came are done with."""
    global _received
    _received = 0
    for number in _SIGNALS:
        if signal.getsignal(number) in (_note, _raise):
            ends = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, ends)


def leave_in_peace() -> None:
    """What can be saved is saved: let Ctrl-C not interrupt what is left to be closed."""
    global _saved_at
    _saved_at = time.monotonic()
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, _note)


def is_leaving() -> bool:
    """Whether `leave_in_peace` was called since `listen`."""
    return _saved_at is not None


def received() -> int:
    """Number of the signal that came last, 0 if none has."""
    return _received


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    if number == signal.SIGINT:
        if _saved_at is not None and time.monotonic() - _saved_at < PATIENCE:
            return
        if _received == signal.SIGINT:
            signal.default_int_handler(number, frame)
        if os.isatty(2) and os.environ.get("LOCAL_RANK", "0") == "0":
            os.write(2, _NOTICE)
    _received = number


def _raise(number: int, frame: FrameType | None) -> None:
    raise Ended(number)


os.register_at_fork(after_in_child=stop_listening)
