"""One image of a data set for people to see: a square of `SIDE` pixels."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from res2net.data.sources.source import Source, file_of
from res2net.plots.tiles import SIDE
from res2net.preprocessing import Preprocessing, to_rgb


def tile(source: Source, index: int) -> Image.Image:
    """RGB of `SIDE` x `SIDE` pixels; an empty one if Pillow cannot read the image.

    Of a file the centre square, cut as for evaluation without the resize that comes before. Of
    images in memory the whole centre square, small ones with their pixels to be seen.
    """
    border = (1 - Preprocessing().crop_fraction) / 2
    try:
        if source.holds == "pixels":
            rgb, border = Image.fromarray(np.asarray(source.read(np.array([index]))[0])), 0.0
        else:
            with Image.open(io.BytesIO(file_of(source, index).data)) as image:
                rgb = to_rgb(image)
    except Exception:  # damaged files make Pillow fail in any way it can; DALI may read them
        return Image.new("RGB", (SIDE, SIDE), "#DDDDDD")
    small = source.holds == "pixels" and max(rgb.size) < SIDE
    how = Image.Resampling.NEAREST if small else Image.Resampling.BILINEAR
    return ImageOps.fit(rgb, (SIDE, SIDE), how, bleed=border)
