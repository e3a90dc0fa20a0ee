"""Backbones by name: how each is made, and what its weights are called elsewhere."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from charles.errors import ConfigError
from charles.models import ModelSpec
from charles.nets import inception_resnet_v2, nf_regnet, regnet, xception
from charles.nets.naming import KerasNames, TorchNames


class Backbone(NamedTuple):
    """What there is to know of a backbone."""

    make: Callable[..., Any]
    """``make(channels, width=width, rngs=rngs)``."""
    min_size: int
    """Least height and width of an image."""
    torch_names: Callable[[], TorchNames] = dict
    """What its variables are called in timm; empty if timm does not have it."""
    keras_names: Callable[[], KerasNames] = dict
    """The same in Keras."""


BACKBONES = {
    "xception": Backbone(
        xception.Xception, xception.MIN_SIZE, xception.timm_names, xception.keras_names
    ),
    "inceptionresnetv2": Backbone(
        inception_resnet_v2.InceptionResNetV2,
        inception_resnet_v2.MIN_SIZE,
        inception_resnet_v2.timm_names,
        inception_resnet_v2.keras_names,
    ),
    "nf_regnet": Backbone(nf_regnet.NFRegNet, nf_regnet.MIN_SIZE),
} | {
    name: Backbone(
        partial(regnet.RegNet, design=design),
        regnet.MIN_SIZE,
        partial(regnet.timm_names, design),
    )
    for name, design in regnet.DESIGNS.items()
}
"""Backbones by the name that a specification gives."""


def backbone_of(spec: ModelSpec | None) -> Backbone:
    """A model's backbone, whose weights others have as well.

    Raises:
        ConfigError: It has none that others know.
    """
    if spec is None or spec.backbone not in BACKBONES or not BACKBONES[spec.backbone].torch_names():
        raise ConfigError(
            "transfer: weight files are for Xception, InceptionResNetV2 and RegNet, got another "
            "network. Name a model with such a backbone by network.model."
        )
    return BACKBONES[spec.backbone]
