"""Augmentation: what is varied at random in every sample of a batch, inside the jitted step.

What is not asked for costs nothing: it is not part of the compiled step.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from charles.config import AugmentConfig

Array = jax.Array
Batch = dict[str, Any]

STEERING = "steering"

MIRRORED_CONTROLS = (STEERING,)
"""Controls that change sign when the world is mirrored."""


def augment(batch: Batch, config: AugmentConfig, controls: Sequence[str], key: Array) -> Batch:
    """Move, mirror and light the pictures at random, each sample for itself.

    Args:
        batch: ``image`` float32 ``[B, h, w, 3]`` in [-1, 1], ``label [B, A]``, ``purpose [B, 2]``,
            ``history [B, T, A + 3]`` and the rest, which stays as it is.
        config: How much.
        controls: Names of the ``A`` controls.
        key: A PRNG key, consumed.

    Returns:
        A new batch of the same shapes; mirrored samples have steering, in label and history, and
        the purpose's direction mirrored too; moved samples have their label's steering corrected.
    """
    light_key, shift_key, flip_key, noise_key = jax.random.split(key, 4)
    batch = batch | {"image": vary_light(batch["image"], config, light_key)}
    if config.shift:
        batch = shift(batch, config, controls, shift_key)
    if config.noise:  # after moving, which would repeat it along the edges
        batch = batch | {"image": add_noise(batch["image"], config.noise, noise_key)}
    return mirror(batch, config.flip, controls, flip_key) if config.flip else batch


def vary_light(image: Array, config: AugmentConfig, key: Array) -> Array:
    """Pictures ``[B, h, w, 3F]``, each sample with a brightness, contrast, saturation and colour.

    A sample of several pictures has the same of each in all of them: what differs between its
    pictures is to be what happened.
    """
    light_key, saturation_key, colour_key = jax.random.split(key, 3)
    shape = image.shape
    if not (config.saturation or config.colour or config.brightness or config.contrast):
        return image
    image = image.reshape(*shape[:3], -1, 3)
    size = (shape[0], 1, 1, 1, 1)
    if config.saturation:
        more = config.saturation * jax.random.uniform(saturation_key, size, minval=-1, maxval=1)
        grey = jnp.mean(image, axis=-1, keepdims=True)
        image = grey + (1 + more) * (image - grey)
    if config.colour:
        gain = jax.random.uniform(colour_key, (*size[:4], 3), minval=-1, maxval=1)
        image = (image + 1) * (1 + config.colour * gain) - 1  # black stays black
    if config.brightness or config.contrast:
        light, contrast = jax.random.uniform(light_key, (2, *size), minval=-1, maxval=1)
        # [-1, 1] is twice the range of [0, 1] in which the config states brightness.
        image = image * (1 + config.contrast * contrast) + 2 * config.brightness * light
    return jnp.clip(image, -1, 1).reshape(shape)


def add_noise(image: Array, deviation: float, key: Array) -> Array:
    """Pictures ``[B, h, w, 3]`` with noise on every pixel; a deviation of 1 is the whole range."""
    noise = jax.random.normal(key, image.shape, image.dtype)
    return jnp.clip(image + 2 * deviation * noise, -1, 1)


def shift(batch: Batch, config: AugmentConfig, controls: Sequence[str], key: Array) -> Batch:
    """A batch whose pictures are moved, each by up to ``config.shift`` pixels along both axes.

    What is uncovered repeats the picture's edge. A few pixels change what a driver should do by
    less than he notices, but no pixel is where it was: a network cannot tell a picture that it was
    shown before by heart.

    A picture moved far to the right is what one sees whose car points, or stands, too far to the
    left: ``config.shift_steering`` says how much further to the right (positive) one then steers.

    References:
        Yarats, Kostrikov, Fergus, "Image augmentation is all you need", 2021,
        https://arxiv.org/abs/2004.13649.

        Bojarski et al., "End to end learning for self-driving cars", 2016,
        https://arxiv.org/abs/1604.07316.
    """
    image, most = batch["image"], config.shift
    padded = jnp.pad(image, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (image.shape[0], 2), 0, 2 * most + 1)

    def cut(picture: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(picture, (corner[0], corner[1], 0), image.shape[1:])

    moved = batch | {"image": jax.vmap(cut)(padded, corners)}
    if not config.shift_steering:
        return moved
    to_the_right = (most - corners[:, 1]) / image.shape[2]
    is_steering = np.array([name == STEERING for name in controls], np.float32)
    more = config.shift_steering * to_the_right[:, None] * is_steering
    return moved | {"label": jnp.where(is_steering, jnp.clip(batch["label"] + more, -1, 1),
                                       batch["label"])}  # fmt: skip


def mirror(batch: Batch, share: float, controls: Sequence[str], key: Array) -> Batch:
    """A batch of which ``share`` is mirrored: picture, steering, purpose and history."""
    is_mirrored = jax.random.uniform(key, (batch["image"].shape[0],)) < share
    signs = np.array([-1 if name in MIRRORED_CONTROLS else 1 for name in controls])
    image = batch["image"]
    return batch | {
        "image": jnp.where(is_mirrored[:, None, None, None], image[:, :, ::-1], image),
        "label": _change_signs(batch["label"], is_mirrored, signs),
        "purpose": _change_signs(batch["purpose"], is_mirrored, np.array([-1, 1])),
        "history": _change_signs(batch["history"], is_mirrored, np.append(signs, [1, -1, 1])),
    }


def _change_signs(values: Array, where: Array, signs: np.ndarray) -> Array:
    """``values [B, ..., D]`` with columns of sign -1 negated ``where`` ``[B]`` is true."""
    where = where.reshape(-1, *[1] * (values.ndim - 1))
    return jnp.where(where, values * signs.astype(np.float32), values)
