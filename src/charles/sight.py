"""Whether a player still sees what it drives through."""

from charles.io.game import Telemetry
from charles.io.pads.watched import PATIENCE_S

LOST_S = PATIENCE_S
"""Age of an instant from which on its pixels count as lost, and controls by them as not renewed."""

NUDGE_S = 3.0
"""How often a car of unknown speed is driven on before a picture that stays the same."""

STANDING_MPS = 0.5
"""A car that is slower stands."""


def is_lost(age_s: float, telemetry: Telemetry) -> bool:
    """Whether nobody should drive by a picture.

    Where the game is hidden, in a menu or silent it is lost at once: keys would reach what covers
    it, and a speed that nobody tells is not 0. A picture that stays
    the same is what a standing car sees, and what is left of a game that hangs. Where the speed is
    known it tells one from the other. Where it is not, driving is tried for :data:`LOST_S` every
    :data:`NUDGE_S`: a car that stands must be able to start.

    Args:
        age_s: How long ago it was captured.
        telemetry: What is told of the instant.
    """
    if not telemetry.is_whole:
        return True
    if age_s <= LOST_S:
        return False
    if not telemetry.is_still:
        return True
    if telemetry.speed_mps is not None:
        return telemetry.speed_mps > STANDING_MPS
    return age_s % NUDGE_S > LOST_S
