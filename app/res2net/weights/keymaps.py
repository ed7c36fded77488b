"""The tables of `formats`: how each origin calls our modules. Facts only; nothing here computes.

Sources: the keys of timm 1.0.31's networks, which are the authors', and of torchvision's ResNets;
mmpretrain 1.2.0 and mmdetection (issues 3699 and 4050) for OpenMMLab's; PaddleClas d178931,
`res2net.py` and `res2net_vd.py`, and the files that its own networks write with PaddlePaddle
3.3.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Format = Literal["res2net", "official", "timm", "torchvision", "mmpretrain", "mmdet", "paddle"]
"""`official` are the authors' keys, timm's too; `timm` is said only of DLA, where they differ.
`torchvision` are those of plain ResNets, in timm as well."""

Pairs = tuple[tuple[str, str], ...]
Reshape = Literal["transpose", "conv_1x1"]
DeadTensor = tuple[str, tuple[int, ...], float]


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """Names of one origin for one shape of network; pairs are (theirs, ours) and one to one."""

    format: Format
    marks: tuple[str, ...]
    """Keys by which theirs are recognised: all must be there."""
    our_marks: tuple[str, ...]
    """Keys by which ours are recognised as this shape of network."""
    plain: bool = False
    """Only for plain ResNets: one convolution of full width a block (scale 1), no deep stem, no
    squeeze and excitation."""
    prefixes: Pairs
    """Of a whole key, exactly one is exchanged: the longest that fits."""
    parts: Pairs = ()
    """Exchanged inside the rest of the key."""
    leaves: Pairs = ()
    """Exchanged at the end of the key: names of a single tensor."""
    reshapes: tuple[tuple[str, Reshape], ...] = ()
    """Our key -> how their tensor becomes ours: `transpose` (C, N) -> (N, C), `conv_1x1`
    (N, C, 1, 1) -> (N, C)."""
    dead: tuple[DeadTensor, ...] = ()
    """Their tensors that nothing computes with: key, shape, value. Dropped, and written back with
    that value; an empty shape is a counter."""
    counters: bool = True
    """Whether their batch norms count batches (`num_batches_tracked`)."""


_STAGES = 4  # stages
_FC: Pairs = (("fc.", "head.fc."),)
_LAYERS: Pairs = tuple(
    (f"layer{number + 1}.", f"backbone.stages.{number}.") for number in range(_STAGES)
)
_STEM: Pairs = (("conv1.", "backbone.stem.conv1."), ("bn1.", "backbone.stem.bn1."))
# v1: the shortcut is a convolution and a norm.
_SHORTCUT: Pairs = ((".downsample.0.", ".shortcut.conv."), (".downsample.1.", ".shortcut.bn."))
# v1b: an average pool stands in front of them and takes number 0.
_SHORTCUT_AFTER_POOL: Pairs = (
    (".downsample.1.", ".shortcut.conv."),
    (".downsample.2.", ".shortcut.bn."),
)
_OUR_STEM = ("backbone.stem.conv1.weight",)
_OUR_DEEP_STEM = ("backbone.stem.conv2.weight",)
_BLOCK = "layer1.0.convs.0.weight"


def _deep_stem(*theirs: str) -> Pairs:
    """conv1, bn1, conv2, bn2, conv3, bn3 of the three-convolution stem, as they call them."""
    ours = [f"backbone.stem.{kind}{number}." for number in (1, 2, 3) for kind in ("conv", "bn")]
    return tuple(zip(theirs, ours, strict=True))


def _under(prefix: str, pairs: Pairs) -> Pairs:
    return tuple((prefix + theirs, ours) for theirs, ours in pairs)


OFFICIAL_V1 = KeyMap(
    format="official",
    marks=("conv1.weight", _BLOCK),
    our_marks=_OUR_STEM,
    prefixes=(*_STEM, *_LAYERS, *_FC),
    parts=_SHORTCUT,
)
OFFICIAL_V1B = KeyMap(
    format="official",
    marks=("conv1.0.weight", _BLOCK),
    our_marks=_OUR_DEEP_STEM,
    prefixes=(
        *_deep_stem("conv1.0.", "conv1.1.", "conv1.3.", "conv1.4.", "conv1.6.", "bn1."),
        *_LAYERS,
        *_FC,
    ),
    parts=_SHORTCUT_AFTER_POOL,
)
# torchvision's and timm's plain ResNets.
TORCHVISION = KeyMap(
    format="torchvision",
    # Without the third convolution it would be a ResNet of basic blocks.
    marks=("conv1.weight", "layer1.0.conv2.weight", "layer1.0.conv3.weight"),
    our_marks=_OUR_STEM,
    plain=True,
    prefixes=(*_STEM, *_LAYERS, *_FC),
    parts=((".conv2.", ".convs.0."), (".bn2.", ".bns.0."), *_SHORTCUT),
)


def _dead_projection(module: str, fan_in: int, fan_out: int) -> tuple[DeadTensor, ...]:
    """A 1x1 convolution and a norm, with the values of a fresh norm."""
    channels = (fan_out,)
    return (
        (f"{module}.0.weight", (fan_out, fan_in, 1, 1), 0.0),
        (f"{module}.1.weight", channels, 1.0),
        (f"{module}.1.bias", channels, 0.0),
        (f"{module}.1.running_mean", channels, 0.0),
        (f"{module}.1.running_var", channels, 1.0),
        (f"{module}.1.num_batches_tracked", (), 0.0),
    )


_DLA_PREFIXES: Pairs = (
    ("base_layer.", "backbone.base_layer."),
    *((f"level{number}.", f"backbone.level{number}.") for number in range(6)),
    *_FC,
)
_DLA_MARKS = ("base_layer.0.weight", "level2.tree1.convs.0.weight")
_OUR_DLA = ("backbone.base_layer.0.weight",)
# The authors build these projections in every tree, also where the tree inside has its own.
OFFICIAL_DLA = KeyMap(
    format="official",
    marks=(*_DLA_MARKS, "level3.project.0.weight"),
    our_marks=_OUR_DLA,
    prefixes=_DLA_PREFIXES,
    reshapes=(("head.fc.weight", "conv_1x1"),),
    dead=(
        *_dead_projection("level3.project", 128, 256),
        *_dead_projection("level4.project", 256, 512),
        *_dead_projection("level4.tree1.project", 256, 512),
    ),
)
TIMM_DLA = KeyMap(
    format="timm",
    marks=_DLA_MARKS,
    our_marks=_OUR_DLA,
    prefixes=_DLA_PREFIXES,
    reshapes=(("head.fc.weight", "conv_1x1"),),
)

_MM_HEAD: Pairs = (("head.fc.", "head.fc."),)
MMPRETRAIN_V1 = KeyMap(
    format="mmpretrain",
    marks=("backbone.conv1.weight", f"backbone.{_BLOCK}"),
    our_marks=_OUR_STEM,
    prefixes=(*_under("backbone.", (*_STEM, *_LAYERS)), *_MM_HEAD),
    parts=_SHORTCUT,
)
MMPRETRAIN_V1B = KeyMap(
    format="mmpretrain",
    marks=("backbone.stem.0.conv.weight", f"backbone.{_BLOCK}"),
    our_marks=_OUR_DEEP_STEM,
    prefixes=(
        *_under(
            "backbone.",
            (
                *_deep_stem(
                    "stem.0.conv.",
                    "stem.0.bn.",
                    "stem.1.conv.",
                    "stem.1.bn.",
                    "stem.2.conv.",
                    "stem.2.bn.",
                ),
                *_LAYERS,
            ),
        ),
        *_MM_HEAD,
    ),
    parts=_SHORTCUT_AFTER_POOL,
)
# A backbone, with or without the authors' classifier.
MMDET = KeyMap(
    format="mmdet",
    marks=("stem.0.weight", _BLOCK),
    our_marks=_OUR_DEEP_STEM,
    prefixes=(
        *_deep_stem("stem.0.", "stem.1.", "stem.3.", "stem.4.", "stem.6.", "stem.7."),
        *_LAYERS,
        *_FC,
    ),
    parts=_SHORTCUT_AFTER_POOL,
)


def _paddle_block(stage: int, block: int, *, numbered: bool) -> str:
    """res3c, or res4b2 in the third stage of networks deeper than 50 layers."""
    if stage == 2 and numbered:
        return f"res{stage + 2}" + ("a" if block == 0 else f"b{block}")
    return f"res{stage + 2}{chr(ord('a') + block)}"


def _paddle(*, deep_stem: bool, numbered: bool) -> KeyMap:
    """Every layer is a `_conv` and a `_batch_norm`; the 3x3 convolutions name their block again."""
    layers = [("conv1", "conv1", "bn1")]
    if deep_stem:
        layers = [(f"conv1_{number}", f"conv{number}", f"bn{number}") for number in (1, 2, 3)]
    stem = [(theirs, f"backbone.stem.{conv}", f"backbone.stem.{bn}") for theirs, conv, bn in layers]
    blocks: list[tuple[str, str]] = []
    inner: list[tuple[str, str, str]] = []
    # Depths and scales up to those of any published network: 48 blocks (200 layers), 8 chunks.
    for stage in range(_STAGES):
        for block in range(48 if numbered and stage == 2 else 26):
            theirs, ours = f"bb_{stage}_{block}", f"backbone.stages.{stage}.{block}"
            blocks.append((f"{theirs}.", f"{ours}."))
            name = _paddle_block(stage, block, numbered=numbered)
            inner += [
                (f"{theirs}.{name}_branch2b_{k + 1}", f"{ours}.convs.{k}", f"{ours}.bns.{k}")
                for k in range(7)
            ]
    return KeyMap(
        format="paddle",
        marks=(
            "conv1_1._conv.weight" if deep_stem else "conv1._conv.weight",
            "bb_0_0.conv0._conv.weight",
            *(("bb_2_1.res4b1_branch2b_1._conv.weight",) if numbered else ()),
        ),
        our_marks=(
            *(_OUR_DEEP_STEM if deep_stem else _OUR_STEM),
            *(("backbone.stages.2.6.conv1.weight",) if numbered else ()),
        ),
        prefixes=(
            *blocks,
            *((f"{theirs}._conv.", f"{conv}.") for theirs, conv, _ in (*stem, *inner)),
            *((f"{theirs}._batch_norm.", f"{bn}.") for theirs, _, bn in (*stem, *inner)),
            ("out.", "head.fc."),
        ),
        parts=(
            (".conv0._conv.", ".conv1."),
            (".conv0._batch_norm.", ".bn1."),
            (".conv2._conv.", ".conv3."),
            (".conv2._batch_norm.", ".bn3."),
            (".short._conv.", ".shortcut.conv."),
            (".short._batch_norm.", ".shortcut.bn."),
        ),
        leaves=(("_mean", "running_mean"), ("_variance", "running_var")),
        reshapes=(("head.fc.weight", "transpose"),),
        counters=False,
    )


KEY_MAPS: tuple[KeyMap, ...] = (
    # Those with more marks come before those whose marks they contain.
    OFFICIAL_V1B,
    OFFICIAL_V1,
    TORCHVISION,
    OFFICIAL_DLA,
    TIMM_DLA,
    MMPRETRAIN_V1B,
    MMPRETRAIN_V1,
    MMDET,
    _paddle(deep_stem=True, numbered=True),
    _paddle(deep_stem=True, numbered=False),
    _paddle(deep_stem=False, numbered=True),
    _paddle(deep_stem=False, numbered=False),
)
