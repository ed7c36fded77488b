"""Published files by name."""

from pathlib import Path

import pytest

from res2net.errors import InputError
from res2net.weights.catalog import cache_folder, find_published


def test_names():
    assert find_published("res2net50").name == "official/res2net50_26w_4s"
    assert find_published("official/res2net50").name == "official/res2net50_26w_4s"
    assert find_published("res2net101d").name == "official/res2net101_v1b_26w_4s"
    assert find_published("mmdet/res2net101d").format == "mmdet"
    with pytest.raises(InputError, match=r"no such published file \(choices: official/res2next50,"):
        find_published("mmpretrain/res2next50")
    with pytest.raises(
        InputError, match=r"nobody published weights for res2net20_cifar .*choices:"
    ):
        find_published("res2net20_cifar")
    with pytest.raises(InputError, match="no such variant"):
        find_published("vgg16")


def test_the_cache_folder(monkeypatch):
    monkeypatch.delenv("RES2NET_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache/res2net"
    monkeypatch.setenv("RES2NET_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
