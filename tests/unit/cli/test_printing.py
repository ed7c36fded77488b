"""Names of strangers in what verbs print and write for people: no control character, no formula.

One place knows how: cli/telling.py and cli/tables.py for terminals, files/csv_table.py for tables
in files, export/card.py for Markdown. The first test sees that nothing goes past them.
"""

import ast
import csv
import io
import json
import re
import unicodedata
from html import unescape
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

import res2net
from metrics_rows import write_metrics
from res2net.cli.main import main
from res2net.files.csv_table import CsvTable
from res2net.files.names import printable, shown, valid
from samples import VARIANT, photo, save_network, small_network

PACKAGE = Path(res2net.__file__).parent
PRINTS = {"telling.py", "tables.py", "main.py", "demo.py"}
"""Of the floor `cli`; demo.py prints its own address."""

LONG = "x" * 300_000
ON_DISK = [
    "\x1b[31mred\x1b[0m",
    "a\nerror: FORGED\nb",
    "a\rFORGED",
    "=cmd|' &C calc'!A0",
    "[bold]x[link=y]z",
    "\u202elive",
    "-2+3;=1+1",
    "@SUM(1)\t\u200b",
    "\x9b31m\x85\u2028",
    "+<script>`|a|`![i](j) https:x www.evil.org &lt;",
]
"""Names of classes that folders can have."""
NAMES = [*ON_DISK[:7], "[red]/[/red]\0", "x" * 1000, "\udce9lone"]
"""Those and others, which a file can name."""


def test_all_goes_through_one_place() -> None:
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        if path.name != "csv_table.py":
            assert not {"csv.writer", "csv.DictWriter"} & called, path
        if path.parent.name == "cli" and path.name not in PRINTS:
            rich = {"print", "Text", "Console.print", "console.print", "table.add_row"} & called
            # bars on stderr; their errors go through `shown`
            assert rich <= ({"console.print"} if path.name == "images.py" else set()), path
            assert not [name for name in called if name.endswith(("add_row", "add_column"))], path


def test_what_is_shown() -> None:
    for code in (*range(0x20000), *range(0xE0000, 0xE1000)):
        sign, category = chr(code), unicodedata.category(chr(code))
        # of the invisible (Cf) only those that are seen, as the signs before numbers, stay
        if category in ("Cc", "Zl", "Zp") or (category == "Cf" and _hides(code)):
            assert printable(sign) != sign and printable(sign).isascii(), hex(code)
        elif category[0] in "LNPS" and code not in _FILLERS:
            assert printable(sign) == sign, hex(code)
    assert shown("ünïcode 日本 \U0001f600 [x]") == "ünïcode 日本 \U0001f600 [x]"
    assert valid("\udcc3\udca9 \udcff \ud800") == "é \\xff \\ud800"
    assert shown(LONG) == f"{'x' * 4096}... (300,000 characters)"


_FILLERS = (0x115F, 0x1160, 0x3164, 0xFFA0)
_SEEN = ((0x600, 0x605), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2))
_SEEN += ((0x110BD, 0x110CD), (0x13430, 0x1345F))


def _hides(code: int) -> bool:
    return not any(first <= code <= last for first, last in _SEEN)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        (" =1+1", "' =1+1"),
        (" \t=1+1", " \\t=1+1"),
        ("+cmd", "'+cmd"),
        ("-2+3", "'-2+3"),
        ("@SUM(1)", "'@SUM(1)"),
        ("＝1", "'＝1"),
        ("a;=1;b; -x", "a;'=1;b;' -x"),
        ("\r=1", "\\r=1"),
        ("-0.5", "-0.5"),
        ("+1e-07", "+1e-07"),
        ("a=b-c", "a=b-c"),
        ("tench, Tinca", "tench, Tinca"),
    ],
)
def test_cells_of_tables(text: str, written: str) -> None:
    stream = io.StringIO()
    CsvTable(stream).row([text, -0.5, None, 3], ["-1.5"])
    assert next(csv.reader([stream.getvalue()])) == [written, "-0.5", "", "3", "-1.5"]


# --- Through every verb --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a data set and two run directories whose every name is hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    network = small_network(10)
    save_network(network, folder / "model/last.ckpt", class_names=NAMES)
    for number, name in enumerate(ON_DISK):
        for split, count in (("train", 2), ("val", 1)):
            for image in range(count):
                path = folder / "data" / split / name / f"\x1b]0;t\x07\n={number}{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                photo(10 * number + image, (32, 32)).save(path)
    (folder / "data/val/=1\x1b.txt").write_text("stray")
    (folder / "data/train" / ON_DISK[0] / "broken\x1b\n.png").write_text("no image")
    for run in ("\x1b[1m\nerror: FORGED", "[red]\u202e"):
        path = folder / "runs" / run
        path.mkdir(parents=True)
        save_network(network, path / "last.ckpt", class_names=sorted(ON_DISK))
        config = {
            "run": {"name": run},
            "model": {"name": "\x1b[31m[red]"},
            "data": {"source": f"\x1b\n{run}", "root": "\x9b31m"},
            "trainer": {"max_epochs": 3},
            f"\x1b{run}": {"[bold]\x07": [run]},
        }
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        write_metrics(path / "metrics.csv", epochs=2)
        summary = {
            "status": "completed",
            "versions": {"\x1b[31m[red]": "\x07"},
            "val/top1": 0.5,
            "best": {"epoch": 1, "val/top1": 0.5},
        }
        (path / "summary.json").write_text(json.dumps(summary))
        (path / "quarantine.txt").write_text("a\tb\n")
    return folder


def clean(text: str) -> list[str]:
    """The lines; none holds a control or invisible character, and none was forged."""
    for sign in text:
        assert sign == "\n" or unicodedata.category(sign) not in ("Cc", "Cf", "Zl", "Zp", "Cs")
    lines = text.split("\n")
    forged = ("FORGED", "error: FORGED")
    assert not [line for line in lines if line.lstrip(" .,").startswith(forged)]
    return lines


def no_formula(text: str) -> list[list[str]]:
    rows = list(csv.reader(io.StringIO(text)))
    for cell in (cell for row in rows for cell in row):
        assert not cell.lstrip().startswith(("=", "@")), cell
        assert cell[:1] not in ("+", "-") or float(cell) is not None
        assert not re.search(r";\s*[=+@-]", cell), cell
    return rows


def test_every_verb(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    image = str(next(Path("data/val").rglob("*.png")))
    one, two = sorted(map(str, Path("runs").iterdir()))
    images = ["data/val"]

    def call(*arguments: str, code: int = 0) -> tuple[str, list[str]]:
        assert main(list(arguments)) == code, capsys.readouterr()
        printed = capsys.readouterr()
        clean(printed.err)
        return printed.out, clean(printed.out)

    for form in ([], ["--topk=10"], ["--json"], ["--jsonl"], ["--csv"]):
        out, lines = call("predict", "model", *images, *form)
        if form == ["--json"]:
            told = [one["label"] for found in json.loads(out) for one in found["topk"]]
            assert set(told) <= set(NAMES) and len(set(told)) > 3  # as they are
        if form == ["--csv"]:
            assert len(no_formula(out)) == 1 + len(ON_DISK) == len(lines) - 1
        if form == ["--jsonl"]:
            assert len(lines) - 1 == len(ON_DISK)
    call("predict", "model", image, "--sheet=sheet.png")
    call("predict", "model", "data", "--csv", code=1)  # one cannot be read
    call("features", "model", *images, "--out=a.npz")
    call("features", "model", *images, "--out=a.csv", "--json")
    clean(Path("a.csv").read_text())
    assert len(no_formula(Path("a.csv").read_text())) == 1 + len(ON_DISK)
    for number, extra in enumerate(([], ["--json"], ["--against=model"], ["--target=none\x1b"])):
        refused = ["cam", "model", image, f"--out=cam{number}", *extra]
        call(*refused, code=2 if "--target=none\x1b" in extra else 0)
    for form in ([], ["--json"], ["--per-class=per.csv", "--confusion=c\x1b.png"]):
        call("test", one, "--data=data/val", *form)
    clean(Path("per.csv").read_text())
    assert len(no_formula(Path("per.csv").read_text())) == 1 + len(ON_DISK)
    call("export", "model", "--to=folder", "--out=folder\x1b\n")
    call("export", one, "--to=folder", "--out=other")
    call("export", one, "--to=safetensors", "--out=a\x1b.safetensors", "--json")
    call("convert", one, "b\x1b.pth", "--to=timm")
    call("convert", "model", "c\x1b.pth", "--to=nobody\x1b", code=2)
    for runs in ([one], [one, two], [one, two, "none\x1b"], [one, "--json"]):
        call("status", *runs)
    for form in ([], ["--json"], ["--out=compared\x1b.png"]):
        call("compare", one, two, *form)
    for form in ([], ["--json"], ["--out=found.csv", "--grid=grid\x1b.png"]):
        call("data", "check", "data", *form, code=1)
    clean(Path("found.csv").read_text())
    assert len(no_formula(Path("found.csv").read_text())) > 2
    call("data", "shard", "data", "shards\x1b[1m\n")
    overrides = ["data.root=data", "data.global_batch_size=2", "run.name=[red]"]
    call("train", "folder_small", *overrides, "run.name=\x1b[31m[red]", "--dry-run", code=2)
    call("train", "folder_small", *overrides, "--plot-schedule=plan\x1b.png")
    call("train", "folder_small", *overrides, "data.on_corrupt=skip", "--preview=preview\x1b.png")
    for verb in ("models", "predict", "status", "compare", "train", "submit", "demo", "\x1b[1m\nx"):
        call(verb, "\x1b[31m\n\u202e", "\ud83d", code=2)
        call(verb, "\x1b[31m\n\u202e=x", "\x1b=1", code=2)
        call(verb, "--\x1b[31m\n\u202e", "a", code=2)


def test_a_model_card_is_inert(place: Path) -> None:
    for folder in ("folder\x1b\n", "other"):
        card = (place / folder / "README.md").read_text()
        lines = clean(card)
        front = yaml.safe_load(card.split("---\n")[1])
        assert front["license"] == "unknown" and "tags" in front
        assert lines.count("---") == 2
        html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        body = html.render(card.split("---\n", 2)[2])
        tags = re.findall(r"<(/?\w+)[^>]*>", body)
        expected = ["h1", "/h1", "p", "a", "/a", "/p"]
        assert tags[:6] == expected and tags.count("a") == 1
        assert {tag.strip("/") for tag in tags} <= {"h1", "h2", "p", "a", "pre", "code"}
        assert body.count("<pre>") == 2
        assert set(re.findall("<code>([^\n]*?)</code>", body)) <= {"summary.json", "label_names"}
        for name in (NAMES if folder != "other" else ON_DISK)[:4]:
            text = unescape(re.sub("<[^>]*>", "", body))
            assert shown(" ".join(name.split())) in text


def test_a_licence_of_the_file_is_inert(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    licence = "\n---\nevil: true\n# x <script> [a](b) \x1b www.evil.org"
    arguments = ["--to=folder", "--out=licensed", f"--licence={licence}"]
    assert main(["export", "model", *arguments]) == 0
    card = Path("licensed/README.md").read_text()
    clean(card)
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "other" and "evil" not in front
    assert front["license_name"] == shown(licence)
    body = MarkdownIt("commonmark", {"html": True}).render(card.split("---\n", 2)[2])
    assert "<script" not in body and body.count("<a ") == 1 and body.count("<h1>") == 1
    assert VARIANT in body
