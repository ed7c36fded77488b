"""The model card: README.md with the metadata that Hugging Face's Hub reads at its top."""

from __future__ import annotations

import json
import re
import shlex

from res2net.export.source import UNKNOWN_LICENCE, Source, same_in_timm
from res2net.files.names import shown

LONGEST = 200
"""Characters of a name or another text of the weights."""
NAMED = 20
"""Classes that the card names; config.json has all."""

_SPDX = {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-nc-sa-4.0"}


def write_card(source: Source, name: str, *, parameters: int) -> str:
    """Markdown.

    Args:
        source: What the card is of.
        name: Of the folder.
        parameters: Trainable numbers.
    """
    preprocessing = source.preprocessing
    timm = same_in_timm(source.variant)
    side = preprocessing.image_size
    mean, std = (", ".join(f"{v:g}" for v in t) for t in (preprocessing.mean, preprocessing.std))
    classes = ", ".join(map(_inline, source.class_names[:NAMED]))
    if len(source.class_names) > NAMED:
        classes += f" and {len(source.class_names) - NAMED:,} more (`label_names` in config.json)"
    licence = _inline(source.licence)
    sections = [
        _front_matter(source, timm),
        f"# {_inline(name)}",
        f"An image classifier: {source.variant}, a [Res2Net](https://arxiv.org/abs/1904.01169) "
        f"network of {parameters:,} parameters, {source.network.num_classes:,} classes.",
        "## Accuracy",
        _accuracy(source),
        "## Preprocessing",
        f"Resize the short side to {preprocessing.resize_size} pixels "
        f"({preprocessing.interpolation}, with antialiasing), cut out the centre of {side} x "
        f"{side}, divide by 255, subtract the mean ({mean}) and divide by ({std}), by channel, "
        "RGB.",
        "## Classes",
        f"{classes}.",
        "## Licence",
        f"{licence[:1].upper()}{licence[1:]}.",
        "## Use",
        "With res2net-lightning:",
        _code("bash", f"res2net predict {shlex.quote(shown(name))} IMAGE"),
        _code(
            "python",
            "from res2net import Predictor",
            "",
            f"predict = Predictor({json.dumps(name)})",
            'print(predict("image.jpg").topk)',
        ),
        *_with_timm(name, timm),
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(source: Source, timm: str | None) -> str:
    """YAML; a string in JSON's form is one of YAML's."""
    known = source.licence.lower()
    if known == UNKNOWN_LICENCE:
        licence = ["license: unknown"]
    elif known in _SPDX:
        licence = [f"license: {known}"]
    else:
        licence = ["license: other", f"license_name: {json.dumps(shown(source.licence))}"]
    return "\n".join(
        [
            "---",
            *licence,
            f"library_name: {'timm' if timm else 'res2net-lightning'}",
            "pipeline_tag: image-classification",
            "tags:",
            "- image-classification",
            "- res2net",
            "---",
        ]
    )


def _accuracy(source: Source) -> str:
    found = source.accuracy
    if found is None:
        return "Not known here: no `summary.json` and no publication goes with these weights."
    top5 = "" if found.top5 is None else f", top-5 {found.top5:.2%}"
    return f"Top-1 {found.top1:.2%}{top5}: {_inline(found.where)}."


def _with_timm(name: str, timm: str | None) -> list[str]:
    if timm is None:
        return ["timm has no such network."]
    return [
        f"With timm, which calls the network {timm}:",
        _code(
            "python",
            "import timm",
            "",
            f"model = timm.create_model({json.dumps('local-dir:' + name)}, pretrained=True).eval()",
            "transform = timm.data.create_transform(",
            "    **timm.data.resolve_model_data_config(model), is_training=False",
            ")",
        ),
    ]


def _code(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _inline(text: str) -> str:
    """One line of text: nothing of it is Markdown, HTML, an address or an emoji."""
    line = shown(" ".join(text.split()), longest=LONGEST)
    # CommonMark takes a backslash before every ASCII punctuation mark; what is left out here has a
    # meaning only at the beginning (lists) and in www. (GitHub's addresses)
    line = re.sub(r"([!-/:-@\[-`{-~])(?<![,;'%/?().-])", r"\\\1", line)
    line = re.sub(r"^([0-9]*)([-.)])", r"\1\\\2", line)
    return re.sub(r"\b(www)\.", r"\1\\.", line, flags=re.IGNORECASE)
