"""New parameters for a policy that is driving: found, restored, checked, and only then handed over.

A thread of its own watches a checkpoint directory, so the driving loop never touches a disk. It
restores a checkpoint into host memory, checks it, moves it to the device, lets it predict on recent
frames, and puts the finished, immutable result where the loop takes it between two ticks. What
fails a check is refused with the reason, once, and the old parameters go on driving.
"""

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from charles.backends.backend import Placed
from charles.contract import CaptureContract, from_data, require_same
from charles.errors import CharlesError
from charles.observer import Inputs, blank_inputs

if TYPE_CHECKING:  # needs JAX, which a player whose network is elsewhere does without
    from charles.policy import Policy

RECENT = 4
"""Instants that a shadow prediction is made on."""


@dataclass(frozen=True)
class Staged:
    """Parameters that passed every check, on the device."""

    step: int
    variables: Placed


@dataclass(frozen=True)
class Refusal:
    """Parameters that did not."""

    step: int
    reason: str


class Stager:
    """Watches a checkpoint directory and stages what is new in it. Use as a context manager.

    ``newest`` holds the newest parameters that passed, ``refusals`` all that did not; both are
    replaced, never changed, so the driving loop reads them without a lock. :meth:`see` is for that
    loop too and never blocks.

    Args:
        policy: What drives; its parameters say what is expected.
        checkpoint_dir: Where the checkpoints appear; need not exist yet.
        poll_s: Seconds between two looks.
        accepts_contract: Stage also what has learned from other pictures than the first one.
    """

    def __init__(
        self,
        policy: "Policy",
        checkpoint_dir: Path,
        *,
        poll_s: float = 0.5,
        accepts_contract: bool = False,
    ) -> None:
        from charles.checkpoint import Checkpoints

        self._accepts_contract = accepts_contract
        self._capture: CaptureContract | None = None
        """How the pictures were captured that the first staged one has learned from."""
        self.newest: Staged | None = None
        self.refusals: tuple[Refusal, ...] = ()
        self._policy = policy
        self._checkpoints = Checkpoints(checkpoint_dir)
        self._poll_s = poll_s
        self._recent: deque[Inputs] = deque([blank_inputs(policy.spec)], maxlen=RECENT)
        self._last_step = -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="stager", daemon=True)

    def __enter__(self) -> "Stager":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching; waits for a restore in progress, at most 5 s."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def see(self, inputs: Inputs) -> None:
        """Remember a copy of an instant for shadow predictions; call about once a second."""
        self._recent.append({name: array.copy() for name, array in inputs.items()})

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                step = self._checkpoints.watch(self._last_step)
            except OSError:  # a disk that is away for a moment is looked at again
                continue
            if step is not None:
                self._last_step = step
                self._stage(step)

    def _stage(self, step: int) -> None:
        policy = self._policy
        try:
            capture = self._same_capture(step)
            variables = self._checkpoints.restore_variables(policy.abstract_variables, step=step)
            self.newest = Staged(step, policy.admit(variables, tuple(self._recent)))
            self._capture = self._capture or capture
        except Exception as err:  # whatever a bad checkpoint does, the old parameters drive on
            kind = "" if isinstance(err, CharlesError) else f"{type(err).__name__}: "
            self.refusals = (*self.refusals, Refusal(step, f"{kind}{err}"))

    def _same_capture(self, step: int) -> CaptureContract | None:
        """How the pictures were captured that a checkpoint has learned from.

        Raises:
            ContractError: Otherwise than those of the first staged one, and that is not accepted.
        """
        where = str(self._checkpoints.directory)
        theirs = from_data(self._checkpoints.contract(step).get("capture"), where)
        if theirs is not None and self._capture is not None:
            require_same(self._capture, theirs, who="a checkpoint to swap in",
                         is_accepted=self._accepts_contract)  # fmt: skip
        return theirs
