"""What a state and a run directory say of images is looked at before it is believed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from res2net.data.datamodule import ImageDataModule
from res2net.data.sources.folder import open_folder
from res2net.errors import InputError
from res2net.files.runs import RunDirectory
from res2net.preprocessing import Preprocessing
from res2net.training.images import recognise
from sharding import jpeg, make


def data_of(root: Path) -> ImageDataModule:
    source = open_folder(str(root))
    return ImageDataModule(source, source, preprocessing=Preprocessing(image_size=32))


@pytest.fixture
def data(tmp_path: Path) -> ImageDataModule:
    data = data_of(make(tmp_path / "images", {"ant": 3, "bee": 2}))
    assert recognise(data, None, RunDirectory(tmp_path)) == []
    return data


def store(path: Path, of_data: Any) -> Path:
    torch.save({"ranks": [{"data": of_data}]}, path)
    return path


def changed(record: Any, **changes: Any) -> Any:
    return {what: {**each, **changes} for what, each in record.items()}


def test_a_record_of_another_form_is_refused_in_one_line(
    data: ImageDataModule, tmp_path: Path
) -> None:
    record, run = data.record, RunDirectory(tmp_path)
    assert record is not None
    path = tmp_path / "last.ckpt"
    known = {"fingerprint": data.fingerprint}
    store(path, known | {"images": record})
    assert recognise(data, path, run) == []
    for images in (
        [],
        {},
        {"training": record["training"]},
        {"training": record["training"], "validation": None},
        changed(record, count="5"),
        changed(record, count=4),
        changed(record, names=None),
        changed(record, names=torch.zeros(5)),
        changed(record, sizes=torch.zeros(3, dtype=torch.int64)),
        changed(record, contents=torch.zeros(0, dtype=torch.int64)),
    ):
        store(path, known | {"images": images})
        with pytest.raises(InputError, match=r"last\.ckpt does not tell which images") as caught:
            recognise(data, path, run)
        assert "\n" not in str(caught.value)
    for of_data in (None, [], {"images": record}):
        store(path, of_data)
        with pytest.raises(InputError, match=r"last\.ckpt does not tell which images"):
            recognise(data, path, run)
    store(path, {"fingerprint": "of other classes", "images": record})
    with pytest.raises(InputError, match="now 5 images, then 5, or in other classes"):
        recognise(data, path, run)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"training": 3}',
        b'{"training": {"1": [1, 2]}}',
        b'{"training": {"x": [1, 2, 3]}}',
        b'{"training": {"1": [1e400, 2, 3]}}',
        b'{"training": {"1": [99999999999999999999999, 2, 3]}}',
        b'{"training": {"99": [1, 2, 3]}, "other": {"1": [1, 2, 3]}}',
    ],
    ids=range(10),
)
def test_a_damaged_list_of_what_was_mended_excuses_nothing(
    data: ImageDataModule, tmp_path: Path, content: bytes
) -> None:
    run = RunDirectory(tmp_path)
    path = store(tmp_path / "last.ckpt", {"fingerprint": data.fingerprint, "images": data.record})
    run.undecodable(3).write_bytes(content)
    assert recognise(data, path, run) == []
    (tmp_path / "images/ant/1.jpg").write_bytes(jpeg(99))
    with pytest.raises(InputError, match=r"ant/1\.jpg has another size"):
        recognise(data_of(tmp_path / "images"), path, run)
