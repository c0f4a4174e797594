"""Arranges the Silero VAD network for batches: the same weights, one file for each sample rate.

    python scripts/arrange_silero.py            # writes runtime/antiphon/audio/vad/data/silero_vad_*.onnx
    python scripts/arrange_silero.py --check    # are those what this would write?

The model as published (tests/data/silero_vad.onnx) has both rates in one graph and runs its convolutions
window by window, which on a CPU costs nearly as much for each window of a batch as for one alone. Here
every convolution is a product of two matrices over all windows of the batch, so that one call for 64
windows takes about a tenth of the time of 64 calls. Besides:

- The input is int16, as it comes, each window with the samples before it: (batch, context + window).
- The state has the batch first, and both halves of it in one row: (batch, 256).

tests/audio/test_silero_network.py holds the results against those of the published model. Needs the package
`onnx`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "tests" / "data" / "silero_vad.onnx"
DATA = ROOT / "runtime" / "antiphon" / "audio" / "vad" / "data"
OPSET, IR_VERSION = 16, 8

# Frames of the spectrum that a window has, and what the layers after it have.
_FRAMES = 4
_HIDDEN = 128

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rate:
    """One of the two networks.

    Attributes:
        name: Of its file.
        branch: Where the published graph has it.
        window: Samples of a window.
        context: Samples of the window before, which precede it.
    """

    name: str
    branch: str
    window: int
    context: int


RATES = [
    Rate("silero_vad_16k.onnx", "then_branch", 512, 64),
    Rate("silero_vad_8k.onnx", "else_branch", 256, 32),
]


def published_weights(branch: str) -> dict[str, Array]:
    """The weights of one branch, by their names without what the exporter put before them."""
    model = onnx.load(PUBLISHED)
    (choice,) = (node for node in model.graph.node if node.op_type == "If")
    (graph,) = (item.g for item in choice.attribute if item.name == branch)
    weights = {}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].type == onnx.AttributeProto.TENSOR:
            name = node.output[0].partition("Inline_0__")[2]
            weights[name] = numpy_helper.to_array(node.attribute[0].t)
    return weights


class Graph:
    """A graph under construction; every method returns the name of what it adds."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def constant(self, name: str, value: Array) -> str:
        """A tensor that does not change."""
        self.constants[name] = np.ascontiguousarray(value)
        return name

    def numbers(self, *values: int) -> str:
        """A constant of integers; the same ones are one constant."""
        name = "n_" + "_".join(str(value).replace("-", "m") for value in values)
        return self.constant(name, np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """An operator with one output."""
        return self.add_all(operator, 1, *inputs, **attributes)[0]

    def add_all(self, operator: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """An operator with several outputs."""
        names = [f"{operator.lower()}_{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def reshape(self, value: str, *shape: int) -> str:
        """The same numbers in another shape."""
        return self.add("Reshape", value, self.numbers(*shape))

    def steps(self, value: str, first: int, last: int) -> str:
        """Some steps in time of a value of (batch, steps, ...)."""
        return self.add("Slice", value, *(self.numbers(n) for n in (first, last, 1)))

    def layer(self, value: str, name: str, weight: Array, bias: Array) -> str:
        """A product with a matrix, and nothing below zero."""
        names = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        return self.add("Relu", self.add("Gemm", value, *names))


def arranged(rate: Rate) -> onnx.ModelProto:
    """The network of one rate."""
    weights = published_weights(rate.branch)
    basis = weights["stft.forward_basis_buffer"][:, 0]  # (real and imaginary parts, samples)
    length = basis.shape[1]
    hop, channels = length // 2, basis.shape[0] // 2
    graph = Graph()

    # The spectrum: four overlapping frames, each of two neighbouring blocks.
    samples = graph.add("Cast", "input", to=TensorProto.FLOAT)
    samples = graph.add("Mul", samples, graph.constant("scale", np.float32([1 / 32768])))
    samples = graph.add("Pad", samples, graph.numbers(0, 0, 0, length // 4), mode="reflect")
    blocks = graph.reshape(samples, -1, _FRAMES + 1, hop)
    pairs = graph.steps(blocks, 0, _FRAMES), graph.steps(blocks, 1, _FRAMES + 1)
    frames = graph.reshape(graph.add("Concat", *pairs, axis=2), -1, length)
    spectrum = graph.add("MatMul", frames, graph.constant("basis", basis.T))
    parts = graph.add_all("Split", 2, spectrum, axis=1)
    squares = [graph.add("Mul", part, part) for part in parts]
    magnitudes = graph.add("Sqrt", graph.add("Add", *squares))

    # Four convolutions over three frames each: in a row, what each of them sees.
    value = graph.reshape(magnitudes, -1, _FRAMES, channels)
    value = graph.add("Pad", value, graph.numbers(0, 1, 0, 0, 1, 0))
    shifted = [graph.steps(value, first, first + _FRAMES) for first in range(3)]
    value = graph.reshape(graph.add("Concat", *shifted, axis=2), -1, 3 * channels)
    value = graph.layer(value, "encoder.0", *_three_taps(weights, 0))
    # Every second frame: of the padding, 0 and 1, and of 1, 2 and 3.
    value = graph.reshape(value, -1, _FRAMES, 128)
    value = graph.add("Pad", value, graph.numbers(0, 1, 0, 0, 0, 0))
    seen = [graph.reshape(graph.steps(value, first, first + 3), -1, 1, 384) for first in (0, 2)]
    value = graph.reshape(graph.add("Concat", *seen, axis=1), -1, 384)
    value = graph.layer(value, "encoder.1", *_three_taps(weights, 1))
    # Every second of two frames: of the padding, 0 and 1. Then one frame is left, between paddings.
    value = graph.reshape(value, -1, 128)
    weight, bias = _taps(weights, 2)
    value = graph.layer(value, "encoder.2", weight[1:].reshape(128, -1), bias)
    weight, bias = _taps(weights, 3)
    value = graph.layer(value, "encoder.3", weight[1], bias)

    # The recurrent part. PyTorch has its gates in the order i f g o, ONNX i o f g.
    halves = graph.add_all("Split", 2, "state", axis=1)
    hidden, cell = (graph.add("Unsqueeze", half, graph.numbers(0)) for half in halves)
    biases = [_gates(weights[f"decoder.rnn.bias_{which}"]) for which in ("ih", "hh")]
    lstm = [
        graph.constant("rnn.input", _gates(weights["decoder.rnn.weight_ih"])[None]),
        graph.constant("rnn.hidden", _gates(weights["decoder.rnn.weight_hh"])[None]),
        graph.constant("rnn.bias", np.concatenate(biases)[None]),
    ]
    value = graph.add("Unsqueeze", value, graph.numbers(0))
    _, hidden, cell = graph.add_all("LSTM", 3, value, *lstm, "", hidden, cell, hidden_size=_HIDDEN)
    hidden, cell = (graph.add("Squeeze", half, graph.numbers(0)) for half in (hidden, cell))
    state = graph.add("Concat", hidden, cell, axis=1)

    weight = graph.constant("decoder.weight", weights["decoder.decoder.2.weight"].reshape(-1, 1))
    bias = graph.constant("decoder.bias", weights["decoder.decoder.2.bias"])
    confidence = graph.add("Sigmoid", graph.add("Gemm", graph.add("Relu", hidden), weight, bias))

    graph.nodes.append(helper.make_node("Identity", [confidence], ["confidence"]))
    graph.nodes.append(helper.make_node("Identity", [state], ["next_state"]))
    tensor = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        f"silero_vad_{rate.window}",
        [
            tensor("input", TensorProto.INT16, ["batch", rate.context + rate.window]),
            tensor("state", TensorProto.FLOAT, ["batch", 2 * _HIDDEN]),
        ],
        [
            tensor("confidence", TensorProto.FLOAT, ["batch", 1]),
            tensor("next_state", TensorProto.FLOAT, ["batch", 2 * _HIDDEN]),
        ],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    model = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="scripts/arrange_silero.py",
    )
    onnx.checker.check_model(model)
    return model


def _taps(weights: dict[str, Array], layer: int) -> tuple[Array, Array]:
    """A convolution as (taps, inputs, outputs), and its bias."""
    name = f"encoder.{layer}.reparam_conv"
    return weights[f"{name}.weight"].transpose(2, 1, 0), weights[f"{name}.bias"]


def _three_taps(weights: dict[str, Array], layer: int) -> tuple[Array, Array]:
    """A convolution as one matrix over its three taps in a row, and its bias."""
    weight, bias = _taps(weights, layer)
    return weight.reshape(-1, weight.shape[2]), bias


def _gates(value: Array) -> Array:
    of_input, of_forgetting, of_cell, of_output = np.split(value, 4)
    return np.concatenate([of_input, of_output, of_forgetting, of_cell])


def main() -> int:
    """Writes the files, or compares them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="compare and write nothing")
    checking = parser.parse_args().check
    code = 0
    for rate in RATES:
        path, data = DATA / rate.name, arranged(rate).SerializeToString(deterministic=True)
        if not checking:
            path.write_bytes(data)
            print(f"{path}: {len(data)} bytes")
        elif not path.is_file() or path.read_bytes() != data:
            print(f"{path} is not what this program writes", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
