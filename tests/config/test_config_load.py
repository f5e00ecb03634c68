from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from config_samples import FULL, SECRETS, VALID, Finder, Loader
from pydantic import ValidationError

from axon_tasks.config import (
    ConfigurationFaults,
    Registry,
    Secret,
    find_hosts_file,
    load,
    nearest,
)
from axon_tasks.config.models import EnvironmentSettings
from axon_tasks.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def test_defaults(loaded: Loader) -> None:
    """A short file is enough: everything else has the documented default."""
    environment = loaded().environment("prod")

    assert ("prod", "shop", "registry.example.com:5000/shop") == (
        environment.name,
        environment.product,
        environment.image,
    )
    assert ({}, (), None, False) == (
        environment.container.env,
        environment.container.volumes,
        environment.container.command,
        environment.container.init,
    )
    assert "/api/health" == environment.health.path
    assert (3000, "unless-stopped", 10.0, "json-file", "10m", 3) == (
        environment.container.port,
        environment.container.restart,
        environment.container.stop_timeout,
        environment.container.log.driver,
        environment.container.log.max_size,
        environment.container.log.max_file,
    )
    assert ((200,), 60.0, 0.1, 5.0, 1, True, 20) == (
        environment.health.expect_status,
        environment.health.timeout,
        environment.health.interval,
        environment.health.probe_timeout,
        environment.health.successes,
        environment.health.docker,
        environment.health.log_lines,
    )
    assert (30.0, "slots", 30000, 32767) == (
        environment.drain.timeout,
        environment.switch,
        environment.ports.first,
        environment.ports.last,
    )
    assert (None, None, None) == (environment.tls, environment.tag, environment.registry)


def test_hosts(loaded: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts know their names, keys are relative to the file or to the home, and nginx uses the private address."""
    monkeypatch.setenv("HOME", "/home/me")
    project = loaded(FULL, SECRETS)
    edge1, app1, app2 = project.hosts.values()

    assert ("edge1", "app1", "app2") == (edge1.name, app1.name, app2.name)
    assert (Path("/home/me/.ssh/id"), tmp_path / "keys/app", None) == (edge1.key, app1.key, app2.key)
    assert Secret("opensesame") == edge1.passphrase
    assert ("203.0.113.10", "10.0.1.21", "2001:db8::2") == (
        edge1.upstream_address,
        app1.upstream_address,
        app2.upstream_address,
    )
    assert ("accept-new", "strict", 3.0) == (edge1.host_keys, app1.host_keys, app2.connect_timeout)
    assert (tmp_path / "ssh/known_hosts", tmp_path / "hosts.yml", tmp_path) == (
        project.known_hosts,
        project.source,
        project.root,
    )


def test_merges_defaults(loaded: Loader) -> None:
    """Defaults are merged key by key at every depth; lists are replaced, and ~ takes a default away."""
    project = loaded(FULL, SECRETS)
    staging, prod = project.environment("staging"), project.environment("prod")

    assert {"A": "one", "B": "2", "C": "three"} == {k: s.reveal() for k, s in prod.container.env.items()}
    assert ((), None) == (staging.aliases, staging.tls)
    assert ("www.example.com", "m.example.com") == prod.aliases
    assert ((204,), (200, 204)) == (staging.health.expect_status, prod.health.expect_status)
    assert (60.0, 0.25, 8080) == (prod.health.timeout, prod.health.interval, prod.container.port)
    assert ("1.50", ("serve", "--port", "8080")) == (prod.container.cpus, prod.container.command)


def test_registry(loaded: Loader) -> None:
    """The registry's password goes to the registry of the image it stands beside, and to no other."""
    project = loaded(FULL, SECRETS)
    staging, prod = project.environment("staging"), project.environment("prod")

    assert project.registry is not None
    assert staging.registry is not None
    assert prod.registry is not None
    assert "other.example.com/shop" == prod.image
    assert ["registry.example.com:5000"] * 3 == [
        r.server for r in (project.registry, staging.registry, prod.registry)
    ]
    assert ("deploy", "hunter2") == (prod.registry.username, prod.registry.password.reveal())


def test_own_registry(loaded: Loader) -> None:
    """An environment's own registry login belongs to its own image."""
    text = VALID + "    image: a.io/shop\n    registry: {username: u, password: p}\n"
    registry = loaded(text).environment("prod").registry

    assert registry is not None
    assert "a.io" == registry.server


@pytest.mark.parametrize(
    ("credentials", "server"),
    [
        ("aws", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
        ("aws", "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com"),
        ("aws", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"),
        ("azure", "example.azurecr.io"),
        ("docker", "registry.example.com:5000"),
        ("gcloud", "europe-west1-docker.pkg.dev"),
        ("gcloud", "eu.gcr.io"),
    ],
)
def test_whom_to_ask_for_a_login(loaded: Loader, credentials: str, server: str) -> None:
    """Whoever knows the password of a registry is named without it, and without a user."""
    text = VALID + f"    image: {server}/team/shop\n    registry: {{credentials: {credentials}}}\n"
    registry = loaded(text).environment("prod").registry
    assert Registry(server, None, None, None, credentials) == registry


def test_a_password_in_a_file(loaded: Loader, write: Callable[[str], Path]) -> None:
    """Its path is relative to hosts.yml; the file need not be there until somebody logs in."""
    text = VALID + "    registry: {username: a, password_file: keys/registry}\n"
    registry = loaded(text).environment("prod").registry
    assert registry is not None
    assert (write(text).parent / "keys/registry", None) == (registry.password_file, registry.password)


def test_build(loaded: Loader) -> None:
    """How an image is built has defaults, and is inherited key by key; build arguments are secrets."""
    text = VALID.replace("defaults:\n", "defaults:\n  build: {target: app, args: {A: '1', B: '${B}'}}\n")
    build = loaded(text + "    build: {push: ssh, args: {A: '2'}}\n", {"B": "x"}).environment("prod").build
    assert (".", "Dockerfile", "app", None, "ssh") == (
        build.context, build.dockerfile, build.target, build.platform, build.push,
    )  # fmt: skip
    assert {"A": "2", "B": "x"} == {name: value.reveal() for name, value in build.args.items()}


def test_frozen(loaded: Loader) -> None:
    """Nothing is changed after loading."""
    with pytest.raises(AttributeError):
        loaded().environment("prod").domain = "other.example.com"  # type: ignore[misc]


def test_repr_hides_secrets(loaded: Loader) -> None:
    """Printing the whole project shows no secret."""
    text = repr(loaded(FULL, SECRETS))

    assert "hunter2" not in text
    assert "opensesame" not in text
    assert "three" not in text


def test_properties(loaded: Loader) -> None:
    """What tasks ask most is at hand: all domains, all servers each once, and the probe's Host header."""
    text = VALID.replace("app: [app1]", "app: [app1, edge1]").replace("domain: shop", 'domain: "*.shop')
    text = text.replace(".com\n", '.com"\n') + "    aliases: [shop.example.com]\n"
    environment = loaded(text).environment("prod")

    assert ("*.shop.example.com", "shop.example.com") == environment.domains
    assert ("edge1", "app1") == environment.servers
    assert "shop.example.com" == environment.health_host


@pytest.mark.parametrize(
    ("version", "image"),
    [
        ("v2", "registry.example.com:5000/shop:v2"),
        (None, "registry.example.com:5000/shop:v1"),
        ("sha256:" + "a" * 64, "registry.example.com:5000/shop@sha256:" + "a" * 64),
    ],
)
def test_image_reference(loaded: Loader, version: str | None, image: str) -> None:
    """The image to deploy has the tag or digest of the command line, else the environment's."""
    assert image == str(loaded(VALID + "    tag: v1\n").environment("prod").image_reference(version))


@pytest.mark.parametrize("version", ["", "-x", "a b", "sha256:0", "\x1b[2J"])
def test_wrong_version(loaded: Loader, version: str) -> None:
    """A --tag that is no tag is wrong usage, and is shown without control sequences."""
    with pytest.raises(UsageError) as caught:
        loaded().environment("prod").image_reference(version)

    assert 2 == caught.value.code
    assert "\x1b" not in str(caught.value)


def test_no_version(loaded: Loader) -> None:
    """Without any tag the message says where to put one."""
    with pytest.raises(UsageError, match="--tag=TAG"):
        loaded().environment("prod").image_reference()


def test_unknown_environment(loaded: Loader) -> None:
    """An unknown environment is wrong usage; the nearest one is named, and all are listed."""
    with pytest.raises(UsageError) as caught:
        loaded(FULL, SECRETS).environment("prd")

    assert (
        "There is no environment 'prd' in hosts.yml. Did you mean prod?\n  Known environments: staging, prod."
        == str(caught.value)
    )
    assert 2 == caught.value.code


def test_environments_named(loaded: Loader) -> None:
    """Several environments can be named, in any order, each counted once."""
    project = loaded(FULL, SECRETS)

    assert ["prod", "staging"] == [e.name for e in project.environments_named("prod, staging,prod")]


@pytest.mark.parametrize("names", ["", ",", " "])
def test_no_environment_named(loaded: Loader, names: str) -> None:
    """No name is wrong usage: a target is never guessed."""
    with pytest.raises(UsageError, match="Known environments: prod"):
        loaded().environments_named(names)


FAULTY = """\
product: Shop
imagee: registry.example.com/shop
hosts:
  edge1: {address: 203.0.113.10, prot: 22}
  app1: [10.0.0.1]
defaults:
  health: {pth: /x}
  ports: {first: 31000, last: 31000}
environments:
  staging:
    system: [edge]
    app: [app1]
    domain: a b
    health: {timeout: soon}
  prod:
    system: []
    app: [app1, app1]
"""


def test_all_faults_at_once(faults: Finder) -> None:
    """Every fault is told in one go, by line, with path, expectation and the nearest name; those of defaults once."""
    assert [
        "hosts.yml:1: image: is missing; expected image without a tag, such as registry.example.com/shop",
        "hosts.yml:1: product: 'Shop' is not allowed here; expected up to 40 of a-z, 0-9 and dashes inside",
        "hosts.yml:2: imagee: unknown key; did you mean 'image'?",
        "hosts.yml:4: hosts.edge1.prot: unknown key; did you mean 'port'?",
        "hosts.yml:5: hosts.app1: is no mapping; expected a mapping: `key: value` on lines of their own, indented",
        "hosts.yml:7: defaults.health.pth: unknown key; did you mean 'path'?",
        "hosts.yml:8: defaults.ports: the range is too small; expected last above first: each environment needs two ports",
        "hosts.yml:11: environments.staging.system[0]: 'edge' is no host of this file; did you mean 'edge1'?",
        (
            "hosts.yml:13: environments.staging.domain: 'a b' is no domain; "
            "expected a domain in lower case, such as shop.example.com or *.example.com"
        ),
        (
            "hosts.yml:14: environments.staging.health.timeout: 'soon' is no duration; "
            "expected a duration such as 30s, 500ms, 2m, or a number of seconds, above 0, up to 24h"
        ),
        (
            "hosts.yml:15: environments.prod.domain: is missing; "
            "expected the site's domain, such as shop.example.com or *.example.com"
        ),
        "hosts.yml:16: environments.prod.system: the list is empty; expected at least one host",
        "hosts.yml:17: environments.prod.app: entry 2 repeats entry 1; expected each name once",
    ] == [str(fault) for fault in faults(FAULTY)]


def test_error(write: Callable[[str], Path]) -> None:
    """The error's text has all faults and says that nothing was contacted; its exit code is 2."""
    with pytest.raises(ConfigurationFaults) as caught:
        load(write(FAULTY), {})

    assert 2 == caught.value.code
    assert 14 == len(str(caught.value).splitlines())
    assert "Nothing was contacted" in str(caught.value)


def test_many_faults(faults: Finder) -> None:
    """A flood of faults is cut in the text; the first ones are there."""
    found = faults(VALID + "".join(f"    k{n}: x\n" for n in range(2000)))
    lines = str(ConfigurationFaults(found)).splitlines()

    assert len(found) > 900
    assert 52 == len(lines)
    assert lines[0].startswith(
        "hosts.yml:13: environments.prod.k0: unknown key; expected one of: system, app, "
    )


@pytest.mark.parametrize(
    ("addition", "path", "message"),
    [
        ("    name: x\n", "environments.prod.name", "unknown key"),
        ("    product: x\n", "environments.prod.product", "unknown key"),
        ("    health: 5\n", "environments.prod.health", "is no mapping"),
        ("    health:\n", "environments.prod.health", "is empty"),
        ("    container: {port: }\n", "environments.prod.container.port", "is empty"),
        ("    container: {env: [A]}\n", "environments.prod.container.env", "is no mapping"),
        (
            "    container: {env: {A-B: x}}\n",
            "environments.prod.container.env.A-B",
            "the name is not allowed here",
        ),
        ("    container: {command: npm start}\n", "environments.prod.container.command", "is no list"),
        (
            "    container: {network_alias: x}\n",
            "environments.prod.container",
            "network_alias is set without a network",
        ),
        (
            "    container: {init: yes}\n",
            "environments.prod.container.init",
            "'yes' is not clear, and YAML makes true of it",
        ),
        (
            "    container: {port: 0755}\n",
            "environments.prod.container.port",
            "'0755' is no such number, and YAML makes",
        ),
        (
            "    container: {restart: no}\n",
            "environments.prod.container.restart",
            "'no' is unquoted, and YAML makes false",
        ),
        ("    health: {expect_status: []}\n", "environments.prod.health.expect_status", "the list is empty"),
        (
            "    health: {expect_status: [2xx]}\n",
            "environments.prod.health.expect_status[0]",
            "'2xx' is no such number",
        ),
        ("    nginx: {http_port: 443}\n", "environments.prod.nginx", "http_port and https_port are the same"),
        ("    tls: {certificate: /a}\n", "environments.prod.tls.key", "is missing"),
        ("    aliases: [a.b, a.b]\n", "environments.prod.aliases", "entry 2 repeats entry 1"),
        ("    aliases: [shop.example.com]\n", "environments.prod", "aliases name the domain again"),
        ("    aliases: [a.example.com, ~]\n", "environments.prod.aliases[1]", "is empty"),
        ("    switch: slot\n", "environments.prod.switch", "'slot' is not known here"),
        ("    registry: {username: a}\n", "environments.prod.registry", "names no way to log in"),
        (
            "    registry: {username: a, password: b, password_file: c}\n",
            "environments.prod.registry",
            "names several ways to log in",
        ),
        ("    registry: {password: b}\n", "environments.prod.registry", "has no username"),
        ("    registry: {credentials: gh}\n", "environments.prod.registry", "has no username"),
        (
            "    registry: {username: a, credentials: docker}\n",
            "environments.prod.registry",
            "has a username, and credentials: docker knows it itself",
        ),
        (
            "    registry: {credentials: aws}\n",
            "environments.prod.registry",
            "has credentials: aws for a registry that is none of theirs",
        ),
        (
            "    registry: {credentials: amazon}\n",
            "environments.prod.registry.credentials",
            "'amazon' is not",
        ),
        ("    build: {push: scp}\n", "environments.prod.build.push", "'scp' is not known here"),
        ("    build: {platform: amd64}\n", "environments.prod.build.platform", "'amd64' is not allowed here"),
        (
            "    build: {args: {DOCKER_HOST: x}}\n",
            "environments.prod.build.args.DOCKER_HOST",
            "the name is a variable that the docker client itself listens to",
        ),
    ],
)
def test_environment_faults(faults: Finder, addition: str, path: str, message: str) -> None:
    """Each kind of mistake in an environment has one fault, at its own path."""
    (fault,) = faults(VALID + addition)

    assert path == fault.path
    assert fault.message.startswith(message)
    assert fault.line == (9 if path == "environments.prod" else 13)


def test_wildcard_needs_probe_host(faults: Finder) -> None:
    """A site that has only a wildcard must say which Host header the probe sends."""
    (fault,) = faults(VALID.replace("domain: shop.example.com", 'domain: "*.example.com"'))

    assert "health.host to be set" == fault.expected


@pytest.mark.parametrize("key", ["hosts", "environments"])
def test_empty_sections(faults: Finder, key: str) -> None:
    """There must be a host and an environment."""
    text = "product: shop\nimage: a/b\nhosts: {}\nenvironments: {}\n"

    assert "there is none" in {fault.path: fault.message for fault in faults(text)}[key]


@pytest.mark.parametrize("section", ["hosts", "defaults", "environments", "registry"])
@pytest.mark.parametrize("value", ["[]", "x", "5"])
def test_sections_of_wrong_shape(faults: Finder, section: str, value: str) -> None:
    """A section that is a list or a text is one clear fault."""
    lines = {"product": "shop", "image": "a/b", "hosts": "{a: {address: a}}"}
    lines |= {"environments": "{p: {system: [a], app: [a], domain: a.b}}", section: value}
    found = faults("".join(f"{key}: {text}\n" for key, text in lines.items()))

    assert (section, "is no mapping") in [(fault.path, fault.message) for fault in found]


def test_faulty_default_that_is_replaced(faults: Finder) -> None:
    """A faulty default is a fault even if every environment has its own value."""
    (fault,) = faults(VALID.replace("timeout: 60s", "timeout: soon") + "    health: {timeout: 5s}\n")

    assert "defaults.health.timeout" == fault.path


@pytest.mark.parametrize("where", ["defaults", "prod"])
def test_null_image(loaded: Loader, where: str) -> None:
    """`image: ~` means the project's image."""
    text = (
        VALID.replace("defaults:\n", "defaults:\n  image: ~\n")
        if where == "defaults"
        else VALID + "    image: ~\n"
    )

    assert "registry.example.com:5000/shop" == loaded(text).environment("prod").image


def test_null_defaults(loaded: Loader) -> None:
    """Empty defaults are no defaults."""
    text = VALID.replace("  health: {path: /api/health, timeout: 60s}\n", "")

    assert "/" == loaded(text).environment("prod").health.path


def test_jump_circle(faults: Finder) -> None:
    """Jump hosts that lead back to where they start are a fault."""
    text = VALID.replace("{address: 203.0.113.10}", "{address: a, jump: app1}").replace(
        "2222}", "2222, jump: edge1}"
    )

    assert ["edge1 -> app1 -> edge1", "app1 -> edge1 -> app1"] == [
        fault.message.partition(": ")[2] for fault in faults(text)
    ]


def test_jump_to_itself(faults: Finder) -> None:
    """A host is not its own jump host."""
    (fault,) = faults(VALID.replace("2222}", "2222, jump: app1}"))

    assert "hosts.app1.jump" == fault.path


def test_domain_twice(faults: Finder) -> None:
    """Two environments of one system server cannot have the same domain: nginx would serve whichever it read first."""
    text = (
        VALID
        + "  other: {system: [edge1], app: [app1], domain: o.example.com, aliases: [shop.example.com]}\n"
    )
    (fault,) = faults(text)

    assert "environments.other.aliases[0]: this domain is already the one of prod on edge1" in str(fault)


def test_same_domain_on_other_server(loaded: Loader) -> None:
    """The same domain on another system server is fine: that is how a site moves."""
    text = VALID + "  other: {system: [app1], app: [app1], domain: shop.example.com}\n"

    assert 2 == len(loaded(text).environments)


def test_shown_path(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file is named as it would be typed from here."""
    (tmp_path / "below").mkdir()
    path = write(FAULTY)
    monkeypatch.chdir(tmp_path / "below")
    with pytest.raises(ConfigurationFaults) as caught:
        load(path, {})
    assert str(path) == caught.value.faults[0].file

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationFaults) as caught:
        load(path, {})
    assert "hosts.yml" == caught.value.faults[0].file


def test_finds_file_above(write: Callable[[str], Path], tmp_path: Path) -> None:
    """hosts.yml is found in the folder or above it."""
    path = write(VALID)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)

    assert path == find_hosts_file(below, {})
    assert path == find_hosts_file(tmp_path, {})


def test_named_by_variable(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """AXON_HOSTS names the file; an argument wins over it."""
    path = write(VALID)
    monkeypatch.chdir("/")

    assert path == load(None, {"AXON_HOSTS": str(path)}).source
    assert path == load(str(path), {"AXON_HOSTS": "/nowhere"}).source
    with pytest.raises(ConfigurationError, match="/nowhere"):
        load(None, {"AXON_HOSTS": "/nowhere"})


def test_uses_process_environment(write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping, variables come from the process."""
    monkeypatch.setenv("SHOP_TAG", "v7")

    assert "v7" == load(write(VALID + "    tag: ${SHOP_TAG}\n")).environment("prod").tag


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file the message says where one was looked for and how to name one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        load(None, {})

    assert 2 == caught.value.code
    assert f"There is no hosts.yml in {tmp_path} or above it." in str(caught.value)
    assert "--hosts-file=FILE" in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "no name", "control"])
def test_unreadable(tmp_path: Path, kind: str) -> None:
    """A file that cannot be read is told as such."""
    path = {"missing": tmp_path / "x.yml", "folder": tmp_path, "no name": "a\0b", "control": "\x1b[2J"}[kind]
    with pytest.raises(ConfigurationError, match="Cannot read") as caught:
        load(path, {})

    assert "\x1b" not in str(caught.value)


def test_endless_file() -> None:
    """A device that never ends is read only up to the limit."""
    with pytest.raises(ConfigurationFaults, match="larger than 1 MB"):
        load("/dev/zero", {})


def test_pipe(tmp_path: Path) -> None:
    """A file may be a pipe, as in `--hosts-file=<(sops -d hosts.yml)`."""
    reading, writing = os.pipe()
    os.write(writing, VALID.encode())
    os.close(writing)
    try:
        assert "shop" == load(f"/dev/fd/{reading}", {}).product
    finally:
        os.close(reading)


@pytest.mark.parametrize(
    ("name", "candidates", "near"),
    [
        ("prd", ["staging", "prod"], "prod"),
        ("Prod", ["prod"], "prod"),
        ("x", ["prod"], None),
        ("", ["prod"], None),
        ("p" * 1_000_000, ["prod"], None),
        ("prod", [], None),
    ],
)
def test_nearest(name: str, candidates: list[str], near: str | None) -> None:
    """The nearest valid name is found, whatever its case, and a huge name is not even compared."""
    assert near == nearest(name, candidates)


def test_made_in_python() -> None:
    """Settings can be made without a file, from plain Python values, by the same rules."""
    settings = EnvironmentSettings(image="a.io/shop", system=("edge1",), app=("app1",), domain="a.b")

    assert (("edge1",), ("app1",)) == (settings.system, settings.app)
    with pytest.raises(ValidationError):
        EnvironmentSettings(image="a.io/shop", system=("e",), app=("a",), domain="x;y")


def test_shipped_file(pytestconfig: pytest.Config) -> None:
    """The hosts.yml of this repository is valid and describes the lab."""
    project = load(pytestconfig.rootpath / "hosts.yml", {})
    staging, prod = project.environment("staging"), project.environment("prod")

    assert {"edge1": "10.77.0.10", "app1": "10.77.0.21", "app2": "10.77.0.22", "app3": "10.77.0.23"} == {
        name: host.address for name, host in project.hosts.items()
    }
    assert (("app3",), ("app1", "app2")) == (staging.app, prod.app)
    assert ("staging.shop.lab", "shop.lab") == (staging.domain, prod.domain)
    assert "10.77.0.5:5000/shop:v1" == str(prod.image_reference())
    assert (20.0, 10.0, "/api/health") == (prod.health.timeout, prod.drain.timeout, prod.health.path)
    assert "/srv/shop/.env.prod" == prod.env_file


def test_commented_settings_are_valid(pytestconfig: pytest.Config, loaded: Loader) -> None:
    """What is commented out in the shipped file is valid as well, so that uncommenting it works."""
    lines = (pytestconfig.rootpath / "hosts.yml").read_text().splitlines()
    start = lines.index("product: shop")
    prose = (
        "# Goes into",
        "# Without a tag",
        "# Only for",
        "# Host keys",
        "# For real",
        "# How to",
        "# Merged",
    )
    kept = [line for line in lines[start:] if not line.startswith(prose)]
    text = "\n".join(line.replace("# ", "", 1) if line.lstrip().startswith("# ") else line for line in kept)
    secrets = {
        "REGISTRY_PASSWORD": "x",
        "SSH_PASSPHRASE": "y",
        "API_TOKEN": "z",
        "SLACK_WEBHOOK": "https://x",
    }
    prod = loaded(text, secrets).environment("prod")

    assert prod.registry is not None
    assert ("registry.example.com", "20m", ("www.shop.lab",)) == (
        prod.registry.server,
        prod.nginx.client_max_body_size,
        prod.aliases,
    )
