"""An environment of Gymnasium as a game.

Gymnasium steps as fast as it is asked. Stepped, an instant comes when asked for; in real time they
come by the wall clock, as a player needs it. Between two instants lie as many steps as the
environment's own rate asks for, so that game time is the same at any rate of instants.
"""

from typing import Any

import numpy as np

from charles.errors import GameError
from charles.game_config import GameConfig
from charles.io.capture import CaptureInfo
from charles.io.game import Progress, Scene, Telemetry, checked_controls, chosen_scene
from charles.io.gym.actions import ActionMap
from charles.io.gym.roles import Expert, PlainWorld, World
from charles.io.screen.resize import RESIZER, Resizer, check_frame
from charles.sample import DRIVING_CONTROLS
from charles.timing import InstantClock


class GymnasiumGame:
    """An environment as a :class:`charles.io.game.Game`. Used from one thread.

    A scene's seed is the environment's reset seed. Weather and hour are not the environment's; a
    scene may name them, and they are told back. Where an episode ends by itself, the next instant
    is the first of another one, and is marked as a collision, so that nobody takes the two for one
    drive; CarRacing goes on after its lap.

    Args:
        config: Which environment, how controls become its actions, and its rate.
        env: The environment, made with ``render_mode="rgb_array"``; closed with the game.
        height: Frame height in pixels.
        width: Frame width in pixels.
        seed: Seeds what a scene leaves open.
        expert: Who is learned from; nobody by default.
        world: What is known about the environment; nothing by default.

    Raises:
        GameError: The environment's actions are no finite Box.
        ConfigError: ``game.gymnasium.actions`` does not fit them.
    """

    def __init__(
        self,
        config: GameConfig,
        env: Any,
        *,
        height: int,
        width: int,
        seed: int,
        expert: Expert | None = None,
        world: World | None = None,
    ) -> None:
        options = config.gymnasium
        self.controls: tuple[str, ...] = DRIVING_CONTROLS
        self.frame_shape: tuple[int, int, int] = (height, width, 3)
        self.is_advising = expert is not None and expert.is_advising
        self.is_realtime = config.is_realtime or options.expert == "human"
        self.capture = CaptureInfo(
            name="gymnasium",
            version=options.env,
            camera="rgb_array",
            resizer=RESIZER,
            read=options.human.zones if options.expert == "human" else None,
        )
        self._config, self._options, self._env = config, options, env
        self._expert, self._world = expert, world or PlainWorld()
        self._action = ActionMap(options.actions, env.action_space, options.env)
        own_hz = float(env.metadata.get("render_fps") or options.steps_hz)
        self._steps_per_instant = own_hz / options.rate_hz
        self._rng = np.random.default_rng(seed)
        self._resizer = Resizer(height, width)
        self._clock = InstantClock(options.rate_hz, is_realtime=self.is_realtime)
        self._scene: Scene | None = None
        self._due = 0.0
        self._is_npc_driving, self._is_closed, self._is_over = True, False, False
        self._acting = self._applied = np.zeros(len(self.controls), np.float32)

    @property
    def missed(self) -> int:
        """Instants that real time had and the caller was too late for; 0 when stepped."""
        return self._clock.missed

    def progress(self) -> Progress:
        """How far the task is, where the environment is known to have one."""
        return self._world.sight(self._env).progress

    def reset(self, scene: Scene) -> None:
        """See :class:`charles.io.game.Game`. The same seed, the same scene."""
        if self._is_closed:
            raise GameError("The game is closed. Make a new one.")
        low, high = self._config.seeds
        seed = int(self._rng.integers(low, high)) if scene.seed is None else scene.seed
        self._scene = chosen_scene(scene, self._config, self._rng)
        self._begin_episode(seed)
        if scene.place is not None:
            self._world.put(self._env, scene.place, self._rng)
        self._is_npc_driving = True
        self._acting = np.zeros(len(self.controls), np.float32)
        self._clock.restart()

    def tick(self) -> Telemetry:
        """See :class:`charles.io.game.Game`."""
        scene = self._ready()
        was_over, was_off = self._is_over, self.progress().ended == "off_route"
        if was_over:
            self._begin_episode(None)
        for _ in range(self._clock.wait()):
            self._move_on()
        now_ns = self._clock.stamp()
        sight, label = self._world.sight(self._env), self._advice()
        assert scene.weather is not None
        assert scene.time_of_day_h is not None
        return Telemetry(
            captured_ns=now_ns,
            controls=self._applied.copy(),
            label=label,
            speed_mps=sight.speed_mps,
            purpose=np.array(sight.purpose, np.float32),
            location=sight.location,
            weather=scene.weather,
            time_of_day_h=scene.time_of_day_h,
            is_collision=was_over or (sight.progress.ended == "off_route" and not was_off),
            is_off_road=sight.is_off_road,
            is_human=label is not None and self._options.expert == "human",
        )

    def grab(self, out: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`; ``out`` must be C-contiguous."""
        self._ready()
        check_frame(out, self.frame_shape)
        picture = self._world.picture(self._env, self._options.camera)
        if picture is None:
            raise GameError(
                f"{self._options.env} must have pictures by {self._options.camera}, RGB uint8, got "
                "none. Set game.gymnasium.camera to the other of render and observation."
            )
        self._resizer.into(out, picture)
        out[:] = out[..., ::-1].copy()  # the resizer is for BGR; after it there are fewer pixels

    def act(self, controls: np.ndarray) -> None:
        """See :class:`charles.io.game.Game`."""
        values = checked_controls(controls, self.controls)
        if not self._is_npc_driving:
            self._acting = values

    def set_npc(self, is_driving: bool) -> None:
        """See :class:`charles.io.game.Game`."""
        self._is_npc_driving = is_driving
        self._acting = np.zeros(len(self.controls), np.float32)

    def teleport(self, place: tuple[float, float] | None = None) -> None:
        """See :class:`charles.io.game.Game`. Another episode, where cars cannot be put anywhere."""
        self._ready()
        if not self._world.put(self._env, place, self._rng):
            self._begin_episode(None)
        self._applied = np.zeros(len(self.controls), np.float32)
        self._clock.restart()

    def close(self) -> None:
        """See :class:`charles.io.game.Game`."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._expert is not None:
            self._expert.close()
        self._env.close()

    def _ready(self) -> Scene:
        if self._scene is None or self._is_closed:
            raise GameError("A game must be reset before it is used, and not after it is closed.")
        return self._scene

    def _begin_episode(self, seed: int | None) -> None:
        """Another episode: of a scene's seed, or the next of the same one, so that what follows
        from a seed that is held out is held out too."""
        observation, _ = self._env.reset(seed=seed)
        self._world.start(self._env, observation)
        if self._expert is not None:
            self._expert.start(self._env)
        self._is_over, self._due = False, 0.0
        self._applied = np.zeros(len(self.controls), np.float32)

    def _move_on(self) -> None:
        """The steps of one instant; none once the episode is over."""
        self._due += self._steps_per_instant
        while self._due >= 1.0 - 1e-9 and not self._is_over:
            self._due -= 1.0
            self._applied = self._controls()
            has_ended = self._world.step(self._env, self._action(self._applied))
            self._is_over = has_ended and not self._world.goes_on

    def _controls(self) -> np.ndarray:
        """What applies at the next step; neutral where the expert cannot tell."""
        if not self._is_npc_driving:
            return self._acting
        advice = self._expert.advise(self._env) if self._expert is not None else None
        return np.zeros(len(self.controls), np.float32) if advice is None else advice

    def _advice(self) -> np.ndarray | None:
        """The label of the present state, where there is one."""
        if self._expert is None or not (self._is_npc_driving or self.is_advising):
            return None
        return self._expert.advise(self._env)
