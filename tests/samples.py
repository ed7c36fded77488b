"""Random images, and a small network with its file, for tests of what uses networks."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from res2net.models.head import Res2NetClassifier
from res2net.preprocessing import Preprocessing
from res2net.zoo import create_model

VARIANT = "res2net20_cifar"
NAMES = [f"kind {number}" for number in range(10)]
PREPROCESSING = Preprocessing(image_size=32, crop_fraction=1.0, mean=(0.5, 0.4, 0.3))


def photo(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """Smooth random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def small_network(num_classes: int = 10) -> Res2NetClassifier:
    """Random weights whose batch norms have seen images, so that the scores are not all 0 or 1."""
    torch.manual_seed(0)
    model = create_model(VARIANT, num_classes=num_classes).train()
    with torch.no_grad():
        model(torch.randn(64, 3, 32, 32))
        model(torch.randn(64, 3, 32, 32))
    return model.eval()


def save_network(
    network: Res2NetClassifier,
    path: Path,
    *,
    class_names: Sequence[str] = NAMES,
    described: bool = True,
) -> Path:
    """A checkpoint as a run writes it; not `described`: without what says where it is from."""
    content = {"state_dict": {f"model.{k}": v for k, v in network.state_dict().items()}}
    if described:
        content["res2net"] = {
            "schema": 1,
            "model": VARIANT,
            "num_classes": network.num_classes,
            "class_names": list(class_names),
            "preprocessing": PREPROCESSING.to_dict(),
        }
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path
