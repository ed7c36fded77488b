"""`bench suite` from one end to the other, on next to nothing."""

from dataclasses import replace

from res2net.bench import suite
from res2net.cli.main import main
from schemas import fits


def test_everything_in_one_go(tmp_path, monkeypatch, capsys) -> None:
    small = replace(suite.ON_CPU, seconds=0.0, steps=1, photos=8)
    monkeypatch.setattr(suite, "ON_CPU", small)
    out = tmp_path / "figures.json"
    arguments = ["bench", "suite", "res2net20_cifar", "--device", "cpu", "--out", str(out)]
    assert main([*arguments, "--batch", "4", "--size", "32", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    for heading in ("| forward |", "| step |", "| training step, ours |", "| bare loop |"):
        assert heading in shown
    figures = fits("bench_suite", out.read_text())
    profile = figures["profiles"]["ours"]
    assert 0.5 < sum(kernel["share"] for kernel in profile) <= 1  # the costliest of many
    assert [kernel["ms"] for kernel in profile] == sorted(
        (kernel["ms"] for kernel in profile), reverse=True
    )
    assert any("convolution" in kernel["name"] for kernel in profile)
    assert figures["loops"]["work"]["config"]["data"]["source"] == "shards"
    assert figures["models"]["res2net20_cifar"]["step"]["work"]["batch_size"] == 4

    assert main(arguments) == 2  # never overwritten


def test_photos_weigh_what_imagenets_do(tmp_path) -> None:
    suite.make_photos(tmp_path, 4)
    sizes = [file.stat().st_size for file in tmp_path.rglob("*.jpg")]
    assert len(sizes) == 4
    assert 60_000 < min(sizes) <= max(sizes) < 160_000
