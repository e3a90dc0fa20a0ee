"""A game of your own (a winding road, an expert) in one class. Run charles-train, then this."""

import numpy as np

from charles.collect import collect
from charles.config import ServerConfig, TrainConfig
from charles.io.game import Scene, Telemetry, checked_controls


class LaneGame:
    def __init__(self, config: TrainConfig, seed: int) -> None:
        self.controls = ("acceleration_braking", "steering")
        self.is_advising, self.is_realtime = True, False
        self.frame_shape, self.ticks = (config.frame.height, config.frame.width, 3), 0

    def reset(self, scene: Scene) -> None:
        self.rng = np.random.default_rng(scene.seed)
        self.teleport(scene.place)
        self.set_npc(True)

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        self.along, self.speed = place[0] if place else self.rng.uniform(-1e4, 1e4), 0.0
        self.right, self.angle = self.rng.normal(0.0, [0.7, 0.05])  # of the middle; to the right

    def set_npc(self, is_driving: bool) -> None:
        self.is_npc_driving, self.wanted = is_driving, np.zeros(2, np.float32)

    def act(self, controls: np.ndarray) -> None:
        self.wanted = checked_controls(controls, self.controls)

    def tick(self) -> Telemetry:
        controls, self.ticks = self.expert() if self.is_npc_driving else self.wanted, self.ticks + 1
        self.speed = np.clip(self.speed + (4 * controls[0] - 0.1 * self.speed) / 30, 0, 20)
        self.angle += (0.1 * controls[1] - self.bend()) * self.speed / 30
        self.right = np.clip(self.right + self.speed * np.sin(self.angle) / 30, -6, 6)
        self.along += self.speed * np.cos(self.angle) / 30
        told = {"speed_mps": float(self.speed), "location": (self.along, self.right, 0.0)}
        return Telemetry(captured_ns=self.ticks * 33_333_333, controls=controls,
                         label=self.expert(), purpose=np.zeros(2, np.float32), **told)  # fmt: skip

    def grab(self, out: np.ndarray) -> None:
        column = np.arange(out.shape[1]) / out.shape[1] - 0.5
        depth = 1.3 * out.shape[1] / (np.arange(len(out))[:, None] - 0.4 * len(out) + 1e-3)
        beside = np.abs((column + self.angle - self.bend() * depth / 2) * depth + self.right)
        out[:] = np.where((beside < 4)[..., None], (70, 70, 75), (60, 120, 50))
        out[(beside < 0.1) & ((self.along + depth) % 8 < 4)] = 240
        out[depth[:, 0] < 0] = (150, 190, 230)

    def close(self) -> None: ...
    def bend(self) -> float:
        return 0.02 * np.sin(self.along / 60)

    def expert(self) -> np.ndarray:
        steering = 10 * self.bend() - 0.15 * self.right - 2.0 * self.angle
        return np.clip([(12 - self.speed) / 3, steering], -1, 1).astype(np.float32)


if __name__ == "__main__":
    collect(ServerConfig(), LaneGame)
