"""What servers answer when all is well, and what a hostile one could answer instead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from axon_tasks.commands import docker, nginx
from axon_tasks.remote import BatchResult, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from axon_tasks.config import Environment
    from axon_tasks.lab.hostile.values import Canaries
    from axon_tasks.remote import Batch

RELEASE, EARLIER = "1764000000", "1763000000"
ID = "1" * 64
DIGEST = f"sha256:{'a' * 64}"
IMAGE_ID = f"sha256:{'b' * 64}"
_RECORD = {"id": RELEASE, "image": "registry.test:5000/shop:v1", "digest": DIGEST, "slot": "a"}
#: What an app server has kept of an earlier release's start.
_STARTED = {
    "digest": DIGEST, "image": "registry.test:5000/shop:v0", "restart": "always",
    "run": ["--name", ["shop-prod-", {"var": "release"}], ["registry.test:5000/shop@", {"var": "digest"}]],
}  # fmt: skip

#: What `docker ps` tells of the release that serves.
ROW = {
    **dict(zip(docker.PS_FIELDS, (ID, f"shop-prod-{RELEASE}", "running", "shop", "127.0.0.1:30000->3000/tcp"), strict=True)),
    **dict(zip(docker.PS_LABELS, ("shop", "prod", RELEASE, "a", "30000", "registry.test:5000/shop:v1", DIGEST), strict=True)),
}  # fmt: skip

_DETAIL = [ID, "running", "2026-01-01T00:00:00.5Z", IMAGE_ID, "always", ["c" * 64, ""]]
_IMAGE = [IMAGE_ID, ["registry.test:5000/shop:v1"], [f"registry.test:5000/shop@{DIGEST}"],
          "2026-01-01T00:00:00Z", "2026-01-01T00:00:00+01:00", 1000]  # fmt: skip
_NETWORK = ["c" * 64, "shop", "shop", "prod", 0]
_JOB = "job retire-1 done 0 1764000000 1764000009 1764000010\ntitle drain\n| drained\n\n"
#: What `docker inspect` tells of a container that does not get healthy.
STATE: dict[str, Any] = {
    "state": {
        "Status": "exited", "ExitCode": 3, "OOMKilled": False,
        "Health": {"Status": "unhealthy", "Log": [{"ExitCode": 1, "Output": "no"}]},
    },
    "restarts": 0,
    "image": "shop",
}  # fmt: skip


def sound(environment: Environment) -> dict[str, str]:
    """What a healthy server prints, by the label of the section; a label that is not here prints nothing."""
    backends = (nginx.Backend("127.0.0.1", (30000, 30001)),)
    files = nginx.render(nginx.Wanted(environment, backends, (1, 22, 1), "a"))
    state = f"slot=a\ncurrent={RELEASE}\nrecord={json.dumps(_RECORD)}\n"
    return {
        "lock": f"slot=a\ncurrent={RELEASE}\nlocked=yes\n",
        "nginx": "version=1.22.1\n",
        "running": "running=yes\n",
        "included": "included=yes\n",
        "state": state,
        "upstream": files.upstream,
        "site": files.site,
        "docker": "version=24.0.5\nfree=1000000\n",
        "containers": json.dumps(list(ROW.values())) + "\n",
        "ports": "30000 30001\n",
        "env_file": "ok\n",
        "pull": "0123456789ab: Pull complete\n",
        "digest": f'["registry.test:5000/shop@{DIGEST}"] {IMAGE_ID}\n',
        "start": f"container=shop-prod-1\nid={ID}\nenvironment={'c' * 64}\n",
        "health": "result=healthy\nattempts=2\nelapsed_ms=120\nurl=http://127.0.0.1:30001/up\nhost=shop.test\n"
        "answer=HTTP 200\ndocker=healthy\nbody=ok\n",
        "switch": f"serves={RELEASE}\n",
        "job": _JOB,
        "jobs": _JOB,
        "before": _JOB,
        "states": f"state=shop/prod\nslot=a\ncurrent={RELEASE}\nrelease={RELEASE} {json.dumps(_RECORD)}\n",
        "releases": f"state=shop/prod\nslot=a\ncurrent={RELEASE}\nrelease={RELEASE} {json.dumps(_RECORD)}\n"
        f"release={EARLIER} {json.dumps(_RECORD)}\n",
        "started": f"started={EARLIER} {json.dumps(_STARTED)}\n",
        "hold": _JOB,
        "held": f"held={ID}\n",
        "audit": "2026-11-25T10:00:00Z me@here deploy 1764000000 shop:v1\n",
        "upstream prod": files.upstream,
        "details": f"now=1764000100\n{json.dumps(_DETAIL)}\n",
        "images": json.dumps(_IMAGE) + "\n",
        "networks": json.dumps(_NETWORK) + "\n",
        "jobs prod": "pruned retire-1\n",
        "app prod": "found=staging /var/lib/axon/shop/prod/.current.12\n",
        "system prod": "found=audit /var/lib/axon/shop/prod/audit.log\n",
        "abandoned": "found=staging /tmp/axon-stage.aaaaaaaa\n",
        "before cleanup": "free=1\n",
        "logs": "started\n",
    }


def answered(
    batch: Batch, server: str, answers: Mapping[str, str | bytes], codes: Mapping[str, int | None]
) -> BatchResult:
    """The result of a batch that was sent to nobody.

    Args:
        batch: What would have been sent.
        server: Whose answer it is.
        answers: What is printed on both streams, by label.
        codes: Exit codes that are not 0, by label.
    """
    sections = []
    for label in batch.labels:
        told = answers.get(label, "")
        said = told if isinstance(told, bytes) else told.encode("utf-8", "surrogatepass")
        code = codes.get(label, 0)
        sections.append(Section(label, stdout_bytes=said, stderr_bytes=said if code else b"", exit_code=code))
    return BatchResult(batch.name, server, sections, duration=0.1, bytes_received=1)


def hostile(canaries: Canaries) -> Iterator[tuple[str, str | bytes]]:
    """What a server could print instead."""
    for one in canaries.hostile(
        ("shell", "option", "template", "nginx", "unicode", "control", "size", "number"), mixed=5
    ):
        yield one.name, one.text
    yield from _pairs(canaries)
    yield from _json()
    yield from _rows(canaries)
    yield from _noise()


def _pairs(canaries: Canaries) -> Iterator[tuple[str, str]]:
    for key in (
        "slot", "current", "record", "version", "running", "included", "unfinished", "free", "locked", "answer", "url",
        "host", "attempts", "elapsed_ms", "docker", "body", "waiting", "serves", "state", "release", "found", "removed",
        "failed", "now", "id",
    ):  # fmt: skip
        for name, value in {
            "nothing": "",
            "huge": "9" * 5_000,
            "Arabic": "\u0661\u0662",
            "raised": "\u00b2",
            "negative": "-1",
            "a command": canaries.filled("$(touch {c})"),
            "an escape": "\x1b]0;x\x07\x1b[2J",
            "JSON": '{"id": []}',
            "dots": "1.2.3.4.5",
            "a path": "shop/prod",
        }.items():
            yield f"{key}={name}", f"{key}={value}\n"
    yield "contradiction", "slot=a\nslot=b\ncurrent=1\ncurrent=2\nlocked=no\nlocked=yes\n"


def _json() -> Iterator[tuple[str, str]]:
    for name, text in {
        "a deep list": "[" * 100_000,
        "a deep list, closed": "[" * 50_000 + "]" * 50_000,
        "a deep object": '{"a":' * 50_000,
        "null": "null",
        "true": "true",
        "an empty list": "[]",
        "an empty object": "{}",
        "a list of lists": "[[]]",
        "a text": '"a"',
        "half a character": '"\\ud800"',
        "a huge number": "1" * 5_000,
        "a huge exponent": "[1e400]",
        "not a number": "[NaN, Infinity]",
        "a key twice": '{"id": 1, "id": 2}',
        "unclosed": '["',
        "two on a line": "[] []",
        "nulls": json.dumps([None] * 12),
        "numbers": json.dumps(list(range(12))),
        "lists": json.dumps([[]] * 12),
        "texts": json.dumps(["a"] * 12),
        "objects": json.dumps([{}] * 12),
        "six nulls": json.dumps([None] * 6),
        "six texts": json.dumps(["9" * 5_000] * 6),
        "six objects": json.dumps([{"a": 1}] * 6),
        "five nulls": json.dumps([None] * 5),
        "five huge": json.dumps([10**400] * 5),
        "a dictionary of digests": '{"a": "b"}',
        "digests of another": '["evil.test/shop@sha256:' + "a" * 64 + '"] x',
        "a digest that is none": '["registry.test:5000/shop@sha256:zz"] x',
    }.items():
        yield f"JSON {name}", text + "\n"
    for key, value in _states():
        yield f"state {key}", json.dumps(value)


def _states() -> Iterator[tuple[str, object]]:
    """What `docker inspect` could say of a container, one thing wrong at a time."""
    wrong: tuple[Any, ...] = (None, [], {}, "x", -1, 1.5, True, 10**30)
    good: dict[str, Any] = STATE["state"]
    for index, value in enumerate(wrong):
        yield f"as {index}", {**STATE, "state": value}
        yield f"restarts {index}", {**STATE, "restarts": value}
        for key in ("Status", "ExitCode", "OOMKilled", "Health"):
            yield f"{key} {index}", {**STATE, "state": {**good, key: value}}
        for key, health in {
            "health": {"Status": value, "Log": value},
            "log": {"Status": "unhealthy", "Log": [value]},
        }.items():
            yield f"{key} {index}", {**STATE, "state": {**good, "Health": health}}


def _rows(canaries: Canaries) -> Iterator[tuple[str, str]]:
    """Containers of ours, one column wrong at a time, beside the one that serves."""
    good = json.dumps(list(ROW.values()))
    for column in ROW:
        for one in canaries.hostile(("shell", "option", "unicode", "control", "size", "number")):
            row = json.dumps(list({**ROW, column: one.text}.values()))
            yield f"docker ps {column} {one.name}", f"{row}\n"
        kinds: tuple[Any, ...] = (None, [], {}, 1, True, "9" * 5_000)
        for index, value in enumerate(kinds):
            row = json.dumps(list({**ROW, column: value}.values()))
            yield f"docker ps {column} kind {index}", f"{good}\n{row}\n"


def _noise() -> Iterator[tuple[str, str | bytes]]:
    yield "every byte", bytes(range(256))
    yield "broken UTF-8", b"slot=a\xff\xfe\ncurrent=\xc0\xaf\n"
    yield "a megabyte of lines", "\n" * 1_000_000
    yield "a line of a megabyte", "a" * 1_000_000
    yield "a megabyte of signs", "=" * 1_000_000
    yield "a megabyte of braces", "{" * 1_000_000
    yield "a banner", "Welcome!\r\n\r\nLast login: never\r\n"
    yield "strange ends of lines", "slot=a\u2028current=1\x0bslot=b\x1crunning=no\x85"
