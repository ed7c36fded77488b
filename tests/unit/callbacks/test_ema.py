"""The average against a loop in float64, in a real training."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from res2net.callbacks.ema import Average

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Small(L.LightningModule):
    """A network with BN, and a copy of its state after each optimizer step."""

    def __init__(self, *, compiled: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        if compiled:
            self.model.compile(backend="eager")
        self.states: list[dict[str, torch.Tensor]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.model(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step > len(self.states):
            self.states.append({k: v.clone() for k, v in self.model.state_dict().items()})


def fit(average: Average, *, steps: int = 12, accumulate: int = 1, compiled: bool = False) -> Small:
    module = Small(compiled=compiled)
    data = torch.randn(steps * accumulate * 4, 4, generator=torch.Generator().manual_seed(1))
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[average],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
        accumulate_grad_batches=accumulate,
    )
    trainer.fit(module, DataLoader(data, batch_size=4))
    assert len(module.states) == steps
    return module


@pytest.mark.parametrize(("every", "accumulate"), [(1, 1), (3, 1), (1, 2)])
def test_it_is_the_average_of_weights_and_buffers(every: int, accumulate: int) -> None:
    average = Average(decay=0.8, every=every)
    module = fit(average, accumulate=accumulate)
    expected: dict[str, torch.Tensor] = {}
    for state in module.states[every - 1 :: every]:
        for key, value in state.items():
            if value.is_floating_point():
                old = expected.get(key, value.double())
                expected[key] = 0.8 * old + 0.2 * value.double()
    assert average.network is not None
    averaged = average.network.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(averaged[key].double(), value, rtol=1e-5, atol=1e-6)
    assert any("running_var" in key for key in expected)
    # counters are those of the last update
    assert averaged["1.num_batches_tracked"] == 12 // every * every * accumulate
    raw = module.model.state_dict()
    assert not torch.allclose(averaged["0.weight"], raw["0.weight"], atol=1e-4)


def test_it_is_stored_beside_the_raw_weights_and_goes_on_from_there() -> None:
    average = Average(decay=0.8, every=1)
    module = fit(average)
    checkpoint: dict[str, Any] = {}
    average.on_save_checkpoint(module.trainer, module, checkpoint)
    assert checkpoint["ema_updates"] == 12
    assert set(checkpoint["ema_state_dict"]) == set(module.state_dict())
    assert not any("ema" in key or "average" in key for key in module.state_dict())

    resumed = Average(decay=0.8, every=1)
    resumed.on_load_checkpoint(module.trainer, module, checkpoint)
    resumed.on_train_start(module.trainer, module)
    assert average.network is not None and resumed.network is not None
    for old, new in zip(
        average.network.state_dict().values(), resumed.network.state_dict().values(), strict=True
    ):
        assert torch.equal(old, new)
    again: dict[str, Any] = {}
    resumed.on_save_checkpoint(module.trainer, module, again)
    assert again["ema_updates"] == 12
    assert not any(p.requires_grad for p in resumed.network.parameters())
    assert not resumed.network.training


def test_a_compiled_network_is_averaged_under_its_own_names() -> None:
    states = []
    for compiled in (False, True):
        average = Average(decay=0.8, every=1)
        module = fit(average, compiled=compiled)
        checkpoint: dict[str, Any] = {}
        average.on_save_checkpoint(module.trainer, module, checkpoint)
        assert set(checkpoint["ema_state_dict"]) == set(module.state_dict())
        states.append(checkpoint["ema_state_dict"])
    assert not any("_orig_mod" in key for key in states[1])
    torch.testing.assert_close(states[1], states[0])
