"""Backbones in another framework, timed on demand; run by ``bench_backbones --peers``.

Runs in an environment of its own, with none of Charles in it::

    python3 -m venv .peers
    .peers/bin/pip install tensorflow torch timm onnxruntime onnx onnxscript

Takes the framework's name (two do not live in one process). Reads lines ``BACKBONE NUM``, times
``NUM`` inferences of a 270x480 picture at batch 1 in float32 with random parameters, and answers
with a JSON list of seconds, or a text why it cannot.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# pyright: reportMissingModuleSource=false

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HEIGHT, WIDTH = 270, 480
TIMM = {
    "Xception": "legacy_xception",
    "InceptionResNetV2": "inception_resnet_v2",
    "RegNetX-400MF": "regnetx_004",
    "RegNetY-400MF": "regnety_004",
}
Run = Callable[[], object]


def tensorflow(backbone: str) -> Run:
    """Keras' own model as a ``tf.function``."""
    import tensorflow as tf

    model = getattr(tf.keras.applications, backbone)(
        weights=None, include_top=False, input_shape=(HEIGHT, WIDTH, 3)
    )
    image = tf.constant(np.random.default_rng(0).uniform(-1, 1, (1, HEIGHT, WIDTH, 3)), tf.float32)
    predict = tf.function(lambda x: model(x, training=False))
    return lambda: predict(image).numpy()


def _timm(backbone: str) -> tuple[Any, Any]:
    import timm
    import torch

    model = timm.create_model(TIMM[backbone], num_classes=0, global_pool="").eval()
    image = torch.randn(1, 3, HEIGHT, WIDTH)
    return model, image


def pytorch(backbone: str) -> Run:
    """timm's model, channels last, traced and frozen (which folds normalisations)."""
    import torch

    model, image = _timm(backbone)
    model = model.to(memory_format=torch.channels_last)
    image = image.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        predict = torch.jit.optimize_for_inference(torch.jit.trace(model, image))

    def run() -> object:
        with torch.inference_mode():
            return predict(image)

    return run


def onnxruntime(backbone: str) -> Run:
    """timm's model exported to ONNX."""
    import onnxruntime as ort
    import torch

    model, image = _timm(backbone)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/model.onnx"
        torch.onnx.export(model, (image,), path, dynamo=False)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, picture = session.get_inputs()[0].name, image.numpy()
    return lambda: session.run(None, {name: picture})


FRAMEWORKS = {"tensorflow": tensorflow, "pytorch": pytorch, "onnxruntime": onnxruntime}


@cache
def prepare(framework: str, backbone: str) -> Run:
    """A function that runs one inference, warmed up."""
    run = FRAMEWORKS[framework](backbone)
    for _ in range(3):
        run()
    return run


def time_of(framework: str, backbone: str, num: int) -> list[float]:
    """Seconds of each of ``num`` inferences."""
    run = prepare(framework, backbone)
    durations = []
    for _ in range(num):
        started_s = time.perf_counter()
        run()
        durations.append(time.perf_counter() - started_s)
    return durations


def main() -> None:
    """Answer until there are no more lines."""
    for line in sys.stdin:
        backbone, num = line.split()
        try:
            answer: object = time_of(sys.argv[1], backbone, int(num))
        except Exception as error:  # whatever a framework raises, the others go on
            answer = f"{type(error).__name__}: {str(error)[:200]}"
        print("ANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
