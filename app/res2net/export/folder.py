"""A folder as Hugging Face's Hub has it: weights, config.json that timm reads, and a model card."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from res2net.errors import InputError, WorkError
from res2net.export.card import write_card
from res2net.export.compare import hold_tensors
from res2net.export.safetensors import description
from res2net.export.source import Source, same_in_timm
from res2net.files.atomic import atomic_write_json, atomic_write_text, new_file, sync_directory
from res2net.weights.formats import from_ours
from res2net.weights.infer import count_parameters
from res2net.weights.stored import WEIGHTS_FILE
from res2net.weights.write import write_weights


def export_folder(source: Source, path: str | os.PathLike[str]) -> list[str]:
    """Write `model.safetensors`, `config.json` and `README.md`.

    The tensors have timm's keys where timm has the network, so that
    `timm.create_model("local-dir:PATH", pretrained=True)` loads it, and this project's otherwise;
    this project opens the folder in either case.

    Args:
        source: What is exported.
        path: A new folder. It appears whole or not at all.

    Returns:
        The names of the files.

    Raises:
        InputError: Something stands there already, its parent is missing or cannot be written, or
            the batch norms are folded, for which timm has no network.
        WorkError: It cannot be written, does not give the tensors back bit for bit, or something
            else made it meanwhile.
    """
    target = new_file(path, (Path(path).suffix,))
    timm = same_in_timm(source.variant)
    if source.weights.is_folded:
        raise InputError(
            f"{source.weights.source}: its batch norms are folded, which a folder for others is "
            "not; take the weights it was exported from"
        )
    ours = source.weights.state_dict
    tensors = from_ours(ours, "timm") if timm else ours
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir()
        write_weights(
            temporary / WEIGHTS_FILE,
            tensors,
            description=description(source),
            check=lambda written: hold_tensors(written, ours),
        )
        atomic_write_json(temporary / "config.json", config_of(source))
        card = write_card(source, target.name, parameters=count_parameters(ours))
        atomic_write_text(temporary / "README.md", card)
        if os.path.lexists(target):
            raise WorkError(f"{target}: not written, something else made it meanwhile")
        temporary.rename(target)
        sync_directory(target.parent)
    except (OSError, InputError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkError(f"{target}: cannot be written ({reason}), nothing is kept") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(file.name for file in target.iterdir())


def config_of(source: Source) -> dict[str, Any]:
    """In the form of timm's `save_config_for_hf`, also for networks that timm does not have."""
    timm = same_in_timm(source.variant)
    classes = source.network.num_classes
    preprocessing = source.preprocessing
    stem = source.network.backbone.stem_weight.removesuffix(".weight")
    arguments = {"num_classes": classes, "in_chans": source.network.in_channels}
    return {
        "architecture": timm or source.variant,
        "library_name": "timm" if timm else "res2net-lightning",
        "num_classes": classes,
        "num_features": source.network.head.fc.in_features,
        "label_names": list(source.class_names),
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "res2net",
            "custom_load": False,
            "input_size": list(source.image_shape),
            "fixed_input_size": False,
            "interpolation": preprocessing.interpolation,
            "crop_pct": preprocessing.crop_fraction,
            "crop_mode": "center",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": classes,
            "pool_size": None,
            "first_conv": _FIRST_CONVOLUTION.get(timm or "", "conv1" if timm else stem),
            "classifier": "fc" if timm else "head.fc",
            "license": source.licence,
        },
    }


# timm adapts this one to other image channels; the others' is called conv1
_FIRST_CONVOLUTION = {
    "res2net50d": "conv1.0",
    "res2net101d": "conv1.0",
    "dla60_res2net": "base_layer.0",
    "dla60_res2next": "base_layer.0",
}
