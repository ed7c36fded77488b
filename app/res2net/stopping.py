"""Signals that ask a training to stop: noted here, acted upon between two steps.

A handler that saves by itself comes in the middle of anything: a collective call, a file, another
handler. So SIGTERM (preemption, `scancel`, a shutdown), SIGUSR1 (sent by SLURM before the time
limit), SIGHUP (a terminal that is gone) and the first SIGINT (Ctrl-C) set a flag, which
`callbacks/checkpoint.py` reads; once it has saved, Ctrl-C is not heard while all is closed, for
`PATIENCE` seconds at most. What was ignored before, as under `nohup`, stays so.

Before the first step there is nothing to save: a signal ends the process at once, by the exception
`EndedEarly`. Where the main thread does not get to it (it waits for other ranks, compiles, reads),
a thread of `_StartUp` ends the process `REACTION` seconds later.

Where nothing is to be saved at all, SIGTERM and SIGHUP end the work as Ctrl-C does: by an
exception, so that half-written files are removed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_NOTICE = b"stopping at the next step; Ctrl-C once more ends at once, without saving\n"

PATIENCE = 20.0
"""Seconds for closing what a stopped training has open; something may hang in it."""

REACTION = 1.2
"""Seconds in which the main thread, in start-up, comes to its end after a signal."""

FAREWELL = 120.0
"""Seconds that the end of a start-up may take; SLURM is asked in it."""

_received = 0
_saved_at: float | None = None
_start: _StartUp | None = None


class Ended(KeyboardInterrupt):
    """SIGTERM or SIGHUP came. Args: the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"by {signal.Signals(number).name}")
        self.number = number


class EndedEarly(BaseException):
    """A signal came before anything was trained. No error, so that nobody takes it for one of his.

    Args: the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"by {signal.Signals(number).name} before the first step")
        self.number = number


def listen(leave: Callable[[int], int] | None = None) -> None:
    """Note these signals from now on. Processes that this one forks do not.

    Args:
        leave: how to end in start-up, that is until `trained` is called: gets the signal's number
            and returns the exit code. Called once, by `leave_early` or from a thread. Without it
            there is no start-up.
    """
    global _received, _saved_at, _start
    _received, _saved_at = 0, None
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _note)
    if leave is not None:
        _start = _StartUp(leave)


def before_leaving(work: Callable[[], None]) -> None:
    """Do this, too, when a signal ends the start-up: from another thread, if need be."""
    if _start is not None:
        _start.works.append(work)


def trained() -> None:
    """The start-up is over: something was trained, and a signal is noted from now on."""
    global _start
    if _start is not None:
        start, _start = _start, None
        start.close()


def is_starting() -> bool:
    """Whether a signal would end the process, rather than be noted."""
    return _start is not None


def leave_early(early: EndedEarly) -> int:
    """The exit code, for who catches the exception; does not come back if a thread was quicker."""
    assert _start is not None
    return _start.leave_now(early.number)


def wait_for_another(seconds: float) -> None:
    """Until one more signal comes in start-up, but no longer than that."""
    if _start is not None:
        _start.again.wait(seconds)


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
    trained()
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


class _StartUp:
    """From `listen` to `trained`: what a signal does in it.

    Python runs its handlers in the main thread, between two of its own instructions: not while that
    waits in a library's code. The number of a signal comes at once through the descriptor of
    `signal.set_wakeup_fd`, at which a thread waits.
    """

    def __init__(self, leave: Callable[[int], int]) -> None:
        self.works: list[Callable[[], None]] = []
        self.again = threading.Event()
        """A second signal has come."""
        self.raised = False
        self._leave = leave
        self._over = False
        self._leaving = threading.Lock()  # taken once and kept
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reader,), name="start-up", daemon=True).start()

    def close(self) -> None:
        self._over = True
        signal.set_wakeup_fd(self._before)
        os.close(self._writer)  # which ends the thread

    def leave_now(self, number: int) -> int:
        """Take leave, if nobody does so already; else wait for the end of the process."""
        if not self._leaving.acquire(blocking=False):
            time.sleep(FAREWELL)
        for work in self.works:
            work()
        return self._leave(number)

    def _watch(self, reader: int) -> None:
        numbers = {int(number) for number in _SIGNALS}
        first = True
        with suppress(OSError), open(reader, "rb", buffering=0) as stream:
            while byte := stream.read(1):
                if byte[0] not in numbers or self._over:
                    continue
                if not first:
                    self.again.set()
                    continue
                first = False
                threading.Thread(target=self._end, args=byte, name="end", daemon=True).start()

    def _end(self, number: int) -> None:
        """End the process, unless the main thread does in time."""
        time.sleep(REACTION)
        if self._over:
            return
        code = 1
        if self._leaving.acquire(blocking=False):
            for work in self.works:
                with suppress(Exception):  # the main thread may be in the midst of the same
                    work()
            code = self._leave(number)
        else:
            time.sleep(FAREWELL)
            if self._over:
                return
        os._exit(code)


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    if _start is not None:
        _received = number
        if not _start.raised:
            _start.raised = True
            raise EndedEarly(number)
        return  # it is ending
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
