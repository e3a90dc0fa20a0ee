"""What a network computes in."""

from typing import Any

import jax
import jax.numpy as jnp

from charles.config import Precision


def compute_dtype(precision: Precision = "auto") -> Any:
    """The type of a network's intermediate values; parameters are float32 in any case.

    ``auto`` is bfloat16 on accelerators, and float32 on a CPU, which is no faster in bfloat16.
    """
    if precision == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    return jnp.float32 if precision == "float32" else jnp.bfloat16
