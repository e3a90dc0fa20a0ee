"""Making the telemetry that a config names."""

from charles.io.telemetry import codemasters, forza, outgauge, trackmania
from charles.io.telemetry.receiver import Read, TcpTelemetry, UdpTelemetry
from charles.io.telemetry.source import Reading, TelemetrySource
from charles.telemetry_config import TelemetryConfig

_DECODERS: dict[str, Read] = {
    codemasters.NAME: codemasters.decode,
    forza.NAME: forza.decode,
    outgauge.NAME: outgauge.decode,
}


def make_telemetry(config: TelemetryConfig) -> TelemetrySource | None:
    """The telemetry that ``config`` names, already receiving; ``None`` for kind ``none``.

    Raises:
        GameError: The port to listen on is taken, or the address is none of this machine.
    """
    if config.kind == "none":
        return None
    unify = mirrored if config.is_left_positive else unchanged
    name, host, port = config.kind, config.host, config.used_port
    if name == trackmania.NAME:
        return TcpTelemetry(name, lambda: unify(trackmania.Blocks().feed), host=host, port=port)
    return UdpTelemetry(name, unify(_DECODERS[name]), host=host, port=port)


def unchanged(read: Read) -> Read:
    """``read`` of a sender whose steering is positive to the right, as ours is."""
    return read


def mirrored(read: Read) -> Read:
    """``read`` of a sender whose steering is positive to the left."""

    def read_mirrored(data: bytes, received_ns: int) -> Reading | None:
        reading = read(data, received_ns)
        if reading is None or reading.steering is None:
            return reading
        return reading._replace(steering=-reading.steering)

    return read_mirrored
