"""Pictures of an MCAP file: messages ``foxglove.CompressedImage`` (JPEG, PNG), as JSON or protobuf.

References:
    Foxglove, 2022, "MCAP", https://mcap.dev; "Foxglove SDK schemas: CompressedImage",
    https://docs.foxglove.dev/docs/sdk/schemas/compressed-image
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from charles.errors import CaptureError, ExtraMissingError
from charles.io.screen.replay import Picture, Pictures

SCHEMA = "foxglove.CompressedImage"


def mcap_pictures(path: Path, topic: str) -> Pictures:
    """The pictures of one channel, by the time they were logged.

    Args:
        path: The file.
        topic: The channel's topic; may be empty where the file has one with pictures.

    Raises:
        CaptureError: The file is broken, or has no such pictures, or several channels of them.
        ExtraMissingError: mcap is not installed.
    """
    reader, errors, protobuf = _load_mcap()
    first_ns: int | None = None
    try:
        with path.open("rb") as stream:
            made = reader.make_reader(stream)
            topic = _topic(path, topic, made.get_summary())
            for schema, channel, message in made.iter_messages(topics=[topic]):
                decode = json_bytes
                if channel.message_encoding != "json":
                    decode = protobuf.decoder_for(channel.message_encoding, schema)
                    if decode is None:
                        raise CaptureError(f"{path} must encode {topic} as protobuf or JSON.")
                first_ns = message.log_time if first_ns is None else first_ns
                yield Picture(message.log_time - first_ns, _loader(path, decode, message.data))
    except (OSError, errors.McapError) as err:
        raise CaptureError(f"{path} cannot be read as MCAP: {err}.") from err


def json_bytes(data: bytes) -> bytes:
    """The compressed picture in a JSON message."""
    return base64.b64decode(json.loads(data)["data"])


def _topic(path: Path, topic: str, summary: Any) -> str:
    if summary is None:
        raise CaptureError(f"{path} has no summary: it was not closed. Repair it: mcap recover.")
    known = {
        channel.topic
        for channel in summary.channels.values()
        if channel.schema_id and summary.schemas[channel.schema_id].name == SCHEMA
    }
    if topic in known:
        return topic
    if len(known) == 1 and not topic:
        return known.pop()
    raise CaptureError(
        f"screen.topic must name a channel of {SCHEMA} in {path}, got {topic!r}. "
        f"There are {sorted(known) or 'none'}."
    )


def _loader(path: Path, decode: Callable[[bytes], Any], data: bytes) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        try:
            found = decode(data)
            packed = found if isinstance(found, bytes) else found.data
            picture = cv2.imdecode(np.frombuffer(packed, np.uint8), cv2.IMREAD_COLOR)
        except Exception as err:  # whatever a decoder makes of broken bytes
            raise CaptureError(f"{path} has a message that cannot be read: {err}.") from err
        if picture is None:
            raise CaptureError(f"{path} has a picture that is neither JPEG nor PNG.")
        return picture

    return load


def _load_mcap() -> tuple[Any, Any, Any]:
    try:
        from mcap import exceptions, reader  # pyright: ignore[reportMissingImports]
        from mcap_protobuf.decoder import DecoderFactory  # pyright: ignore[reportMissingImports]
    except ImportError as err:
        raise ExtraMissingError(
            "Replaying MCAP needs mcap. Install it: pip install 'charles[mcap]'."
        ) from err
    return reader, exceptions, DecoderFactory()
