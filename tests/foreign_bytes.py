"""What a stranger may put into JSON, YAML and the small files of a run: examples and strategies."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from metrics_rows import write_metrics
from res2net.config.load import load_config, to_yaml
from res2net.files.holder import Holder

HOLDER = Holder("node7", 123, started="2026-11-22 22:10:04", boot="b", token="a" * 32)
"""Of a lock; while it is new, its run is not gone on with."""

_ODD_TEXT = ["", "???", "${oc.env:HOME}", "../..", "\x1b[2J", "a\nb", "\ud800", "\udcff", "é" * 300]
_ODD_NUMBERS = [0, -1, 1, 2**31, 2**63, 10**30, -0.0, 1e-12, 1e308, float("nan"), float("inf")]

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([*_ODD_TEXT, *_ODD_NUMBERS]),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=12,
)
"""What JSON can say, and NaN."""

JSON_PIECES = [
    b"[" * 100_000,
    b'{"a":' * 3000,
    b"[" * 40 + b"]" * 40,
    b"9" * 5000,
    b"1e400",
    b"-1",
    b"NaN",
    b"-Infinity",
    b"null",
    b"[]",
    b"{}",
    b'"\\ud800"',
    b'"',
    b",",
    b"\0",
    b"\xff\xfe",
    b"[0," * 30_000,
    b"{},[]," * 50_000,
    b'"' + b"x" * 300_000 + b'"',
]
"""Put into JSON at any place."""

YAML_PIECES = [
    b"[" * 100_000,
    b"{" * 5000,
    b"- " * 3000,
    b"? " * 3000,
    b"a: {b: " * 3000,
    b"&a [*a]",
    b"*a",
    b"<<: *a\n",
    b"!!python/object/apply:os.system [id]",
    b"!!binary x",
    b"!!int '9'",
    b"9" * 5000,
    b".nan",
    b".inf",
    b"1:" * 500 + b"1",
    b"\t",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"\0",
    b"\xff\xfe",
    b"|\n  x\n",
    b"'" * 3000,
    b'"\\ud800"',
    b'"\\U00110000"',
    b"'" + b"x" * 300_000 + b"'",
    b"a: &a [x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 8)) for n in range(12)
    ),
]
"""Put into a YAML at any place; the last is the one of a billion laughs."""

TABLE_PIECES = [
    b",",
    b"\n",
    b'"',
    b"\0",
    b"\r",
    b"nan",
    b"inf",
    b"1e400",
    b"-1",
    b"9" * 5000,
    b"x" * 300_000,
    b"\xff",
    b"1,-1,val,top1,1\n",
    b"1,0,val,a,1\n" * 1000,
    b"".join(b"1,0,val,%d,1\n" % number for number in range(1200)),
]
"""Put into `metrics.csv`, `heartbeat` and the like."""


def run_files(folder: Path) -> dict[str, bytes]:
    """The files of a run that was stopped after two epochs, by name."""
    folder.mkdir()
    keys = [f"run.dir={folder.parent}", "run.name=example"]
    summary = {
        "schema": 1,
        "status": "interrupted",
        "val/top5": 0.9,  # with a top-1 it would have to have checkpoints
        "val/loss": 1.5,
        "best": {"epoch": 1, "val/top1": 0.5},
        "steps": 44,
        "steps_executed": 45,
        "steps_per_epoch": 22,
        "restarts": 1,
        "wall_seconds": 60.5,
        "parameters": 92_000,
        "slurm_job": "",
    }
    return {
        "config.yaml": to_yaml(load_config("quickstart", keys)).encode(),
        "summary.json": json.dumps(summary).encode(),
        "metrics.csv": write_metrics(folder / "metrics.csv", epochs=2).read_bytes(),
        "heartbeat": f"{45:>12} {44:>12} {1.8e9:.1f}\n".encode(),
        "nonfinite.txt": b"a.png\n",
        "quarantine.txt": b"a.png\tis empty\n",
    }


def as_json(value: Any) -> bytes:
    """As Python writes it, NaN and halves of surrogate pairs included."""
    return json.dumps(value).encode()


@st.composite
def with_odd_value(draw: st.DrawFn, table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with one of its values, or of those in its tables, replaced by another or gone."""
    changed = dict(table)
    name = draw(st.sampled_from(sorted(changed)))
    inner = changed[name]
    if isinstance(inner, Mapping) and inner and draw(st.booleans()):
        changed[name] = draw(with_odd_value(inner))
    elif draw(st.integers(0, 9)):
        changed[name] = draw(VALUES)
    else:
        del changed[name]
    return changed
