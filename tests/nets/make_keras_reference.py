"""Makes ``keras_reference.npz``: what Keras' own Xception, InceptionResNetV2 and LSTM compute.

Run by hand, in an environment of its own, whenever the cases change::

    python -m venv keras && keras/bin/pip install keras tensorflow-cpu
    KERAS_BACKEND=tensorflow keras/bin/python tests/nets/make_keras_reference.py

Weights and images follow from their names (``reference_weights.py``), so only results are kept,
projected on a few random directions to keep the file small: ``<case>/inference`` and
``<case>/training`` of shape ``[B, h, w, 16]``, and ``<case>/statistics/<layer>`` of shape
``[2, 4]``: batch mean and variance as they enter the moving statistics. ``lstm/LAYERS/BxTxD`` has
the states ``[B, T, U]`` of the last of several layers, whole.
"""

from pathlib import Path

import keras
import numpy as np
from reference_weights import LSTM_SHAPE, LSTM_UNITS, make_images, make_weight, project

MAKERS = {
    "xception": keras.applications.Xception,
    "inception_resnet_v2": keras.applications.InceptionResNetV2,
}
CASES = {
    "xception": ((2, 96, 128, 3), (2, 107, 139, 3), (2, 75, 131, 9)),
    "inception_resnet_v2": ((2, 140, 150, 3), (2, 139, 171, 3), (2, 112, 141, 9)),
}
"""Shapes of the images, even and odd, large enough for several positions in the last maps."""


def name_of(weight):
    return weight.path.rsplit("/", 1)[-1]


def fill(model):
    for layer in model.layers:
        weights = [make_weight(layer.name, name_of(w), w.shape) for w in layer.weights]
        layer.set_weights(weights)


def gathered_statistics(model, before):
    """Batch statistics of each normalisation: what the moving ones moved by, over 1 - momentum."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            after = [np.asarray(each, np.float64) for each in layer.get_weights()[-2:]]
            old = [each.astype(np.float64) for each in before[layer.name]]
            keep = layer.momentum
            yield (
                layer.name,
                np.stack(
                    [(new - keep * was) / (1 - keep) for new, was in zip(after, old, strict=True)]
                ),
            )


def run_case(name, shape):
    keras.backend.clear_session()
    model = MAKERS[name](include_top=False, weights=None, input_shape=shape[1:])
    fill(model)
    before = {layer.name: layer.get_weights()[-2:] for layer in model.layers}
    images = make_images(shape)
    case = f"{name}/{'x'.join(map(str, shape))}"
    inference = np.asarray(model(images, training=False))
    training = np.asarray(model(images, training=True))
    print(case, inference.shape, inference.std(), training.std())
    results = {f"{case}/inference": project(inference, 16).astype(np.float32)}
    results[f"{case}/training"] = project(training, 16).astype(np.float32)
    for layer, statistics in gathered_statistics(model, before):
        results[f"{case}/statistics/{layer}"] = project(statistics, 4).astype(np.float32)
    return results


def run_lstm():
    """States of two layers of LSTM with biases, each returning its whole sequence."""
    keras.backend.clear_session()
    layers = [
        keras.layers.LSTM(units, return_sequences=True, name=f"lstm_{number}")
        for number, units in enumerate(LSTM_UNITS)
    ]
    model = keras.Sequential([keras.Input(LSTM_SHAPE[1:]), *layers])
    fill(model)
    states = np.asarray(model(make_images(LSTM_SHAPE)))
    print("lstm", states.shape, states.std())
    return {f"lstm/{len(layers)}/{'x'.join(map(str, LSTM_SHAPE))}": states}


def main():
    results = run_lstm()
    for name, shapes in CASES.items():
        for shape in shapes:
            results |= run_case(name, shape)
    path = Path(__file__).with_name("keras_reference.npz")
    np.savez_compressed(path, allow_pickle=False, **results)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
