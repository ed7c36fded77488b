"""`torch.export`: a program of PyTorch operators that needs none of this project's code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from io import BytesIO

import torch

from res2net.errors import WorkError
from res2net.export.compare import Agreement, agreement, generated, hold
from res2net.export.source import FromPixels, InputKind, Source
from res2net.files.atomic import atomic_write, new_file

FACTS = "res2net.json"
"""Name of the extra file in the archive: `Source.facts`."""


def export_program(
    source: Source,
    path: str | os.PathLike[str],
    *,
    takes: InputKind = "normalised",
    fold: bool = False,
    check: Callable[[], Iterable[torch.Tensor]] | None = None,
) -> Agreement:
    """Write images (N, C, S, S), any N >= 1 -> logits (N, K), for `torch.export.load`.

    Args:
        source: What is exported.
        path: A new file, `.pt2`.
        takes: What the images are: float32, normalised by the caller, or uint8 pixels.
        fold: Batch norms are folded into the convolutions.
        check: Batches of uint8 (N, C, S, S) to compare on. None: generated ones.

    Raises:
        InputError: As `new_file`.
        WorkError: It does not compute what the network does, or cannot be written: no file then.
    """
    target = new_file(path, (".pt2",))
    network: torch.nn.Module = source.folded() if fold else source.network
    example = torch.zeros(2, *source.image_shape)
    if takes == "uint8":
        network, example = FromPixels(network, source.preprocessing).eval(), example.byte()
    program = torch.export.export(
        network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    facts = json.dumps(source.facts(takes), ensure_ascii=False)
    archive = BytesIO()
    torch.export.save(program, archive, extra_files={FACTS: facts})
    pixels = generated(source) if check is None else check()
    try:
        with atomic_write(target) as stream:
            stream.write(archive.getbuffer())
            stream.flush()
            with open(stream.name, "rb") as written:
                loaded = torch.export.load(written).module()
            found = agreement(source, loaded, pixels, takes=takes)
            hold(found, form="torch.export")
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{target}: cannot be written ({reason}), nothing is kept") from error
    return found
