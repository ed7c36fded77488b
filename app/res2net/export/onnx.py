"""ONNX: for onnxruntime, TensorRT, OpenVINO, Triton; as float32 or as integers of 8 bits."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from res2net.errors import InputError, WorkError
from res2net.export.compare import Agreement, agreement, generated, hold
from res2net.export.source import FromPixels, InputKind, Source
from res2net.files.atomic import atomic_write, new_file

if TYPE_CHECKING:
    import onnx

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
"""What this form needs: the extra `export`."""

OPSET = 20
"""Below 19 the average over a border that is not whole is not defined as PyTorch has it."""

Pixels = Callable[[], Iterable[torch.Tensor]]
"""Batches of uint8 (N, C, S, S), from the first on at each call."""


def export_onnx(
    source: Source,
    path: str | os.PathLike[str],
    *,
    takes: InputKind = "normalised",
    check: Pixels | None = None,
) -> Agreement:
    """Write `images` (batch, C, S, S) -> `logits` (batch, K), any batch, batch norms folded.

    Preprocessing, class names and licence stand in the metadata of the file, see `Source.facts`.

    Args:
        source: What is exported.
        path: A new file, `.onnx`.
        takes: What `images` is: float32, normalised by the caller, or uint8 pixels.
        check: Images to compare on. None: generated ones.

    Raises:
        InputError: As `new_file`.
        WorkError: It does not compute what the network does, or cannot be written: no file then.
    """
    target = new_file(path, (".onnx",))
    return _keep(target, _graph(source, takes), source, takes, check, limit=True)


def export_int8(
    source: Source,
    path: str | os.PathLike[str],
    *,
    calibrate: Pixels,
    check: Pixels,
    takes: InputKind = "normalised",
) -> Agreement:
    """As `export_onnx`, with weights and activations of 8 bits; logits are float32.

    Statically quantised by onnxruntime (quantise and dequantise nodes, weights by channel).

    Args:
        source: What is exported.
        path: A new file, `.onnx`.
        calibrate: Images whose activations set the ranges.
        check: Other images, to compare on.
        takes: See `export_onnx`.

    Raises:
        InputError: As `new_file`.
        WorkError: There are no logits, they are not finite, or the file cannot be written.
    """
    target = new_file(path, (".onnx",))
    graph = _quantised(_graph(source, takes), source, calibrate, takes)
    return _keep(target, graph, source, takes, check, limit=False)


def _keep(
    target: Path,
    graph: onnx.ModelProto,
    source: Source,
    takes: InputKind,
    check: Pixels | None,
    *,
    limit: bool,
) -> Agreement:
    """Write the file under another name, run it, and give it its name if it is right."""
    _describe(graph, source.facts(takes))
    pixels = generated(source) if check is None else check()
    try:
        with atomic_write(target) as stream:
            stream.write(graph.SerializeToString())
            stream.flush()
            found = agreement(source, _session(stream.name), pixels, takes=takes)
            if limit:
                hold(found, form="ONNX")
    except OSError as error:
        reason = error.strerror or error
        raise WorkError(f"{target}: cannot be written ({reason}), nothing is kept") from error
    return found


def _graph(source: Source, takes: InputKind) -> onnx.ModelProto:
    """The network as a graph without the traces of where its code stands."""
    network: torch.nn.Module = source.folded()
    example = torch.zeros(2, *source.image_shape)
    if takes == "uint8":
        network, example = FromPixels(network, source.preprocessing).eval(), example.byte()
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    for part in (graph.graph, *graph.graph.node, *graph.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    return graph


def _describe(graph: onnx.ModelProto, facts: dict[str, Any]) -> None:
    """Strings by key: one for each fact, lists and tables as JSON."""
    import onnx

    texts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in facts.items()
    }
    onnx.helper.set_model_props(graph, texts)
    graph.producer_name = "res2net-lightning"


def _session(path: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """What the file computes, by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: torch.Tensor) -> torch.Tensor:
        (logits,) = session.run(["logits"], {"images": images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


def _quantised(
    graph: onnx.ModelProto, source: Source, calibrate: Pixels, takes: InputKind
) -> onnx.ModelProto:
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """One batch after the other; onnxruntime keeps what comes of each of them."""

        def __init__(self) -> None:
            self._batches = iter(calibrate())
            self.empty = True

        def get_next(self) -> dict[str, Any] | None:
            for batch in self._batches:
                self.empty = False
                images = batch if takes == "uint8" else source.preprocessing.normalise(batch)
                return {"images": images.contiguous().numpy()}
            return None

    reader = Reader()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        result = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            graph,
            result,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # unsigned after ReLU, as onnxruntime's kernels for x86 and TensorRT's want them
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(result)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of exporters, which are about their own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def split_images(images: Sequence[str], *, most: int) -> tuple[list[str], list[str]]:
    """Every second image to calibrate on and the others to compare on, at most so many each.

    Raises:
        InputError: There are fewer than two.
    """
    if len(images) < 2:
        raise InputError(
            f"--calibrate: {len(images)} image; at least two, one half sets the ranges and the "
            "other is compared on (hundreds are good)"
        )
    step = max(1, len(images) // (2 * most))
    return list(images[::2])[::step][:most], list(images[1::2])[::step][:most]
