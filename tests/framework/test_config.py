"""Settings: flags over mpserve.toml over defaults; unknown and impossible ones refused with what to type."""

import os
from pathlib import Path
from typing import Any

import pytest

from mpserve.dataplane.errors import SetupError
from mpserve.framework import config
from mpserve.framework.config import make_config

FIRST_CORE = min(os.sched_getaffinity(0))


def test_defaults() -> None:
    made = make_config({})
    assert (made.device, made.address, made.prefix_length) == ("veth", "10.9.0.2", 24)
    assert made.listeners == [("10.9.0.2", 7)]
    assert not made.busy_poll


def test_given_wins_over_file_over_default() -> None:
    file = {"device": "tap", "busy-poll": True, "max_connections": 10, "listen": [":1", 2]}
    made = make_config({"device": "ring", "busy_poll": None, "listen": ()}, file)
    assert (made.device, made.busy_poll) == ("ring", True)
    assert made.listeners == [("10.9.0.2", 1), ("10.9.0.2", 2)]
    assert made.make_limits().max_connections == 10
    assert make_config({"limits": {"max_connections": "20"}}, file).make_limits().max_connections == 20
    assert make_config({"limits": {"fragments": "refuse"}}, file).make_limits().fragments == "refuse"


@pytest.mark.parametrize("separator", [",", "=", ", "])
def test_routes(separator: str) -> None:
    text = f"10.8.0.0/16{separator}10.9.0.1"
    assert make_config({"routes": text}).static_routes == [("10.8.0.0", 16, "10.9.0.1")]
    made = make_config({"routes": ()}, {"routes": [text, "192.0.2.7/32,10.9.0.3"]})
    assert made.static_routes == [("10.8.0.0", 16, "10.9.0.1"), ("192.0.2.7", 32, "10.9.0.3")]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"devise": "tap"}, "no setting is called 'devise' (did you mean device?)"),
        ({"max_conections": 3}, "(did you mean max_connections?)"),
        ({"max_connections": 0}, "max_connections = 0 is out of range: give 1 to"),
        ({"max_connections": "many"}, "max_connections=many is not int"),
        ({"busy_poll": "perhaps"}, "busy-poll=perhaps is not bool"),
        ({"hugepages": "some"}, "is not 'auto' or 'on' or 'off'"),
        ({"ip": "10.9.0.2"}, "type --ip 10.9.0.2/24"),
        ({"ip": "10.9.0.0/24"}, "type such as --ip 10.9.0.1/24"),
        ({"ip": "10.9.0.255/24"}, "is no host of its network"),
        ({"ip": "fe80::1/64"}, "type an IPv4 address"),
        ({"ip": "127.0.0.1/8"}, "can't be a server's address"),
        ({"gateway": "10.8.0.1"}, "is not another host in 10.9.0.0/24"),
        ({"gateway": "10.9.0.2"}, "is not another host"),
        ({"gateway": "router"}, "is no IPv4 address"),
        ({"limits": {"fragments": "perhaps"}}, "there are reassemble and refuse"),
        ({"routes": ["10.8.0.0/16"]}, "type a network and the gateway to it"),
        ({"routes": ["10.8.0.0/33,10.9.0.1"]}, "type a network and the gateway to it"),
        ({"routes": ["here,there"]}, "such as --route 10.8.0.0/16,10.9.0.1"),
        ({"routes": ["10.8.0.1,10.9.0.1"]}, "lacks the prefix length: type --route 10.8.0.1/32,10.9.0.1"),
        ({"routes": ["10.8.0.1/16,10.9.0.1"]}, "bits set behind its prefix: type --route 10.8.0.0/16,10.9.0.1"),
        ({"routes": ["10.8.0.0/16,10.7.0.1"]}, "10.7.0.1 is not another host in 10.9.0.0/24"),
        ({"routes": ["10.8.0.0/16,10.9.0.2"]}, "10.9.0.2 is not another host in 10.9.0.0/24"),
        ({"routes": ["10.9.0.0/28,10.9.0.1"]}, "its gateway lies in 10.9.0.0/28 itself"),
        ({"routes": ["0.0.0.0/0,10.9.0.1"]}, "is the default route: type --gateway 10.9.0.1"),
        ({"routes": ["10.8.0.0/16,10.9.0.1", "10.8.0.0/16=10.9.0.3"]}, "there is a way to 10.8.0.0/16 already"),
        ({"routes": [f"10.8.{n}.0/24,10.9.0.1" for n in range(17)]}, "given 17 times and there is room for 16"),
        ({"listen": ":0"}, "port from 1 to 65535"),
        ({"listen": "80"}, None),
        ({"listen": ":http"}, "type --listen :PORT"),
        ({"listen": "10.9.0.3:80"}, "the server's only address is 10.9.0.2: type --listen :80"),
        ({"listen": [":80", ":80"]}, "--listen :80 is given twice"),
        (
            {"cores": 4096},
            "--cores 4096: core 4096 isn't there, or is outside the affinity mask; this process may run on",
        ),
        ({"cores": f"{FIRST_CORE},{FIRST_CORE}"}, f"names core {FIRST_CORE} twice: type --cores {FIRST_CORE}"),
        ({"cores": ""}, "--cores : type numbers and ranges, such as --cores"),
        ({"cores": "0-"}, "--cores 0-: type numbers and ranges"),
        ({"cores": "1-0"}, "--cores 1-0: type numbers and ranges"),
        ({"cores": True}, "cores = True: give numbers and ranges, such as cores = '0,2-5'"),
        ({"cores": [0.5]}, "cores = [0.5]: give numbers and ranges"),
        ({"record": "/nowhere/at/all.pcap"}, "there is no folder /nowhere/at"),
        ({"record": "/tmp"}, "can't be written"),
        ({"idle_spin_us": -1}, "out of range"),
        ({"grace_seconds": -1}, "out of range"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(setting: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert make_config(setting).listeners == [("10.9.0.2", 80)]
        return
    with pytest.raises(SetupError) as refused:
        make_config(setting)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_address_of_its_own_may_be_named_in_listen() -> None:
    assert make_config({"listen": "10.9.0.2:80"}).listeners == make_config({"listen": "0.0.0.0:80"}).listeners


def test_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.read_file(None) == ({}, {})
    (tmp_path / "mpserve.toml").write_text('[server]\ndevice = "tap"\n[handler]\ngreeting = "hi"\n')
    assert config.read_file(None) == ({"device": "tap"}, {"greeting": "hi"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sever]\n", "has 'sever' (did you mean server?)"),
        ("device = 1\n", "its tables are [server], [handler]"),
        ("[server\n", "is no TOML"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mpserve.toml"
    path.write_text(text)
    with pytest.raises(SetupError) as refused:
        config.read_file(str(path))
    assert words in str(refused.value)


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="No such file"):
        config.read_file(os.fspath(tmp_path / "other.toml"))
