"""Augmentation: what is varied, and that label and history follow."""

import jax
import numpy as np
import pytest

from charles.config import AugmentConfig
from charles.nets.augment import augment
from charles.sample import DRIVING_CONTROLS


def make_batch(size: int = 64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "image": rng.uniform(-0.5, 0.5, (size, 4, 6, 3)).astype(np.float32),
        "speed": rng.uniform(0, 9, size).astype(np.float32),
        "purpose": rng.uniform(-3, 3, (size, 2)).astype(np.float32),
        "history": rng.uniform(-1, 1, (size, 5, 5)).astype(np.float32),
        "label": rng.uniform(-1, 1, (size, 2)).astype(np.float32),
    }


def test_flipping_mirrors_the_frame_steering_purpose_and_history_together():
    batch = make_batch()
    config = AugmentConfig(shift=0, flip=0.5)
    made = jax.jit(lambda b: augment(b, config, DRIVING_CONTROLS, jax.random.key(3)))(batch)
    is_flipped = ~np.isclose(made["label"][:, 1], batch["label"][:, 1])
    assert 16 < is_flipped.sum() < 48
    for index, flipped in enumerate(is_flipped):
        sign = -1 if flipped else 1
        expected = batch["image"][index][:, ::sign]
        np.testing.assert_allclose(made["image"][index], expected, atol=1e-6)
        np.testing.assert_allclose(made["label"][index], batch["label"][index] * [1, sign])
        np.testing.assert_allclose(made["purpose"][index], batch["purpose"][index] * [sign, 1])
        # History rows: acceleration/braking, steering, speed, direction, distance.
        signs = [1, sign, 1, sign, 1]
        np.testing.assert_allclose(made["history"][index], batch["history"][index] * signs)
    np.testing.assert_array_equal(made["speed"], batch["speed"])


def test_light_varies_per_sample_within_its_bounds():
    batch = make_batch() | {"image": np.full((64, 4, 6, 3), 0.5, np.float32)}
    config = AugmentConfig(shift=0, brightness=0.1, contrast=0.2)
    made = np.asarray(augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))["image"])
    levels = made[:, 0, 0, 0]
    np.testing.assert_allclose(made, np.broadcast_to(levels[:, None, None, None], made.shape))
    assert levels.min() >= 0.5 * 0.8 - 0.2
    assert levels.max() <= 0.5 * 1.2 + 0.2
    assert levels.std() > 0.05


@pytest.mark.parametrize("most", [1, 3])
def test_pictures_move_by_whole_pixels_each_by_its_own(most):
    batch = make_batch()
    config = AugmentConfig(shift=most)
    made = augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))
    padding = ((most, most), (most, most), (0, 0))
    found = set()
    for before, after in zip(batch["image"], np.asarray(made["image"]), strict=True):
        padded = np.pad(before, padding, mode="edge")
        moves = [
            (down, right)
            for down in range(2 * most + 1)
            for right in range(2 * most + 1)
            if np.array_equal(after, padded[down : down + 4, right : right + 6])
        ]
        assert moves
        found.update(moves)
    assert len(found) > 0.6 * min((2 * most + 1) ** 2, len(batch["image"]))
    for name in ("label", "purpose", "history", "speed"):
        np.testing.assert_array_equal(made[name], batch[name])


def test_what_is_not_asked_for_changes_nothing():
    batch = make_batch()
    made = augment(batch, AugmentConfig(shift=0), DRIVING_CONTROLS, jax.random.key(0))
    assert all(made[name] is batch[name] for name in batch)
