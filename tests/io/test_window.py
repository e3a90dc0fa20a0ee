"""Watched games: one instant's picture, telemetry and label belong together, or there is none."""

import contextlib
import time

import av
import numpy as np
import pytest
from tests.io import test_game_conformance as conformance
from tests.io.telemetry.senders import (
    Car,
    UdpSender,
    codemasters_packet,
    forza_packet,
    outgauge_packet,
    repeating,
)

from charles.alignment import Alignment
from charles.config import FrameConfig, GameConfig
from charles.errors import CaptureError, ConfigError, GameError, PadError, WindowHiddenError
from charles.game_config import WindowConfig
from charles.io.game import Game, Scene
from charles.io.games import make_game
from charles.io.human.source import HumanReading
from charles.io.screen.source import Capture, FrameSource
from charles.io.telemetry import codemasters, forza, outgauge
from charles.io.telemetry.receiver import UdpTelemetry
from charles.io.window import WindowGame
from charles.sample import SampleFlag
from charles.screen_config import ScreenConfig
from charles.telemetry_config import TelemetryConfig
from charles.timing import clock_ns

HEIGHT, WIDTH = conformance.HEIGHT, conformance.WIDTH
DECODERS = {"codemasters": codemasters, "forza": forza, "outgauge": outgauge}
CALM = TelemetryConfig(timeout_s=20.0)  # machines of tests are busy


class CounterScreen:
    """A screen that shows how often it was looked at, over a pattern; it can freeze and close."""

    def __init__(self):
        self.frame_shape = (HEIGHT, WIDTH, 3)
        self.shown = 0
        self.is_frozen = self.is_gone = self.is_hidden = self.is_closed = False
        rows, columns = np.indices((HEIGHT, WIDTH))
        self._pattern = np.stack([rows, columns, rows + columns], axis=-1).astype(np.uint8)

    def grab(self, out):
        if self.is_gone:
            raise CaptureError("The window 'Game' is gone. Start the game again.")
        if self.is_hidden:
            raise WindowHiddenError("The window 'Game' is covered by 'Mail'. Uncover it.")
        self.shown += not self.is_frozen
        np.add(self._pattern, np.uint8(self.shown % 256), out=out)
        return Capture(clock_ns(), not self.is_frozen)

    def close(self):
        self.is_closed = True


class Hand:
    """A pad that a test holds."""

    def __init__(self):
        self.controls = np.array([0.5, -0.5], np.float32)
        self.is_active, self.is_unplugged, self.is_closed = True, False, False

    def read(self):
        if self.is_unplugged:
            raise PadError("'pad' was unplugged")
        return HumanReading(self.controls, self.is_active, clock_ns())

    def close(self):
        self.is_closed = True


class Drive:
    """A car that drives straight on at 20 m/s, as a game of Codemasters tells of it."""

    def __init__(self):
        self._began_s = time.monotonic()

    def __call__(self):
        metres = 20.0 * (time.monotonic() - self._began_s)
        return codemasters_packet(Car(speed=20.0, throttle=0.6, place=(metres, 0.0, 3.0)))


@contextlib.contextmanager
def watching(kind=None, *, human=None, telemetry=CALM, **settings):
    """A window game and, if it has telemetry, its sender."""
    screen = CounterScreen()
    source = UdpTelemetry(kind, DECODERS[kind].decode) if kind else None
    config = WindowConfig(telemetry=telemetry, **settings)
    game = WindowGame(screen, telemetry=source, human=human, config=config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(game))
        sender = stack.enter_context(UdpSender(source.port)) if source else None
        yield game, screen, sender


def send(game, sender, packet):
    """Send a packet and wait until the game has heard it."""
    before_ns = clock_ns()
    sender.send(packet)
    give_up_s = time.monotonic() + 20.0
    while (reading := game._telemetry.newest()) is None or reading.received_ns < before_ns:
        assert time.monotonic() < give_up_s
        time.sleep(0.002)


@pytest.fixture
def driving():
    """A window game with a car that drives, reset."""
    with (
        watching("codemasters", telemetry=TelemetryConfig(timeout_s=2.0)) as (game, _, sender),
        repeating(sender, Drive()),
    ):
        game.reset(conformance.SCENE)
        yield game


@pytest.mark.parametrize(
    "check",
    [
        conformance.test_a_game_keeps_the_protocol_and_its_npc_drives,
        conformance.test_pixels_are_those_of_the_last_instant_however_late_they_are_asked_for,
        conformance.test_a_second_reset_begins_anew_with_the_npc_and_closing_twice_is_allowed,
    ],
    ids=["protocol", "pixels", "reset"],
)
def test_a_window_game_conforms_as_far_as_it_can_be_told(driving, check):
    check(driving)


def test_a_window_that_is_hidden_for_a_while_keeps_its_picture_and_teaches_nothing():
    with watching(human=Hand()) as (game, screen, _):
        game.reset(conformance.SCENE)
        screen.is_hidden = True
        with pytest.raises(WindowHiddenError, match="Mail"):  # it was never seen
            game.tick()
        screen.is_hidden = False
        before, seen = game.tick(), np.zeros(game.frame_shape, np.uint8)
        game.grab(seen)
        assert before.label is not None
        screen.is_hidden = True
        for _ in range(3):
            telemetry = game.tick()
            assert telemetry.captured_ns == before.captured_ns
            assert telemetry.label is None
            assert not telemetry.is_whole
            assert not telemetry.is_still  # nobody knows what it shows now
            assert "Mail" in game.trouble
        again = np.zeros(game.frame_shape, np.uint8)
        game.grab(again)
        np.testing.assert_array_equal(again, seen)
        assert game.unlabelled()["hidden"] == 3
        screen.is_hidden = False
        after = game.tick()
        assert after.captured_ns > before.captured_ns
        assert after.label is not None
        assert not game.trouble


@pytest.mark.parametrize("offset_ms", [-40.0, 0.0, 40.0])
def test_nothing_is_paired_with_the_picture_of_a_hidden_window(offset_ms):
    alignment = Alignment(offset_ms)
    with watching(human=Hand(), max_frame_age_s=20.0) as (game, screen, _):
        game.reset(conformance.SCENE)

        def paired():
            telemetry = game.tick()
            return alignment.add(telemetry, SampleFlag.NONE, np.zeros(game.frame_shape, np.uint8))

        seen = [paired() for _ in range(6)]
        assert any(one is not None and one.label is not None for one in seen)
        screen.is_hidden = True
        found = [paired() for _ in range(10)]
        assert all(one is None or one.label is None for one in found)
        screen.is_hidden = False
        first = paired()
        assert (first is None) is (offset_ms != 0)  # there is no past yet to pair it with
        assert len(alignment._delay._items) <= 4


def test_a_picture_that_does_not_change_is_told_from_one_that_is_not_seen():
    with watching() as (game, screen, _):
        game.reset(conformance.SCENE)
        assert not game.tick().is_still
        screen.is_frozen = True
        assert game.tick().is_still
    with watching("forza") as (game, screen, sender):
        send(game, sender, forza_packet(Car(speed=3.0)))
        game.reset(conformance.SCENE)
        game.tick()
        screen.is_frozen = True
        send(game, sender, forza_packet(Car(speed=3.0)))
        assert game.tick().is_still
        send(game, sender, forza_packet(Car(speed=3.0), is_driving=False))
        assert not game.tick().is_whole  # a menu; nobody is to drive in it
        assert "menu" in game.trouble
        send(game, sender, forza_packet(Car(speed=3.0)))
        assert game.tick().is_whole


def test_telemetry_that_falls_silent_is_told_whoever_drives():
    quick = TelemetryConfig(timeout_s=0.2)
    with watching("forza", telemetry=quick) as (game, _, sender):
        send(game, sender, forza_packet(Car(speed=3.0)))
        game.reset(conformance.SCENE)
        game.set_npc(False)
        time.sleep(0.3)
        assert not game.tick().is_whole
        assert "no telemetry comes" in game.trouble
        send(game, sender, forza_packet(Car(speed=3.0)))
        assert game.tick().is_whole
        assert not game.trouble


def test_the_pieces_are_what_their_protocols_say():
    with watching() as (game, screen, _):
        assert isinstance(game, Game)
        assert isinstance(screen, FrameSource)


def test_telemetry_with_both_pedals_and_steering_is_the_label():
    with watching("forza") as (game, _, sender):
        send(game, sender, forza_packet(Car(speed=33.0, throttle=1.0, steering=-1.0)))
        game.reset(Scene())
        instant = game.tick()
        assert instant.label.tolist() == [1.0, -1.0]
        assert instant.controls.tolist() == [1.0, -1.0]
        assert instant.speed_mps == 33.0
        assert instant.location == (100.5, -20.25, 7.0)
        conformance.check_instant(game, instant)
        assert instant.label is not instant.controls


def test_a_person_goes_before_the_telemetrys_controls():
    hand = Hand()
    with watching("forza", human=hand) as (game, _, sender):
        send(game, sender, forza_packet(Car(speed=33.0, throttle=1.0, steering=-1.0)))
        game.reset(Scene())
        instant = game.tick()
        assert instant.label.tolist() == instant.controls.tolist() == [0.5, -0.5]
        assert instant.speed_mps == 33.0
        hand.is_active = False
        instant = game.tick()
        assert instant.label is None
        assert instant.controls.tolist() == [1.0, -1.0]
        assert game.tally.idle == 1
        hand.is_unplugged = True
        with pytest.raises(PadError, match="unplugged"):
            game.tick()


def test_a_person_alone_is_enough():
    with watching(human=Hand()) as (game, _, _):
        game.reset(Scene())
        instant = game.tick()
        assert instant.label.tolist() == [0.5, -0.5]
        assert instant.is_human
        assert instant.has_controls
        assert (instant.speed_mps, instant.location) == (None, (0.0, 0.0, 0.0))
        conformance.check_instant(game, instant)


def test_without_anybody_to_learn_from_there_is_no_label():
    with watching("outgauge") as (game, _, sender):
        send(game, sender, outgauge_packet(Car(speed=7.0)))
        game.reset(Scene())
        instant = game.tick()
        assert instant.label is None
        assert (instant.speed_mps, instant.controls.tolist()) == (7.0, [0.0, 0.0])
        assert not instant.has_controls
        assert not instant.is_human
        assert game.tally.untold == 1
    hand = Hand()
    with watching(human=hand) as (game, _, _):
        game.reset(Scene())
        game.set_npc(False)
        hand.is_unplugged = True  # a player does not need the person's pad
        assert game.tick().label is None


def test_a_game_that_stops_sending_is_not_believed_and_nothing_hangs():
    settings = {"telemetry": TelemetryConfig(timeout_s=0.3), "human": Hand()}
    with watching("codemasters", **settings) as (game, _, sender):
        with repeating(sender, Drive()):
            game.reset(Scene())
            conformance.ticks_until(game, lambda told: told.label is not None, 20.0)
        lost = conformance.ticks_until(game, lambda told: told.label is None, 20.0)
        assert (lost.speed_mps, lost.location) == (None, (0.0, 0.0, 0.0))
        assert game.tally.silent >= 1
        before = game.tally
        assert game.tick().label is None
        assert game.tally.silent == before.silent + 1
        game.reset(Scene())  # a later reset does not wait: the game is in its menu perhaps
        with repeating(sender, Drive()):
            conformance.ticks_until(game, lambda told: told.label is not None, 20.0)


def test_a_game_in_its_menu_is_no_driving_although_the_pad_is_held():
    with watching("forza", human=Hand()) as (game, _, sender):
        send(game, sender, forza_packet(Car(), is_driving=False))
        game.reset(Scene())
        instant = game.tick()
        assert (instant.label, instant.speed_mps) == (None, None)
        assert game.tally.not_driving == 1


def test_a_picture_that_stays_the_same_is_not_learned_from():
    with watching(human=Hand(), max_frame_age_s=0.2) as (game, screen, _):
        game.reset(Scene())
        assert game.tick().label is not None
        screen.is_frozen = True
        conformance.ticks_until(game, lambda told: told.label is None, 20.0)
        assert game.tally.stale == 1
        assert game.unlabelled()["stale"] == 1
        screen.is_frozen = False
        assert game.tick().label is not None


def test_a_game_that_sends_nothing_or_something_else_is_found_out_at_the_start():
    with watching("codemasters", start_s=0.3) as (game, _, sender):
        with pytest.raises(GameError, match=r"for 0\.3 s: nothing came from UDP port"):
            game.reset(Scene())
        for _ in range(3):
            sender.send(outgauge_packet(Car()))
        with pytest.raises(GameError, match=r"3 were malformed.*got 92.*telemetry\.kind"):
            game.reset(Scene())


def test_a_window_that_is_gone_says_so():
    with watching() as (game, screen, _):
        game.reset(Scene())
        screen.is_gone = True
        with pytest.raises(CaptureError, match="gone"):
            game.tick()


def test_a_window_takes_no_commands():
    with watching() as (game, _, _):
        game.reset(Scene())
        game.set_npc(False)
        with pytest.raises(GameError, match="virtual pad"):
            game.act(np.zeros(2, np.float32))


def test_a_teleport_restarts_the_race_if_somebody_knows_how():
    pressed = []
    game = WindowGame(CounterScreen(), restart=lambda: pressed.append("R"))
    game.reset(Scene())
    game.teleport((1.0, 2.0))
    assert pressed == ["R"]
    game.tick()
    game.close()
    with watching() as (plain, _, _):
        plain.teleport()


def test_instants_keep_the_rate_on_absolute_deadlines():
    with watching(rate_hz=50.0) as (game, _, _):
        game.reset(Scene())
        first = game.tick().captured_ns
        for _ in range(10):
            last = game.tick().captured_ns
        assert (last - first) / 1e9 > 9.5 / 50
        time.sleep(0.2)
        game.tick()
        assert game.missed >= 8


def test_misuse_is_named_and_closing_closes_all():
    hand = Hand()
    with watching(human=hand) as (game, screen, _):
        out = np.zeros(game.frame_shape, np.uint8)
        with pytest.raises(GameError, match="reset"):
            game.tick()
        with pytest.raises(GameError, match="after a tick"):
            game.grab(out)
        game.reset(Scene())
        game.tick()
        with pytest.raises(GameError, match=rf"uint8 \[{HEIGHT}, {WIDTH}, 3\], got float32"):
            game.grab(out.astype(np.float32))
        game.close()
        game.close()
        assert (screen.is_closed, hand.is_closed) == (True, True)
        with pytest.raises(GameError, match="closed"):
            game.reset(Scene())
        with pytest.raises(GameError, match="closed"):
            game.tick()


def test_a_window_game_is_made_by_name(tmp_path):
    path = tmp_path / "drive.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=30, width=WIDTH, height=HEIGHT)
        stream.pix_fmt = "bgr0"
        picture = np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)
        for _ in range(90):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    window = WindowConfig(screen=ScreenConfig(kind="replay", file=path, is_realtime=False))
    frame = FrameConfig(height=HEIGHT // 2, width=WIDTH // 2)
    with contextlib.closing(
        make_game(GameConfig(name="window", window=window), frame, seed=1)
    ) as game:
        game.reset(Scene())
        game.tick()
        out = np.zeros(game.frame_shape, np.uint8)
        game.grab(out)
        assert out.shape == (HEIGHT // 2, WIDTH // 2, 3)
        assert np.all(out == (200, 100, 50))


@pytest.mark.parametrize("name", ["rate_hz", "start_s", "max_frame_age_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"game\.window\.{name}"):
        WindowConfig(**{name: value})
