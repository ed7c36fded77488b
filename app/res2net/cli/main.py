"""The command: find the verb, parse its arguments, run it, turn its errors into exit codes.

    0    done                       75   stopped by a signal, state saved (`train`)
    1    work failed (WorkError)    130  interrupted from the keyboard
    2    bad input (InputError)     143  ended by SIGTERM (129: SIGHUP); `train`: 75
                                    141  nobody reads stdout any more, as a shell tells of SIGPIPE

Each verb is a file of this folder with `add_arguments(parser)` and `run(arguments) -> exit code`,
imported only when that verb is used: `--help` answers without PyTorch. The file of a verb that has
verbs of its own holds `VERBS`, a table of them; `data check` is the file data_check.py.
"""

import argparse
import difflib
import errno
import io
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from res2net import parent, stopping
from res2net.errors import InputError, Stopped, WorkError

VERBS: dict[str, str] = {
    "train": "train from scratch, fine-tune or resume",
    "test": "accuracy of a run, a checkpoint or published weights on a data set",
    "predict": "classes of images",
    "features": "pooled features of images, in one file",
    "cam": "pictures of where a network looks, alone or beside another",
    "demo": "a page in the browser: drop an image, see classes and where the network looks",
    "convert": "weights of any origin under the names of other code",
    "export": "a trained network for other programs: ONNX, torch.export, safetensors, a folder",
    "models": "the variants: parameters, MACs, published accuracy, aliases",
    "data": "look at a data set, download one, write shards",
    "status": "what runs are doing, how far they are, and what to do next",
    "compare": "figures, settings and curves of several runs, side by side",
    "bench": "measure speed on this machine",
    "submit": "hand a training to a SLURM cluster",
    "doctor": "what this machine offers and what is missing",
}

SECONDS_BETWEEN_RANKS = 5.0
"""How far apart ranks may come to the same refusal."""

STOPPED = 75
"""sysexits.h: a temporary failure, try again."""

NOBODY_READS = 141
"""As a shell tells of SIGPIPE, which ends other programs then."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` defaults to the process's arguments.

    Prints InputError, WorkError, Stopped and an interruption as one line, once for all ranks. Any
    other exception is a bug and leaves with its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["train"]:
            # not when it is needed: a thread would wait for what the main thread is importing
            import_module("res2net.callbacks.requeue")
            stopping.listen(_leave_early)
        else:
            stopping.end_in_order()
        _check_text(arguments)
        code = _dispatch(arguments)
        sys.stdout.flush()  # here, where a broken pipe is caught
        return code
    except InputError as error:
        return _refuse(f"error: {error}")
    except WorkError as error:
        return _fail(f"error: {error}", 1, every_rank=not error.of_all_ranks)
    except Stopped as stopped:
        # a launcher ends all ranks when one fails: rank 0 speaks for all, and may not be hurried
        return _fail(f"stopped {stopped}", STOPPED) if _rank() == 0 else 0
    except stopping.EndedEarly as early:
        return stopping.leave_early(early)
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:
        if not _stdout_is_closed():
            raise  # another pipe broke: a worker's, a server's
        return NOBODY_READS
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # Rich's way to tell of it
            return NOBODY_READS
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning's
            return _interrupted(error.__context__)
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _refuse(f"error: '{_brief(error.filename)}': longer than a name may be here")
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return _fail(f"error: {error}: make room and try again", 1, every_rank=True)
    except ValueError as error:
        if not str(error).startswith("embedded null"):  # what Python says of it, without the path
            raise
        return _refuse("error: a path holds a zero byte, which no name of a file does")
    finally:
        stopping.stop_listening()


def entry_point() -> NoReturn:
    """What the `res2net` script calls."""
    parent.end_with_launcher()
    # PyTorch asks once, at its first allocation: batches in large pages cost fewer page faults
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    # a name that the encoding of the terminal lacks ends nothing
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    code = main()
    if stopping.is_leaving():  # all is saved and told, and the interpreter ends
        stopping.leave_in_peace()
    sys.exit(code)


def _check_text(arguments: Sequence[str]) -> None:
    """Raises InputError for what no shell hands over, and no name of a file is."""
    for argument in arguments:
        try:
            if b"\0" in os.fsencode(argument):
                raise InputError(f"'{_brief(argument)}': holds a zero byte")
        except UnicodeEncodeError as error:
            raise InputError(f"'{_brief(argument)}': is no text ({error.reason})") from error


def _dispatch(arguments: list[str]) -> int:
    if arguments and arguments[0] == "--version":
        from importlib.metadata import version

        print(f"res2net {version('res2net-lightning')}")
        return 0
    about = "Train, fine-tune, resume, evaluate and use Res2Net image classifiers."
    more = "; `res2net --version` prints the version"
    return _run_verb(arguments, VERBS, "res2net", about=about, more=more)


def _run_verb(
    arguments: list[str], verbs: Mapping[str, str], command: str, *, about: str, more: str = ""
) -> int:
    """Run the verb that `arguments` begin with, one of `verbs`; `command` is what stands before."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help(verbs, command, about, more))
        return 0
    name, *rest = arguments
    if name not in verbs:
        near = difflib.get_close_matches(name[:60], verbs, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        of = "" if verbs is VERBS else f" of {command}"
        raise InputError(f"'{_brief(name)}': no such verb{of}{hint} (verbs: {', '.join(verbs)})")
    program = f"{command} {name}"
    about = _sentence(verbs[name])
    verb = import_module("res2net.cli." + "_".join(program.split()[1:]))
    if verbs_of_verb := getattr(verb, "VERBS", None):
        return _run_verb(rest, verbs_of_verb, program, about=about)
    parser = _Parser(prog=program, description=about, allow_abbrev=False)
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
                self.error(f"'{_brief(argument)}': one argument too many")
            if os.path.exists(argument):
                self.error(f"{argument}: no such option; the file of that name is ./{argument}")
            option = _brief(argument.partition("=")[0])
            known = sorted(name for name in self._option_string_actions if name.startswith("--"))
            near = difflib.get_close_matches(option[:60], known, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else ""
            self.error(f"{option}: no such option{hint} (options: {', '.join(known)})")
        self._refuse_nothing(parsed)
        return parsed

    def _refuse_nothing(self, parsed: argparse.Namespace) -> None:
        """Raises InputError for an option that is given as nothing, as by a variable that is not
        set: what it stands for would be done without it."""
        for action in self._actions:
            given = getattr(parsed, action.dest, None)
            texts = given if isinstance(given, list) else [given]
            nothing = "" in texts and "" not in (action.default, action.const)
            # argparse takes the value of --option=-- for the end of the options, and gives a list
            lost = [] in texts or (given == [] and action.default != [])
            if action.option_strings and (nothing or lost):
                value = "--" if lost else ""
                self.error(f"argument {'/'.join(action.option_strings)}: '{value}' names nothing")

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}")


def _help(verbs: Mapping[str, str], command: str, about: str, more: str) -> str:
    return "\n".join(
        [
            f"usage: {command} VERB ...",
            "",
            about,
            "",
            *(f"  {name:<10}{line}" for name, line in verbs.items()),
            "",
            f"`{command} VERB --help` tells more{more}.",
        ]
    )


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _fail(message: str, code: int, *, every_rank: bool = False) -> int:
    from res2net.cli.telling import say

    rank = _rank()
    if rank == 0 or every_rank:
        who = f"rank {rank}: " if rank else ""
        say(who + " ".join(message.split()))
    return code


def _interrupted(error: KeyboardInterrupt) -> int:
    if isinstance(error, stopping.Ended):
        return _fail(f"ended {error}", 128 + error.number)
    return _fail(f"interrupted {error}", 130)


def _leave_early(number: int) -> int:
    """End a training that a signal came to before its first step; nothing is to be saved.

    Rank 0 speaks for all and gives the job back to SLURM. The others wait to be taken along, where
    something would end rank 0 in the midst of that as soon as they have failed.
    """
    if _rank():
        if parent.LAUNCHER not in os.environ and _are_started_together():
            stopping.wait_for_another(2 * SECONDS_BETWEEN_RANKS)
        return STOPPED
    from res2net.callbacks.requeue import requeue

    became = requeue() if number != signal.SIGINT else ""
    name = signal.Signals(number).name
    return _fail(
        f"stopped by {name} before the first step; "
        f"{became or 'nothing was trained by this start, and nothing is in the way of the next'}",
        STOPPED,
    )


def _are_started_together() -> bool:
    """Whether srun or torchrun, or another rank, has started several processes."""
    environment = os.environ
    tasks = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_ID" in environment else "1"
    return int(environment.get("WORLD_SIZE", tasks)) > 1


def _refuse(message: str) -> int:
    """Every rank refuses bad input by itself; only, not all at the same moment.

    srun (`--kill-on-bad-exit`) and torchrun terminate all ranks when the first has failed: rank 0
    before it has said why, and srun would exit with 143 instead of 2. The others wait for rank 0 to
    refuse the same and to take them along; what only they refuse they tell afterwards.
    """
    _fail(message, 2)
    if _are_started_together():
        if _rank() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(SECONDS_BETWEEN_RANKS)
        else:
            signal.signal(signal.SIGTERM, lambda *_: os._exit(2))  # taken along
            time.sleep(2 * SECONDS_BETWEEN_RANKS)
            _fail(message, 2, every_rank=True)
    return 2


def _brief(text: object) -> str:
    from res2net.files.names import shown

    return shown(str(text), longest=60)


def _rank() -> int:
    from res2net.files.runs import global_rank

    return global_rank()


def _stdout_is_closed() -> bool:
    """Whether nobody reads stdout any more (`| head`); if so, silence what is still buffered."""
    try:
        print(flush=True)  # nothing less than a write finds out
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False
