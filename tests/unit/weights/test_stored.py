"""What a file holds is told from its content, whatever it is called."""

import pytest
import torch
from safetensors.torch import save_file

from res2net.errors import InputError
from res2net.weights.formats import from_ours
from res2net.weights.read import read_weights
from res2net.zoo import create_model


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return create_model("res2net20_cifar").state_dict()


def test_an_empty_name():
    with pytest.raises(InputError, match="weights '': an empty name"):
        read_weights("")


@pytest.mark.parametrize("name", ["a.pth", "a.ckpt", "a.bin", "a.safetensors", "a.pdparams"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_the_content_says_how_a_file_is_read(tmp_path, tensors, form, name):
    path = tmp_path / name
    if form == "safetensors":
        save_file(from_ours(tensors, "official"), path)
    else:
        stored = from_ours(tensors, "official")
        torch.save(stored, path, _use_new_zipfile_serialization=form == "zip")
    found = read_weights(path).state_dict
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
