"""A resumed run draws the random numbers that would have come, and each part gets its own back."""

import copy
import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from res2net.callbacks import exact_resume
from res2net.callbacks.exact_resume import (
    ExactResume,
    gather,
    generator_states,
    load_generator_states,
    rescale_progress,
)
from res2net.errors import WorkError
from res2net.training.classifier import ImageClassifier
from res2net.zoo import create_model

# Lightning's advice on loaders and intervals
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.fixture(autouse=True)
def generators() -> Iterator[None]:
    """The test suite's own random numbers stay as they were."""
    kept = generator_states()
    yield
    load_generator_states(kept)


# Generators


def draws() -> list[float]:
    return [
        *torch.rand(3).tolist(),
        *torch.randn(2).tolist(),
        random.random(),
        random.gauss(0, 1),
        *np.random.rand(3).tolist(),
        np.random.standard_normal(),
    ]


@pytest.mark.parametrize("before", [0, 1, 2, 700])
def test_all_generators_go_on_exactly(before: int) -> None:
    for _ in range(before):  # odd numbers: half of a pair of gaussians is still kept inside
        draws()
    state = through_a_file(generator_states())
    expected = [draws() for _ in range(3)]
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    assert draws() != expected[0]
    load_generator_states(state)
    assert [draws() for _ in range(3)] == expected


# In a real fit


class Part:
    """Counts batches."""

    def __init__(self) -> None:
        self.count = 0
        self.loaded: tuple[list[dict[str, Any]], int | None] | None = None

    def resume_state(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_resume_state(self, states: Sequence[dict[str, Any]], rank: int | None) -> None:
        self.loaded = (list(states), rank)


class Noise(L.LightningModule):
    """Trains by chance alone."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.part = part
        self.drawn: list[list[float]] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.drawn.append(draws())
        self.part.count += 1
        return self.weight

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Checkpoint):
    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(
    *callbacks: L.Callback, seed: int = 0, resume: Path | None = None, accumulate: int = 1
) -> tuple[Noise, L.Trainer]:
    """Two epochs of four batches."""
    module = Noise(Part())
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        callbacks=[ExactResume({"part": module.part}, seed=seed, image_size=8), *callbacks],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=bool(callbacks),
    )
    # an earlier life of the process must not matter
    torch.manual_seed(np.random.randint(2**31))
    random.seed(np.random.randint(2**31))
    trainer.fit(module, DataLoader(range(4), batch_size=None), ckpt_path=resume, weights_only=True)
    return module, trainer


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_resumed_fit_draws_what_would_have_come(tmp_path: Path, step: int) -> None:
    path = tmp_path / "a.ckpt"
    whole, _ = fit(SaveAt(path, step))
    assert len(whole.drawn) == 8
    resumed, _ = fit(resume=path)
    assert resumed.drawn == whole.drawn[step:]
    assert resumed.part.loaded == ([{"count": step}], 0)


def test_the_seed_decides_what_a_fresh_run_draws() -> None:
    first, again, other = (fit(seed=seed)[0].drawn for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len({tuple(drawn) for drawn in first}) == 8


def test_on_another_layout_parts_are_told_and_generators_begin_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    whole, _ = fit(SaveAt(path, 3))
    # as two ranks would have stored it
    stored = torch.load(path, weights_only=True)
    assert stored["layout"] == {"world_size": 1, "accumulate": 1}
    assert list(stored["ranks"][0]) == ["part", "generators"]
    stored["layout"]["world_size"] = 2
    stored["ranks"].append(copy.deepcopy(stored["ranks"][0]) | {"part": {"count": 77}})
    torch.save(stored, path)
    resumed, again = (fit(resume=path)[0] for _ in range(2))
    assert resumed.part.loaded == ([{"count": 3}, {"count": 77}], None)
    assert len(resumed.drawn) == 5
    assert resumed.drawn == again.drawn
    assert not {tuple(d) for d in resumed.drawn} & {tuple(d) for d in whole.drawn}


def test_twice_the_batches_per_step_are_counted_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    fit(SaveAt(path, 1))  # one batch done; now two batches make a step: two batches done
    resumed, trainer = fit(resume=path, accumulate=2)
    assert len(resumed.drawn) == 6
    assert trainer.global_step == 1 + 3


# Progress


def checkpoint_with(ready: int, completed: int, total: int) -> dict[str, Any]:
    counts = {"ready": ready, "started": ready, "processed": ready, "completed": completed}
    offset = {key: value + total - ready for key, value in counts.items()}
    progress = {"total": offset, "current": counts, "is_last_batch": False}
    return {"loops": {"fit_loop": {"epoch_loop.batch_progress": progress}}}


@pytest.mark.parametrize(
    ("stored", "now", "before", "after"),
    [
        # ready, completed and the run's total: saved at the end of a batch, the last not completed
        (1, 2, (6, 5, 16), (12, 11, 32)),
        (2, 1, (12, 11, 32), (6, 5, 16)),
        (2, 3, (6, 5, 16), (9, 8, 24)),
        (1, 2, (10, 10, 20), (20, 20, 40)),
        (4, 4, (8, 7, 20), (8, 7, 20)),
    ],
)
def test_progress_is_counted_in_the_new_batches(
    stored: int, now: int, before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    checkpoint = checkpoint_with(*before)
    rescale_progress(checkpoint, stored, now)
    assert checkpoint == checkpoint_with(*after)


# Ranks


@pytest.fixture
def group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_alone_a_gathering_is_the_value() -> None:
    assert gather({"a": 1}) == [{"a": 1}]


@pytest.mark.usefixtures("group")
def test_a_group_gathers_by_rank() -> None:
    assert gather({"a": 1}) == [{"a": 1}]


def test_ranks_that_read_different_states_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact_resume, "gather", lambda step: [step, step - 2])
    trainer = SimpleNamespace(global_step=24)
    with pytest.raises(WorkError, match=r"\(steps 24, 22\): the file system lags") as caught:
        ExactResume({}, seed=0, image_size=16).on_train_start(trainer, L.LightningModule())  # type: ignore[arg-type]
    assert caught.value.of_all_ranks


@pytest.mark.usefixtures("group")
def test_settling_the_buckets_compiles_nothing() -> None:
    compiled = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        compiled.append(graph)
        return graph

    network = create_model("res2net20_cifar")
    network.compile(backend=backend)
    model = ImageClassifier(network)
    ExactResume({}, seed=0, image_size=16)._build_buckets(DistributedDataParallel(model), model)
    assert not compiled
    model(torch.zeros(2, 3, 16, 16))
    assert compiled


@pytest.mark.usefixtures("group")
def test_settling_the_buckets_leaves_no_trace() -> None:
    model = ImageClassifier(create_model("res2net20_cifar"))
    before = copy.deepcopy(model.state_dict())
    drawn = torch.get_rng_state()
    ddp = DistributedDataParallel(model)
    ExactResume({}, seed=0, image_size=16)._build_buckets(ddp, model)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), drawn)
