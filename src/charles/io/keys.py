"""Who may talk over an encrypted wire: key pairs, their files, and the list of allowed keys.

Both ends of a connection have a pair of Curve25519 keys. A client must know the server's public key
beforehand, and the server must have the client's on its list, so neither can be played by somebody
else. Public keys are written as 64 hexadecimal digits, which no shell changes. A secret key leaves
its file for libzmq alone: it is in no text that is shown, and no object prints it.

References:
    CurveZMQ, https://rfc.zeromq.org/spec/26/; ZeroMQ authentication protocol,
    https://rfc.zeromq.org/spec/27/
"""

import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import zmq
from zmq.utils import z85

from charles.errors import ConfigError, require

ZAP_ADDRESS = "inproc://zeromq.zap.01"
"""Where libzmq asks who may connect."""

ZAP_DOMAIN = b"charles"

MOST_STRANGERS = 100
"""Unknown keys that are remembered; whoever tries more is still refused, without being named."""


def is_key(text: str) -> bool:
    """Whether a text is written as a key is."""
    return re.fullmatch("[0-9a-f]{64}", text) is not None


@dataclass(frozen=True, kw_only=True)
class KeyPair:
    """One end's keys, each as 64 hexadecimal digits."""

    public: str
    secret: str = field(repr=False)


def load_or_make_keys(path: Path) -> KeyPair:
    """The key pair whose secret is in a file; a new one if there is no such file.

    The file is made for its owner's eyes alone (mode 0600).

    Raises:
        ConfigError: The file is no secret key, others may read it, or it cannot be made.
    """
    try:
        if not path.exists():
            _write_secret(path)
        text = _read_secret(path)
    except OSError as err:
        raise ConfigError(
            f"The key file must be one that can be read or made, got {str(path)!r}: {err.strerror}."
        ) from err
    public = zmq.curve_public(z85.encode(bytes.fromhex(text)))
    return KeyPair(public=z85.decode(public).hex(), secret=text)


def _write_secret(path: Path) -> None:
    _, secret = zmq.curve_keypair()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(z85.decode(secret).hex() + "\n")


def _read_secret(path: Path) -> str:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        content = file.read(1000)
    # Windows keeps no such bits; there a file in one's own folder is one's own.
    is_private = os.name == "nt" or not mode & (stat.S_IRWXG | stat.S_IRWXO)
    fix = f"Run: chmod 600 {path}"
    require(is_private, "The key file", "be readable by you alone", stat.filemode(mode), fix)
    text = content.decode("ascii", "replace").strip()
    if not is_key(text):  # require() would show the value
        raise ConfigError(
            f"The key file must hold 64 hexadecimal digits, but {str(path)!r} does not. "
            "Name another file; if there is none, one is made."
        )
    return text


class AllowedKeys:
    """The public keys that may connect: a text file, a key a line, with notes after ``#``.

    It is read whenever somebody connects, so a line added by hand counts at once. Without the file
    nobody may.

    Args:
        path: The file; need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, key: str) -> bool:
        """Whether this key is on the list."""
        return key in self._read()

    def add(self, keys: Iterable[str]) -> None:
        """Put keys on the list for good.

        Raises:
            ConfigError: One is no key, or the file cannot be written.
        """
        known = self._read()
        for key in keys:
            require(is_key(key), "allow", "name public keys of 64 hexadecimal digits", key)
            if key in known:
                continue
            known.add(key)
            try:
                with self.path.open("a", encoding="ascii") as file:
                    file.write(key + "\n")
            except OSError as err:
                raise ConfigError(
                    f"{self.path} must be a file that can be written: {err.strerror}."
                ) from err

    def __len__(self) -> int:
        return len(self._read())

    def _read(self) -> set[str]:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return set()
        return {key for line in lines if is_key(key := line.partition("#")[0].strip())}


@dataclass(frozen=True, kw_only=True)
class ServerKeys:
    """What a server needs to be talked to in secret."""

    pair: KeyPair
    may_connect: Callable[[str], bool]
    """Whether a client with this public key is let in; asked once for each connection."""


@dataclass(frozen=True, kw_only=True)
class ClientKeys:
    """What a client needs to talk to one server in secret."""

    pair: KeyPair
    server: str
    """The server's public key."""

    def __post_init__(self) -> None:
        require(is_key(self.server), "The server's key", "be 64 hexadecimal digits, as it shows it",
                self.server)  # fmt: skip


class Gate:
    """Tells libzmq who may connect. Use from one thread, which must call :meth:`serve` often.

    Args:
        context: Of the sockets that are guarded; it has one gate.
        may_connect: Whether a client with this public key is let in.

    Attributes:
        socket: Readable when there is something to serve.
        strangers: Keys that were refused, and the address that each came from first.
    """

    def __init__(self, context: zmq.Context, may_connect: Callable[[str], bool]) -> None:
        self.strangers: dict[str, str] = {}
        self._may_connect = may_connect
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ZAP_ADDRESS)

    def serve(self) -> None:
        """Answer everything that was asked; never blocks."""
        while self.socket.poll(0):
            version, request, _domain, address, _identity, mechanism, *credentials = (
                self.socket.recv_multipart()
            )
            is_allowed = mechanism == b"CURVE" and self._is_allowed(credentials[0].hex(), address)
            status = [b"200", b"OK"] if is_allowed else [b"400", b"unknown key"]
            self.socket.send_multipart([version, request, *status, b"", b""])

    def _is_allowed(self, key: str, address: bytes) -> bool:
        is_allowed = self._may_connect(key)
        if not is_allowed and len(self.strangers) < MOST_STRANGERS:
            self.strangers.setdefault(key, address.decode("ascii", "replace"))
        return is_allowed


def guard_server(socket: zmq.Socket, pair: KeyPair) -> None:
    """Let a socket that will listen talk in secret only, and to those alone whom a gate lets in."""
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, _z85(pair.secret))
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a gate nobody gets in, not everybody


def guard_client(socket: zmq.Socket, keys: ClientKeys) -> None:
    """Let a socket that will connect talk in secret only, and to that server alone."""
    socket.setsockopt(zmq.CURVE_SERVERKEY, _z85(keys.server))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, _z85(keys.pair.public))
    socket.setsockopt(zmq.CURVE_SECRETKEY, _z85(keys.pair.secret))


def _z85(key: str) -> bytes:
    return z85.encode(bytes.fromhex(key))
