"""Makes small Piper voices: real files for onnxruntime, that say a tone for every sound.

They have the inputs and the output of the published ones. A sound with the number n is a tone of
``100 + 20 * n`` Hz for 20 ms, longer with the length scale, so that a test can tell from the audio what was
said.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 16_000
SOUND_SAMPLES = SAMPLE_RATE_HZ // 50
_SOUNDS = 256


def build(path: Path, *, speakers: tuple[str, ...] = (), sample_rate: int = SAMPLE_RATE_HZ) -> Path:
    """Writes a voice and its description.

    Args:
        path: Where to, ending in ``.onnx``.
        speakers: Their names; none for a voice with a single one. Each further one is half as loud.
        sample_rate: What the description says, in Hz.

    Returns:
        The path.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    seconds = np.arange(SOUND_SAMPLES) / SAMPLE_RATE_HZ
    tones = np.sin(2 * np.pi * np.outer(100 + 20 * np.arange(_SOUNDS), seconds)).astype(np.float32)

    def constant(name: str, value: npt.NDArray[np.generic]) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    nodes = [
        helper.make_node("Gather", ["tones", "input"], ["sounds"]),  # (1, sounds, samples)
        helper.make_node("Gather", ["scales", "one"], ["length"]),
        helper.make_node("Concat", ["ones", "length"], ["lengths"], axis=0),
        helper.make_node("Resize", ["sounds", "", "lengths"], ["stretched"], mode="nearest"),
        helper.make_node("Reshape", ["stretched", "flat"], ["shaped"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "sounds"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    weights = [
        constant("tones", tones),
        constant("one", np.array([1], np.int64)),
        constant("ones", np.ones(2, np.float32)),
        constant("flat", np.array([1, 1, 1, -1], np.int64)),
    ]
    if speakers:
        loudness = (0.5 ** np.arange(len(speakers))).astype(np.float32)
        weights.append(constant("loudness", loudness))
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, [1]))
        nodes.append(helper.make_node("Gather", ["loudness", "sid"], ["loud"]))
        nodes.append(helper.make_node("Mul", ["shaped", "loud"], ["output"]))
    else:
        nodes.append(helper.make_node("Identity", ["shaped"], ["output"]))
    graph = helper.make_graph(
        nodes,
        "voice",
        inputs,
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 1, "samples"])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    path.with_name(f"{path.name}.json").write_text(json.dumps(_description(speakers, sample_rate)))
    return path


def _description(speakers: tuple[str, ...], sample_rate: int) -> dict[str, object]:
    from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

    return {
        "audio": {"sample_rate": sample_rate, "quality": "test"},
        "espeak": {"voice": "en-us"},
        "phoneme_type": "espeak",
        "inference": {"noise_scale": 0.667, "length_scale": 1, "noise_w": 0.8},
        "num_symbols": _SOUNDS,
        "num_speakers": max(1, len(speakers)),
        "speaker_id_map": {name: number for number, name in enumerate(speakers)},
        "phoneme_id_map": DEFAULT_PHONEME_ID_MAP,
    }
