"""BN's statistics against torch's own update_bn, a direct formula, and two ranks."""

from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.optim.swa_utils import update_bn

from ranks import call
from res2net.training.evaluation.recalibrate import recalibrate
from res2net.zoo import create_model
from samples import VARIANT, small_network


def batches(count: int = 4, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(i + 1) * torch.randn(6 + i, 3, 16, 16, generator=generator) + i for i in range(count)]


def buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers()}


def test_as_torchs_update_bn() -> None:
    ours, theirs = small_network(), small_network()
    assert ours.training is False
    parameters = [p.clone() for p in ours.parameters()]
    recalibrate(ours, iter(batches()))
    update_bn(batches(), theirs)
    assert buffers(ours).keys() == buffers(theirs).keys()
    for name, value in buffers(theirs).items():
        torch.testing.assert_close(buffers(ours)[name], value, rtol=1e-6, atol=1e-7)
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), parameters, strict=True))


def test_means_of_the_batches_means_and_variances() -> None:
    norm = nn.BatchNorm2d(3)
    norm.running_mean += 100
    recalibrate(norm, batches())
    means = torch.stack([b.double().mean((0, 2, 3)) for b in batches()])
    variances = torch.stack([b.double().var((0, 2, 3), unbiased=True) for b in batches()])
    torch.testing.assert_close(norm.running_mean.double(), means.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var.double(), variances.mean(0), rtol=1e-5, atol=1e-6)


class Mixed(nn.Module):
    """Parts in several modes, one of which is random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm2d(3, momentum=0.3).eval()
        self.norm = nn.BatchNorm2d(3, momentum=None)
        self.stateless = nn.BatchNorm2d(3, track_running_stats=False)
        self.seen: list[tuple[bool, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(module.training for module in self.modules()))
        assert not torch.is_grad_enabled()
        return self.stateless(self.norm(self.frozen(self.dropout(x))))


def test_all_but_bn_as_in_evaluation_and_modes_and_momenta_as_before() -> None:
    model = Mixed()
    modes = [module.training for module in model.modules()]
    assert modes == [True, True, False, True, True]
    recalibrate(model, batches(2))
    assert model.seen == [(False, False, True, True, False)] * 2
    assert [module.training for module in model.modules()] == modes
    assert (model.frozen.momentum, model.norm.momentum) == (0.3, None)
    assert torch.is_grad_enabled()
    # no dropout: the first norm saw the images as they are
    expected = torch.stack([b.mean((0, 2, 3)) for b in batches(2)]).mean(0)
    torch.testing.assert_close(model.frozen.running_mean, expected)


def test_modes_come_back_after_an_error_too() -> None:
    model = Mixed()
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.zeros(2, 5, 4, 4)])
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert model.frozen.momentum == 0.3


def test_without_batches_or_without_bn_nothing_changes() -> None:
    model = small_network()
    before = buffers(model)
    with pytest.raises(ValueError, match="no batches"):
        recalibrate(model, [])
    assert all(torch.equal(value, before[name]) for name, value in buffers(model).items())
    recalibrate(nn.Linear(2, 2), [])


def test_mended_statistics_bring_evaluation_back_to_training() -> None:
    """What it is for: weights that changed much since the statistics were gathered."""
    torch.manual_seed(0)
    model = create_model(VARIANT, num_classes=10).train()
    images = torch.randn(64, 3, 32, 32)
    with torch.no_grad():
        trained = model(images)
        stale = model.eval()(images)
    recalibrate(model, [images])
    with torch.no_grad():
        mended = model(images)
    assert (mended - trained).abs().max() < 0.05 * (stale - trained).abs().max()


def _rank(rank: int, counts: list[int], store: str, out: str) -> None:
    file = distributed.FileStore(store, len(counts))
    distributed.init_process_group("gloo", store=file, rank=rank, world_size=len(counts))
    start = sum(counts[:rank])
    norm = nn.BatchNorm2d(3)
    recalibrate(norm, batches(sum(counts))[start : start + counts[rank]])
    torch.save(dict(norm.named_buffers()), f"{out}{rank}")
    distributed.destroy_process_group()


def test_every_rank_has_the_mean_over_all_batches(tmp_path: Path) -> None:
    counts = [1, 3]  # ranks weigh by their batches
    call(_rank, counts, str(tmp_path / "store"), str(tmp_path / "out"))
    whole = nn.BatchNorm2d(3)
    recalibrate(whole, batches(4))
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"out{rank}").items():
            torch.testing.assert_close(value, dict(whole.named_buffers())[name])
