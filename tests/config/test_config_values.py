from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from axon_tasks.config import values as v

#: Attempts that no field may let through: shell, nginx, options, path traversal, control characters, other scripts.
HOSTILE = [
    *(
        "-oProxyCommand=touch /tmp/x",
        "--help",
        "-",
        "a;b",
        "a; return 200",
        "a\nb",
        "a\n",
        "a\r",
        "a\0",
        "a\tb",
        "a b",
    ),
    *(
        "$(id)",
        "`id`",
        "${IFS}",
        "a|b",
        "a&b",
        "a>b",
        "a'b",
        'a"b',
        "a\\b",
        "{a}",
        "a}",
        "x{",
        "a#b",
        "#",
        "!",
        "(a)",
    ),
    *(
        "../etc",
        "/../etc",
        "/a/../b",
        "/a/./b",
        "/a//b",
        "é",
        "\uff41",
        "\uff11",
        "\u202e",
        "\u200b",
        "\x1b[2J",
        "\x7f",
        "*",
        "?",
    ),
    *("a" * 11_000, "", " ", " a", "a ", "%00", "<a>", "~", "^", "a,b;c"),
]

FIELDS: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "name": (
        v.Name,
        ["a", "shop", "shop-2", "0", "a" * 40],
        ["a-", "-a", "A", "a.b", "a_b", "a" * 41, 1, None, True],
    ),
    "host name": (v.HostName, ["edge1", "a.b", "A_1"], ["a-", ".a", "a" * 61, 1]),
    "address": (
        v.Address,
        ["10.0.0.1", "::1", "2001:db8::1", "app1", "app1.example.com", "my_host", "A.b"],
        [
            "10.0.0.300",
            "10.0.0",
            "1.2.3.4.5",
            "a..b",
            "fe80::1%eth0",
            ".a",
            "a.",
            "user@host",
            "host:22",
            "a" * 254,
            1,
        ],
    ),
    "ip": (
        v.IpAddress,
        ["10.0.0.1", "::1"],
        ["app1", "10.0.0.1/8", "10.0.0.300", "010.0.0.1", "fe80::1%eth0"],
    ),
    "jump": (
        v.Jump,
        ["edge1", "deploy@edge1", "deploy@10.0.0.1:22", "[::1]:22", "edge1:2222"],
        ["edge1:0", "edge1:65536", "edge1:", "@edge1", "a@b@c", "-x@a", "a:22:22", "user@-x"],
    ),
    "user": (v.User, ["root", "deploy", "_a", "a.b-c"], ["1a", "a@b", "a" * 33, "a:b"]),
    "remote path": (
        v.RemotePath,
        ["/etc/ssl/shop.pem", "/srv/shop/.env.prod", "/a_b-c@d+e,f=g"],
        ["etc", "/", "/a/", "./a", "/a/..", "/..", "/a b", "/a:b", "/a$b", "/a;b", "/a'b", "/a%b", "/a\n"],
    ),
    "domain": (
        v.Domain,
        ["shop.example.com", "*.example.com", "localhost", "xn--bcher-kva.example"],
        [
            "A.b",
            "a..b",
            ".a",
            "a.",
            "*",
            "*.",
            "a.*.b",
            "*a.b",
            "~^a",
            "a_b",
            "a:80",
            "-a.b",
            "a-.b",
            "a" * 64,
            "_",
        ],
    ),
    "host header": (v.HostHeader, ["a.b", "A.b:8080"], ["a.b:", "a.b:0", "a:b", "*.a", "a/b"]),
    "url path": (
        v.UrlPath,
        ["/", "/api/health", "/a?b=c&d=%20", "/~a/./b"],
        ["a", "http://a/", "/a b", "/a#b", "/a\r\nHost: x", "/'a", "/$a", "/a;b", "/" + "a" * 2000],
    ),
    "image": (v.Image, ["a.io:5000/shop", "shop"], ["shop:v1", "SHOP", "shop@sha256:" + "0" * 64]),
    "version": (
        v.Version,
        ["v1", "1.10", "_a", "sha256:" + "0" * 64],
        [".a", "-a", "sha256:0", "a:b", "a" * 129, 1],
    ),
    "registry": (
        v.RegistryServer,
        ["a.io", "10.0.0.1:5000", "[::1]:5000"],
        ["https://a.io", "a.io/b", "a.io:", "a_b.io"],
    ),
    "registry user": (v.RegistryUser, ["deploy", "_json_key", "robot$ci+x"], ["a:b", "é", "a b", "-u", "$a"]),
    "platform": (
        v.Platform,
        ["linux/amd64", "linux/arm/v7"],
        ["amd64", "linux/", "linux/amd64,linux/arm64", "Linux/amd64", "-a/b"],
    ),
    "build argument": (
        v.BuildArgument,
        ["VERSION", "HTTP_PROXY", "_a"],
        ["PATH", "DOCKER_CONFIG", "LD_PRELOAD", "BUILDX_BUILDER", "a-b", "A=b", "1a"],
    ),
    "port": (
        v.Port,
        [1, 65535, "8080"],
        [0, 65536, -1, "080", "0x50", "8_0", "+80", "8.0", 80.0, True, None, "1e3"],
    ),
    "host port": (v.HostPort, [1024, "32767"], [1023, 70000]),
    "count": (v.Count, [1, "3"], [0, 1001, None]),
    "statuses": (v.Statuses, [200, "404", [200, 204]], [99, 600, "2xx", [[200]], None, {}]),
    "duration": (
        v.Duration,
        [0, 30, 1.5, "30s", "500ms", "2m", "1h", "0.5s", "0", "24h"],
        [
            -1,
            "1d",
            "s",
            "1 s",
            "1:30",
            "25h",
            "1e3",
            "-1s",
            "+1s",
            "1_0",
            float("nan"),
            float("inf"),
            True,
            None,
        ],
    ),
    "positive duration": (v.PositiveDuration, ["100ms", 0.1], [0, "0s", "0"]),
    "flag": (v.Flag, [True, False, "true", "false"], ["yes", "on", "True", "0", 0, 1, None]),
    "size": (v.Size, ["512m", "2g", "1024", 1024], ["0", "-1", "1.5g", "1t", "0m", "m", True]),
    "body size": (v.BodySize, ["1m", "0", "10K"], ["1g;", "1b", "-1", "1 m"]),
    "cpus": (v.Cpus, ["1.5", "0.5", 2, "16"], ["0", "0.0", "-1", "1,5", "1e3", "0.00", True]),
    "restart": (
        v.Restart,
        ["no", "always", "on-failure", "on-failure:3"],
        ["never", "on-failure:", "on-failure:x"],
    ),
    "container user": (v.ContainerUser, ["app", "1000", "1000:1000", "app:app"], ["a:b:c", ":a", "a:", "-1"]),
    "log driver": (v.LogDriver, ["json-file", "none", "grafana/loki"], ["-x", "A"]),
    "network": (v.Network, ["shop_net", "a.b"], ["host", "none", "bridge", "default", "container:x"]),
    "docker name": (v.DockerName, ["web", "a_b.c-d"], ["-a", ".a", "a" * 129]),
    "volume": (
        v.Volume,
        ["/srv/a:/a", "data:/a", "/srv/a:/a:ro", "/srv/a:/a:ro,z"],
        ["/srv/a", "/a:/b:ro:z", "/a:b", "a/b:/c", "/a:/b:exec", "/a/..:/b", "/a:/b:", "x:/b"],
    ),
    "extra host": (
        v.ExtraHost,
        ["db:10.0.0.5", "host.docker.internal:host-gateway", "db:::1"],
        ["db", "db:", ":10.0.0.5", "db:app1", "db:10.0.0.300"],
    ),
    "label name": (v.LabelName, ["com.example/a", "team"], ["axon.product", "-a", "a b", "a=b"]),
    "variable name": (v.VariableName, ["A", "_a1"], ["1A", "A-B", "A.B", "A=B", "a" * 201]),
    "host keys": (v.HostKeys, ["strict", "accept-new"], ["no", "Strict", "yes", None]),
    "switch": (v.Switch, ["slots", "reload"], ["slot", "", None]),
}

#: These attempts are valid where a field's grammar has such characters for a reason.
PERMITTED = {
    ("url path", "/a/./b"),
    ("url path", "/a/../b"),
    ("url path", "/../etc"),
    ("url path", "/a//b"),
}


def _accepts(field: str, value: object) -> bool:
    try:
        TypeAdapter(FIELDS[field][0]).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in FIELDS for value in FIELDS[field][1]]
)
def test_accepts(field: str, value: object) -> None:
    """What is right is accepted, and what comes out is accepted again."""
    adapter = TypeAdapter(FIELDS[field][0])
    result = adapter.validate_python(value)

    assert result == adapter.validate_python(result)


@pytest.mark.parametrize("field", FIELDS)
def test_refuses(field: str) -> None:
    """What is wrong for a field is refused, whatever its kind."""
    assert [] == [value for value in FIELDS[field][2] if _accepts(field, value)]


@pytest.mark.parametrize("field", FIELDS)
def test_refuses_hostile(field: str) -> None:
    """No field lets an attempt at shell, nginx or terminal through, but for what its grammar needs."""
    allowed = {text for name, text in PERMITTED if name == field}

    assert set() == {text for text in HOSTILE if _accepts(field, text)} - allowed


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in {"flag", "registry user"}])
@given(text=st.text(max_size=40))
def test_only_safe_characters(field: str, text: str) -> None:
    """Whatever text a field accepts has no character that is special inside a double-quoted shell word."""
    if _accepts(field, text):
        assert not set(text) & set("\"'`$\\\n\r\0 ;|<>(){}")
        assert not text.startswith("-")
        assert text.isascii()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("30s", 30.0), ("2m", 120.0), ("1h", 3600.0), ("7", 7.0), (3, 3.0), ("1.5s", 1.5)],
)
def test_seconds(written: object, seconds: float) -> None:
    """Durations come out in seconds."""
    assert seconds == TypeAdapter(v.Duration).validate_python(written)
