"""A network cut into layers, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from torch import nn

from res2net.models.dla import DLA, Tree
from res2net.models.head import Backbone, Res2NetClassifier

Layer = tuple[nn.Module, ...]


def stem_and_stages(backbone: Backbone) -> tuple[Layer, Layer]:
    """The modules of the stem, and one module for each stage."""
    if isinstance(backbone, DLA):
        children = list(backbone.children())
        return (
            tuple(child for child in children if not isinstance(child, Tree)),
            tuple(child for child in children if isinstance(child, Tree)),
        )
    return (backbone.stem,), tuple(backbone.stages)


def layers(model: Res2NetClassifier) -> list[Layer]:
    """The stem, each block, the head: every parameter is in exactly one of them."""
    stem, stages = stem_and_stages(model.backbone)
    blocks = chain.from_iterable(_blocks(stage) for stage in stages)
    return [stem, *blocks, (model.head,)]


def _blocks(stage: nn.Module) -> Iterator[Layer]:
    if not isinstance(stage, Tree):
        yield from ((block,) for block in stage.children())
    elif stage.depth > 1:
        yield from _blocks(stage.tree1)
        yield from _blocks(stage.tree2)
    else:  # the projection is the first block's shortcut, the root mixes what the second gives
        yield stage.project, stage.tree1
        yield stage.tree2, stage.root
