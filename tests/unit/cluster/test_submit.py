"""The batch scripts: what they run, how one is filled in and handed to sbatch."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from res2net.cluster import submit
from res2net.cluster.submit import Allocation, batch_script, log_path, log_pattern, write_script
from res2net.config.load import load_config
from res2net.errors import InputError, WorkError
from res2net.files.names import shown

SCRIPTS = Path(__file__).parents[3] / "slurm"


def fake(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def run_script(
    script: Path, *arguments: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    """In the script's place a job would run it; `srun` prints what it was given, a line each."""
    fake(script.parent / "bin", "srun", 'printf "%s\\n" "$@" "$SRUN_CPUS_PER_TASK" "$PATH"')
    environment = {
        "PATH": f"{script.parent / 'bin'}:/usr/bin:/bin",
        "SLURM_CPUS_PER_TASK": "3",
        **variables,
    }
    done = subprocess.run(
        ["bash", str(script), *arguments],
        env=environment,
        cwd=script.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    for path in SCRIPTS.glob("*.sbatch"):
        (tmp_path / path.name).write_text(path.read_text())
    return tmp_path


def started(script: Path, *arguments: str, **variables: str) -> list[str]:
    """The command that srun starts."""
    lines = run_script(script, *arguments, **variables).stdout.splitlines()
    assert lines[:2] == ["--kill-on-bad-exit=1", "res2net"]
    assert lines[-2] == "3"
    return lines[2:-2]


def test_each_script_starts_its_verb(scripts: Path) -> None:
    assert started(scripts / "train.sbatch", "cifar10", "run.name=a b") == [
        "train",
        "cifar10",
        "run.resume=auto",
        "run.name=a b",
    ]
    assert started(scripts / "test.sbatch", "my run", "--ema") == ["test", "my run", "--ema"]
    for script, variables in (("train", {}), ("test", {}), ("array", {"SLURM_ARRAY_TASK_ID": "1"})):
        told = run_script(scripts / f"{script}.sbatch", code=2, **variables).stderr
        assert told.startswith("usage: sbatch ")
    assert run_script(scripts / "array.sbatch", "cifar10", code=2).stderr.startswith("usage: ")


@pytest.mark.parametrize("config", ["cifar10", "imagenet/paper", "own.yaml", "below/own", "own"])
def test_a_seed_of_an_array_has_its_own_name(
    scripts: Path, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts / "below").mkdir()
    for path in ("own.yaml", "below/own.yaml"):
        (scripts / path).write_text("")
    arguments = started(scripts / "array.sbatch", config, "optim.lr=1", SLURM_ARRAY_TASK_ID="7")
    monkeypatch.chdir(scripts)
    name = load_config(config, []).run.name  # what `res2net train` would call it
    assert arguments == [
        "train",
        config,
        "run.resume=auto",
        "optim.lr=1",
        f"run.name={name}-7",
        "run.seed=7",
    ]


def test_a_line_of_a_sweep(scripts: Path) -> None:
    (scripts / "sweep").write_text("optim.lr=1\noptim.lr=0.1  loss.name=* run.seed=4\n\n")
    script, both = scripts / "array.sbatch", ("cifar10", "run.name=x y")

    def line(number: str) -> list[str]:
        return started(script, *both, SETTINGS="sweep", SLURM_ARRAY_TASK_ID=number)

    assert line("1")[3:] == ["run.name=x y", "run.name=x y-1", "optim.lr=1"]
    assert line("2")[4:] == ["run.name=x y-2", "optim.lr=0.1", "loss.name=*", "run.seed=4"]
    for number, file in (("3", "sweep"), ("4", "sweep"), ("0", "sweep"), ("1", "missing")):
        variables = {"SETTINGS": file, "SLURM_ARRAY_TASK_ID": number}
        told = run_script(script, *both, code=2, **variables).stderr
        assert told.splitlines()[-1].startswith(f"error: {file} has no settings in line {number}")


def test_a_line_of_a_sweep_is_words_as_they_stand(scripts: Path) -> None:
    script = scripts / "array.sbatch"
    words = [
        "a='x",
        'b=y"',
        "c=$(touch_X)",
        "d=*",
        "e=\\\\n",
        "f=`x`",
        "g=;touch",
        "h=[red]",
        "i=~",
    ]
    (scripts / "-n").write_text(" ".join(words))  # nor is the file's name an option
    assert started(script, "cifar10", SETTINGS="-n", SLURM_ARRAY_TASK_ID="1")[4:] == words
    for line in ("--find-lr", "a=1\r", "a=1 b", "=1", "a=\x1b[31m", "A=1", "run.name"):
        (scripts / "bad").write_text(f"{line}\n")
        variables = {"SETTINGS": "bad", "SLURM_ARRAY_TASK_ID": "1"}
        told = run_script(script, "cifar10", code=2, **variables).stderr
        assert told.count("\n") == 1 and "in line 1 of bad is not key=value" in told
        assert shown(told.rstrip("\n")) == told.rstrip("\n")
    told = run_script(script, "cifar10", code=2, SETTINGS="bad", SLURM_ARRAY_TASK_ID="1w X").stderr
    assert told.startswith("usage: sbatch ")


def test_what_the_scripts_share_is_the_same() -> None:
    texts = [path.read_text() for path in SCRIPTS.glob("*.sbatch")]
    shared = [re.search(r"(?s)\n# --- the same in .*?\n# ---\n", text) for text in texts]
    assert len(texts) == 3
    assert len({found and found[0] for found in shared}) == 1
    for text in texts:
        lines = set(re.findall(r"#SBATCH --(\S+)", text))
        assert {"requeue", "open-mode=append"} <= lines
        assert ("signal=USR1@120" in lines) == ("res2net train" in text)


ALLOCATION = Allocation("mine", nodes=2, tasks=8, gpus=8, cpus=6, time="1:00:00", partition="gpu")


def lines_of(text: str) -> dict[str, str]:
    """Option -> value of the #SBATCH lines before the first command, as a shell would read them."""
    found = {}
    for line in text.split("\nset -euo pipefail\n")[0].splitlines():
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "))
            name, _, value = word.removeprefix("--").partition("=")
            assert name not in found
            found[name] = value
    return found


def test_a_script_is_the_shipped_one_with_other_lines(tmp_path: Path) -> None:
    more = ("qos=high", "--exclusive", "cpus-per-task=5")
    options = Allocation(**{**vars(ALLOCATION), "more": more}).options()
    environment = tmp_path / "of a user/.venv"
    (environment / "bin").mkdir(parents=True)
    text = batch_script(options, ["my conf.yaml", "run.name=$x'y"], environment=environment)
    assert text.startswith("#!/bin/bash\n")
    assert lines_of(text) == lines_of((SCRIPTS / "train.sbatch").read_text()) | {
        "job-name": "mine",
        "nodes": "2",
        "ntasks-per-node": "8",
        "gpus-per-node": "8",
        "cpus-per-task": "5",
        "time": "1:00:00",
        "partition": "gpu",
        "qos": "high",
        "exclusive": "",
    }
    assert "##SBATCH --time" not in text and "##SBATCH --account" in text
    shipped = (SCRIPTS / "train.sbatch").read_text().splitlines()
    assert [line for line in shipped if "SBATCH --" not in line and line not in text] == []

    script = tmp_path / "script"
    script.write_text(text)
    expected = ["train", "my conf.yaml", "run.resume=auto", "run.name=$x'y"]
    assert started(script) == expected
    path = run_script(script).stdout.splitlines()[-1]
    assert path.startswith(f"{environment}/bin:")
    assert started(script, "other") == ["train", "other", "run.resume=auto"]

    array = batch_script(options | {"array": "0-4"}, ["cifar10"], environment=environment)
    assert lines_of(array)["array"] == "0-4"
    script.write_text(array)
    assert started(script, SLURM_ARRAY_TASK_ID="3")[-2:] == ["run.name=cifar10-3", "run.seed=3"]


def test_what_is_left_to_the_cluster_is_not_written() -> None:
    options = Allocation("mine", gpus=0).options()
    assert options == {"job-name": "mine", "nodes": "1", "ntasks-per-node": "1"}


def test_bad_options() -> None:
    for name in ("bash", "interactive"):
        with pytest.raises(InputError, match=rf"--job-name {name}: .*shell"):
            Allocation(name).options()
    with pytest.raises(InputError, match=r"--job-name bash: .*shell"):
        Allocation("mine", more=("job-name=bash",)).options()
    for option in ("", "-", "Qos=1", "a\n=b", "--qos high", "a" * 1000):
        with pytest.raises(InputError, match="expected NAME=VALUE"):
            Allocation("mine", more=(option,)).options()


SHAPES = {
    "time": (
        ["30", "90:00", "24:00:00", "2-0", "2-12:30", "1-2:3:4", "infinite"],
        ["", "1h", "-1", "1:2:3:4", "1-", "24:00:00 ", "٣", "1;x", "1\n"],
    ),
    "array": (
        ["0", "0-4", "1,3,5", "1-7:2", "1-12%4", "1-3,7,9-11:2%2"],
        ["", "a", "-1", "4-", "1,,2", "0-4%", "0-4 ", "0-4\n", "$(x)"],
    ),
    "partition": (
        ["gpu", "gpu,long", "gpu_a-1.x", "größer"],
        ["", "a b", "a,", "a;b", "a\n", "`x`"],
    ),
    "account": (["me", "proj:me", "a/b@c"], ["", "a b", "a'b", "a#b", "a\tb"]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_that_sbatch_takes(name: str) -> None:
    good, bad = SHAPES[name]
    for value in good:
        assert Allocation("mine", **{name: value}).options()[name] == value
        assert Allocation("mine", more=(f"{name}={value}",)).options()[name] == value
    for value in bad[1:]:
        with pytest.raises(InputError, match=f"--{name} .*: expected "):
            Allocation("mine", **{name: value}).options()


# --- What comes from outside stays what it is ----------------------------------------------------

COMMANDS = """$(touch INJECTED)|`touch INJECTED`|';touch INJECTED;'|";touch INJECTED;"|-x|*|~|!!|%j
--wrap=touch X|--|\\|'|"|#|\\\\'#|${IFS}touch${IFS}INJECTED|<(touch INJECTED)|&&|a #b"""
HOSTILE = st.sampled_from([word for line in COMMANDS.split("\n") for word in line.split("|")]) | (
    st.text(
        st.sampled_from("ab #'\"\\$`;|&<>(){}[]*?!~%=-,:é日\u00a0")
        | st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cf")),
        min_size=1,
        max_size=30,
    ).filter(lambda text: shown(text) == text and text not in submit.SHELLS)
)


def as_sbatch_reads(line: str) -> list[str]:
    """The words of an #SBATCH line: the rules of `_get_argument` in SLURM's src/sbatch/opt.c.

    tests/cluster/test_submit.py asks the real one.
    """
    words, rest = [], line.removeprefix("#SBATCH")
    while rest := rest.lstrip(" \t\v\f\r\n"):
        word, quote, at = "", "", 0
        while at < len(rest) and (quote or rest[at] not in " \t\v\f\r\n"):
            sign, at = rest[at], at + 1
            if sign == "\\":
                word, at = word + rest[at : at + 1], at + 1
            elif quote and sign == quote:
                quote = ""
            elif not quote and sign in "'\"":
                quote = sign
            elif not quote and sign == "#":
                return [*words, word] if word else words
            else:
                word += sign
        assert not quote, f"unmatched quote: {line}"
        words.append(word)
        rest = rest[at:]
    return words


def look_at(values: list[str], folder: Path) -> None:
    """Options, arguments and environment of a script are read as they went in, and that is all."""
    first, *others = values
    environment = folder / (first.replace("/", "_").replace(":", "_").strip(".") or "x")
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    options = {
        **Allocation(first, gpus=0, more=(f"comment={others[0]}",)).options(),
        "chdir": first,
        "output": others[0].replace("%", "%%"),
    }
    arguments = [f"c{first}", *(f"a={value}" for value in others)]
    for array in ({}, {"array": "0-3"}):
        text = batch_script(options | array, arguments, environment=environment)
        script = folder / "script"
        script.write_text(text)
        found: dict[str, str] = {}
        for line in text.split("\nset -euo pipefail\n")[0].split("\n"):
            if line.startswith("#SBATCH"):
                (word,) = as_sbatch_reads(line)
                name, _, value = word.removeprefix("--").partition("=")
                found[name] = value
        assert {name: found[name] for name in options} == options
        before = sorted(os.listdir(folder))
        done = subprocess.run(
            ["bash", str(script)],
            env={
                "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
                "SLURM_CPUS_PER_TASK": "3",
                "SLURM_ARRAY_TASK_ID": "2",
            },
            cwd=folder,
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        *words, path = done.stdout.decode().split("\0")[:-1]
        assert path.split(":")[0] == f"{environment}/bin"
        expected = ["--kill-on-bad-exit=1", "res2net", "train", arguments[0], "run.resume=auto"]
        expected += arguments[1:]
        assert words[: len(expected)] == expected
        assert len(words) == len(expected) + 2 * bool(array)
        assert sorted(os.listdir(folder)) == before


def property_of_scripts(folder: Path, examples: int) -> None:
    fake(folder / "bin", "srun", r'printf "%s\0" "$@" "$PATH"')

    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.lists(HOSTILE, min_size=2, max_size=4))
    def examine(values: list[str]) -> None:
        look_at(values, folder)

    examine()


def test_hostile_values_stay_values(tmp_path: Path) -> None:
    property_of_scripts(tmp_path, 60)


@pytest.mark.soak
def test_many_hostile_values_stay_values(tmp_path: Path) -> None:
    property_of_scripts(tmp_path, 3_000)


REFUSED = [
    "\n",
    "\r",
    "\0",
    "\t",
    "\x1b",
    "\x7f",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u200b",
    "\udcff",
]


def test_what_no_script_takes() -> None:
    options = Allocation("mine").options()
    for sign in REFUSED:
        value = f"a{sign}b"
        told = shown(value)
        for refused in (
            lambda v=value: batch_script(options | {"job-name": v}, ["c"], environment="/e"),
            lambda v=value: batch_script(options | {"chdir": v}, ["c"], environment="/e"),
            lambda v=value: batch_script(options, ["c", f"run.name={v}"], environment="/e"),
            lambda v=value: batch_script(options, [v], environment="/e"),
            lambda v=value: batch_script(options, ["c"], environment=v),
        ):
            with pytest.raises(InputError) as caught:
                refused()
            assert f"{told}'" in str(caught.value) and shown(str(caught.value)) == str(caught.value)
    for value in ("x" * 5000, "/a:b"):
        with pytest.raises(InputError, match="Python environment"):
            batch_script(options, ["c"], environment=value)
    with pytest.raises(InputError, match="backslash in the name of an output file"):
        log_pattern(Path("a\\b"), "x", array=False)


def test_a_script_s_path_is_no_option() -> None:
    assert submit.sbatch_command("sbatch", Path("--wrap=touch X/x.sbatch"))[2:] == [
        "./--wrap=touch X/x.sbatch"
    ]
    assert submit.sbatch_command("sbatch", Path("a/x.sbatch"))[2:] == ["a/x.sbatch"]


def test_logs(tmp_path: Path) -> None:
    pattern = log_pattern(tmp_path, "a%jb", array=False)
    assert pattern == f"{tmp_path}/a%%jb-%j.out"
    assert log_path(pattern, "12") == f"{tmp_path}/a%jb-12.out"
    assert log_path(log_pattern(tmp_path, "x", array=True), "12") == f"{tmp_path}/x-12_%a.out"


def test_a_script_that_differs_gets_a_number(tmp_path: Path) -> None:
    folder = tmp_path / "runs/slurm"
    assert write_script(folder, "x", "one") == folder / "x.sbatch"
    assert write_script(folder, "x", "two") == folder / "x-2.sbatch"
    assert write_script(folder, "x", "three") == folder / "x-3.sbatch"
    assert write_script(folder, "x", "two") == folder / "x-2.sbatch"
    texts = {path.name: path.read_text() for path in folder.iterdir()}
    assert texts == {"x.sbatch": "one", "x-2.sbatch": "two", "x-3.sbatch": "three"}
    with pytest.raises(InputError, match=r"choose another run\.dir"):
        write_script(folder / "x.sbatch", "x", "one")


def test_sbatch_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SBATCH_PARTITION", "SBATCH_TIMELIMIT", "SBATCH_JOB_NAME", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "from outside")
    fake(tmp_path, "sbatch", f"env > {tmp_path}/env; echo '12;north'")
    command = [submit.find_sbatch(), "--parsable", "the script"]
    assert command[0] == f"{tmp_path}/sbatch"
    assert submit.submit(command, ALLOCATION.options()) == "12"
    # only what was not asked for is left to them
    assert re.findall(r"(?m)^SBATCH_\w+", (tmp_path / "env").read_text()) == ["SBATCH_ACCOUNT"]

    fake(tmp_path, "sbatch", "echo 12; echo 'sbatch: error: invalid\npartition' >&2; exit 1")
    with pytest.raises(WorkError) as caught:
        submit.submit(command, {})
    assert str(caught.value) == (
        "sbatch refuses (exit code 1): sbatch: error: invalid partition; nothing was submitted; "
        "the script is the script"
    )
    fake(tmp_path, "sbatch", "exec sleep 60")
    monkeypatch.setattr(submit, "SECONDS", 0.2)
    with pytest.raises(WorkError, match="see by squeue"):
        submit.submit(command, {})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="sbatch: not on PATH"):
        submit.find_sbatch()
