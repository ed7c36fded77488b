"""What a file of weights holds, told by its content: tensors as it names them, and what they are.

Nothing in a file is run, see `files.pickles`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from res2net.errors import DamagedFileError, InputError
from res2net.files.foreign import MOST_BYTES, opened, parse_json
from res2net.files.runs import RunDirectory
from res2net.weights.description import METADATA_KEY
from res2net.weights.paddle_file import read_paddle
from res2net.weights.torch_file import is_torch, read_torch

WEIGHTS_FILE = "model.safetensors"
"""Of a folder as Hugging Face's Hub has it."""

ACCEPTED = (
    "a run directory, PyTorch files of tensors (.ckpt, .pth, .pt), .safetensors and .pdparams"
)

_CONTAINERS = ("state_dict", "model", "model_state_dict", "net")
_EMA_CONTAINERS = ("ema_state_dict", "state_dict_ema", "model_ema")  # ours, timm's, torchvision's
_EMA_COUNTERS = ("n_averaged", "steps")  # torch's and mmengine's, beside the averages
_NO_AVERAGE = (
    f"holds no averaged weights ({' or '.join(_EMA_CONTAINERS)}); runs have them by optim.ema_decay"
)
_EXPORTED = {".onnx": "onnxruntime.InferenceSession", ".pt2": "torch.export.load"}
_LONGEST_HEADER = 100_000_000  # bytes, of a safetensors file by its own rule
_NO_SAFETENSORS = "is damaged, cut short or no safetensors file of numbers"
_MOST_TENSORS = 10_000  # the largest Res2Net has 1,300
_KINDS = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


@dataclass(frozen=True)
class Stored:
    """What was asked for of a file."""

    tensors: Mapping[Any, Any]
    """By the file's own keys, unchecked."""
    description: Any = None
    """What the file says of them under `METADATA_KEY`; None: nothing."""
    has_ema: bool = False
    """These are the raw weights, and the file has averaged ones too."""


def refuse_choice(path: str | os.PathLike[str], checkpoint: Literal["last", "best"]) -> None:
    """Only a run directory has several checkpoints to choose from.

    Raises:
        InputError: The best one is asked for of something else.
    """
    if checkpoint == "best" and not Path(path).is_dir():
        raise InputError(
            f"checkpoint 'best': applies to run directories, {os.fspath(path)!r} is none"
        )


def find_file(path: str | os.PathLike[str], checkpoint: Literal["last", "best"]) -> Path:
    """The file itself, the checkpoint of a run directory, or what `export --to folder` wrote.

    Raises:
        InputError: There is no such file, or the checkpoint is asked for of what is no directory.
    """
    name, path = os.fspath(path), Path(path)
    if not name:
        raise InputError(f"weights '': an empty name; accepted: {ACCEPTED}")
    if path.is_dir():
        run = RunDirectory(path)
        file = run.last if checkpoint == "last" else run.best
        if not file.is_file() and checkpoint == "last" and (path / WEIGHTS_FILE).is_file():
            return path / WEIGHTS_FILE
        if not file.is_file():
            present = sorted(found.name for found in path.glob("*.ckpt")) or ["no checkpoint"]
            raise InputError(
                f"weights {name!r}: the directory has no {file.name}, it has "
                f"{', '.join(present)}; accepted: {ACCEPTED}"
            )
        return file
    if not path.is_file():
        raise InputError(f"weights {name!r}: no such file; accepted: {ACCEPTED}")
    refuse_choice(path, checkpoint)
    if path.suffix in _EXPORTED:
        raise InputError(
            f"weights {name!r}: an exported file, which {_EXPORTED[path.suffix]} opens; here give "
            f"the weights it was made from (accepted: {ACCEPTED})"
        )
    return path


def read_stored(file: Path, *, ema: bool) -> Stored:
    """What the file holds; how it is read depends on its first bytes, then on its suffix.

    Raises:
        InputError: It is damaged, carries code, holds no table of tensors, or not the kind of
            weights asked for.
    """
    try:
        with file.open("rb") as stream:
            first = stream.read(32)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    if not first:
        raise InputError("the file is empty")
    plain = _is_safetensors(first) or file.suffix in (".safetensors", ".pdparams")
    if is_torch(first) or not plain:
        return _read_torch(file, ema=ema)
    if ema:
        raise InputError(_NO_AVERAGE)
    if _is_safetensors(first) or file.suffix == ".safetensors":
        return _read_safetensors(file)
    return Stored(read_paddle(file))


def _is_safetensors(first: bytes) -> bool:
    """Eight bytes of length and a table in JSON."""
    return first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= _LONGEST_HEADER


def _read_torch(file: Path, *, ema: bool) -> Stored:
    stored = read_torch(file)
    if not isinstance(stored, Mapping):
        raise InputError(f"holds a {type(stored).__name__}, not a table of weights")
    return find_tensors(stored, ema=ema)


def find_tensors(stored: Mapping[Any, Any], *, ema: bool) -> Stored:
    """The table of tensors in what a PyTorch file holds, which may be that table itself.

    Raises:
        InputError: It holds not the kind of weights asked for.
    """
    description = stored.get(METADATA_KEY)
    averaged = [name for name in _EMA_CONTAINERS if isinstance(stored.get(name), Mapping)]
    if ema:
        if not averaged:
            raise InputError(_NO_AVERAGE)
        average = stored[averaged[0]]
        tensors = {key: value for key, value in average.items() if key not in _EMA_COUNTERS}
        return Stored(tensors, description)
    for container in _CONTAINERS:
        if isinstance(stored.get(container), Mapping):
            return Stored(stored[container], description, bool(averaged))
    if averaged:
        raise InputError(
            f"holds only averaged weights ({averaged[0]}): give --ema to take them, or write them "
            "to a file of their own by `res2net convert --ema`"
        )
    return Stored(stored, description)


def _read_safetensors(file: Path) -> Stored:
    from safetensors import SafetensorError, safe_open

    try:
        text = _look_at_header(file)
        with safe_open(file, framework="pt", device="cpu") as stored:
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from error
    except (SafetensorError, OverflowError, RuntimeError, TypeError) as error:
        raise DamagedFileError(_NO_SAFETENSORS) from error
    if text is None:
        return Stored(tensors)
    return Stored(tensors, parse_json(text, f"its metadata {METADATA_KEY!r}"))


def _look_at_header(file: Path) -> str | None:
    """What the metadata say under `METADATA_KEY`; a header that asks for too much is refused."""
    with opened(file) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(MOST_BYTES, os.fstat(stream.fileno()).st_size - 8):
            raise DamagedFileError(_NO_SAFETENSORS)
        content = stream.read(length)
    try:
        header = parse_json(content, "its header")
        if not isinstance(header, dict):
            raise InputError("no table")
        metadata = header.pop("__metadata__", {})
        kinds = {entry["dtype"] for entry in header.values()}
        text = metadata.get(METADATA_KEY)
        if not kinds <= _KINDS or not isinstance(text, str | None):
            raise InputError(f"of {', '.join(map(str, kinds))}")
    except (InputError, LookupError, TypeError, AttributeError) as error:
        raise DamagedFileError(_NO_SAFETENSORS) from error
    if len(header) > _MOST_TENSORS:
        raise InputError(f"holds {len(header):,} tensors, and no Res2Net {_MOST_TENSORS:,}")
    return text
