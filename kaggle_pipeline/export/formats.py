"""The formats that a network is exported to: how each is written, and read by its own runtime.

In: a Keras model of uint8 squares and a text about it. Out: ONNX, LiteRT (TFLite) or a SavedModel,
which holds the text; and a function that runs what was written, without Keras.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kaggle_pipeline.core.engine import import_tensorflow
from kaggle_pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    import keras

ABOUT = "about"
"""Where the text is: a key of ONNX's metadata, ``about.json`` in the others."""
_OPSET = 17
_MOST = 2**31 - 1
_ON_A_PHONE = 1
"""Photos that LiteRT's files take at once."""
Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""uint8 (n, side, side, 3) → outputs by name, each (n, classes)."""


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes
    ----------
    ending : str
        Of the file's name; a SavedModel is a folder, without one.
    packages : tuple of str
        That writing and reading need beside TensorFlow.
    write : callable
        ``write(network, about, path, quantize)``.
    open : callable
        ``open(path) -> Run``.
    most_bytes : int or None
        That one file can hold: Protocol Buffers (ONNX) and FlatBuffers (LiteRT) count in signed
        numbers of 32 bits.
    photos : int or None
        How many a file takes at once; None: any number.
    """

    ending: str
    packages: tuple[str, ...]
    write: Callable[["keras.Model", Mapping[str, Any], Path, str], None]
    open: Callable[[Path], Run]
    most_bytes: int | None = None
    photos: int | None = None

    def require(self) -> None:
        """Raise a PipelineError if a package is missing."""
        lacking = [name for name in self.packages if find_spec(name) is None]
        if lacking:
            raise PipelineError(
                f"{lacking[0]} is not installed: pip install 'kaggle-pipeline[export]', or "
                "'.[export]' in a checkout"
            )

    def require_engine(self) -> None:
        """Raise a PipelineError if Keras runs on another engine than TensorFlow."""
        from keras import backend

        if backend.backend() != "tensorflow":
            raise PipelineError(
                f"Keras runs on {backend.backend()}: export with KERAS_BACKEND=tensorflow"
            )


def _write_archive(network: "keras.Model", path: Path, batch: int | None) -> None:
    """Write a SavedModel of the prediction alone, for ``batch`` photos or any number."""
    from keras.export import ExportArchive

    archive = ExportArchive()
    archive.track(network)
    archive.add_endpoint(
        "serving_default", lambda image: network(image, training=False),
        input_signature=[_signature(network, batch)],
    )  # fmt: skip
    archive.write_out(str(path), verbose=False)


def _signature(network: "keras.Model", batch: int | None) -> Any:
    tf = import_tensorflow()
    return tf.TensorSpec((batch, *network.inputs[0].shape[1:]), tf.uint8, name="image")


def _write_onnx(
    network: "keras.Model", about: Mapping[str, Any], path: Path, quantize: str
) -> None:
    import tf2onnx

    signature = [_signature(network, None)]
    function = import_tensorflow().function(
        lambda image: network(image, training=False), input_signature=signature
    )
    model, _ = tf2onnx.convert.from_function(function, signature, opset=_OPSET)
    entry = model.metadata_props.add()
    entry.key, entry.value = ABOUT, json.dumps(about)
    path.write_bytes(model.SerializeToString())


def _open_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]

    def run(squares: np.ndarray) -> dict[str, np.ndarray]:
        found = session.run(names, {session.get_inputs()[0].name: squares})
        return dict(zip(names, found, strict=True))

    return run


def _write_saved_model(
    network: "keras.Model", about: Mapping[str, Any], path: Path, quantize: str
) -> None:
    _write_archive(network, path, None)
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / f"{ABOUT}.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _open_saved_model(path: Path) -> Run:
    tf = import_tensorflow()
    loaded = tf.saved_model.load(str(path))

    def run(squares: np.ndarray) -> dict[str, np.ndarray]:
        found = loaded.signatures["serving_default"](image=tf.constant(squares))
        return {name: one.numpy() for name, one in found.items()}

    return run


def _write_litert(
    network: "keras.Model", about: Mapping[str, Any], path: Path, quantize: str
) -> None:
    tf = import_tensorflow()
    with tempfile.TemporaryDirectory() as scratch:
        _write_archive(network, Path(scratch), _ON_A_PHONE)
        converter = tf.lite.TFLiteConverter.from_saved_model(scratch)
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        path.write_bytes(converter.convert())
    # As LiteRT's own metadata do it: files are packed at the model's end.
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(f"{ABOUT}.json", json.dumps(about, indent=2))


def _open_litert(path: Path) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()

    def run(squares: np.ndarray) -> dict[str, np.ndarray]:
        found = [runner(image=square[None]) for square in squares]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}

    return run


FORMATS = {
    "onnx": Format(".onnx", ("onnx", "tf2onnx", "onnxruntime"), _write_onnx, _open_onnx, _MOST),
    "litert": Format(
        ".tflite", ("ai_edge_litert",), _write_litert, _open_litert, _MOST, _ON_A_PHONE
    ),
    "saved_model": Format("", (), _write_saved_model, _open_saved_model),
}
"""By the name of ``--format``."""
