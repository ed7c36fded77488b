"""What a stranger's file does to the command that opens it: nothing but one line."""

from pathlib import Path

import pytest

from forged import Call, forged, torch_zip
from runs import Run

# NumPy takes these eight bytes for the address of an object.
FORGED = Call("collections.OrderedDict", Call("numpy.ndarray", (1,), "O", b"ABCDEFGH"))


@pytest.mark.parametrize("name", ["a.pth", "a.pdparams"])
def test_an_array_of_addresses_is_no_crash(tmp_path: Path, command: Run, name: str) -> None:
    file = tmp_path / name
    content = forged(FORGED)
    file.write_bytes(torch_zip(content, {}) if name == "a.pth" else content)
    for arguments in (
        ("predict", str(file), "--sample"),
        ("train", "quickstart", f"model.weights={file}", "run.dir=runs"),
    ):
        done = command(*arguments, code=2)
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert str(file) in done.stderr
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_a_batch_of_cifar_with_one_is_no_crash(tmp_path: Path, command: Run) -> None:
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6)))
    for name in names:
        (folder / name).write_bytes(forged({"data": FORGED, "label_names": ["a", "b"]}))
    done = command("train", "cifar10", "data.root=data", "run.dir=runs", code=2)
    assert done.stderr.count("\n") == 1 and "a damaged pickle" in done.stderr
    assert not (tmp_path / "runs").exists()
