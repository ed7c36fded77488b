"""Files of strangers, by the hundred and by the ten thousand.

The header of a safetensors file and the small files of a run directory, mutated and made up,
through the functions that the verbs read them by.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from hypothesis import strategies as st
from safetensors.torch import save

from foreign_bytes import (
    HOLDER,
    JSON_PIECES,
    TABLE_PIECES,
    VALUES,
    YAML_PIECES,
    as_json,
    run_files,
    with_odd_value,
)
from fuzzing import FEW, MANY, Content, Reader, feed, mutated
from res2net.config.load import load_config, to_dict
from res2net.files.runs import identity
from samples import NAMES, PREPROCESSING, VARIANT, small_network

HOW_MANY = [
    pytest.param(FEW, id="few"),
    pytest.param(MANY, id="many", marks=[pytest.mark.soak, pytest.mark.timeout(7200)]),
]

# --- safetensors ---------------------------------------------------------------------------------

DESCRIPTION = identity(
    VARIANT,
    num_classes=10,
    class_names=NAMES,
    preprocessing=PREPROCESSING.to_dict(),
    config=to_dict(load_config("quickstart", [])),
)


def headed(header: bytes, data: bytes, *, length: int | None = None) -> bytes:
    """A safetensors file; `length`: what it says its header has."""
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def described(description: Any) -> dict[str, str]:
    return {"res2net": json.dumps(description)}


@pytest.fixture(scope="module")
def weights() -> bytes:
    return save(small_network().state_dict(), described(DESCRIPTION))


@pytest.fixture(scope="module")
def of_weights(tmp_path_factory: pytest.TempPathFactory, weights: bytes) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("weights")
    with Reader("fuzzed.use_weights", folder, suffix=".safetensors", warm=weights) as reader:
        assert reader.read(weights).kind == "ok"
        yield reader


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_safetensors(of_weights: Reader, weights: bytes, how_many: settings) -> None:
    length = int.from_bytes(weights[:8], "little")
    header, data = weights[8 : 8 + length], weights[8 + length :]
    table = json.loads(header)

    def with_description(told: Any) -> bytes:
        return headed(as_json(table | {"__metadata__": described(told)}), data)

    contents: st.SearchStrategy[Content] = st.one_of(
        mutated(header, pieces=JSON_PIECES).map(lambda changed: headed(changed, data)),
        mutated(weights),
        with_odd_value(DESCRIPTION).map(with_description),
        mutated(as_json(DESCRIPTION), pieces=JSON_PIECES)
        .map(lambda text: table | {"__metadata__": {"res2net": text.decode("utf-8", "replace")}})
        .map(lambda changed: headed(as_json(changed), data)),
        with_odd_value(table).map(lambda changed: headed(as_json(changed), data)),
        st.integers(0, 2**64 - 1).map(lambda length: headed(header, data, length=length)),
        VALUES.map(lambda value: headed(as_json(value), data)),
    )
    feed(of_weights, contents, how_many)
    assert {"ok", "refused"} <= of_weights.kinds.keys()


# --- The small files of a run --------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(place: Path) -> dict[str, bytes]:
    return run_files(place / "made")


@pytest.fixture(scope="module")
def of_runs(place: Path, run: dict[str, bytes]) -> Iterator[Reader]:
    (place / "good").mkdir()
    for name, content in run.items():
        (place / "good" / name).write_bytes(content)
    with Reader("fuzzed.use_run", place, warm=run) as reader:
        assert reader.read(run).kind == "ok"
        yield reader


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_run_directories(of_runs: Reader, run: dict[str, bytes], how_many: settings) -> None:
    def other(name: str, contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[Content]:
        return contents.map(lambda content: run | {name: content})

    config, summary = yaml.safe_load(run["config.yaml"]), json.loads(run["summary.json"])
    contents: st.SearchStrategy[Content] = st.one_of(
        other("config.yaml", mutated(run["config.yaml"], pieces=YAML_PIECES)),
        other("config.yaml", st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))),
        # JSON is YAML
        other("config.yaml", with_odd_value(config).map(as_json)),
        other("summary.json", mutated(run["summary.json"], pieces=JSON_PIECES)),
        other("summary.json", with_odd_value(summary).map(as_json)),
        other("metrics.csv", mutated(run["metrics.csv"], pieces=TABLE_PIECES)),
        other("heartbeat", mutated(run["heartbeat"], pieces=TABLE_PIECES)),
        other("lock", mutated(HOLDER.to_json().encode(), pieces=JSON_PIECES)),
        other("lock", with_odd_value(asdict(HOLDER)).map(as_json)),
        other("last.ckpt", st.binary(max_size=100)),
        other("nonfinite.txt", mutated(run["nonfinite.txt"], pieces=TABLE_PIECES)),
    )
    feed(of_runs, contents, how_many)
    assert {"ok", "refused"} <= of_runs.kinds.keys()
