"""What `res2net data check` prints, writes and answers."""

import csv
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from broken_files import BROKEN, ODD, WHOLE
from res2net.cli.data_check_tables import SHOWN
from res2net.cli.main import main
from res2net.data.sources.opening import open_evaluation
from res2net.errors import InputError
from samples import encoded, photo
from schemas import fits


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A data set in which nothing is to be found."""
    root = tmp_path / "set"
    for number, split in enumerate(("train", "val")):
        for place, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            content = encoded(photo(10 * number + place))
            (root / split / name / "1.png").write_bytes(content)
    return root


@pytest.fixture
def damaged(clean: Path) -> Path:
    """With every kind of file there is."""
    for name, content in WHOLE.items():
        (clean / "train/ant" / name).write_bytes(content)
    for name, (content, _) in (BROKEN | ODD).items():
        (clean / "train/bee" / name).write_bytes(content)
    return clean


def test_a_clean_data_set(clean: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(clean)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith(f"{clean}: 4 images, ")
    assert "None: broken, odd, leaks, duplicates, ignored." in out
    assert "note:" not in out


def test_broken_files_are_listed_and_1(damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(damaged)]) == 1
    out, err = capfd.readouterr()
    total = 4 + len(BROKEN) + len(ODD) + len(WHOLE)
    # one line: what the libraries that decode say of each file is not seen
    assert err == (
        f"error: {damaged}: {len(BROKEN)} of {total} images cannot be decoded by training; the "
        f"first {SHOWN} are listed above, all with --out FILE.csv; mend or remove them\n"
    )
    listed = [name for name in BROKEN if f"\ntrain/bee/{name} " in out]
    assert len(listed) == SHOWN
    assert f"Broken: training stops at these ({len(BROKEN)} files)" in out
    assert f"... and {len(BROKEN) - SHOWN} more; all of them: --out FILE.csv or --json" in out


def test_all_are_in_the_csv(
    damaged: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.csv"
    assert main(["data", "check", str(damaged), "--out", str(file)]) == 1
    out, err = capfd.readouterr()
    assert f"they are listed in {file}" in err and f"{file} was written" in out
    with file.open(newline="") as stream:
        found = list(csv.DictReader(stream))
    for kind, kinds in (("broken", BROKEN), ("odd", ODD)):
        rows = {os.path.basename(row["file"]): row for row in found if row["kind"] == kind}
        assert rows.keys() == kinds.keys()
        assert all(kinds[name][1] in row["detail"] for name, row in rows.items())
        assert {(row["split"], row["class"]) for row in rows.values()} == {("train", "bee")}


def test_json_is_one_object(damaged: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(damaged), "--json"]) == 1
    out, err = capfd.readouterr()
    assert err.count("\n") == 1 and "they are listed above" in err
    found = fits("data_check", out)
    assert out.count("\n") == 1
    assert {os.path.basename(one["file"]) for one in found["broken"]} == BROKEN.keys()
    assert {os.path.basename(one["file"]) for one in found["odd"]} == ODD.keys()
    assert found["images"] == 4 + len(BROKEN) + len(ODD) + len(WHOLE)
    assert found["splits"]["val"]["counts"] == {"ant": 1, "bee": 1}
    assert found["sizes"]["width"] == {"min": 1, "median": 64, "max": 4000}
    assert set(found) == {
        "directory",
        "images",
        "bytes",
        "seconds",
        "images_per_second",
        "splits",
        "problems",
        "sizes",
        "formats",
        "modes",
        "broken",
        "odd",
        "leaks",
        "duplicates",
        "ignored",
    }


def test_leaks_duplicates_and_notes(clean: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (clean / "train/bee/2.png").write_bytes((clean / "val/ant/1.png").read_bytes())
    for number in range(6):
        (clean / f"train/ant/copy{number}.png").write_bytes(WHOLE["plain.png"])
    (clean / "val/wasp").mkdir()
    (clean / "val/wasp/1.png").write_bytes(encoded(photo(99)))
    (clean / "train/[red]notes.txt").write_text("not markup")
    assert main(["data", "check", str(clean)]) == 1  # for the wasp
    out = capfd.readouterr().out
    assert "Leaks: the same bytes in more than one split (1 group)" in out
    assert "train/bee/2.png" in out and "2 files with the same bytes, in different classes" in out
    assert "6 files with the same bytes" in out and "... and 2 more" in out
    assert "note: classes of val that train lacks: 1 (wasp)" in out
    assert "train/[red]notes.txt" in out
    assert "None: broken, odd." in out


def test_a_picture(clean: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grid.png"
    (clean / "train/ant/0.png").write_bytes(b"?")
    assert main(["data", "check", str(clean), "--grid", str(file)]) == 1
    assert f"{file} was written" in capfd.readouterr().out
    assert Image.open(file).width == 1390


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder"),
        ([".", "--out", "list.txt"], "list.txt: the suffix says the form of the file"),
        ([".", "--grid", "grid.jpg"], "choices: .png"),
        ([".", "--out", "there.csv"], "there.csv: exists already"),
        ([".", "--max-pixels", "0"], "'0' is not an integer from "),
        ([".", "--labels", "none.csv"], "none.csv: no such file of labels"),
        (["."], "no images in this folder"),
        ([""], "error: '': the name of the folder is empty"),
        (["there.csv"], "there.csv: is a file, not a folder"),
        ([], "res2net data check: the following arguments are required: DIR"),
    ],
)
def test_bad_input_is_one_line_and_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").touch()
    assert main(["data", "check", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err
    assert os.listdir(tmp_path) == ["there.csv"]


def test_labels_of_no_use(clean: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The line that training ends with, as an error or as a note."""
    for name in ("ant", "bee"):
        (clean / "val" / name / "1.png").rename(clean / "val" / f"{name}.png")
        (clean / "val" / name).rmdir()
    labels = clean / "val.txt"
    labels.write_text("ant.png ant\n")
    line = f"{labels}: no class for bee.png of {clean}/val"
    assert main(["train", "folder_small", f"data.root={clean}", "--plot-schedule", "x.png"]) == 2
    assert line in capfd.readouterr().err
    assert main(["data", "check", str(clean)]) == 1
    out, err = capfd.readouterr()
    assert out.count(line) == 1 and f"note: training refuses this folder: {line}" in out
    assert "Ignored" not in out
    assert err == (f"error: {clean}: training refuses this folder, for the first problem above\n")
    other = labels.rename(clean / "own.txt")
    assert main(["data", "check", str(clean), "--labels", str(other)]) == 2
    assert capfd.readouterr() == ("", f"error: {other}: no class for bee.png of {clean}/val\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "train/cat").mkdir(), "no images in cat"),
        (lambda root: (root / "train/bee").rename(root / "elsewhere"), "one class (ant)"),
        (lambda root: (root / "val/bee").rename(root / "val/wasp"), "unknown class wasp"),
    ],
)
def test_what_training_refuses_is_1(
    clean: Path,
    capfd: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    words: str,
) -> None:
    change(clean)
    assert main(["train", "folder_small", f"data.root={clean}", "--plot-schedule", "x.png"]) == 2
    refusal = capfd.readouterr().err.removeprefix("error: ").strip()
    assert words in refusal
    assert main(["data", "check", str(clean)]) == 1
    out, err = capfd.readouterr()
    assert f"note: training refuses this folder: {refusal}\n" in out
    assert err.count("\n") == 1 and "training refuses this folder" in err


@pytest.mark.parametrize("name", ["data/train-0.parquet", "ILSVRC2012_img_train.tar"])
def test_what_is_to_be_sharded_first(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert main(["data", "check", str(tmp_path)]) == 2
    assert f"`res2net data shard {tmp_path} DST`" in capfd.readouterr().err


def test_names_keep_their_line_and_json_is_strict(
    clean: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (clean / "train/ant/two\nlines\x1b[31m.png").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(clean) + b"/train/ant/caf\xe9.png")).write_bytes(b"")
    assert main(["data", "check", str(clean)]) == 1
    out = capfd.readouterr().out
    assert "train/ant/two\\nlines\\x1b[31m.png " in out and "\x1b" not in out
    assert "train/ant/caf\\xe9.png " in out
    assert main(["data", "check", str(clean), "--json"]) == 1
    broken = json.loads(capfd.readouterr().out)["broken"]
    names = sorted(os.path.basename(one["file"]) for one in broken)
    assert names == ["caf\\xe9.png", "two\nlines\x1b[31m.png"]
    "".join(names).encode()  # a lone surrogate would fail here, as with strict readers


def test_a_bar_on_a_terminal_and_nothing_across_it(damaged: Path) -> None:
    leader, follower = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "res2net", "data", "check", str(damaged), "--json"],
        stdout=subprocess.PIPE,
        stderr=follower,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        shown += piece
    os.close(leader)
    assert done.stdout is not None
    assert json.loads(done.stdout.read())["images"] > 50
    assert done.wait() == 1
    text = shown.decode()
    assert "decoding" in text and "images/s" in text
    assert "libjpeg" not in text and "Corrupt" not in text and "WARN" not in text
    assert "cannot be decoded by training" in text


def test_unfinished_shards_are_told_as_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = encoded(photo())
    files = {"a/1.png": whole, "a/2.png": whole, "b/1.png": whole, "b/2.png": b""}
    for name, content in files.items():
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pets" / name).write_bytes(content)
    assert main(["data", "shard", "pets", "begun"]) == 1
    capsys.readouterr()
    for command in (
        ["data", "check", "begun"],
        ["data", "check", "begun", "--json"],
        ["train", "folder_small", "data.source=shards", "data.root=begun"],
    ):
        assert main(command) == 2
        assert capsys.readouterr() == (
            "",
            "error: begun: unfinished shards; the same `res2net data shard` again goes on with "
            "them\n",
        )
    with pytest.raises(InputError, match="begun: unfinished shards"):
        open_evaluation("begun", class_names=None, labels=None)


# --- The verb of verbs ---------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [["data"], ["data", "--help"], ["data", "-h"]])
def test_data_alone_tells_its_verbs(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: res2net data VERB ...\n")
    for verb in ("check", "download", "shard"):
        assert f"\n  {verb:<10}" in out


def test_an_unknown_verb_of_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "chek"]) == 2
    assert capsys.readouterr().err == (
        "error: 'chek': no such verb of res2net data; did you mean check? "
        "(verbs: check, download, shard)\n"
    )


@pytest.mark.parametrize("verb", ["check", "download"])
def test_the_help_of_a_verb_of_data(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: res2net data {verb} ")


def test_a_check_needs_no_torch(clean: Path) -> None:
    code = (
        "import sys\n"
        "from res2net.cli.main import main\n"
        f"assert main(['data', 'check', {str(clean)!r}]) == 0\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
