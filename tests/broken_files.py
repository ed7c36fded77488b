"""Image files of every kind of damage and oddity: what `data check` has to tell apart."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from samples import encoded, photo

PHOTO = photo(1, (64, 48))
JPEG = encoded(PHOTO, "JPEG", quality=90)
PNG = encoded(PHOTO, "PNG")
SIGNATURE = PNG[:8]


def png_chunks() -> list[tuple[bytes, bytes]]:
    """Type and content of each chunk of `PNG`."""
    chunks, place = [], 8
    while place < len(PNG):
        (length,) = struct.unpack(">I", PNG[place : place + 4])
        chunks.append((PNG[place + 4 : place + 8], PNG[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def png(chunks: list[tuple[bytes, bytes]], *, wrong_checksum: bytes = b"") -> bytes:
    """A file of chunks; those of the type `wrong_checksum` have that."""
    file = SIGNATURE
    for kind, content in chunks:
        checksum = zlib.crc32(kind + content) ^ (kind == wrong_checksum)
        file += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    return file


def png_of_size(width: int, height: int) -> bytes:
    """`PNG` with another size in its header."""
    (kind, header), *rest = png_chunks()
    return png([(kind, struct.pack(">II", width, height) + header[8:]), *rest])


def jpeg_of_size(width: int, height: int) -> bytes:
    """`JPEG` with another size in its header."""
    place = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:place] + struct.pack(">HH", height, width) + JPEG[place + 4 :]


def with_alpha() -> Image.Image:
    image = PHOTO.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    return image


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


GREY16 = Image.fromarray(np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64))
COLOUR16 = png(
    [
        (b"IHDR", struct.pack(">IIBBBBB", 64, 48, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(48 * (b"\0" + bytes(range(192)) * 2))),
        (b"IEND", b""),
    ]
)
GREY32 = Image.fromarray(np.arange(64 * 48, dtype=np.int32).reshape(48, 64))
FLOATS = Image.fromarray(np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(48, 64))

_several = {"save_all": True, "append_images": [PHOTO.rotate(90)]}
_text = (b"tEXt", b"key\0value")

# Name -> content, and a part of the reason.
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty"),
    "garbage.jpg": (np.random.default_rng(0).bytes(3000), "no image in a known format"),
    "zeros.jpg": (bytes(3000), "zero bytes only"),
    "page.jpg": (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
    "text.png": (b"to be done\n", "no image in a known format"),
    "head.jpg": (JPEG[:20], "damaged JPEG"),
    "scan.jpg": (JPEG[: JPEG.index(b"\xff\xda") + 20], "truncated JPEG"),
    "half.jpg": (half(JPEG), "truncated JPEG"),
    "most.jpg": (JPEG[:-10], "truncated JPEG"),
    "end.jpg": (encoded(PHOTO, "JPEG", subsampling=0)[:-2], "truncated JPEG"),
    "half-progressive.jpg": (half(encoded(PHOTO, "JPEG", progressive=True)), "truncated JPEG"),
    "after-line.jpg": (b"\n" + JPEG, "no image in a known format"),
    "no-size.jpg": (jpeg_of_size(0, 0), "damaged JPEG"),
    "bomb.jpg": (jpeg_of_size(65535, 65535), "65,535 x 65,535 pixels"),
    "head.png": (PNG[:40], "PNG"),
    "half.png": (half(PNG), "truncated PNG"),
    "end.png": (PNG[:-12], "PNG that Pillow reads"),
    "pixels-checksum.png": (png(png_chunks(), wrong_checksum=b"IDAT"), "PNG that Pillow reads"),
    "header-checksum.png": (png(png_chunks(), wrong_checksum=b"IHDR"), "damaged PNG"),
    "too-tall.png": (png_of_size(64, 96), "PNG that Pillow reads"),
    "bomb.png": (png_of_size(14_000, 14_000), "14,000 x 14,000 pixels"),
    "half.webp": (half(encoded(PHOTO, "WEBP")), "damaged WEBP"),
    "half.bmp": (half(encoded(PHOTO, "BMP")), "truncated BMP"),
    "half.tif": (half(encoded(PHOTO, "TIFF")), "truncated TIFF"),
    "half.ppm": (half(encoded(PHOTO, "PPM")), "truncated PPM"),
    "half.jp2": (half(encoded(PHOTO, "JPEG2000")), "damaged JPEG2000"),
    "gif.jpg": (encoded(PHOTO, "GIF"), "GIF, which training cannot decode"),
    "icon.png": (encoded(PHOTO.resize((32, 32)), "ICO"), "ICO, which training cannot decode"),
    "heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(100), "HEIC"),
    "grey-32.tif": (encoded(GREY32, "TIFF"), "TIFF that Pillow reads"),
    "one-bit.tif": (encoded(PHOTO.convert("1"), "TIFF"), "TIFF that Pillow reads"),
}

# Name -> content, and a part of what is odd.
ODD: dict[str, tuple[bytes, str]] = {
    "jpeg.png": (encoded(photo(2), "JPEG"), "JPEG named .png"),
    "png.jpeg": (encoded(photo(3)), "PNG named .jpeg"),
    "webp.jpg": (encoded(photo(4), "WEBP"), "WEBP named .jpg"),
    "cmyk.jpg": (encoded(PHOTO.convert("CMYK"), "JPEG"), "CMYK"),
    "turned.jpg": (encoded(PHOTO, "JPEG", exif=turned()), "EXIF orientation 6"),
    "turned.png": (encoded(PHOTO, exif=turned()), "EXIF orientation 6"),
    "turned.webp": (encoded(PHOTO, "WEBP", exif=turned()), "EXIF orientation 6"),
    "rgba.png": (encoded(with_alpha()), "transparency"),
    "grey-alpha.png": (encoded(with_alpha().convert("LA")), "transparency"),
    "palette-alpha.png": (encoded(PHOTO.convert("P"), transparency=3), "transparency"),
    "grey-16.png": (encoded(GREY16), "more than 8 bits"),
    "colour-16.png": (COLOUR16, "more than 8 bits"),
    "floats.tif": (encoded(FLOATS, "TIFF"), "floating-point"),
    "lab.tif": (encoded(PHOTO.convert("LAB"), "TIFF"), "L*a*b*"),
    "animated.webp": (encoded(PHOTO, "WEBP", **_several), "several images"),
    "animated.png": (encoded(PHOTO, **_several), "several images"),
    "pages.tif": (encoded(PHOTO, "TIFF", **_several), "several images"),
    "two.jpg": (encoded(PHOTO, "MPO", **_several), "several images"),
    "wide.jpg": (encoded(PHOTO.resize((4000, 1)), "JPEG"), "10 times as long"),
    "text-checksum.png": (
        png([png_chunks()[0], _text, *png_chunks()[1:]], wrong_checksum=b"tEXt"),
        "Pillow and so predict do not",
    ),
}

WHOLE: dict[str, bytes] = {
    "plain.jpg": JPEG,
    "plain.png": PNG,
    "grey.jpg": encoded(PHOTO.convert("L"), "JPEG"),
    "progressive.JPEG": encoded(PHOTO, "JPEG", progressive=True),
    "trailing.jpg": JPEG + b"more",
    "trailing.png": PNG + b"more",
    "end-lost.jpg": JPEG[:-2],  # libjpeg had all it needed: here both decoders are content
    "damaged-middle.jpg": half(JPEG) + bytes(20) + JPEG[len(JPEG) // 2 + 20 :],
    "too-tall.jpg": jpeg_of_size(64, 96),
    "palette.png": encoded(PHOTO.convert("P")),
    "one-bit.png": encoded(PHOTO.convert("1")),
    "lossy.webp": encoded(PHOTO, "WEBP"),
    "lossless.webp": encoded(PHOTO, "WEBP", lossless=True),
    "plain.bmp": encoded(PHOTO, "BMP"),
    "plain.tif": encoded(PHOTO, "TIFF"),
    "deflated.tiff": encoded(PHOTO, "TIFF", compression="tiff_deflate"),
    "plain.jp2": encoded(PHOTO, "JPEG2000"),
    "plain.ppm": encoded(PHOTO, "PPM"),
    "grey.pnm": encoded(PHOTO.convert("L"), "PPM"),
    "dot.png": encoded(PHOTO.resize((1, 1))),
    "dot.jpg": encoded(PHOTO.resize((1, 1)), "JPEG"),
}


def folder(root: Path, files: dict[str, bytes]) -> Path:
    """Write files at paths below `root`."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root
