"""`srun res2net doctor`: ranks on one node and two look at each other."""

import json
import os
import time
from pathlib import Path

import pytest

from .conftest import Cluster

pytestmark = pytest.mark.cluster

ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=1")
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1")
BETWEEN = {"ranks", "versions", "clocks", "shared folder", "gloo"}


def examine(
    cluster: Cluster, folder: Path, *options: str, export: str = ""
) -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit code, findings by name, and what was said beside them."""
    output = ("--job-name=look", "--time=20", f"--output={folder}/out", f"--error={folder}/err")
    exported = f"--export=ALL,OMP_NUM_THREADS=1,{export}".rstrip(",")
    number = cluster.submit_command(
        folder, *options, *output, exported, command="res2net doctor --json"
    )
    job = cluster.wait(number, seconds=100)
    checks = json.loads(job.output)["checks"]
    found = {check["name"]: check for check in checks}
    assert len(found) == len(checks), "said twice"
    return job.exit_code, found, (folder / "err").read_text()


@pytest.mark.parametrize("options", [ONE_NODE, TWO_NODES])
def test_two_ranks(cluster: Cluster, tmp_path: Path, options: tuple[str, ...]) -> None:
    code, found, said = examine(cluster, tmp_path, *options)
    assert code == 0, found
    assert {check["status"] for check in found.values()} <= {"ok", "warn"}
    assert found.keys() >= BETWEEN | {"slurm", "slurm tasks", "slurm time left"}
    assert not any(found[name]["advice"] for name in BETWEEN)
    assert "rank " not in said
    hosts = "2 hosts (n1: 1, n2: 1)" if options is TWO_NODES else "1 host (n1: 2)"
    assert found["ranks"]["value"] == f"2 ranks on {hosts}"
    assert float(found["clocks"]["value"].split()[2]) < 500  # ms, on one machine
    per_node = 1 if options is TWO_NODES else 2
    assert f"tasks: 2, per node: {per_node}; this is 0" in found["slurm tasks"]["value"]
    assert found["slurm time left"]["value"].startswith("19:")
    assert not [name for name in os.listdir(tmp_path) if name not in ("out", "err")]


def test_a_master_address_without_an_address(cluster: Cluster, tmp_path: Path) -> None:
    start = time.monotonic()
    code, found, said = examine(cluster, tmp_path, *TWO_NODES, export="MASTER_ADDR=nowhere.invalid")
    assert time.monotonic() - start < 45
    assert code == 1
    assert "nowhere.invalid has no address" in found["ranks"]["value"]
    assert found["master address"]["status"] == "fail"
    (line,) = (line for line in said.splitlines() if line.startswith("rank "))
    assert line.startswith("rank 1 (n2): ranks: nowhere.invalid:")
    assert "Traceback" not in said
