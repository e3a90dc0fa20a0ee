"""What a person shows at the wheel of a player, as samples in the frame pool.

Every instant is one: what the network was shown, and the person's controls as its label. It goes
out after the pad was updated, so that driving waits for nothing. While the pad rests in neutral
nobody knows whether the person coasts or has let go; such samples are held back until the pad is
touched again, and dropped if the wheel is handed back instead: nobody learns to let go.

Driving never depends on this. Without a server, or while it has no free slot, samples are dropped
and counted.
"""

from dataclasses import dataclass, replace

import numpy as np

from charles.berth import Berth
from charles.data.pool import Lane
from charles.io.game import Telemetry
from charles.observer import Inputs, write_header
from charles.sample import SampleFlag, SampleSpec

_RESTING_SHARE = 0.5
"""Most of the lane's slots that are held back."""


@dataclass
class HumanTally:
    """What became of the instants that a person drove."""

    sent: int = 0
    let_go: int = 0
    """Dropped, because the person had let go of the pad."""
    starved: int = 0
    """Dropped, because there was no free slot."""
    without_server: int = 0
    """Dropped, because there was no server."""


class HumanSamples:
    """Writes a person's instants into the frame pool. Use from the driving loop's thread.

    Args:
        berth: The way into the pool.
        spec: What a sample is to this player; nothing goes to a server that expects another.
    """

    def __init__(self, berth: Berth, spec: SampleSpec) -> None:
        self._berth, self._spec = berth, spec
        self._counted = HumanTally()
        self._lane: Lane | None = None
        self._held_back: list[int] = []
        self._num_takeovers = 0
        self._is_over = True

    @property
    def tally(self) -> HumanTally:
        """What was counted so far."""
        return replace(self._counted)

    def add(
        self,
        inputs: Inputs,
        telemetry: Telemetry,
        label: np.ndarray,
        *,
        captured_ns: int,
        may_be_over: bool,
    ) -> None:
        """Write one instant, and send it unless the person may have let go.

        Args:
            inputs: What the network was shown of it.
            telemetry: What the game told of it.
            label: The person's controls, float32 ``[A]``.
            captured_ns: When it was captured, monotonic clock.
            may_be_over: Whether the pad rests in neutral.
        """
        if self._is_over:
            self._num_takeovers += 1
            self._is_over = False
        with self._berth.lane() as lane:
            if lane is None or lane.spec.pool.sample != self._spec:
                self._forget_lane()
                self._counted.without_server += 1
                return
            self._use(lane)
            slot = lane.claim()
            if slot is None:
                self._counted.starved += 1
                return
            self._write(lane, slot, inputs, telemetry, label, captured_ns)
            self._held_back.append(slot)
            if not may_be_over:
                self._send(lane)
            elif len(self._held_back) > _RESTING_SHARE * lane.spec.quota:
                lane.give_back(self._held_back.pop(0))
                self._counted.let_go += 1

    def end(self) -> None:
        """The network drives: what was held back is dropped. Cheap; call it at every instant."""
        self._is_over = True
        if not self._held_back:
            return
        with self._berth.lane() as lane:
            self._counted.let_go += len(self._held_back)
            if lane is not None and lane is self._lane:
                for slot in self._held_back:
                    lane.give_back(slot)
        self._held_back.clear()

    def _use(self, lane: Lane) -> None:
        """Slots of another lane are that one's trainer's again."""
        if lane is not self._lane:
            self._forget_lane()
            self._lane = lane

    def _forget_lane(self) -> None:
        self._counted.without_server += len(self._held_back)
        self._held_back.clear()
        self._lane = None

    def _send(self, lane: Lane) -> None:
        lane.publish(self._held_back)
        self._counted.sent += len(self._held_back)
        self._held_back.clear()

    def _write(
        self,
        lane: Lane,
        slot: int,
        inputs: Inputs,
        telemetry: Telemetry,
        label: np.ndarray,
        captured_ns: int,
    ) -> None:
        with lane.writing(slot) as (header, pixels):
            np.copyto(pixels, inputs["pixels"][0])
            write_header(
                header,
                telemetry,
                label,
                captured_ns=captured_ns,
                peer=lane.spec.collector_id,
                episode=self._num_takeovers,
                frame_index=self._counted.sent + len(self._held_back),
                flags=SampleFlag.HUMAN | SampleFlag.TAKEOVER,
                picked_for=0,
            )
            header["history"] = inputs["history"][0]
