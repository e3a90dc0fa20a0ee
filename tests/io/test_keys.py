"""Keys: secrets stay in their files, and lists of allowed keys count at once."""

import os

import pytest

from charles.errors import ConfigError
from charles.io.keys import AllowedKeys, ClientKeys, is_key, load_or_make_keys


def test_a_pair_is_made_once_and_its_secret_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "new" / "server.key"
    made = load_or_make_keys(path)
    assert load_or_make_keys(path) == made
    assert is_key(made.public)
    assert made.secret != made.public
    if os.name != "nt":
        assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_that_is_shown_has_a_secret_in_it(tmp_path):
    pair = load_or_make_keys(tmp_path / "player.key")
    assert pair.secret not in repr(pair) + str(ClientKeys(pair=pair, server=pair.public))
    assert pair.public in repr(pair)


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps no such bits")
def test_a_secret_that_others_may_read_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "server.key"
    secret = load_or_make_keys(path).secret
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600") as caught:
        load_or_make_keys(path)
    assert secret not in str(caught.value)


def test_a_file_that_is_no_key_is_refused_without_showing_it(tmp_path):
    path = tmp_path / "server.key"
    path.write_bytes(b"almost a secret\xff")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="64 hexadecimal digits") as caught:
        load_or_make_keys(path)
    assert "almost" not in str(caught.value)


def test_a_directory_is_no_key_file(tmp_path):
    with pytest.raises(ConfigError, match="can be read or made"):
        load_or_make_keys(tmp_path)


def test_a_list_counts_as_soon_as_it_is_written(tmp_path):
    allowed = AllowedKeys(tmp_path / "players.keys")
    first, second = "1" * 64, "2" * 64
    assert not allowed(first)
    allowed.add([first, first])
    assert allowed.path.read_text() == f"{first}\n"
    with allowed.path.open("a") as file:
        file.write(f"\n# the living room\n{second}  # left\nnonsense\n")
    assert allowed(first)
    assert allowed(second)
    assert not allowed("nonsense")
    assert len(allowed) == 2


def test_what_is_no_key_is_not_put_on_a_list(tmp_path):
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        AllowedKeys(tmp_path / "players.keys").add(["player.key"])


def test_a_server_is_not_known_by_something_else_than_a_key(tmp_path):
    pair = load_or_make_keys(tmp_path / "player.key")
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        ClientKeys(pair=pair, server="192.168.1.7")
