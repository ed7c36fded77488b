"""Keys without effect and settings that are hardly meant, each in a line; no recipe has any."""

import pytest

from res2net.config.load import load_config, recipes
from res2net.training.remarks import remarks


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        (["loss.temperature=2"], "loss.temperature=2.0: without effect, it takes loss.teacher"),
        (["optim.ema_every=3"], "optim.ema_every=3: without effect, it takes optim.ema_decay"),
        (["optim.betas=[0.9,0.99]"], "optim.betas=(0.9, 0.99): without effect"),
        (["augment.mix_probability=0.5"], "augment.mix_probability=0.5: without effect"),
        (["schedule.step_epochs=5"], "schedule.step_epochs=5.0: without effect"),
        (["optim.freeze=backbone"], "optim.freeze=backbone without model.weights"),
        (["schedule.warmup_epochs=20"], "schedule.warmup_epochs=20 of trainer.max_epochs=20"),
        (
            ["schedule.name=step", "schedule.milestones=[5,100]"],
            "schedule.milestones: 100 never come",
        ),
    ],
)
def test_one_line(changes: list[str], start: str) -> None:
    (line,) = remarks(load_config("quickstart", changes))
    assert line.startswith(start)


def test_with_its_partner_a_key_is_passed_over() -> None:
    changes = ["loss.teacher=x", "loss.temperature=2", "optim.ema_every=3", "optim.ema_decay=0.9"]
    assert remarks(load_config("quickstart", changes)) == []


@pytest.mark.parametrize("name", recipes())
def test_recipes_have_none(name: str) -> None:
    needed = {"finetune_head": ["model.weights=x"], "imagenet/distill": ["loss.teacher=x"]}
    assert remarks(load_config(name, needed.get(name, []))) == []
