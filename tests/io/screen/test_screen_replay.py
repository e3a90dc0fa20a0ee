"""Recordings in the place of a screen: their own times, in real time or one by one."""

import base64
import contextlib
import importlib.util
import json
import time
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from charles.errors import CaptureError, ExtraMissingError
from charles.io.screen.make import make_source
from charles.io.screen.source import FrameSource
from charles.screen_config import ScreenConfig
from charles.timing import clock_ns

HEIGHT, WIDTH = 48, 64
GAPS_MS = (0, 40, 40, 120, 40, 40, 40, 40)
"""Time before each picture: they do not come evenly."""

has_mcap = importlib.util.find_spec("mcap") and importlib.util.find_spec("mcap_protobuf")
needs_mcap = pytest.mark.skipif(not has_mcap, reason="needs mcap: pip install 'charles[mcap]'")


def grey(number):
    return 20 + 25 * number


@pytest.fixture
def video(tmp_path):
    """A video whose pictures are grey in the order of their numbers."""
    path = tmp_path / "drive.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=WIDTH, height=HEIGHT)
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        at_ms = 500  # a film may begin late
        for number, gap_ms in enumerate(GAPS_MS):
            picture = np.full((HEIGHT, WIDTH, 3), grey(number), np.uint8)
            picture[: HEIGHT // 2, :, 0] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            at_ms += gap_ms
            frame.pts, frame.time_base = at_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def opened(path, *, height=HEIGHT, width=WIDTH, **settings):
    return make_source(ScreenConfig(kind="replay", file=path, **settings), height, width)


def pictures(source):
    """Number and capture of each picture, until there are no more."""
    out = np.empty(source.frame_shape, np.uint8)
    while True:
        try:
            capture = source.grab(out)
        except CaptureError as err:
            if "is at its end" in str(err) or "cannot be read" in str(err):
                return
            raise
        yield (int(out[-1, -1, 0]) - grey(0)) // 25, capture


def test_stepped_each_grab_is_the_next_picture_with_its_own_time(video):
    source = opened(video, is_realtime=False)
    assert isinstance(source, FrameSource)
    seen = list(pictures(source))
    source.close()
    source.close()
    assert [number for number, _ in seen] == list(range(len(GAPS_MS)))
    assert all(capture.is_new for _, capture in seen)
    offsets_ms = [(capture.captured_ns - seen[0][1].captured_ns) / 1e6 for _, capture in seen]
    np.testing.assert_allclose(offsets_ms, np.cumsum(GAPS_MS), atol=1.0)


def test_colours_are_right_and_pictures_resized(video):
    source = opened(video, height=12, width=16)
    out = np.empty((12, 16, 3), np.uint8)
    source.grab(out)
    source.close()
    assert (out[:6] == (255, grey(0), grey(0))).all()
    assert (out[6:] == grey(0)).all()


def test_in_real_time_a_grab_is_the_newest_picture_that_is_due(video):
    source = opened(video)
    due_ms = np.cumsum(GAPS_MS)
    out = np.empty(source.frame_shape, np.uint8)
    began_ns = source.grab(out).captured_ns
    seen, before_ns = [], clock_ns()
    for number, capture in pictures(source):
        seen.append(number)
        assert abs(capture.captured_ns - began_ns - due_ms[number] * 1e6) < 2e6
        # Neither early nor, where there is a later one, overdue.
        assert due_ms[number] * 1e6 <= clock_ns() - began_ns + 2e6
        if number + 1 < len(due_ms):
            assert due_ms[number + 1] * 1e6 > before_ns - began_ns - 2e6
        time.sleep(0.005)
        before_ns = clock_ns()
    source.close()
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("missing.mp4", None, "screen.file must be a file"),
        ("text.mp4", b"no film at all\n" * 100, "cannot be read as a video"),
        ("empty.mp4", b"", "cannot be read as a video"),
    ],
)
def test_what_is_no_video_is_named(tmp_path, name, content, text):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CaptureError, match=text) as caught:
        opened(path)
    assert name in str(caught.value)


def test_a_truncated_video_ends_or_says_where_it_breaks(video):
    whole = video.read_bytes()
    for kept in (len(whole) // 3, len(whole) * 2 // 3):
        video.write_bytes(whole[:kept])
        num_read = 0
        with contextlib.suppress(CaptureError):  # where not even the head is left
            num_read = len(list(pictures(opened(video, is_realtime=False))))
        assert num_read < len(GAPS_MS)


def png(number):
    ok, data = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), grey(number), np.uint8))
    assert ok
    return data.tobytes()


def write_json(path, topics=("/camera",), *, schema="foxglove.CompressedImage", data=png):
    from mcap.writer import Writer  # pyright: ignore

    with path.open("wb") as stream:
        writer = Writer(stream)
        writer.start()
        kind = writer.register_schema(schema, "jsonschema", b"{}")
        for topic in topics:
            channel = writer.register_channel(topic, "json", kind)
            at_ms = 1000
            for number, gap_ms in enumerate(GAPS_MS):
                at_ms += gap_ms
                packed = base64.b64encode(data(number)).decode()
                message = json.dumps({"format": "png", "data": packed}).encode()
                writer.add_message(channel, at_ms * 10**6, message, at_ms * 10**6)
        writer.finish()


def write_protobuf(path):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from mcap_protobuf.writer import Writer  # pyright: ignore

    file = descriptor_pb2.FileDescriptorProto(
        name="charles_test.proto", package="foxglove", syntax="proto3"
    )
    kind = file.message_type.add(name="CompressedImage")
    kind.field.add(name="data", number=2, type=12, label=1)
    kind.field.add(name="format", number=3, type=9, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName("foxglove.CompressedImage"))
    with path.open("wb") as stream, Writer(stream) as writer:
        at_ms = 1000
        for number, gap_ms in enumerate(GAPS_MS):
            at_ms += gap_ms
            message = made(data=png(number), format="png")
            writer.write_message("/camera", message, at_ms * 10**6, at_ms * 10**6)


@needs_mcap
@pytest.mark.parametrize("write", [write_json, write_protobuf])
def test_an_mcap_file_is_replayed_by_the_times_it_was_logged(tmp_path, write):
    path = tmp_path / "drive.mcap"
    write(path)
    source = opened(path, is_realtime=False)
    seen = list(pictures(source))
    source.close()
    assert [number for number, _ in seen] == list(range(len(GAPS_MS)))
    offsets_ms = [(capture.captured_ns - seen[0][1].captured_ns) / 1e6 for _, capture in seen]
    np.testing.assert_allclose(offsets_ms, np.cumsum(GAPS_MS), atol=1e-6)


@needs_mcap
def test_of_two_channels_with_pictures_one_must_be_named(tmp_path):
    path = tmp_path / "drive.mcap"
    write_json(path, ["/front", "/rear"])
    with pytest.raises(CaptureError, match=r"screen.topic must name.*\['/front', '/rear'\]"):
        opened(path)
    opened(path, topic="/rear").close()
    with pytest.raises(CaptureError, match="got '/roof'"):
        opened(path, topic="/roof")


@needs_mcap
def test_broken_mcap_files_are_named(tmp_path):
    path = tmp_path / "drive.mcap"
    path.write_bytes(b"nothing of the kind" * 10)
    with pytest.raises(CaptureError, match=r"drive.mcap cannot be read as MCAP"):
        opened(path)
    write_json(path, schema="something.Else")
    with pytest.raises(CaptureError, match="There are none"):
        opened(path)
    write_json(path, data=lambda number: b"neither")
    source = opened(path)
    with pytest.raises(CaptureError, match="neither JPEG nor PNG"):
        source.grab(np.empty(source.frame_shape, np.uint8))
    source.close()
    write_json(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CaptureError, match=r"drive.mcap"):
        list(pictures(opened(path)))


@pytest.mark.skipif(bool(has_mcap), reason="mcap is installed")
def test_without_mcap_the_extra_is_named(tmp_path):
    path = tmp_path / "drive.mcap"
    path.write_bytes(b"any")
    with pytest.raises(ExtraMissingError, match=r"charles\[mcap\]"):
        opened(path)
