"""`res2net models`: the table, all about one variant, and the JSON of both."""

import re
import sys
from pathlib import Path

import pytest

from res2net.cli.main import main
from res2net.models.variants import ALIASES, VARIANTS
from res2net.weights.catalog import published_for
from schemas import fits

OFFICIAL = "res2net50_26w_4s-06e79181.pth"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RES2NET_CACHE", str(tmp_path))
    return tmp_path


def printed(capsys, *arguments) -> str:
    assert main(["models", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def as_json(capsys, *arguments):
    return fits("models", printed(capsys, "--json", *arguments))


def test_every_variant_and_alias_has_a_row(capsys, cache):
    (cache / OFFICIAL).touch()
    rows = [line.split() for line in printed(capsys).splitlines()]
    for name in VARIANTS:
        assert name in [row[0] for row in rows if len(row) > 3]
    for alias, name in ALIASES.items():
        assert [alias, name] in rows
    for row in (
        "res2net50_26w_4s 25.70M 4.26G 224 1000 77.99% 93.86% timm official* timm",
        "res2net50_14w_8s 25.06M 4.18G 224 1000 78.14% 93.85% timm official timm mmpretrain",
        "res2net50_vd_26w_4s 25.72M 4.49G 224 1000 83.10% 96.60% PaddleClas (SSLD) paddle_ssld "
        "paddle",
        "res2net20_cifar 0.09M 0.01G 32 10 res2net_digits",
        # CIFAR-100: no top-5 was published.
        "res2next29_6c24w_4s 24.36M 3.95G 32 100 83.02% paper",
    ):
        assert row.split() in rows


def test_the_table_fits_into_100_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("RES2NET_CACHE", "cache")  # its path is printed whole, however long
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys)).splitlines()
    assert max(map(len, lines)) <= 100
    assert "…" not in "".join(lines)
    rows = [line.split() for line in lines]
    assert [row[0] for row in rows if len(row) > 3 and row[0] in VARIANTS] == list(VARIANTS)
    (row,) = (row for row in rows if row[:1] == ["res2net50_26w_4s"])
    assert row[5:] == ["77.99%", "93.86%", "timm", "official", "timm"]


@pytest.mark.parametrize("glob", ["res2net50_26w_4s", "res2net50_26w_4?", "res2net50"])
def test_all_about_a_single_variant(capsys, cache, glob):
    (cache / OFFICIAL).touch()
    assert (
        printed(capsys, glob)
        == f"""\
res2net50_26w_4s
  parameters  25,699,120
  MACs        4,255,166,464 at 224 x 224 pixels (convolutions and classifier)
  classes     1000
  published   top-1 77.99%, top-5 93.86%, measured by timm
  aliases     res2net50

official/res2net50_26w_4s (in1k, the default)
  accuracy    top-1 77.99%, top-5 93.85%, measured by authors
  licence     CC BY-NC-SA 4.0 (no commercial use)
  URL         https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/{OFFICIAL}
  copy        https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-res2net/{OFFICIAL}
  sha256      06e79181...
  cached      {cache / OFFICIAL}

timm/res2net50_26w_4s
  accuracy    top-1 77.99%, top-5 93.86%, measured by timm
  licence     not stated by who hosts them; the authors' own are CC BY-NC-SA 4.0 (no commercial use)
  URL         https://huggingface.co/timm/res2net50_26w_4s.in1k/resolve/main/model.safetensors
  sha256      none published
  cached      no
"""
    )


def test_details_without_weights_aliases_or_accuracy(capsys):
    assert printed(capsys, "resnet20_cifar").splitlines()[-3:] == [
        "  aliases     none",
        "",
        "Nobody published weights that can be fetched.",
    ]
    assert "res2net_digits (comes with the package)\n" in printed(capsys, "res2net20_cifar")
    assert "  published   top-1 83.02%, measured by paper\n" in printed(
        capsys, "res2next29_6c24w_4s"
    )
    detector = printed(capsys, "res2net101d").split("\n\n")[-1].splitlines()
    assert detector[:2] == ["mmdet/res2net101_v1b_26w_4s", "  accuracy    none"]


def test_json_is_all_that_stands_on_stdout(capsys, cache):
    (cache / OFFICIAL).touch()
    assert as_json(capsys, "res2net50_26w_4s") == [
        {
            "name": "res2net50_26w_4s",
            "parameters": 25_699_120,
            "macs": 4_255_166_464,
            "image_size": 224,
            "num_classes": 1000,
            "published": {"top1": 0.77994, "top5": 0.9386, "measured_by": "timm"},
            "aliases": ["res2net50"],
            "weights": [
                {
                    "name": "official/res2net50_26w_4s",
                    "url": "https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/" + OFFICIAL,
                    "mirror": "https://github.com/rwightman/pytorch-image-models/releases/download"
                    f"/v0.1-res2net/{OFFICIAL}",
                    "licence": "CC BY-NC-SA 4.0 (no commercial use)",
                    "top1": 0.7799,
                    "top5": 0.9385,
                    "measured_by": "authors",
                    "sha256_prefix": "06e79181",
                    "cached": str(cache / OFFICIAL),
                },
                {
                    "name": "timm/res2net50_26w_4s",
                    "url": "https://huggingface.co/timm/res2net50_26w_4s.in1k/resolve/main"
                    "/model.safetensors",
                    "mirror": None,
                    "licence": "not stated by who hosts them; the authors' own are CC BY-NC-SA "
                    "4.0 (no commercial use)",
                    "top1": 0.77994,
                    "top5": 0.9386,
                    "measured_by": "timm",
                    "sha256_prefix": None,
                    "cached": None,
                },
            ],
            "shipped": [],
        }
    ]


def test_json_has_every_file_of_every_variant(capsys):
    for row in as_json(capsys):
        files = [file["name"] for file in row["weights"]]
        assert files == [published.name for published in published_for(row["name"])]
        for file in row["weights"]:
            assert file["top1"] is None or 0.5 < file["top1"] < file["top5"] < 1


def test_json_without_published_accuracy(capsys):
    (row,) = as_json(capsys, "res2net20_cifar")
    assert (row["published"], row["weights"]) == (None, [])
    (shipped,) = row["shipped"]
    assert (shipped["name"], shipped["top1"]) == ("res2net_digits", 0.9917)
    assert Path(shipped["path"]).is_file()
    (row,) = as_json(capsys, "res2next29_6c24w_4s")
    assert row["published"] == {"top1": 0.8302, "top5": None, "measured_by": "paper"}


def test_names_and_aliases_match_case_and_all(capsys):
    names = [row["name"] for row in as_json(capsys, "*v1b*")]
    assert names == [name for name in VARIANTS if "v1b" in name]
    for alias in ("res2net50d", "Res2Net50_vd_26w_4s", "res2net50_vd_26w_4s"):
        (row,) = as_json(capsys, alias)
        assert row["name"] == ALIASES.get(alias, alias)


def test_no_match_names_the_nearest(capsys):
    assert main(["models", "res2next5"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    nearest = "res2next50, res2net50, res2net50d"
    assert err == f"error: 'res2next5': matches no variant and no alias; the nearest: {nearest}\n"


def test_no_match_and_nothing_near(capsys):
    assert main(["models", "vgg*"]) == 2
    assert capsys.readouterr() == (
        "",
        "error: 'vgg*': matches no variant and no alias; `res2net models` lists them\n",
    )
