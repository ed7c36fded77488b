"""Every command of README.md: those that need no GPU, network or cluster are run, in its order.

The others are read as the command reads them: the verb, its options, the keys of a configuration.
A line of a kind that is not known here fails, for somebody has to say what becomes of it.
"""

import re
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

from res2net.cli import main as cli
from res2net.config.load import load_config
from res2net.errors import InputError
from runs import COMMAND
from samples import NAMES, VARIANT, photo

pytestmark = pytest.mark.usefixtures("undrawn")  # what a training draws is looked at elsewhere

HOME = Path(__file__).parents[2]
README = (HOME / "README.md").read_text()
FENCED = r"^```(\w*)\n(.*?)^```$"
BLOCKS = re.findall(FENCED, README, re.M | re.S)
(TRANSCRIPT,) = (text for language, text in BLOCKS if language == "console")
COMMANDS = ("bash", "sh", "console")
"""Languages of blocks that hold commands; of `console` the lines that begin with `$ `."""

# What a line's capitals stand for; `place` makes them.
PLACES = ("ROOT", "PHOTOS", "DIGITS", "RUN", "SHARDS")
ABSENT = ("/datasets/", "in1k", "cifar10", "cifar100")
"""Words of a line whose data or weights are not on this machine."""

# What is added to a line, so that it takes seconds.
QUICK = ["logging.wandb=disabled", "trainer.max_epochs=1", "schedule.warmup_epochs=0"]
SMALL = [
    f"model.name={VARIANT}",
    "data.image_size=32",
    "data.global_batch_size=8",
    "data.eval_batch_size=8",
]
RUN = ("train", "test", "predict", "features", "cam", "convert", "export", "models", "data check")
RUN += ("data shard", "status", "compare", "submit")
# a server, which does not end; minutes; a look at all of the machine; a download
READ = ("demo", "bench loader", "bench model", "bench train", "bench suite", "doctor")
READ += ("data download",)


def lines(language: str, text: str) -> list[list[str]]:
    """The words of each command of a block, comments left out."""
    if language == "console":
        told = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
        assert told, f"a block of console without a line that begins with `$ `: {text}"
    else:
        told = text.replace("\\\n", " ").splitlines()
    return [words for line in told if (words := shlex.split(line, comments=True))]


WRITTEN = [
    words for language, text in BLOCKS if language in COMMANDS for words in lines(language, text)
]
VERBS = [words for words in WRITTEN if words[0] == "res2net"]


def of_other_pages() -> list[list[str]]:
    """Commands in blocks of the folders' pages, and those in tables beside others' commands."""
    found = []
    for page in ("configs/README.md", "data/README.md", "slurm/README.md"):
        for language, text in re.findall(FENCED, (HOME / page).read_text(), re.M | re.S):
            found += lines(language, text) if language in COMMANDS else []
    for span in re.findall(r"`(res2net [^`]+)`", (HOME / "checkpoints/coming-from.md").read_text()):
        found.append(shlex.split(span))
    return [words for words in found if words[0] == "res2net"]


ELSEWHERE = of_other_pages()


def split_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """`res2net data check X` -> `data check`, [X]."""
    verb, *rest = words[1:]
    assert verb in cli.VERBS, f"no such verb: {shlex.join(words)}"
    if of_verb := getattr(import_module(f"res2net.cli.{verb}"), "VERBS", None):
        assert rest and rest[0] in of_verb, f"no such verb: {shlex.join(words)}"
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    return verb, rest


def is_run(words: Sequence[str]) -> bool:
    verb, rest = split_verb(words)
    assert verb in (*RUN, *READ), f"is `{verb}` to be run here, or only read?"
    if verb == "submit":
        return True  # as a dry run, which looks at no data
    return verb in RUN and not any(absent in word for word in rest for absent in ABSENT)


def accept(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Read a line as the command does, without doing what it asks."""
    verb, _ = split_verb(words)
    read = []
    module = import_module(f"res2net.cli.{verb.replace(' ', '_')}")
    monkeypatch.setattr(module, "run", lambda arguments: read.append(arguments) or 0)
    assert cli.main(words[1:]) == 0, shlex.join(words)
    (arguments,) = read
    if hasattr(arguments, "overrides"):
        load_config(arguments.config, arguments.overrides)


# --- Lines that are only read --------------------------------------------------------------------


def test_every_block_is_of_a_known_kind() -> None:
    assert README.count("\n```") == 2 * len(BLOCKS)
    assert {language for language, _ in BLOCKS} <= {*COMMANDS, "python", "yaml", "text", ""}
    for language, text in BLOCKS:
        if language not in COMMANDS:
            begins = ("$ ", "res2net ", "make ", "pip ")
            assert not [line for line in text.splitlines() if line.startswith(begins)], text
    assert len(WRITTEN) > 15, "the blocks are not found any more"
    assert sum(map(is_run, VERBS)) > 8, "next to nothing is run any more"
    assert len(ELSEWHERE) > 15


@pytest.mark.parametrize(
    "words", [words for words in WRITTEN if words[0] != "res2net"], ids=shlex.join
)
def test_what_is_no_command_of_ours_is_there(words: list[str]) -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    match words:
        case ["make", target]:
            assert re.search(rf"^{target}:", (HOME / "Makefile").read_text(), re.M)
        case ["source" | ".", ".venv/bin/activate"] | ["python3", "-m", "venv", ".venv"]:
            pass
        case ["git", "clone", _, *rest] | ["cd", *rest]:
            assert len(rest) < 2
        case ["pip", "install", *wanted]:
            for package in wanted:
                found = re.fullmatch(r"(?:\.|res2net[-_]lightning)(?:\[([\w,]+)\])?", package)
                assert found, package
                extras = set((found[1] or "").split(",")) - {""}
                assert extras <= set(project["optional-dependencies"]), package
        case _:
            raise AssertionError(f"a line of an unknown kind: {shlex.join(words)}")


@pytest.mark.parametrize("words", [words for words in VERBS if not is_run(words)], ids=shlex.join)
def test_what_is_not_run_is_accepted(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    accept(words, monkeypatch)


@pytest.mark.parametrize("words", ELSEWHERE, ids=shlex.join)
def test_commands_of_other_pages_are_accepted(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(words, monkeypatch)


def test_a_line_that_rots_is_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in ("res2net trains quickstart", "res2net data chek ROOT"):
        with pytest.raises(AssertionError, match="no such verb"):
            accept(shlex.split(line), monkeypatch)
    with pytest.raises(AssertionError, match="--shet"):
        accept(shlex.split("res2net predict RUN PHOTOS --shet s.png"), monkeypatch)
    assert "no such option" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"optim\.lrr"):
        accept(shlex.split("res2net train quickstart optim.lrr=1"), monkeypatch)
    with pytest.raises(AssertionError, match="unknown kind"):
        test_what_is_no_command_of_ours_is_there(["curl", "ADDRESS"])


def test_options_in_the_text_are_those_of_a_command() -> None:
    """Options in sentences belong to some verb, keys to the configuration."""
    sentences = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    spans = re.findall(r"`([^`]+)`", sentences)
    parsers = []
    for path in sorted((HOME / "app/res2net/cli").glob("*.py")):
        module = import_module(f"res2net.cli.{path.stem}")
        if hasattr(module, "add_arguments"):
            parsers.append(cli._Parser(prog=path.stem))
            module.add_arguments(parsers[-1])
    known = {option for parser in parsers for option in parser._option_string_actions}
    told = {o for span in spans for o in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", span)}
    assert len(told) > 15 and told <= known | {"--version"}, told - known
    for span in spans:
        words = span.split()
        if words[:1] == ["res2net"]:
            split_verb(words) if len(words) > 2 else cli.VERBS[words[-1]]


# --- Lines that are run --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the lines name: photographs in folders of classes, and configs/."""
    folder = tmp_path_factory.mktemp("readme")
    for number in range(40):
        name = NAMES[number % 2]
        for path in (folder / "PHOTOS", folder / "ROOT/train" / name, folder / "ROOT/val" / name):
            path.mkdir(parents=True, exist_ok=True)
            image = photo(number, (72, 64))
            if number % 2:  # there is something to learn
                image = image.point(lambda value: value // 3)
            image.save(path / f"{path.parts[-2]}-{number}.jpg")
    (folder / "DIGITS").symlink_to("PHOTOS")
    (folder / "RUN").symlink_to("checkpoints/quickstart")
    (folder / "configs").symlink_to(HOME / "configs")
    return folder


def quick(words: Sequence[str], number: int) -> list[str]:
    """The line's arguments, made a matter of seconds."""
    verb, rest = split_verb(words)
    for word in rest:
        for capitals in re.findall(r"(?<![\w.-])[A-Z]{3,}(?![\w.-])", word):
            assert capitals in PLACES, f"what is {capitals} of {shlex.join(words)}?"
    if verb == "train":  # after the configuration: what the line itself says counts
        own = {word.partition("=")[0] for word in rest}
        more = [*QUICK, *(SMALL if "quickstart" not in rest else ())]
        if not {"run.name", "run.resume"} & own:
            more.append(f"run.name=readme-{number}")
        rest[1:1] = more
    if verb == "submit":
        rest += ["--dry-run", "--no-check"]
    return [*verb.split(), *rest]


def test_commands_do_what_they_say(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    # `make quickstart`, in one epoch
    assert cli.main(["train", "quickstart", *QUICK]) == 0
    transcript = lines("console", TRANSCRIPT)
    run = [words for words in VERBS if is_run(words) and words not in transcript]
    for number, words in enumerate(run):
        capsys.readouterr()
        code = cli.main(quick(words, number))
        told = capsys.readouterr()
        assert code == 0, f"{shlex.join(words)}: exit code {code}\n{told.err}"
        assert told.out.strip(), f"{shlex.join(words)}: says nothing"
        for option, file in pairwise(words):
            made = ("--out", "--sheet", "--preview", "--plot-schedule")
            assert option not in made or Path(file).exists(), f"{shlex.join(words)}: no {file}"
    # those in Python, but the detector, which test_backbone.py runs
    python = re.findall(r"([^\n]*)\n```python\n(.*?)^```$", README, re.M | re.S)
    texts = [text for before, text in python if before != "<!-- backbone -->"]
    assert len(texts) == len(python) - 1 > 0
    for text in texts:
        exec(compile(text, "README.md", "exec"), {"__name__": "readme"})


def shape(line: str) -> str:
    """A line without its figures; of an epoch's or of mistakes, what stands in each."""
    told = line.partition("  lr ")[0]
    without = re.sub(r"\d[\d.,]*(e-\d+)?", "0", told)
    return without.replace("; 0 taken for 0 (0 of 0)", "")


def test_the_transcript_is_what_is_printed(
    place: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    for part in TRANSCRIPT.removeprefix("$ ").split("\n$ "):
        line, *shown = part.splitlines()
        words = shlex.split(line)
        arguments = quick(words, 0)
        if words[1] == "train":
            # more for the one that is interrupted: it must not end before it hears of it
            epochs = 9 if "^C" in shown else 3 if "run.resume=auto" in words else 1
            arguments.append(f"trainer.max_epochs={epochs}")
        if "^C" in shown:
            printed = interrupted(arguments, environment)
        else:
            assert cli.main(arguments) == 0
            told = capfd.readouterr()
            printed = [*told.out.splitlines(), *told.err.splitlines()]
        wanted = {shape(each) for each in shown} - {"^C", "..."}
        assert len(wanted) > 1 and wanted <= {*map(shape, printed)}, printed


def interrupted(arguments: Sequence[str], environment: dict[str, str]) -> list[str]:
    """Lines of a training that gets a Ctrl-C after its first epoch."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    printed = []
    for told in process.stdout:
        printed.append(told.rstrip())
        if told.startswith("epoch 1/"):
            process.send_signal(signal.SIGINT)
    assert process.wait(60) == 75, printed
    return printed
