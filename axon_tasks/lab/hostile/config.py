"""Hostile `hosts.yml`: values and keys of every field that the models have, and whole documents.

Each is either refused with every fault told and exit code 2, or accepted because it is harmless there; what is accepted
goes on to what is made of it (`rendered`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from axon_tasks.config import models, read
from axon_tasks.config.show import effective
from axon_tasks.lab.hostile.outcome import Outcome, attempt
from axon_tasks.lab.hostile.values import Canaries, Hostile, is_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from axon_tasks.config import Project
    from axon_tasks.config.reading import Loaded

    Accepted = Callable[[str, Project, tuple[str, ...], str], None]

CHANNEL = "config"

_LOGIN = {"server": "registry.test:5000", "username": "deploy", "password": "hunter2"}

#: Every key that there is, so that each can be spoilt while the rest is right.
BASE: dict[str, Any] = {
    "product": "shop",
    "image": "registry.test:5000/shop",
    "registry": _LOGIN,
    "known_hosts": "known_hosts",
    "hosts": {
        "edge1": {"address": "127.0.0.1", "user": "root", "port": 1},
        "app1": {
            "address": "127.0.0.1", "user": "root", "port": 1, "key": "id", "passphrase": "opensesame",
            "private_address": "127.0.0.1", "jump": "edge1", "host_keys": "strict", "connect_timeout": "1s",
        },
    },
    "defaults": {"health": {"path": "/up"}},
    "environments": {
        "prod": {
            "system": ["edge1"],
            "app": ["app1"],
            "domain": "shop.test",
            "aliases": ["www.shop.test"],
            "tls": {"certificate": "/etc/ssl/shop.pem", "key": "/etc/ssl/shop.key"},
            "env_file": "/srv/shop/.env",
            "image": "registry.test:5000/shop",
            "tag": "v1",
            "switch": "slots",
            "registry": _LOGIN,
            "container": {
                "port": 3000, "restart": "always", "env": {"TOKEN": "opensesame"}, "volumes": ["/srv/a:/a"],
                "network": "shop", "network_alias": "web", "extra_hosts": ["db:10.0.0.5"], "command": ["serve"],
                "memory": "512m", "cpus": "1.5", "user": "app", "init": True, "stop_timeout": "5s",
                "log": {"driver": "local", "max_size": "10m", "max_file": 3}, "labels": {"team": "red"},
            },
            "health": {
                "path": "/up", "host": "shop.test", "expect_status": [200], "expect_body": "ok", "timeout": "9s",
                "interval": "1s", "probe_timeout": "1s", "successes": 2, "docker": True, "log_lines": 5,
            },
            "release_command": {"command": ["migrate"], "entrypoint": "/bin/app", "timeout": "9s"},
            "drain": {"timeout": "5s"},
            "nginx": {
                "directory": "/etc/nginx/axon.d", "config": "/etc/nginx/nginx.conf", "http_port": 80,
                "https_port": 443, "client_max_body_size": "1m", "proxy_timeout": "9s",
            },
            "ports": {"first": 30000, "last": 30100},
            "build": {
                "context": "app", "dockerfile": "Dockerfile", "args": {"VERSION": "1"}, "target": "app",
                "platform": "linux/amd64", "push": "registry",
            },
        },
    },
}  # fmt: skip

#: Fields whose values may be any text, because they reach their program as an argument or on standard input, quoted.
FREE = {
    ("registry", "password"),
    ("registry", "password_file"),
    ("known_hosts",),
    # What is made of them is absolute, so that none can be taken for a flag.
    ("build", "context"),
    ("build", "dockerfile"),
    ("args", "*"),
    ("key",),
    ("passphrase",),
    ("env", "*"),
    ("labels", "*"),
    ("command", "0"),
    ("release_command", "entrypoint"),
    *((hook, "0") for hook in ("before_deploy", "after_switch", "after_deploy", "on_failure")),
    ("health", "expect_body"),
    ("registry", "username"),
}

#: libyaml where PyYAML was built with it, as for loading.
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

#: Names of entries that the operator chooses: what a key may be is a matter of its characters.
_NAMED = {("hosts",), ("environments",), ("env",), ("labels",), ("args",)}


@dataclass(frozen=True)
class Field:
    """One place of the file that holds a value.

    Attributes:
        path: The keys that lead there; list positions are `0`.
    """

    path: tuple[str, ...]

    @property
    def is_free(self) -> bool:
        """Whether any text is right here."""
        ends = [self.path[start:] for start in range(len(self.path))]
        ends += [(*end[:-1], "*") for end in ends]
        return any(end in FREE for end in ends) and self.path[-2:] != ("tls", "key")

    @property
    def name(self) -> str:
        """As people write it."""
        return ".".join(self.path)


def fields() -> list[Field]:
    """Every place that holds a value, as the models say: a field that is added later is in it."""
    return [Field(path) for path in dict.fromkeys(_leaves(models.FileSettings, ())) if path[0] != "defaults"]


def _leaves(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield from _below(field.annotation, (*path, name))


def _below(annotation: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    origin = get_origin(annotation)
    if origin in {Annotated, Union, UnionType}:
        yield from _below(get_args(annotation)[0], path)
    elif origin is dict:
        for key in _entries(path):
            yield from _below(get_args(annotation)[1], (*path, key))
    elif origin is tuple:
        yield from _below(get_args(annotation)[0], (*path, "0"))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _leaves(annotation, path)
    else:
        yield path


def _entries(path: tuple[str, ...]) -> list[str]:
    """The names that the base file has there; the last one has the most keys."""
    value: Any = BASE
    for part in path:
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return list(value)[-1:] if isinstance(value, dict) and value else ["X"]


def replaced(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The base file with another value in one place."""
    made = copy.deepcopy(BASE)
    at: Any = made
    for index, part in enumerate(path[:-1]):
        following: Any = [] if path[index + 1] == "0" else {}
        at = at[0] if part == "0" else at.setdefault(part, following)
    if path[-1] == "0":
        at[:] = [value]
    else:
        at[path[-1]] = value
    return made


def renamed(path: tuple[str, ...], key: str) -> dict[str, Any]:
    """The base file with another key in one mapping: beside the others, or in the place of the last one."""
    made = copy.deepcopy(BASE)
    at: Any = made
    for part in path:
        at = at[part]
    if path[-1:] in _NAMED:
        at[key] = at.pop(next(reversed(at)))
    else:
        at[key] = "x"
    return made


def mappings(value: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every mapping of the base file."""
    value = BASE if value is None else value
    yield path
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from mappings(inner, (*path, key))


class Configuration:
    """Loads hostile files.

    Args:
        outcome: Where it is noted.
        canaries: Makes the texts.
        folder: Where the file is written.
        accepted: Is given what was accepted: the case, the project, the path of the field, and the text.
    """

    def __init__(self, outcome: Outcome, canaries: Canaries, folder: Path, accepted: Accepted) -> None:
        self._outcome = outcome
        self._canaries = canaries
        self._path = folder / "hosts.yml"
        self._accepted = accepted

    def values(self) -> None:
        """Every text in every field, written out and as the content of a variable."""
        for field in fields():
            for hostile in self._canaries.hostile():
                self._value(field, hostile, hostile.text, {})
            for hostile in self._canaries.hostile(("shell", "nginx")):
                self._value(
                    field, Hostile(f"${{A}} {hostile.name}", hostile.text), "${A}", {"A": hostile.text}
                )

    def _value(self, field: Field, hostile: Hostile, written: str, environ: Mapping[str, str]) -> None:
        data = document(replaced(field.path, written))
        case = f"{field.name} {hostile.name}"
        loaded = self._load(case, data, environ)
        if loaded is None:
            return
        text = _at(loaded.values, field.path)
        if not field.is_free and not is_plain(text):
            self._outcome.violate(CHANNEL, case, f"accepted: {text!r}")
        self._accepted(case, loaded.project, field.path, text)

    def keys(self) -> None:
        """Every text as a key of every mapping."""
        for path in mappings():
            for hostile in self._canaries.hostile(
                ("shell", "option", "path", "unicode", "control", "number")
            ):
                data = document(renamed(path, hostile.text))
                case = f"{'.'.join(path)}.KEY {hostile.name}"
                loaded = self._load(case, data, {})
                if loaded is not None:
                    if not is_plain(hostile.text):
                        self._outcome.violate(CHANNEL, case, f"accepted as a key: {hostile.text!r}")
                    self._accepted(case, loaded.project, (), "")

    def documents(self) -> None:
        """Whole files that are no sensible ones."""
        for name, data in documents(self._canaries):
            self._load(f"document {name}", data, {})

    def places(self) -> None:
        """Names of files that are none, or no files at all."""
        names = [one.text for one in self._canaries.hostile(("shell", "option", "path", "unicode", "size"))]
        for name in [*names, "/proc/self/mem", "/dev/zero", str(self._path.parent), f"{self._path}/x"]:
            if name:
                attempt(self._outcome, CHANNEL, f"file {name[:60]!a}", read, name, {})

    def _load(self, case: str, data: bytes, environ: Mapping[str, str]) -> Loaded | None:
        found: list[Loaded] = []

        def work() -> None:
            self._path.write_bytes(data)
            loaded = read(self._path, environ)
            for environment in loaded.project.environments.values():
                for row in effective(loaded, environment):
                    assert row.path, "a setting without a name"
            found.append(loaded)

        attempt(self._outcome, CHANNEL, case, work)
        return found[0] if found else None


def document(value: Any) -> bytes:
    """Values as the bytes of a file."""
    try:
        text = yaml.dump(value, Dumper=_DUMPER, allow_unicode=True, sort_keys=False, width=10_000)
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value).encode()  # JSON is YAML, and can hold half a character


def _at(values: Any, path: tuple[str, ...]) -> str:
    """What the loader has made of the text in one place: variables expanded, nothing else; empty if it took none."""
    for part in path:
        values = values[int(part)] if isinstance(values, list) else (values or {}).get(part)
    return str(values or "")


_VALID = yaml.safe_dump(BASE, sort_keys=False)


def documents(canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    """Files that want to be more than a file: bombs, circles, objects, other encodings, broken pieces."""
    yield from _bombs()
    yield from _objects(canaries)
    yield from _bytes()
    yield from _torn()


def _bombs() -> Iterator[tuple[str, bytes]]:
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    yield "a billion laughs", laughs.encode()
    yield "a billion laughs, merged", laughs.replace("[", "{<<: [").replace("]", "]}").encode()
    yield "ten thousand aliases", ("a: &a x\nb: [" + "*a, " * 10_000 + "]\n").encode()
    yield "an anchor that holds itself", b"a: &a [*a]\n"
    yield "a mapping that holds itself", b"a: &a {b: *a}\n"
    yield "a merge of itself", b"a: &a {<<: *a}\n"
    yield "no such anchor", b"a: *b\n"
    yield "an anchor twice", b"a: &a 1\nb: &a 2\nc: *a\n"
    for depth in (33, 200, 5_000, 100_000):
        yield f"{depth} lists deep", b"a: " + b"[" * depth + b"]" * depth
        yield f"{depth} mappings deep", b"a: " + b"{b: " * depth + b"}" * depth
        yield f"{depth} unclosed", b"[" * depth
    yield "a block, deep", "\n".join(" " * n + "a:" for n in range(400)).encode()
    yield "many keys", "\n".join(f"a{n}: 1" for n in range(60_000)).encode()
    yield "many lines", b"- a\n" * 60_000
    yield "one key, again and again", b"a: 1\n" * 20_000
    yield "a huge word", b"product: " + b"a" * 900_000
    yield "a huge key", b"a" * 900_000 + b": 1"
    yield "larger than a megabyte", b"#" * 1_000_001
    yield "a huge number", b"product: " + b"9" * 100_000
    yield "many faults", ("environments:\n" + "".join(f"  p{n}: {n}\n" for n in range(5_000))).encode()


def _objects(canaries: Canaries) -> Iterator[tuple[str, bytes]]:
    for tag in (
        "!!python/object/apply:os.system",
        "!!python/object/new:os.system",
        "!!python/object/apply:subprocess.Popen",
        "!!python/name:os.system",
        "!!python/module:os",
        "!<tag:yaml.org,2002:python/object/apply:os.system>",
        "!ruby/object:Gem",
        "!!map",
        "!!str",
        "!!binary",
        "!!set",
        "!!omap",
        "!x",
        "!",
    ):
        text = canaries.filled(f'{tag} ["touch {{c}}"]')
        yield f"tag {tag} as a document", text.encode()
        yield f"tag {tag} as a value", f"product: {text}\n".encode()
        yield f"tag {tag} as a key", f"? {text}\n: 1\n".encode()
        yield f"tag {tag} on a text", _VALID.replace("product: shop", f"product: {tag} shop").encode()


def _bytes() -> Iterator[tuple[str, bytes]]:
    valid = _VALID.encode()
    for encoding in ("utf-16", "utf-16-be", "utf-32", "utf-7"):
        yield encoding, _VALID.encode(encoding)
    yield "a byte order mark twice", b"\xef\xbb\xbf\xef\xbb\xbf" + valid
    for name, data in {
        "NUL": b"\0",
        "latin 1": b"\xe9",
        "a surrogate": b"\xed\xa0\x80",
        "an overlong slash": b"\xc0\xaf",
        "beyond Unicode": b"\xf5\x80\x80\x80",
        "a next line": b"\xc2\x85",
        "a line separator": b"\xe2\x80\xa8",
        "a reversed line": b"\xe2\x80\xae",
        "an escape": b"\x1b[2J",
        "a bell": b"\x07",
        "a carriage return": b"\r",
        "a form feed": b"\f",
        "a tab": b"\t",
        "a backspace": b"\b",
        "a delete": b"\x7f",
        "a C1 control": b"\xc2\x9b",
        "a hidden space": b"\xe2\x80\x8b",
    }.items():
        yield f"{name} alone", data
        yield f"{name} in a word", valid.replace(b"shop.test", b"sh" + data + b"op.test", 1)
        yield f"{name} before a key", valid.replace(b"image:", data + b"image:", 1)
        yield f"{name} at the end", valid + data


def _torn() -> Iterator[tuple[str, bytes]]:
    for name, text in {
        "nothing": "",
        "a line": "\n",
        "a comment": "# nothing",
        "a word": "shop",
        "a number": "1",
        "a list": "- a\n- b\n",
        "null": "~",
        "two documents": "a: 1\n---\nb: 2\n",
        "an end and more": "a: 1\n...\nb: 2\n",
        "a directive": "%YAML 9.9\n---\na: 1\n",
        "another directive": "%TAG ! tag:x,2000:\n---\na: !x 1\n",
        "a tab for an indent": "a:\n\tb: 1\n",
        "an unclosed quote": 'a: "b\nc: 1\n',
        "an unclosed list": "a: [1, 2\n",
        "an unclosed mapping": "a: {b: 1\n",
        "a list as a key": "? [a, b]\n: 1\n",
        "a mapping as a key": "? {a: b}\n: 1\n",
        "null as a key": "~: 1\n",
        "numbers as keys": "1: 1\n1.5: 2\ntrue: 3\n2026-01-01: 4\n",
        "a merge of a word": "<<: word\n",
        "a merge of a list of words": "<<: [a, b]\n",
        "an unclosed variable": "product: ${A\n",
        "a variable without a name": "product: ${}\n",
        "a variable in a variable": "product: ${A:-${B}}\n",
        "a command for a variable": "product: ${$(touch x)}\n",
        "a variable with an operator": "product: ${A:=b}\n",
        "a variable with a pattern": "product: ${A//a/b}\n",
        "many variables": "product: " + "${A}" * 20_000 + "\n",
        "colons": ":" * 5_000,
        "dashes": "- " * 5_000,
        "question marks": "? " * 5_000,
        "exclamation marks": "!" * 5_000,
        "quotes": "'" * 4_999,
        "a here document": "a: |\n  b\n c\n",
        "a folded one with a strange header": "a: >99x\n  b\n",
        "percent signs": "%" * 100,
        "at": "@a: 1\n",
        "a backquote": "`a`: 1\n",
    }.items():
        yield name, text.encode()
    for cut in range(1, len(_VALID), 97):
        yield f"cut after {cut} bytes", _VALID[:cut].encode()
    for at in range(0, len(_VALID), 131):
        yield f"a brace at {at}", (_VALID[:at] + "{" + _VALID[at:]).encode()
