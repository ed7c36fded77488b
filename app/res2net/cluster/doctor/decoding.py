"""Whether images can be read the way training reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from res2net.cluster.doctor.check import Check


def decode(device_id: int | None) -> Iterator[Check]:
    """Read one generated JPEG the way training does: file, decoder, resize, crop, iterator."""
    from PIL import Image

    from res2net.data.dali.stream import Stream
    from res2net.data.order import EvalOrder
    from res2net.data.sources.folder import FolderSource
    from res2net.preprocessing import Preprocessing

    name = "decode on the cpu" if device_id is None else "decode on the gpu"
    colour = (200, 120, 40)
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (96, 64), colour).save(Path(folder) / "image.jpg", quality=95)
        stream = Stream(
            FolderSource.of_files(folder, ["class"], {"class": ["image.jpg"]}),
            EvalOrder(count=1, batch_size=1),
            preprocessing=Preprocessing(image_size=32),
            threads=1,
            device_id=device_id,
        )
        images, _ = next(stream)  # uint8 (1, 3, 32, 32)
    found = images.float().mean(dim=(0, 2, 3)).tolist()
    if max(abs(a - b) for a, b in zip(found, colour, strict=True)) > 4:
        wrong = f"wrong pixels: {[round(value) for value in found]} instead of {list(colour)}"
        yield Check(name, "fail", wrong, "reinstall nvidia-dali-cuda130; on a GPU, the driver")
    else:
        yield Check(name, "ok", "a JPEG, by DALI")


def decode_on_gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        yield from decode(0)
