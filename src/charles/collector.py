"""The collector: watches a game played by its expert and writes balanced samples.

Its way with one instant: ask the game for it, let the balancing say from the label alone whether
the sample is wanted, and only then capture the pixels, straight into a slot of the shared pool.
A balanced set is published when it is complete. Everything it needs to know comes from the server.

Who drives: the expert; the expert with a push on the wheel (:mod:`charles.perturb`); or the network
that is being trained (:mod:`charles.dagger`). The label is the expert's whoever drives.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from charles.alignment import Alignment, Paired
from charles.config import TrainConfig
from charles.data.balancing import make_balancer
from charles.data.pool import Lane
from charles.errors import ConfigError
from charles.holdback import Holdback
from charles.io.abilities import Accounting
from charles.io.game import Game, Scene, Telemetry
from charles.messages import Demand
from charles.observer import Observer, write_header
from charles.perturb import Perturber
from charles.relocation import Relocation
from charles.sample import SampleFlag, is_held_out
from charles.timing import Cadence
from charles.ui.collect_report import CollectReport
from charles.unstuck import Unstuck

if TYPE_CHECKING:  # needs jax, which a collector without a pupil does without
    from charles.dagger import Pupil

STARVED_S = 0.5
"""How long a stepped game stands still for a free slot, before the server is listened to again."""

STARVED_SLEEP_S = 0.005

WORLD_TRIES = 64
"""Most worlds that are passed over because they are held out."""


@dataclass
class Tally:
    """What a collector counted."""

    instants: int = 0
    samples: int = 0
    starved: int = 0
    unlabelled: int = 0
    faded: int = 0
    """Instants of fades, before and after the car is put elsewhere."""
    scenes: int = 0
    unstucks: int = 0
    collisions: int = 0
    dropped: int = 0
    """Samples of the time before the expert crashed."""


class Collector:
    """Turns a game's instants into balanced samples in the shared pool. One thread only.

    ``pupil`` is the network that drives in turns with the expert; ``None`` until somebody sets it.

    Args:
        game: The game; the caller closes it.
        config: The run's settings.
        lane: This collector's way into the pool; the caller closes it.
        collector_id: Its number, from the server.
        seed: Of its scenes, pushes and balancing, from the server.
        stop: Set to leave a wait for free slots.
        on_kept: Called with the labels, float32 ``[N, A]``, of every set that is published.
    """

    def __init__(
        self,
        game: Game,
        config: TrainConfig,
        lane: Lane,
        *,
        collector_id: int,
        seed: int,
        stop: threading.Event,
        on_kept: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        collect = config.collect
        rng = np.random.default_rng(seed)
        spec = lane.spec.pool.sample
        if tuple(game.controls) != spec.controls:
            raise ConfigError(
                f"game controls must be {spec.controls} as the trainer expects, got "
                f"{tuple(game.controls)}. Start the trainer with the same game."
            )
        self.tally = Tally()
        self.cadence = Cadence(collect.rate_hz if game.is_realtime else 0.0)
        self.balancer = make_balancer(
            config.data.balancing, config.outputs, spec.controls,
            seed=int(rng.integers(2**31)), slots_per_collector=lane.spec.quota,
        )  # fmt: skip
        self._game, self._config, self._lane, self._stop = game, config, lane, stop
        self._id, self._on_kept = collector_id, on_kept
        self._spec = spec
        self._rng = rng
        perturb = collect.perturb if game.is_advising else replace(collect.perturb, every_s=0.0)
        self._perturber = Perturber(perturb, spec.controls, rate_hz=collect.rate_hz, rng=rng)
        self._unstuck = Unstuck(collect.unstuck, collect.rate_hz)
        self._relocation = Relocation(game, collect.unstuck.fade_s, collect.rate_hz)
        self._torn = 0
        self._holdback = Holdback(collect.drop_before_crash_s)
        self.takes_pupil = game.is_advising and collect.dagger.share > 0.0
        """Whether the network may drive: its expert must advise whoever drives."""
        self.pupil: Pupil | None = None
        self._alignment = Alignment(collect.latency_offset_ms)
        if self._alignment.needs_every_frame:
            self.takes_pupil = False  # it would be shown pictures that are older than the game
        self._observer = Observer(spec)
        self._has_frame = self._is_pupil_driving = False
        self._scene_ticks = round(collect.scene_s * collect.rate_hz)
        self._ticks_left = 0
        self._episode = 0
        self._is_npc_driving = True
        self._wanted_weather: str | None = None
        self._is_held_out = False
        self._is_validation_full = False

    def heed(self, demand: Demand) -> None:
        """Go and find what the trainer is short of, and leave what it has enough of."""
        self._wanted_weather = str(demand.short.get("weather", "")) or None
        self.balancer.unwanted = frozenset(
            number
            for number, output in enumerate(self._config.outputs)
            if output.name in demand.full
        )
        self._is_validation_full = demand.is_validation_full
        self._torn = demand.torn

    def step(self) -> None:
        """Handle one instant: change the scene if it is time, observe, sample, push, remember."""
        if self._ticks_left <= 0 and not self._relocation.is_under_way:
            self._change_scene()
        self._ticks_left -= 1
        telemetry = self._game.tick()
        if self._relocation.is_under_way:
            self._pass()
            return
        self.tally.instants += 1
        self.cadence.add(telemetry.captured_ns)
        if telemetry.is_collision or self._unstuck.add(telemetry.speed_mps):
            self._put_elsewhere(telemetry)
            return
        self._has_frame = False
        if self._observer.needs_every_frame or self._alignment.needs_every_frame:
            self._see()
        flag = self._take_turns()
        self._is_pupil_driving = flag == SampleFlag.ON_POLICY
        paired = self._alignment.add(telemetry, flag, self._observer.frame)
        if paired is not None and paired.frame is not None:
            np.copyto(self._observer.frame, paired.frame)
        whole = paired if paired is not None and _is_finite(paired) else None
        if whole is None or whole.label is None:
            self.tally.unlabelled += 1
        else:
            self._consider(whole, whole.label)
        self._publish(telemetry.captured_ns)
        self._drive(telemetry, flag, paired.telemetry if paired is not None else telemetry)
        if whole is not None:
            self._observer.remember(whole.telemetry)

    def _change_scene(self) -> None:
        seed = self._choose_world()
        weather, self._wanted_weather = self._wanted_weather, None
        scene = Scene(
            seed=seed,
            weather=weather,
            traffic=self._rng.uniform(*self._config.collect.traffic),
        )
        self._game.reset(scene)
        self._ticks_left = self._scene_ticks
        self.tally.scenes += 1
        self._is_held_out = is_held_out(seed, self._config.data.validation_share)
        self._begin_episode()

    def _choose_world(self) -> int:
        """The seed of the next world; none that is held out once there are samples enough of them.

        At least half of all worlds are for training, so that one is soon found; where a narrow
        range of seeds has hardly any, the last one tried will do, and its samples are dropped.
        """
        share, seed = self._config.data.validation_share, 0
        for _ in range(1 + WORLD_TRIES):
            seed = int(self._rng.integers(*self._config.game.seeds))
            if not self._is_validation_full or not is_held_out(seed, share):
                break
        return seed

    def _put_elsewhere(self, telemetry: Telemetry) -> None:
        self.tally.collisions += telemetry.is_collision
        self.tally.unstucks += not telemetry.is_collision
        if telemetry.is_collision and self._is_npc_driving:
            self._holdback.crash(telemetry.captured_ns)
        self._relocation.begin()
        self._begin_episode()

    def _pass(self) -> None:
        """An instant of a fade: nothing of it is kept."""
        self.tally.faded += 1
        self._relocation.step()
        if not self._relocation.is_under_way:
            self._begin_episode()

    def report(self) -> CollectReport:
        """How it went so far."""
        game = self._game
        return CollectReport(
            tally=vars(self.tally),
            unlabelled=game.unlabelled() if isinstance(game, Accounting) else {},
            torn=self._torn,
            cadence=self.cadence.report(),
            bins=self.balancer.report(),
        )

    def _begin_episode(self) -> None:
        self._episode += 1
        self._observer.restart()
        self._alignment.clear()
        self._perturber.reset()
        if self.pupil is not None:
            self.pupil.reset()
        self._unstuck.reset()
        self.cadence.pause()
        if not self._is_npc_driving:
            self._let_npc_drive(True)

    def _take_turns(self) -> SampleFlag:
        """Decide who drives at this instant: what a sample of it is to be marked as."""
        if self.pupil is not None and self.pupil.step():
            self._perturber.reset()
            return SampleFlag.ON_POLICY
        self._perturber.step()
        return self._perturber.flag

    def _drive(self, telemetry: Telemetry, flag: SampleFlag, shown: Telemetry) -> None:
        """Let the expert drive, or take the wheel from it for a push or for the pupil.

        The pupil is told what belongs to the frame that it sees, as a player is: ``shown``.
        """
        is_expert = flag not in (SampleFlag.PERTURBED, SampleFlag.ON_POLICY)
        if is_expert != self._is_npc_driving:
            self._let_npc_drive(is_expert)
        if flag == SampleFlag.PERTURBED:
            assert telemetry.label is not None  # an advising game always has one
            self._game.act(self._perturber.apply(telemetry.label))
        elif self.pupil is not None and self.pupil.is_due:
            self._see()
            self._game.act(self.pupil.act(self._observer, shown))

    def _let_npc_drive(self, is_driving: bool) -> None:
        self._game.set_npc(is_driving)
        self._is_npc_driving = is_driving

    def _consider(self, paired: Paired, label: np.ndarray) -> None:
        """Capture the sample if an output's set wants it, and keep the sets it completes."""
        current = self._observer.current
        output = self.balancer.wants(label, current)
        if output is None:
            return
        slot = self._claim()
        if slot is None:
            self.tally.starved += 1
            return
        self._write(slot, paired, label, output)
        self.tally.samples += 1
        self._holdback.capture(slot, paired.told_ns)
        for unwanted in self.balancer.add(output, label, current, slot):
            self._lane.give_back(unwanted)
        for _, slots in self.balancer.take_completed():
            self._holdback.complete(slots)

    def _publish(self, now_ns: int) -> None:
        """Hand over the finished sets that need not be held back any longer."""
        for slots, spoilt in self._holdback.due(now_ns):
            for slot in spoilt:
                self._lane.give_back(slot)
            self.tally.dropped += len(spoilt)
            if self._on_kept is not None and slots:
                self._on_kept(self._lane.pool.headers["label"][slots])
            if slots:
                self._lane.publish(slots)

    def _claim(self) -> int | None:
        """A free slot. A stepped game can wait a moment for one; a real-time game loses it."""
        slot = self._lane.claim()
        deadline_s = time.monotonic() + STARVED_S
        while slot is None and not self._game.is_realtime and time.monotonic() < deadline_s:
            if self._stop.wait(STARVED_SLEEP_S):
                return None
            slot = self._lane.claim()
        return slot

    def _see(self) -> None:
        """Capture this instant's frame, once however often it is asked for."""
        if not self._has_frame:
            self._game.grab(self._observer.frame)
            self._has_frame = True

    def _flags(self, telemetry: Telemetry, flag: SampleFlag) -> SampleFlag:
        """All that is special about a sample of this instant."""
        if telemetry.is_human:
            flag |= SampleFlag.HUMAN
        return flag | SampleFlag.HELD_OUT if self._is_held_out else flag

    def _write(
        self,
        slot: int,
        paired: Paired,
        label: np.ndarray,
        output: int,
    ) -> None:
        telemetry, flag = paired.telemetry, paired.flag
        with self._lane.writing(slot) as (header, pixels):
            is_plain = self._spec.pixel_format == "rgb" and self._spec.num_frames == 1
            if is_plain and not self._is_pupil_driving and paired.frame is None:
                self._game.grab(pixels)
            else:
                self._see()
                self._observer.write_pixels(pixels)
            write_header(
                header,
                telemetry,
                label,
                captured_ns=paired.captured_ns,
                peer=self._id,
                episode=self._episode,
                frame_index=self.tally.instants,
                flags=self._flags(telemetry, flag),
                picked_for=output,
            )
            self._observer.write_history(header["history"])


def _is_finite(paired: Paired) -> bool:
    """Whether all that would be learned from is numbers; one that is not would end the training."""
    told, label = paired.telemetry, paired.label
    values = (told.controls, told.purpose, told.shown_speed_mps, 0.0 if label is None else label)
    return all(bool(np.isfinite(each).all()) for each in values)
