"""The table of published files: hashes, addresses, whose figures, and which file is the default."""

import re

import pytest

from res2net.models.variants import VARIANTS
from res2net.weights.catalog import find_published, published_for
from res2net.weights.published import CATALOG


def test_the_published_hashes_stand_in_the_names():
    for published in CATALOG.values():
        found = re.search(r"-([0-9a-f]{8})\.pth$", published.url)
        assert published.digest == (found and found.group(1)), published.name
        assert published.url.startswith("https://")
        assert published.variant in VARIANTS
        if published.mirror is not None:
            assert published.mirror.rpartition("/")[2] == published.url.rpartition("/")[2]
    assert len({published.file for published in CATALOG.values()}) == len(CATALOG)


def test_what_is_published_by_whom():
    sources = [published.source for published in CATALOG.values()]
    assert {source: sources.count(source) for source in dict.fromkeys(sources)} == {
        "official": 11,
        "timm": 11,
        "mmpretrain": 3,
        "mmdet": 1,
        "paddle": 5,
        "paddle_ssld": 3,
    }
    assert sum(published.mirror is not None for published in CATALOG.values()) == 9
    for published in CATALOG.values():
        if published.source == "timm":
            assert VARIANTS[published.variant].measured_by == "timm"
        # Nobody publishes an accuracy without saying whose, and all measure nearly the same.
        assert (published.top1 is None) == (published.measured_by is None)
        if published.top1 is not None and published.source != "paddle":
            assert abs(published.top1 - VARIANTS[published.variant].top1) < 0.3


@pytest.mark.parametrize("name", dict.fromkeys(file.variant for file in CATALOG.values()))
def test_the_table_of_variants_has_the_figures_of_the_default_file(name):
    variant, default = VARIANTS[name], published_for(name)[0]
    if default.source == "official":  # timm measured the authors' files more exactly than they did
        assert variant.measured_by == "timm"
        assert (variant.top1, variant.top5) == pytest.approx((default.top1, default.top5), abs=0.3)
    else:
        assert variant.measured_by == default.measured_by
        assert (variant.top1, variant.top5) == (default.top1, default.top5)


def test_files_of_paddle():
    files = {file.file: file for file in CATALOG.values() if file.format == "paddle"}
    assert sorted(files) == [
        "Res2Net101_vd_26w_4s_pretrained.pdparams",
        "Res2Net101_vd_26w_4s_ssld_pretrained.pdparams",
        "Res2Net200_vd_26w_4s_pretrained.pdparams",
        "Res2Net200_vd_26w_4s_ssld_pretrained.pdparams",
        "Res2Net50_14w_8s_pretrained.pdparams",
        "Res2Net50_26w_4s_pretrained.pdparams",
        "Res2Net50_vd_26w_4s_pretrained.pdparams",
        "Res2Net50_vd_26w_4s_ssld_pretrained.pdparams",
    ]
    base = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
    for name, file in files.items():
        assert (file.url, file.digest) == (f"{base}/{name}", None)
        assert (file.source == "paddle_ssld") == ("ssld" in name)
        # Their name of the network leads to the variant that the file is of.
        assert find_published(re.sub("(_ssld)?_pretrained.*", "", name)).variant == file.variant
    assert find_published("Res2Net50_vd_26w_4s").source == "paddle_ssld"
    assert find_published("paddle/Res2Net50_vd_26w_4s").top1 == 79.75
