"""Foreign bytes given to a reader in processes of their own, with bounded memory and time.

A server imports the reader once; for each example it forks a child, so that a crash, a hang or a
gigabyte is that one example's, and Hypothesis can shrink it:

    with Reader("res2net.weights.read.read_weights", tmp_path, suffix=".pth") as reader:
        outcome = reader.read(b"...")          # a dict of name -> bytes makes a directory
        outcome.check()                        # nothing but a result or one line of InputError
        feed(reader, mutated(b"..."), FEW)     # the same, of 200 examples by Hypothesis

The function gets the path as its only argument. What it takes more than once (imports, caches) is
done on `warm` before the first example, so that it is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Content = bytes | Mapping[str, bytes]
"""Of a file; or of the files of a directory, by their names."""

MEGABYTE = 2**20
FREE = 64 * MEGABYTE
"""Beside ten times the bytes of its files a reader may take so much."""
LONGEST_LINE = 3000
"""Of an error: a line for people does not repeat a file."""
_ADDRESSES = 8 * 2**30
"""Bytes of memory that a child may ask for: what is declared and never touched counts."""


@dataclass(frozen=True)
class Outcome:
    """What became of one example."""

    kind: str
    """ok, refused (InputError), failed (WorkError), traceback, crash (a signal) or hang."""
    detail: str
    """The error's line, the name of the signal, or the traceback."""
    memory: int
    """Bytes that were taken at the highest, beside what the process had before."""
    size: int
    """Bytes of the example's files."""

    @property
    def allowed(self) -> int:
        """Bytes of memory that the promise leaves it."""
        return 10 * self.size + FREE

    def faults(self) -> list[str]:
        """What breaks the promise; empty: nothing."""
        found = []
        if self.kind not in ("ok", "refused"):
            found.append(f"{self.kind}: {self.detail}")
        if self.kind == "refused" and not 0 < len(self.detail) <= LONGEST_LINE:
            found.append(f"a line of {len(self.detail)} characters: {self.detail[:300]}")
        if self.memory > self.allowed:
            found.append(
                f"{self.memory / MEGABYTE:.0f} MB of memory for {self.size} bytes ({self.kind}: "
                f"{self.detail[:300]})"
            )
        return found

    def check(self) -> None:
        """Fails the test that asks where the promise is broken."""
        assert self.faults() == []


class Reader:
    """A function that reads a path, in a process that outlives its crashes.

    Args:
        function: by its dotted name, such as `res2net.weights.read.read_weights`.
        folder: where the examples are written, one at a time.
        suffix: of the examples' name.
        warm: an example that is read once before all others; what becomes of it is no matter.
        seconds: of processor time for one example; of any time five times as much.
    """

    def __init__(
        self,
        function: str,
        folder: Path,
        *,
        suffix: str = "",
        warm: Content | None = None,
        seconds: int = 20,
    ) -> None:
        self.kinds: Counter[str] = Counter()
        """How many examples came to which end."""
        self.largest = 0.0
        """Memory of an example as a part of what it is allowed, the greatest."""
        self._path = folder / f"example{suffix}"
        self._server = subprocess.Popen(
            [sys.executable, __file__, function, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # threads of a pool do not live on in a forked child
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        if warm is not None:
            self._ask(warm, "warm")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the server; the example that was read last stays."""
        assert self._server.stdin and self._server.stdout
        with suppress(BrokenPipeError):  # it has ended, which `_answer` tells
            self._server.stdin.close()
        self._server.wait(60)
        self._server.stdout.close()

    def read(self, content: Content) -> Outcome:
        """Write the example, and let a child read it."""
        return self._ask(content, "read")

    def read_path(self, path: Path, *, size: int = 0) -> Outcome:
        """Let a child read what lies there already: a link, a pipe, a directory."""
        return self._answer(path, size, "read")

    def _ask(self, content: Content, what: str) -> Outcome:
        if self._path.is_dir():
            shutil.rmtree(self._path)
        self._path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            self._path.write_bytes(content)
            return self._answer(self._path, len(content), what)
        self._path.mkdir()
        for name, inside in content.items():
            (self._path / name).parent.mkdir(parents=True, exist_ok=True)
            (self._path / name).write_bytes(inside)
        return self._answer(self._path, sum(map(len, content.values())), what)

    def _answer(self, path: Path, size: int, what: str) -> Outcome:
        assert self._server.stdin and self._server.stdout
        with suppress(BrokenPipeError):
            print(json.dumps([what, str(path)]), file=self._server.stdin, flush=True)
        line = self._server.stdout.readline()
        if not line:
            code = self._server.wait(60)
            raise AssertionError(f"the reader's server ended with {code}, not for an example")
        outcome = Outcome(**json.loads(line), size=size)
        if what == "read":
            self.kinds[outcome.kind] += 1
            self.largest = max(self.largest, outcome.memory / outcome.allowed)
        return outcome


# --- Examples ------------------------------------------------------------------------------------

FEW = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""For `make test`: the same examples each time."""
MANY = settings(FEW, max_examples=10_000, derandomize=False)
"""For `make soak`: others each time."""


def feed(reader: Reader, contents: st.SearchStrategy[Any], how_many: settings) -> None:
    """Let the reader read examples, and fail with the smallest that breaks the promise."""

    @how_many
    @given(contents)
    def each(content: Content) -> None:
        reader.read(content).check()

    each()
    print(f"{dict(reader.kinds)}, at most {reader.largest:.0%} of the memory allowed")


@st.composite
def mutated(draw: st.DrawFn, *valid: bytes, pieces: Sequence[bytes] = ()) -> bytes:
    """Valid contents with some places changed, cut out, doubled or filled with one of `pieces`."""
    content = bytearray(draw(st.sampled_from(valid)))
    filling = st.binary(min_size=1, max_size=8)
    if pieces:
        filling = filling | st.sampled_from(list(pieces))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 16) | st.integers(0, len(content)))
        what = draw(st.sampled_from(["change", "cut", "insert", "double", "end"]))
        if what == "change":
            new = draw(filling)
            content[start : start + len(new)] = new
        elif what == "cut":
            del content[start : start + length]
        elif what == "insert":
            content[start:start] = draw(filling)
        elif what == "double":
            content[start:start] = content[start : start + length]
        else:
            del content[start:]
    return bytes(content)


# --- The server ----------------------------------------------------------------------------------


def _serve(function: Callable[[Path], Any], seconds: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a reader prints
    os.dup2(1, 2)
    for line in sys.stdin:
        what, path = json.loads(line)
        if what == "warm":
            _outcome(function, Path(path))
            answer = {"kind": "ok", "detail": "", "memory": 0}
        else:
            answer = _in_a_child(function, Path(path), seconds)
        print(json.dumps(answer), file=answers, flush=True)


def _in_a_child(function: Callable[[Path], Any], path: Path, seconds: int) -> dict[str, Any]:
    told, telling = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(told)
            before = _status("VmRSS")
            _limit(seconds)
            kind, detail = _outcome(function, path)
            told_now = json.dumps({"kind": kind, "detail": detail, "before": before})
            with os.fdopen(telling, "w") as stream:
                stream.write(told_now)
        finally:
            os._exit(0)
    before = _status("VmRSS")
    os.close(telling)
    with os.fdopen(told) as stream:
        text = stream.read()
    _, status, usage = os.wait4(child, 0)
    answer = {"kind": "crash", "detail": "it ended without a word", "before": before}
    if text:
        answer = json.loads(text)
    elif os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        answer["detail"] = signal.Signals(number).name
        if number in (signal.SIGXCPU, signal.SIGALRM):
            answer["kind"] = "hang"
    memory = 1024 * (usage.ru_maxrss - answer.pop("before"))
    return answer | {"memory": max(memory, 0)}


def _limit(seconds: int) -> None:
    """From here on a signal ends what takes too long, and memory runs out before the machine's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 5 * seconds)
    most = 1024 * _status("VmSize") + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _outcome(function: Callable[[Path], Any], path: Path) -> tuple[str, str]:
    from res2net.errors import InputError, WorkError

    try:
        function(path)
    except InputError as error:
        return "refused", str(error)
    except WorkError as error:
        return "failed", str(error)
    except BaseException:
        return "traceback", traceback.format_exc()[-3000:]
    return "ok", ""


def _status(field: str) -> int:
    """Kilobytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    _module, _, _name = sys.argv[1].rpartition(".")
    _serve(getattr(import_module(_module), _name), int(sys.argv[2]))
