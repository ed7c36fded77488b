"""safetensors: the tensors, what they are in the metadata, and no code."""

from __future__ import annotations

import os
from typing import Any

from res2net.export.compare import Agreement, agreement, generated, hold, hold_tensors
from res2net.export.source import Source
from res2net.weights.write import describe_weights, write_weights


def export_safetensors(
    source: Source, path: str | os.PathLike[str], *, fold: bool = False
) -> Agreement | None:
    """Write the tensors by this project's keys, described as a checkpoint describes them.

    Args:
        source: What is exported.
        path: A new file, `.safetensors`.
        fold: Batch norms are folded into the convolutions. The file can be opened for all that
            uses a network, and not be trained from.

    Returns:
        How the folded network compares on generated images; None: the tensors are as they were.

    Raises:
        InputError: As `write_weights`.
        WorkError: The folded network computes something else, or the file does not give the tensors
            back bit for bit: no file then.
    """
    found = None
    tensors = source.weights.state_dict
    if fold:
        folded = source.folded()
        found = agreement(source, folded, generated(source), takes="normalised")
        hold(found, form="folded")
        tensors = folded.state_dict()
    write_weights(
        path,
        tensors,
        description=description(source),
        check=lambda written: hold_tensors(written, tensors),
    )
    return found


def description(source: Source) -> dict[str, Any]:
    """`describe_weights`, and the licence."""
    return describe_weights(source.weights, source.variant) | {"licence": source.licence}
