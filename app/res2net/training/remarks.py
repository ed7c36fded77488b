"""What a configuration asks for in vain: nothing that is wrong, but nothing that was meant."""

from __future__ import annotations

from res2net.config.schema import Config
from res2net.training.data import IN_MEMORY


def remarks(config: Config) -> list[str]:
    """A line for each key that was changed and has no effect, and for each that hardly is meant."""
    return [*_without_effect(config), *_hardly_meant(config)]


def _without_effect(config: Config) -> list[str]:
    augment, loss, optim, schedule = config.augment, config.loss, config.optim, config.schedule
    mixes = augment.mixup > 0 or augment.cutmix > 0
    sgd, adam = optim.name in ("sgd", "muon"), optim.name in ("adamw", "lamb")
    # key, the condition under which it counts, what that takes
    conditions = [
        ("data.stage_to", config.data.source not in IN_MEMORY, "shards: the rest is read but once"),
        ("augment.mix_probability", mixes, "augment.mixup or augment.cutmix"),
        ("augment.cutmix_share", augment.mixup and augment.cutmix, "both mixup and cutmix"),
        ("augment.policy_ops", augment.policy == "rand_augment", "augment.policy=rand_augment"),
        ("augment.policy_magnitude", augment.policy == "rand_augment", "the same policy"),
        ("loss.distill", loss.teacher, "loss.teacher"),
        ("loss.temperature", loss.teacher, "loss.teacher"),
        ("optim.ema_every", optim.ema_decay, "optim.ema_decay"),
        ("optim.lr_rule", optim.lr_batch, "optim.lr_batch"),
        ("optim.momentum", sgd, "optim.name=sgd or muon"),
        ("optim.betas", adam, "optim.name=adamw or lamb"),
        ("schedule.step_epochs", schedule.name == "step", "schedule.name=step"),
        ("schedule.milestones", schedule.name == "step", "schedule.name=step"),
        ("schedule.end_factor", schedule.name not in ("step", "constant"), "another schedule.name"),
        ("schedule.warmup_start", schedule.warmup_epochs, "schedule.warmup_epochs"),
    ]
    plain = Config()
    lines = []
    for key, counts, what in conditions:
        group, leaf = key.split(".")
        value = getattr(getattr(config, group), leaf)
        if not counts and value != getattr(getattr(plain, group), leaf):
            lines.append(f"{key}={value}: without effect, it takes {what}")
    return lines


def _hardly_meant(config: Config) -> list[str]:
    schedule, epochs = config.schedule, config.trainer.max_epochs
    lines = []
    if config.optim.freeze != "none" and not config.model.weights:
        lines.append(
            f"optim.freeze={config.optim.freeze} without model.weights: what is frozen stays at "
            "its random start"
        )
    if schedule.warmup_epochs == epochs:
        lines.append(
            f"schedule.warmup_epochs={schedule.warmup_epochs:g} of trainer.max_epochs={epochs}: "
            "the learning rate never reaches its peak"
        )
    late = [f"{epoch:g}" for epoch in schedule.milestones if epoch >= epochs]
    if schedule.name == "step" and late:
        lines.append(
            f"schedule.milestones: {', '.join(late)} never come in trainer.max_epochs={epochs}"
        )
    return lines
