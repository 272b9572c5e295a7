"""A PyTorch module -> an ONNX file that onnxruntime answers equally; 8-bit weights for a tower."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from simprompt.errors import SimpromptError, install

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference to PyTorch in a probability or in a feature of length 1."""

OLDEST_RUNTIME = "1.15.1"
"""The oldest onnxruntime that exports were run with, with floats and with 8-bit weights."""

LARGEST = 1_900_000_000
"""Bytes of weights up to which a graph is one file; ONNX files end at 2 GiB, and larger weights lie
beside the graph."""


def require() -> None:
    """Check that what writes and runs ONNX is installed.

    Raises:
        SimpromptError: it is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise SimpromptError(
            f"Exporting to ONNX needs {error.name}, which is not installed here: {install('onnx')}."
        ) from error


def ir_version() -> int:
    """The lowest version of the file format that `OPSET` may be written in: the lower it is, the
    older the onnxruntime that loads the file."""
    from onnx import helper

    return int(helper.find_min_ir_version_for([helper.make_opsetid("", OPSET)]))


def write(
    module: nn.Module, inputs: dict[str, Tensor], axes: Sequence[dict[int, Any]],
    outputs: Sequence[str], path: Path,
) -> float:  # fmt: skip
    """Write `path`, run it, and compare.

    Args:
        module: takes the inputs in their order.
        inputs: examples; the graph is also run on the first row of each by itself.
        axes: for each input, its axes of changing length.
        outputs: names of what the module gives.

    Returns:
        The largest difference between onnxruntime's and PyTorch's answers.

    Raises:
        SimpromptError: it is larger than `TOLERANCE`.
    """
    module = module.eval()
    with torch.no_grad(), _quietly():
        program = torch.onnx.export(
            module, tuple(inputs.values()), dynamo=True, dynamic_shapes=tuple(axes),
            input_names=list(inputs), output_names=list(outputs), opset_version=OPSET,
            verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph:  # where in whose files each node comes from
        node.metadata_props.clear()
    weights = sum(t.numel() * t.element_size() for t in module.state_dict().values())
    program.model.ir_version = ir_version()
    program.save(str(path), external_data=weights > LARGEST)
    worst = 0.0
    for rows in (None, 1):
        sample = {name: value[:rows] for name, value in inputs.items()}
        with torch.no_grad():
            expected = module(*sample.values())
        expected = expected if isinstance(expected, tuple) else (expected,)
        for a, b in zip(run(path, sample, outputs), expected, strict=True):
            worst = max(worst, float(np.abs(a - b.numpy()).max()))
    if not worst <= TOLERANCE:
        raise SimpromptError(
            f"{path.name} is not exported: onnxruntime's answers differ from PyTorch's by "
            f"{worst:.1e}, more than {TOLERANCE:.0e}. Take another version of onnxruntime, or "
            "--to linear for the bare class embeddings."
        )
    return worst


def run(
    path: Path, inputs: dict[str, Tensor], outputs: Sequence[str]
) -> list[npt.NDArray[np.float32]]:
    """What onnxruntime answers on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answers: list[npt.NDArray[np.float32]] = session.run(
        list(outputs), {name: value.numpy() for name, value in inputs.items()}
    )
    return answers


def quantise(path: Path, target: Path, output: str) -> None:
    """Write `path` with 8-bit weights in the matrix products that `output` depends on.

    Weights are rounded by column, activations when they are known (onnxruntime's dynamic
    quantisation). Convolutions and what comes behind `output`, the classifier, stay as they are.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(str(path), load_external_data=False).graph
    maker = {name: node for node in graph.node for name in node.output}
    inside, waiting = set(), [output]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in inside:
            inside.add(node.name)
            waiting += node.input
    with _quietly():
        quantize_dynamic(
            str(path), str(target), per_channel=True, weight_type=QuantType.QInt8,
            reduce_range=True,  # processors without VNNI add pairs of products in 16 bits
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=[n.name for n in graph.node if n.name not in inside],
            use_external_data_format=path.with_name(f"{path.name}.data").exists(),
        )  # fmt: skip


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' advice to their own users: libraries that are not there, a
    preparation that changes nothing here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
