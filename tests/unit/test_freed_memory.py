"""Memory that was freed is handed out again, page by page the same."""

import subprocess
import sys

import pytest

PAGES = 64 * 2**20 // 4096
CODE = """
import resource, sys
import torch
from res2net.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for keep in eval(sys.argv[1]):
    keep_freed_memory(keep)
for _ in range(16):  # of 64 MB; its free blocks settle first
    torch.ones(2**24)
before = faults()
torch.ones(2**24)
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
@pytest.mark.parametrize(
    ("calls", "least", "most"),
    [([True], 0, PAGES // 10), ([True, False], PAGES // 2, 2 * PAGES), ([], PAGES // 2, 2 * PAGES)],
)
def test_large_tensors_meet_pages_that_are_there(calls: list[bool], least: int, most: int) -> None:
    command = [sys.executable, "-c", CODE, repr(calls)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert least <= int(told.stdout) <= most
