"""The likeliest classes come in the order of the data set, on any number of ranks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from res2net.callbacks import predictions
from res2net.callbacks.predictions import Predictions
from res2net.data.order import EXCLUDED, PADDING, EvalOrder


@pytest.mark.parametrize("count", [1, 12, 13, 23])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("classes", [3, 10])
def test_in_the_order_of_the_source(
    count: int, ranks: int, classes: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0))
    trainer: Any = SimpleNamespace(world_size=ranks)
    module: Any = None
    losses = torch.rand(count, generator=torch.Generator().manual_seed(1))
    said: dict[torch.dtype, list[torch.Tensor]] = {torch.int64: [], torch.float32: []}
    for rank in reversed(range(ranks)):  # rank 0 comes last, when all have spoken
        order = EvalOrder(count, 4, world_size=ranks, rank=rank)
        callback = Predictions(order.in_order)
        callback.on_validation_epoch_start(trainer, module)
        for position in range(order.batches):
            indices = torch.from_numpy(order.batch(position))
            shown = torch.zeros(4, classes)
            shown[indices != PADDING] = logits[indices[indices != PADDING]]
            each = torch.zeros(4)
            each[indices != PADDING] = losses[indices[indices != PADDING]]
            labels = torch.where(indices == 5, EXCLUDED, indices)
            batch = (None, labels)
            outputs = {"logits": shown, "losses": each}
            callback.on_validation_batch_end(trainer, module, outputs, batch, position)
        for batches in (callback._classes, callback._numbers):
            said[batches[0].dtype].insert(0, torch.cat(batches))
    monkeypatch.setattr(predictions, "gather_all_tensors", lambda mine: said[mine.dtype])
    callback.on_validation_epoch_end(trainer, module)
    expected = logits.topk(min(5, classes), dim=1).indices.numpy()
    expected[5:6] = predictions.NONE  # the sixth could not be decoded
    assert np.array_equal(callback.classes, expected)
    assert np.array_equal(callback.losses, losses.numpy())
    likeliest = logits.softmax(1).amax(1).numpy()
    np.testing.assert_allclose(callback.probabilities, likeliest, rtol=1e-6)

    # as a checkpoint has it, for the pictures: of the classes the likeliest alone
    again = Predictions(order.in_order)
    again.load_state_dict(through_a_file(callback.state_dict(), tmp_path))
    assert np.array_equal(again.classes, expected[:, :1])
    assert again.classes.dtype == callback.classes.dtype
    assert np.array_equal(again.probabilities, callback.probabilities)
    assert np.array_equal(again.losses, callback.losses)
    for forgetful in (callback, again):
        forgetful.on_train_epoch_start(trainer, module)
        assert {name: len(tensor) for name, tensor in forgetful.state_dict().items()} == {
            "classes": 0,
            "probabilities": 0,
            "losses": 0,
        }


def through_a_file(state: dict[str, Any], folder: Path) -> Any:
    torch.save(state, folder / "state")
    return torch.load(folder / "state", weights_only=True)
