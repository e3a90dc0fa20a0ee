"""Shared by the tests of networks."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly():
    """Nothing here is about speed, and optimising takes longer than running."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
