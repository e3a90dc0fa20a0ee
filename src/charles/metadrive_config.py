"""Settings of MetaDrive, the driving simulator; see :mod:`charles.io.metadrive`."""

import math
from dataclasses import dataclass
from typing import Literal

from charles.errors import require


@dataclass(frozen=True, kw_only=True)
class MetaDriveConfig:
    """Which maps and how much traffic, who drives, and from where it is seen."""

    blocks: int = 3
    """Pieces of road in a map: curves, junctions, roundabouts, ramps. Three are 250 to 500 m."""
    traffic_density: float = 0.05
    """Cars for each 10 m of lane. The driver that teaches crashes more often the more there are: at
    0.1 in more than half of all maps of seven blocks."""
    speed_km_h: float = 30.0
    """Speed of the driver that teaches. It keeps to the road up to about 30."""
    camera: Literal["hood", "chase"] = "hood"
    """``hood`` looks out of the car, ``chase`` from behind and above."""

    def __post_init__(self) -> None:
        where = "game.metadrive"
        require(0 < self.blocks <= 20, f"{where}.blocks", "lie in 1..20", self.blocks)
        require(0 <= self.traffic_density <= 1, f"{where}.traffic_density", "lie in [0, 1]",
                self.traffic_density)  # fmt: skip
        is_speed = math.isfinite(self.speed_km_h) and self.speed_km_h > 0
        require(is_speed, f"{where}.speed_km_h", "be positive", self.speed_km_h)
        cameras = ("hood", "chase")
        require(self.camera in cameras, f"{where}.camera", f"be one of {cameras}", self.camera)
