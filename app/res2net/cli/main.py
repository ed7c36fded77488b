"""The command: find the verb, parse its arguments, run it, turn its errors into exit codes.

    0    done                       75   stopped by a signal, state saved (`train`)
    1    work failed (WorkError)    130  interrupted from the keyboard
    2    bad input (InputError)

Each verb is a file of this folder with `add_arguments(parser)` and `run(arguments) -> exit code`,
imported only when that verb is used: `--help` answers without PyTorch.
"""

import argparse
import difflib
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from res2net.errors import InputError, WorkError

VERBS: dict[str, str] = {
    "train": "train from scratch, fine-tune or resume",
    "test": "accuracy of a run, a checkpoint or published weights on a data set",
    "predict": "classes of images",
    "features": "pooled features of images, in one file",
    "convert": "weights of any origin under the names of other code",
    "models": "the variants: parameters, MACs, published accuracy, aliases",
    "doctor": "what this machine offers and what is missing",
}

SECONDS_BETWEEN_RANKS = 5.0
"""How far apart ranks may come to the same refusal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` defaults to the process's arguments.

    Prints InputError, WorkError and an interruption as one line, on global rank 0 only. Any other
    exception is a bug and leaves with its traceback.
    """
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, where a broken pipe is caught
        return code
    except InputError as error:
        _fail(f"error: {error}", 2)
        _wait_for_other_ranks()
        return 2
    except WorkError as error:
        return _fail(f"error: {error}", 1)
    except KeyboardInterrupt as error:
        return _fail(f"interrupted {error}", 130)
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # another pipe broke: a worker's, a server's
        return 1


def entry_point() -> NoReturn:
    """What the `res2net` script calls."""
    sys.exit(main())


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    name, *rest = arguments
    if name == "--version":
        from importlib.metadata import version

        print(f"res2net {version('res2net-lightning')}")
        return 0
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"{name!r}: no such verb{hint} (verbs: {', '.join(VERBS)})")
    verb = import_module(f"res2net.cli.{name}")
    parser = _Parser(prog=f"res2net {name}", description=_sentence(VERBS[name]), allow_abbrev=False)
    verb.add_arguments(parser)
    parsed = parser.read(rest)
    return verb.run(parsed) if parsed else 0


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one line: an InputError instead of a usage block and an exit."""

    def read(self, arguments: list[str]) -> argparse.Namespace | None:
        """None if help was asked for and printed. Raises InputError."""
        try:
            # Intermixed: options may stand between positional arguments.
            parsed, unknown = self.parse_known_intermixed_args(arguments)
        except SystemExit:  # argparse's way to end --help; its errors come through `error`
            return None
        for argument in unknown:
            if not argument.startswith("-"):
                self.error(f"{argument!r}: one argument too many")
            option = argument.partition("=")[0]
            known = sorted(name for name in self._option_string_actions if name.startswith("--"))
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"{option}: no such option{hint} (options: {', '.join(known)})")
        return parsed

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def _help() -> str:
    lines = [f"  {name:<10}{line}" for name, line in VERBS.items()]
    return "\n".join(
        [
            "usage: res2net VERB ...",
            "",
            "Train, fine-tune, resume, evaluate and use Res2Net image classifiers.",
            "",
            *lines,
            "",
            "`res2net VERB --help` tells more; `res2net --version` prints the version.",
        ]
    )


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _fail(message: str, code: int) -> int:
    from res2net.files.runs import is_rank_zero

    if is_rank_zero():
        print(" ".join(message.split()), file=sys.stderr)
    return code


def _wait_for_other_ranks() -> None:
    """Every rank refuses bad input by itself; only, not all at the same moment.

    srun (`--kill-on-bad-exit`) and torchrun terminate all ranks when the first has failed: rank 0
    before it has said why, and srun would exit with 143 instead of 2.
    """
    environment = os.environ
    tasks = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_ID" in environment else "1"
    if int(environment.get("WORLD_SIZE", tasks)) > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(SECONDS_BETWEEN_RANKS)


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more (`| head`); if so, silence what is still buffered."""
    try:
        print(flush=True)  # nothing less than a write finds out
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
