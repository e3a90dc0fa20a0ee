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


def test_a_road_moved_to_the_right_is_steered_to_the_right():
    """Geometry: a car heading too far to the left sees its road further right, and must turn."""
    batch = make_batch(256)
    width, most, road_at = 16, 5, 8
    batch["image"] = np.zeros((256, 4, width, 3), np.float32)
    batch["image"][:, :, road_at] = 1.0
    batch["label"] = np.zeros((256, 2), np.float32)
    config = AugmentConfig(shift=most, shift_steering=1.5)
    made = jax.jit(lambda b: augment(b, config, DRIVING_CONTROLS, jax.random.key(0)))(batch)
    road = np.asarray(made["image"])[:, 0, :, 0].argmax(axis=1)
    to_the_right = road - road_at
    assert set(to_the_right) == set(range(-most, most + 1))
    np.testing.assert_allclose(made["label"][:, 1], 1.5 * to_the_right / width, rtol=1e-6)
    assert np.sign(made["label"][:, 1]).tolist() == np.sign(to_the_right).tolist()
    np.testing.assert_array_equal(made["label"][:, 0], 0)
    for name in ("purpose", "history", "speed"):
        np.testing.assert_array_equal(made[name], batch[name])


def test_corrected_steering_stays_in_its_range():
    batch = make_batch(256)
    made = augment(
        batch, AugmentConfig(shift=3, shift_steering=9.0), DRIVING_CONTROLS, jax.random.key(0)
    )
    assert np.abs(made["label"][:, 1]).max() == 1
    np.testing.assert_array_equal(made["label"][:, 0], batch["label"][:, 0])


def test_without_a_steering_control_there_is_nothing_to_correct():
    batch = make_batch()
    config = AugmentConfig(shift=2, shift_steering=1.0)
    made = augment(batch, config, ("throttle", "rudder"), jax.random.key(0))
    np.testing.assert_array_equal(made["label"], batch["label"])


def test_colour_varies_per_sample_and_channel_within_its_bounds_and_black_stays_black():
    image = np.full((64, 4, 6, 3), -1.0, np.float32)
    image[:, 2:] = -0.2  # 0.4 of the range
    batch = make_batch() | {"image": image}
    config = AugmentConfig(shift=0, colour=0.3)
    made = np.asarray(augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))["image"])
    np.testing.assert_allclose(made[:, :2], -1.0, atol=1e-6)
    gains = (made[:, 3, 0] + 1) / 0.8
    assert gains.min() >= 0.7 - 1e-5
    assert gains.max() <= 1.3 + 1e-5
    assert gains.std(axis=1).mean() > 0.05  # another for every channel
    assert gains.std(axis=0).mean() > 0.05  # and for every sample


def test_saturation_changes_colours_but_not_their_mean():
    batch = make_batch()
    config = AugmentConfig(shift=0, saturation=0.5)
    made = np.asarray(augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))["image"])
    before = batch["image"]
    np.testing.assert_allclose(made.mean(-1), before.mean(-1), atol=1e-6)
    ratio = made.std(axis=-1) / before.std(axis=-1)
    np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones_like(ratio), rtol=1e-3)
    assert ratio.min() >= 0.5 - 1e-4
    assert ratio.max() <= 1.5 + 1e-4
    assert ratio.std() > 0.1


def test_pictures_of_one_sample_are_varied_alike():
    """What differs between them is what happened; and no picture shows through another."""
    one = make_batch()["image"]
    pair = np.concatenate([one, one[::-1]], axis=-1)
    config = AugmentConfig(shift=0, brightness=0.1, contrast=0.1, saturation=0.5, colour=0.3)

    def varied(image):
        batch = {**make_batch(), "image": image}
        return np.asarray(augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))["image"])

    np.testing.assert_allclose(varied(pair)[..., :3], varied(one), atol=1e-6)
    twice = varied(np.concatenate([one, one], axis=-1))
    np.testing.assert_array_equal(twice[..., :3], twice[..., 3:])


def test_noise_has_the_deviation_asked_for():
    batch = make_batch() | {"image": np.zeros((64, 24, 32, 3), np.float32)}
    config = AugmentConfig(shift=0, noise=0.05)
    made = np.asarray(augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))["image"])
    assert made.std() == pytest.approx(0.1, rel=0.02)  # 5 % of a range of 2
    assert abs(made.mean()) < 1e-3


def test_everything_at_once_stays_in_the_range_of_pictures():
    batch = make_batch() | {"image": np.random.default_rng(0).choice([-1, 1], (64, 4, 6, 3)) * 1.0}
    config = AugmentConfig(shift=1, brightness=1.0, contrast=1.0, saturation=1.0, colour=1.0,
                           noise=1.0, flip=0.5)  # fmt: skip
    made = np.asarray(augment(batch, config, DRIVING_CONTROLS, jax.random.key(0))["image"])
    assert np.abs(made).max() <= 1


def test_what_is_not_asked_for_changes_nothing():
    batch = make_batch()
    made = augment(batch, AugmentConfig(shift=0), DRIVING_CONTROLS, jax.random.key(0))
    assert all(made[name] is batch[name] for name in batch)
