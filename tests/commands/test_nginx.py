"""The nginx files, read by nginx itself, and the arguments of docker run."""

from __future__ import annotations

import http.client
import http.server
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from axon_tasks.commands import docker, nginx
from axon_tasks.config import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from axon_tasks.config import Environment, Project

BACKENDS = (nginx.Backend("10.0.0.21", (30000, 30001)), nginx.Backend("10.0.0.22", (30004, 30007)))


def files(environment: Environment, *, slot: str = "a", version: tuple[int, ...] = (1, 22, 1)) -> nginx.Files:
    """The environment's files for both app servers."""
    return nginx.render(nginx.Wanted(environment, BACKENDS, version, slot))


def test_slots_have_one_server_line_per_app_server(project: Project) -> None:
    """Each slot lists its own port on every app server, and the other slot's as backup."""
    text = files(project.environment("prod")).upstream
    assert text.split("upstream shop_prod_b")[0].split("upstream shop_prod_a")[1] == (
        " {\n    server 10.0.0.21:30000 max_fails=0;\n    server 10.0.0.22:30004 max_fails=0;\n"
        "    server 10.0.0.21:30001 backup max_fails=0;\n    server 10.0.0.22:30007 backup max_fails=0;\n}\n"
    )


def test_classic_upstream_is_axons(project: Project) -> None:
    """With `switch: reload` the upstream has AXON's name; it lists the serving slot, and the other one as backup."""
    text = files(project.environment("classic"), slot="b").upstream
    assert (
        "upstream shop_classic_backend {\n    server 10.0.0.21:30001 max_fails=0;\n    server 10.0.0.22:30007 max_fails=0;\n"
        in text
    )
    assert ("10.0.0.21:30001", "10.0.0.22:30007") == nginx.upstream_targets(text)


def test_the_flag_decides_in_every_location(project: Project) -> None:
    """Wherever requests are proxied, the slot is chosen per request, and no cached answer decides."""
    site = files(project.environment("prod")).site
    assert 3 == site.count("if (-e /var/lib/axon/shop/prod/slot_b)") == site.count("proxy_pass http")
    # And in the two places where a file tells of maintenance.
    assert 5 == site.count("open_file_cache off;")


def test_the_probe_is_for_this_machine_only(project: Project) -> None:
    """Who answers is told on loopback alone."""
    site = files(project.environment("prod")).site
    probe = site.split(f"location = {nginx.PROBE_PATH} {{")[1].split("}\n    location")[0]
    assert "allow 127.0.0.1;\n        deny all;" in probe
    assert ["proxy_hide_header", "add_header"] == re.findall(r"(\w+) X-Axon-Upstream", site)


def test_with_a_certificate_plain_http_redirects(project: Project) -> None:
    """With `tls:` port 80 redirects, and port 443 serves with TLS 1.2 and 1.3."""
    site = files(project.environment("safe")).site
    assert "return 301 https://$host$request_uri;" in site
    assert "listen 443 ssl http2;" in site
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in site
    assert "ssl_session_tickets off;" in site
    assert "Strict-Transport-Security" not in site


def test_certificates_can_be_renewed(project: Project) -> None:
    """Where port 80 redirects, the challenge of a certificate authority is answered there; elsewhere only if asked for."""
    challenge = "location ^~ /.well-known/acme-challenge/ {\n        root /var/www/html;"
    assert [1, 0] == [files(project.environment(name)).site.count(challenge) for name in ("safe", "prod")]


def test_hsts_is_said_where_it_is_asked_for(project: Project) -> None:
    """`hsts_days` becomes seconds, on the HTTPS server alone, for errors as well (RFC 6797, section 7.2)."""
    environment = project.environment("safe")
    assert environment.tls is not None
    tls = environment.tls._replace(hsts_days=30)
    site = files(environment._replace(tls=tls)).site
    said = 'add_header Strict-Transport-Security "max-age=2592000" always;'
    # Headers of a location of its own, as the page for maintenance is, come instead of the server's.
    assert (2, 2) == (site.count(said), site.split("listen 443")[1].count(said))


def test_http2_is_asked_for_as_the_version_wants_it(project: Project) -> None:
    """Nginx 1.25.1 moved http2 into a directive of its own."""
    site = files(project.environment("safe"), version=(1, 26, 0)).site
    assert "listen 443 ssl;\n    http2 on;" in site


@pytest.mark.parametrize("name", ["prod", "classic", "safe"])
def test_nginx_accepts_the_files(project: Project, tmp_path: Path, name: str) -> None:
    """Nginx itself finds nothing to complain about, alone and with the other environments beside."""
    if shutil.which("nginx") is None:
        pytest.skip("NOT RUN: nginx is not installed: apt-get install nginx")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", "k.pem", "-out", "c.pem"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    made = files(project.environment(name))
    site = made.site.replace("/etc/ssl/", f"{tmp_path}/").replace("/var/log/nginx", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off;\n{made.upstream}\n{site}\n}}"
    )
    said = subprocess.run(
        ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (
        said.returncode,
        said.stderr.replace('nginx: [warn] the "user" directive makes sense only', ""),
    )


class Claims(http.server.BaseHTTPRequestHandler):
    """An application that says of itself that it is another one."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("X-Axon-Upstream", "10.0.0.99:30001")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def through_nginx(folder: Path, upstream: str, site: str) -> Iterator[int]:
    """An nginx with these files; its port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = site.replace("listen 80;", f"listen 127.0.0.1:{port};").replace("/var/log/nginx", str(folder))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}} http {{ access_log off;\n{upstream}\n{site}\n}}"
    )
    server = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait()


def test_an_application_cannot_claim_to_be_another_release(project: Project, tmp_path: Path) -> None:
    """What proves a switch is nginx's own word for who answered, even if the answer has that very header."""
    if shutil.which("nginx") is None:
        pytest.skip("NOT RUN: nginx is not installed: apt-get install nginx")
    with http.server.HTTPServer(("127.0.0.1", 0), Claims) as application:
        threading.Thread(target=application.serve_forever, daemon=True).start()
        port = application.server_port
        backends = (nginx.Backend("127.0.0.1", (port, port)),)
        made = nginx.render(nginx.Wanted(project.environment("prod"), backends, (1, 22, 1), "a"))
        with through_nginx(tmp_path, made.upstream, made.site) as edge:
            client = http.client.HTTPConnection("127.0.0.1", edge, timeout=30)
            client.request("GET", nginx.PROBE_PATH, headers={"Host": project.environment("prod").domain})
            said = client.getresponse().headers.get_all("X-Axon-Upstream")
            client.close()
        application.shutdown()
    assert [f"127.0.0.1:{port}"] == said


class Echo(http.server.BaseHTTPRequestHandler):
    """An application that answers everything with its path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815  (the names that http.server looks for)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def a_site(
    project: Project, folder: Path, health: str = "/up"
) -> Iterator[tuple[http.client.HTTPConnection, Path]]:
    """A connection through nginx to an application, and the state directory in which nginx looks for flags."""
    if shutil.which("nginx") is None:
        pytest.skip("NOT RUN: nginx is not installed: apt-get install nginx")
    # pytest's own directories are closed to nginx's workers.
    state = Path(tempfile.mkdtemp())
    state.chmod(0o755)
    prod = project.environment("prod")
    prod = prod._replace(health=prod.health._replace(path=health))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as application:
        threading.Thread(target=application.serve_forever, daemon=True).start()
        port = application.server_port
        backends = (nginx.Backend("127.0.0.1", (port, port)),)
        made = nginx.render(nginx.Wanted(prod, backends, (1, 22, 1), "a"))
        site = made.site.replace("/var/lib/axon/shop/prod", str(state))
        with through_nginx(folder, made.upstream, site) as edge:
            client = http.client.HTTPConnection("127.0.0.1", edge, timeout=30)
            yield client, state
            client.close()
            shutil.rmtree(state)
        application.shutdown()


def asked(
    client: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, str]:
    """Status and body of an answer over a connection that is kept."""
    client.request(method, path, body=body, headers={"Host": "shop.test"})
    answer = client.getresponse()
    return answer.status, answer.read().decode()


def test_maintenance_answers_everything_with_503(project: Project, tmp_path: Path) -> None:
    """While the flag is there: whatever is asked, on a kept connection, with the headers and the page, as plain text."""
    with a_site(project, tmp_path) as (client, state):
        assert (200, "/x?y=1") == asked(client, "GET", "/x?y=1")
        (state / "maintenance.html").write_text(nginx.page('<b>5 & "6" {{ 7 }} \u00fc</b>'))
        (state / "maintenance").touch()
        for method, path in (
            ("GET", "/"),
            ("GET", "/x?y=1"),
            ("POST", "/x"),
            ("PUT", "/a/b"),
            ("GET", "/.well-known/axon/maintenance"),
        ):
            body = b"x" * 70_000 if method != "GET" else None
            client.request(method, path, body=body, headers={"Host": "shop.test"})
            answer = client.getresponse()
            text = answer.read().decode()
            if path == nginx.MAINTENANCE_PATH:
                assert 404 == answer.status
                continue
            assert (503, "120", "no-store", "text/html; charset=utf-8") == (
                answer.status, answer.getheader("Retry-After"), answer.getheader("Cache-Control"), answer.getheader("Content-Type"),
            ), (method, path, text)  # fmt: skip
            assert "<p>&lt;b&gt;5 &amp; &#34;6&#34; {{ 7 }} \u00fc&lt;/b&gt;</p>" in text
        client.request("HEAD", "/", headers={"Host": "shop.test"})
        answer = client.getresponse()
        assert (503, "120", b"") == (answer.status, answer.getheader("Retry-After"), answer.read())
        (state / "maintenance").unlink()
        assert (200, "/x?y=1") == asked(client, "POST", "/x?y=1", b"body")


def test_maintenance_leaves_the_health_path_and_the_probe(project: Project, tmp_path: Path) -> None:
    """Whoever watches from outside and the proof of a switch are answered as always; whether it is on is told on loopback."""
    with a_site(project, tmp_path, health="/up?deep=1") as (client, state):
        assert 404 == asked(client, "GET", nginx.MAINTENANCE_PROBE)[0]
        (state / "maintenance").write_text("{}")
        assert [(200, "/up"), (200, "/up?deep=1"), (200, "/up?deep=1"), (200, "{}")] == [
            asked(client, "GET", path)
            for path in ("/up", "/up?deep=1", nginx.PROBE_PATH, nginx.MAINTENANCE_PROBE)
        ]
        # The page is not there: a plain 503 with the same headers.
        client.request("GET", "/upper", headers={"Host": "shop.test"})
        answer = client.getresponse()
        answer.read()
        assert (503, "120") == (answer.status, answer.getheader("Retry-After"))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/up", "/up"), ("/up?a=b", "/up"), ("/a%20b", "/a b"), ("/", ""), ("/?x", ""), ("/%22", ""), ("/%0a", ""), ("/%5c", ""),
     (nginx.PROBE_PATH, ""), (nginx.MAINTENANCE_PATH, "")],
)  # fmt: skip
def test_the_start_page_is_no_health_path(project: Project, path: str, expected: str) -> None:
    """A path of its own is answered during maintenance; the start page is not, nor what cannot stand in the file."""
    prod = project.environment("prod")
    assert expected == nginx.health_location(prod._replace(health=prod.health._replace(path=path)))


def test_a_site_tells_whether_it_knows_maintenance(project: Project) -> None:
    """One of an earlier version does not, nor one that says another time."""
    prod = project.environment("prod")
    site = files(prod).site
    later = prod._replace(maintenance=prod.maintenance._replace(retry_after=7.0))
    assert [True, False, False, False] == [
        nginx.has_maintenance(site, prod),
        nginx.has_maintenance(site, later),
        nginx.has_maintenance(site.replace("/maintenance)", "/other)"), prod),
        nginx.has_maintenance(site, project.environment("classic")),
    ]


@pytest.mark.parametrize("name", ["prod", "classic"])
def test_app_servers_are_read_from_what_stands_there(project: Project, name: str) -> None:
    """What was rendered gives the app servers that it was rendered from."""
    environment = project.environment(name)
    more = (*BACKENDS, nginx.Backend("fd00::21", (30010, 30011)))
    made = nginx.render(nginx.Wanted(environment, more, (1, 22, 1), "a"))
    assert more == nginx.present_backends(environment, made.upstream)


@pytest.mark.parametrize(
    "text", ["", "upstream shop_prod_a {}", "upstream shop_prod_a { server x:1; } upstream shop_prod_b { server x:2; }",
             "upstream shop_prod_a { server 10.0.0.1:1; }",
             "upstream shop_prod_a { server 10.0.0.1:1; } upstream shop_prod_b { server 10.0.0.2:1; }",
             "upstream shop_prod_a { server unix:/x; } upstream shop_prod_b { server unix:/y; }"],
)  # fmt: skip
def test_app_servers_that_make_no_sense_are_refused(project: Project, text: str) -> None:
    """What was changed by hand is never made into another file."""
    with pytest.raises(ValueError, match=r"."):
        nginx.present_backends(project.environment("prod"), text)


def test_a_file_is_ours_only_for_this_very_environment(project: Project) -> None:
    """The first line of a file says whose it is."""
    text = files(project.environment("prod")).site
    assert (True, False) == (
        nginx.is_ours(text, project.environment("prod")),
        nginx.is_ours(text, project.environment("classic")),
    )


def candidate(environment: Environment, bind: str = "10.0.0.21") -> docker.Candidate:
    """A release of the environment on app1."""
    return docker.Candidate(
        environment=environment, release="1764000000", slot="b", port="30001", address="10.0.0.21",
        reference="r/shop:v2", bind=bind, digest="sha256:ab",
    )  # fmt: skip


def test_a_container_is_published_where_nginx_reaches_it(project: Project) -> None:
    """The port is bound to the private address, the container has all labels, and no restart policy before it is healthy."""
    words = docker.recorded_arguments(candidate(project.environment("prod")))
    assert words[words.index("--publish") + 1] == "10.0.0.21:30001:3000"
    assert words[words.index("--restart") + 1] == "no"
    assert words[words.index("--name") + 1] == "shop-prod-1764000000"
    labels = {words[at + 1] for at, word in enumerate(words) if word == "--label"}
    assert {"axon.product=shop", "axon.environment=prod", "axon.release=1764000000", "axon.role=app"} < labels
    assert "r/shop@sha256:ab" == words[-1]


def test_secrets_are_not_in_the_arguments(project: Project) -> None:
    """Values of container.env go to stdin; argv tells only where they are read from."""
    prod = project.environment("prod")
    container = prod.container._replace(env={"TOKEN": Secret("s3cret")})
    prod = prod._replace(container=container)
    words = docker.recorded_arguments(candidate(prod))
    assert "/dev/stdin" == words[words.index("--env-file") + 1]
    assert "s3cret" not in " ".join(words)
    assert "TOKEN=s3cret\n" == docker.env_text(candidate(prod))


def test_optional_settings_become_flags(project: Project) -> None:
    """Whatever hosts.yml sets for the container reaches docker run."""
    prod = project.environment("prod")
    container = prod.container._replace(
        memory="512m", cpus=1.5, user="1000", network="shop", network_alias="web", init=True,
        volumes=("/srv/a:/a",), extra_hosts=("db:10.0.0.9",), command=("serve", "--all"),
    )  # fmt: skip
    words = docker.recorded_arguments(candidate(prod._replace(container=container, env_file="/srv/.env")))
    for flag, value in {
        "--memory": "512m", "--cpus": "1.5", "--user": "1000", "--network": "shop", "--network-alias": "web",
        "--volume": "/srv/a:/a", "--add-host": "db:10.0.0.9", "--env-file": "/dev/stdin",
    }.items():  # fmt: skip
        assert value == words[words.index(flag) + 1]
    assert ["r/shop@sha256:ab", "serve", "--all"] == words[-3:]
    assert "--init" in words


def test_without_a_private_address_the_probe_uses_loopback(project: Project) -> None:
    """A container that is published on all addresses is probed on this server's own."""
    prod = project.environment("prod")
    assert ("127.0.0.1", "10.0.0.21") == (
        candidate(prod, bind="0.0.0.0").probe_address,
        candidate(prod).probe_address,
    )


def wanted(environment: Environment, *, slot: str = "a") -> nginx.Wanted:
    """What decides about the environment's files."""
    return nginx.Wanted(environment, BACKENDS, (1, 22, 1), slot)


def test_a_file_tells_from_what_it_was_made(project: Project) -> None:
    """What was rendered is recognised without being rendered again, with other settings for other things, too."""
    prod = project.environment("prod")
    other = prod._replace(drain=prod.drain._replace(timeout=1.0), tag="v9")
    for text in files(prod):
        assert nginx.is_made_from(text, wanted(prod))
        assert nginx.is_made_from(text, wanted(other, slot="b"))


@pytest.mark.parametrize("kind", nginx.KINDS)
def test_a_file_that_was_changed_is_recognised(project: Project, kind: str) -> None:
    """One changed character anywhere, or no seal at all, and it is not what would be made."""
    prod = project.environment("prod")
    text = getattr(files(prod), kind)
    for at in range(0, len(text), 7):
        changed = text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]
        assert not nginx.is_made_from(changed, wanted(prod)), at
    assert not nginx.is_made_from(text + "\n", wanted(prod))
    assert not nginx.is_made_from("", wanted(prod))


def test_other_settings_make_other_files(project: Project) -> None:
    """Whatever decides about the files is part of what they are made from."""
    prod = project.environment("prod")
    text = files(prod).site
    for other in (
        wanted(prod._replace(domain="other.test")),
        wanted(prod._replace(aliases=("www.shop.test",))),
        wanted(prod._replace(health=prod.health._replace(path="/other"))),
        wanted(prod._replace(nginx=prod.nginx._replace(proxy_timeout=7.0))),
        wanted(prod)._replace(backends=BACKENDS[:1]),
        wanted(prod)._replace(version=(1, 26, 0)),
    ):
        assert not nginx.is_made_from(text, other), other


def test_templates_read_nothing_that_is_not_sealed() -> None:
    """Every setting that a template reads is one that the seal knows."""
    place = resources.files("axon_tasks.commands") / "templates"
    read = {
        name
        for kind in nginx.KINDS
        for name in re.findall(r"\benv\.([a-z_.]+)", (place / f"{kind}.conf.j2").read_text())
    }
    assert "domain" in read
    assert set() == {name for name in read if name.split(".")[0] not in nginx.SETTINGS} - {"health.path"}
