"""What the command answers, where it prints it and with which exit code."""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from res2net import stopping
from res2net.cli.main import SECONDS_BETWEEN_RANKS, VERBS, main
from res2net.errors import InputError, Stopped, WorkError
from res2net.files.atomic import atomic_write

COMMAND = [sys.executable, "-m", "res2net"]
VERB_HELPS = [[name, "--help"] for name in VERBS if find_spec(f"res2net.cli.{name}")]
VERB_LIST = f"(verbs: {', '.join(VERBS)})"


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def verb(monkeypatch):
    """Put a verb `train` in place that takes CONFIG and arguments and runs `function`."""

    def put(function):
        def add_arguments(parser):
            parser.add_argument("config", metavar="CONFIG")
            parser.add_argument("overrides", metavar="key=value", nargs="*", default=[])
            parser.add_argument("--dry-run", action="store_true")
            parser.add_argument("--topk", type=int, default=5)
            parser.add_argument("--checkpoint", choices=["last", "best"])

        module = SimpleNamespace(add_arguments=add_arguments, run=function)
        monkeypatch.setitem(sys.modules, "res2net.cli.train", module)

    return put


def failing(error: BaseException):
    def run(arguments):
        raise error

    return run


# --- Verbs and arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb(argv, capsys):
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, line in VERBS.items():
        assert f"  {name:<10}{line}\n" in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("res2net 0.")


def test_a_verbs_help(verb, capsys):
    verb(failing(AssertionError("not to be run")))
    assert main(["train", "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: res2net train ")
    assert "CONFIG" in out and VERBS["train"][1:] in out
    assert err == ""


def test_options_may_stand_between_arguments(verb):
    seen = []
    verb(lambda arguments: seen.append(arguments) or 75)
    assert main(["train", "quickstart", "a=1", "--dry-run", "b=2", "--topk", "3", "c=-1"]) == 75
    assert (seen[0].config, seen[0].overrides) == ("quickstart", ["a=1", "b=2", "c=-1"])
    assert (seen[0].dry_run, seen[0].topk) == (True, 3)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], f"'trian': no such verb; did you mean train? {VERB_LIST}"),
        (["zzz"], f"'zzz': no such verb {VERB_LIST}"),
        (["--json", "models"], f"'--json': no such verb {VERB_LIST}"),
        (["train"], "res2net train: the following arguments are required: CONFIG"),
        (
            ["train", "x", "--dryrun"],
            "res2net train: --dryrun: no such option; did you mean --dry-run? "
            "(options: --checkpoint, --dry-run, --help, --topk)",
        ),
        (
            ["train", "x", "--dry"],
            "res2net train: --dry: no such option; did you mean --dry-run? "
            "(options: --checkpoint, --dry-run, --help, --topk)",
        ),
        (
            ["train", "x", "--optim.lr=3"],
            "res2net train: --optim.lr: no such option "
            "(options: --checkpoint, --dry-run, --help, --topk)",
        ),
        (["train", "x", "--topk", "a"], "res2net train: argument --topk: invalid int value: 'a'"),
        (["models", "a", "b"], "res2net models: 'b': one argument too many"),
    ],
)
def test_a_usage_error_is_one_line_and_2(verb, argv, message, capsys):
    verb(failing(AssertionError("not to be run")))
    assert main(argv) == 2
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_a_wrong_choice_names_the_choices(verb, capsys):
    verb(failing(AssertionError("not to be run")))
    assert main(["train", "x", "--checkpoint", "first"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in ("--checkpoint", "'first'", "last", "best"):
        assert word in err


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("optim.lr: 'x' is\nnot a number"), 2, "error: optim.lr: 'x' is not a number"),
        (WorkError("disk full", of_all_ranks=True), 1, "error: disk full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Stopped("by SIGTERM", number=15), 75, "stopped by SIGTERM"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(verb, monkeypatch, capsys, error, code, line):
    verb(failing(error))
    assert main(["train", "x"]) == code
    assert capsys.readouterr() == ("", f"{line}\n")
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        with monkeypatch.context() as other_rank:
            other_rank.setenv(name, "1")
            assert main(["train", "x"]) == (0 if code == 75 else code)
            assert capsys.readouterr() == ("", "")
        monkeypatch.setenv(name, "0")
    assert main(["train", "x"]) == code
    assert capsys.readouterr() == ("", f"{line}\n")


def test_what_one_rank_alone_fails_in_is_told_by_it(verb, monkeypatch, capsys):
    verb(failing(WorkError("no such image")))
    monkeypatch.setenv("SLURM_PROCID", "12")
    assert main(["train", "x"]) == 1
    assert capsys.readouterr() == ("", "rank 12: error: no such image\n")


def test_what_one_rank_alone_refuses_is_told_by_it_after_rank_zero(verb, monkeypatch, capsys):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    verb(failing(InputError("no GPU here")))
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("RANK", "12")
    assert main(["train", "x"]) == 2
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # such a process ends here
    assert waited == [2 * SECONDS_BETWEEN_RANKS]
    assert capsys.readouterr() == ("", "rank 12: error: no GPU here\n")


def test_training_notes_signals_and_what_it_forks_does_not(verb, monkeypatch):
    seen = []

    def train(arguments):
        stopping.trained()
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append(stopping.received())
        child = os.fork()
        if not child:
            os._exit(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
        seen.append(os.waitpid(child, 0)[1])
        os.kill(os.getpid(), signal.SIGINT)  # the first is noted
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    verb(train)
    assert main(["train", "x"]) == 130
    assert seen == [signal.SIGTERM, 0]
    # nothing is left behind
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_verbs_end_in_order_and_what_they_fork_at_once(number, monkeypatch, capsys, tmp_path):
    seen = []
    started_with = signal.signal(number, signal.SIG_DFL)  # by nohup it is ignored

    def work(arguments):
        child = os.fork()
        if not child:
            os._exit(signal.getsignal(number) is not signal.SIG_DFL)
        seen.append(os.waitpid(child, 0)[1])
        with atomic_write(tmp_path / "made") as stream:
            stream.write(b"half")
            os.kill(os.getpid(), number)
            stream.write(b"the other half")
        return 0

    module = SimpleNamespace(add_arguments=lambda parser: None, run=work)
    monkeypatch.setitem(sys.modules, "res2net.cli.models", module)
    assert main(["models"]) == 128 + number
    assert seen == [0]
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr() == ("", f"ended by {signal.Signals(number).name}\n")
    assert signal.getsignal(number) is signal.SIG_DFL  # nothing is left behind
    before = signal.signal(number, signal.SIG_IGN)  # as under nohup
    try:
        assert main(["models"]) == 0
    finally:
        signal.signal(number, before)
    signal.signal(number, started_with)


def test_a_bug_keeps_its_traceback(verb):
    verb(failing(ZeroDivisionError("bug")))
    with pytest.raises(ZeroDivisionError, match="bug"):
        main(["train", "x"])


def test_another_pipe_than_stdout_is_no_quiet_end(verb):
    verb(failing(BrokenPipeError("a worker's")))
    with pytest.raises(BrokenPipeError, match="a worker's"):
        main(["train", "x"])


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["models", "--json"]])
def test_a_closed_pipe_ends_quietly(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_name_that_the_terminal_s_encoding_lacks_is_escaped(tmp_path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*COMMAND, "status", str(tmp_path / "日本")], capture_output=True, env=environment
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"\\u65e5\\u672c" in done.stderr and done.stderr.count(b"\n") == 1
    done = subprocess.run(
        [*COMMAND, "submit", "quickstart", "run.name=日本", "--dry-run", "--no-check"],
        capture_output=True,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and b"\\u65e5\\u672c" in done.stdout, done.stderr


def test_after_all_is_saved_ctrl_c_hurries_nothing(verb, monkeypatch):
    def train(arguments):
        stopping.trained()
        os.kill(os.getpid(), signal.SIGINT)
        assert stopping.received() == signal.SIGINT and not stopping.is_leaving()
        stopping.leave_in_peace()
        os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(stopping, "PATIENCE", 0.0)  # but not for ever
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.undo()
        verb(train)
        raise Stopped("by SIGINT at step 3", number=signal.SIGINT)

    verb(train)
    for _ in range(2):  # and the next run begins anew
        assert main(["train", "x"]) == 75


def test_the_command_exits_with_mains_code():
    done = subprocess.run([*COMMAND, "trian"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: 'trian': no such verb; did you mean train? {VERB_LIST}\n"


# --- Start-up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["--help"], ["models"], ["models", "--json"], *VERB_HELPS])
def test_answers_quickly_and_without_torch(argv):
    code = (
        "import sys\n"
        "from res2net.cli.main import main\n"
        f"assert main({argv!r}) == 0\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    seconds: list[float] = []
    while len(seconds) < 3 and not any(second < 0.5 for second in seconds):
        # of the processor: other tests run at the same time
        start = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        end = os.times()
        seconds.append(
            end.children_user - start.children_user + end.children_system - start.children_system
        )
    assert min(seconds) < 0.5


def test_a_file_whose_name_begins_with_a_dash_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-dash.jpg").touch()
    assert main(["predict", "res2net_digits", "-dash.jpg"]) == 2
    assert capsys.readouterr().err == (
        "error: res2net predict: -dash.jpg: no such option; the file of that name is ./-dash.jpg\n"
    )
    assert main(["predict", "res2net_digits", "-other.jpg"]) == 2
    assert "-other.jpg: no such option (options: " in capsys.readouterr().err
