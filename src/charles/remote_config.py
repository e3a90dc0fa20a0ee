"""Settings of a player whose network is on a server; see :mod:`charles.config`."""

from dataclasses import dataclass
from pathlib import Path

from charles.errors import require


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """The server that predicts (``--backend remote``); its address is --server.host."""

    port: int = 5556
    """Port that charles-serve listens on."""
    server_key: str = ""
    """The server's public key, as it shows it: encrypts, and proves that it is that server. Needed
    for any address but loopback."""
    key: Path = Path("player.key")
    """File of this player's own secret key; made if it is missing."""
    deadline_ms: float = 100.0
    """How long an answer may take; a later one is dropped, and what was predicted before holds."""

    def __post_init__(self) -> None:
        require(0 < self.port < 65536, "remote.port", "lie in 1..65535", self.port)
        require(self.deadline_ms > 0, "remote.deadline_ms", "be positive", self.deadline_ms)
