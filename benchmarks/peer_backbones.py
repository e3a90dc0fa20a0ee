"""Backbones in another framework, timed on demand; run by ``bench_backbones`` and ``bench_gpu``.

Runs in an environment of its own, with none of Charles in it::

    python3 -m venv .peers
    .peers/bin/pip install --group peers

Takes the framework's name (two do not live in one process). Reads a :class:`Job` as JSON per line,
times it with random parameters and pictures, and answers with a JSON list of seconds, or a text why
it cannot. PyTorch works on the accelerator if it has one.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# pyright: reportMissingModuleSource=false

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
TIMM = {
    "Xception": "legacy_xception",
    "InceptionResNetV2": "inception_resnet_v2",
    "RegNetX-400MF": "regnetx_004",
    "RegNetY-400MF": "regnety_004",
}
LEARNING_RATE, MOMENTUM = 1e-3, 0.9
REGNETS = {
    "RegNetX-400MF": ((1, 2, 7, 12), (32, 64, 160, 384), 16, 0.0),
    "RegNetY-400MF": ((1, 3, 6, 6), (48, 104, 208, 440), 8, 0.25),
}
"""Blocks and width of each stage, width of a group, and the gate's share of a block's input."""
Run = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """What is to be timed."""

    task: str
    """``inference`` or ``training``: forward, backward and update."""
    backbone: str
    batch: int
    height: int
    width: int
    dtype: str = "float32"
    is_compiled: bool = False
    """Whether PyTorch compiles what it trains."""


def tensorflow(job: Job) -> Run:
    """Keras' own model as a ``tf.function``; a RegNet, which Keras 3 has not, of its layers."""
    import tensorflow as tf

    shape = (job.height, job.width, 3)
    if job.backbone in REGNETS:
        model = _keras_regnet(shape, *REGNETS[job.backbone])
    else:
        model = getattr(tf.keras.applications, job.backbone)(
            weights=None, include_top=False, input_shape=shape
        )
    image = tf.constant(np.random.default_rng(0).uniform(-1, 1, (job.batch, *shape)), tf.float32)
    predict = tf.function(lambda x: model(x, training=False))
    return lambda: predict(image).numpy()


def _keras_regnet(
    shape: tuple[int, ...],
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    group: int,
    gate: float,
) -> Any:
    """A RegNet of Keras' layers; its values are of no interest, so paddings may differ by one."""
    from tensorflow.keras import Model, layers

    def conv(x: Any, width: int, size: int = 1, stride: int = 1, groups: int = 1) -> Any:
        made = layers.Conv2D(width, size, stride, padding="same", groups=groups, use_bias=False)
        return layers.BatchNormalization()(made(x))

    def block(x: Any, width: int, stride: int) -> Any:
        y = layers.ReLU()(conv(x, width))
        y = layers.ReLU()(conv(y, width, 3, stride, width // group))
        if gate:
            mean = layers.GlobalAveragePooling2D(keepdims=True)(y)
            squeezed = layers.Conv2D(round(x.shape[-1] * gate), 1, activation="relu")(mean)
            y = y * layers.Conv2D(width, 1, activation="sigmoid")(squeezed)
        is_alike = stride == 1 and x.shape[-1] == width
        return layers.ReLU()(conv(y, width) + (x if is_alike else conv(x, width, 1, stride)))

    image = layers.Input(shape)
    x = layers.ReLU()(conv(image, 32, 3, 2))
    for depth, width in zip(depths, widths, strict=True):
        for number in range(depth):
            x = block(x, width, 1 if number else 2)
    return Model(image, x)


def _timm(job: Job) -> tuple[Any, Any]:
    import timm
    import torch

    model = timm.create_model(TIMM[job.backbone], num_classes=0, global_pool="").eval()
    return model, torch.randn(job.batch, 3, job.height, job.width)


def pytorch(job: Job) -> Run:
    """timm's model, channels last."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, image = (
        each.to(device=device, memory_format=torch.channels_last) for each in _timm(job)
    )
    return (_train if job.task == "training" else _infer)(job, model, image)


def _infer(job: Job, model: Any, image: Any) -> Run:
    """Traced and frozen, which folds normalisations."""
    import torch

    with torch.inference_mode():
        predict = torch.jit.optimize_for_inference(torch.jit.trace(model, image))

    def run() -> object:
        with torch.inference_mode():
            return predict(image).cpu()

    return run


def _train(job: Job, model: Any, image: Any) -> Run:
    """The mean square of the features, its gradient and an update with momentum."""
    import torch

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    forward = torch.compile(model) if job.is_compiled else model
    is_narrow = job.dtype != "float32"

    def run() -> object:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(image.device.type, torch.bfloat16, enabled=is_narrow):
            loss = forward(image).float().square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return run


def onnxruntime(job: Job) -> Run:
    """timm's model exported to ONNX."""
    import onnxruntime as ort
    import torch

    model, image = _timm(job)
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/model.onnx"
        torch.onnx.export(model, (image,), path, dynamo=False)
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name, picture = session.get_inputs()[0].name, image.numpy()
    return lambda: session.run(None, {name: picture})


def openvino(job: Job, **options: str) -> Run:
    """timm's model in OpenVINO, which chooses its precision."""
    import openvino as ov

    model, image = _timm(job)
    converted = ov.convert_model(model, example_input=image, input=[tuple(image.shape)])
    compiled = ov.compile_model(converted, "CPU", {"PERFORMANCE_HINT": "LATENCY", **options})
    picture = image.numpy()
    return lambda: compiled(picture)


def openvino_float32(job: Job) -> Run:
    """As :func:`openvino`, in float32 whatever the processor has."""
    return openvino(job, INFERENCE_PRECISION_HINT="f32")


FRAMEWORKS: dict[str, Callable[[Job], Run]] = {
    each.__name__: each for each in (tensorflow, pytorch, onnxruntime, openvino, openvino_float32)
}


@cache
def prepare(framework: str, job: Job) -> Run:
    """A function that does the job once, warmed up."""
    if job.task == "training" and framework != "pytorch":
        raise ValueError(f"{framework} is measured in inference only")
    run = FRAMEWORKS[framework](job)
    for _ in range(3):
        run()
    return run


def time_each(run: Run, num: int) -> list[float]:
    """Seconds of each of ``num`` calls."""
    durations = []
    for _ in range(num):
        started_s = time.perf_counter()
        run()
        durations.append(time.perf_counter() - started_s)
    return durations


def main() -> None:
    """Answer until there are no more lines."""
    for line in sys.stdin:
        request = json.loads(line)
        num = request.pop("num")
        try:
            answer: object = time_each(prepare(sys.argv[1], Job(**request)), num)
        except Exception as error:  # whatever a framework raises, the others go on
            answer = f"{type(error).__name__}: {str(error)[:200]}"
        print("ANSWER " + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
