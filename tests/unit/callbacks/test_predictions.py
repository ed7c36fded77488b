"""The likeliest classes come in the order of the data set, on any number of ranks."""

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
    count: int, ranks: int, classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(0))
    trainer: Any = SimpleNamespace(world_size=ranks)
    module: Any = None
    said: list[torch.Tensor] = []
    for rank in reversed(range(ranks)):  # rank 0 comes last, when all have spoken
        order = EvalOrder(count, 4, world_size=ranks, rank=rank)
        callback = Predictions(order.in_order)
        callback.on_validation_epoch_start(trainer, module)
        for position in range(order.batches):
            indices = torch.from_numpy(order.batch(position))
            shown = torch.zeros(4, classes)
            shown[indices != PADDING] = logits[indices[indices != PADDING]]
            labels = torch.where(indices == 5, EXCLUDED, indices)
            batch = (None, labels)
            callback.on_validation_batch_end(trainer, module, {"logits": shown}, batch, position)
        said.insert(0, torch.cat(callback._batches))
    monkeypatch.setattr(predictions, "gather_all_tensors", lambda mine: said)
    callback.on_validation_epoch_end(trainer, module)
    expected = logits.topk(min(5, classes), dim=1).indices.numpy()
    expected[5:6] = predictions.NONE  # the sixth could not be decoded
    assert np.array_equal(callback.classes, expected)
