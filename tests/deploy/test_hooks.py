"""Hooks and the webhook: what they are told, and what becomes of their failures."""

from __future__ import annotations

import http.server
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from axon_tasks.config import Secret, load
from axon_tasks.config.project import Hooks, Notify
from axon_tasks.deploy import hooks
from axon_tasks.deploy.preview import Silent, preview
from axon_tasks.deploy.run import Options
from axon_tasks.errors import StepFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from axon_tasks.deploy.run import Deployment

TEXT = """
product: shop
image: registry.test:5000/shop
hosts: {edge1: {address: 10.0.0.1}, app1: {address: 10.0.0.21}}
environments: {prod: {system: [edge1], app: [app1], domain: shop.test}}
"""
NO_HOOKS = Hooks(None, None, None, None, 30.0)


class Heard(Silent):
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def message(self, server: str, text: str) -> None:
        """Keep it."""
        self.told.append((server, text))


@pytest.fixture
def run(tmp_path: Path) -> Deployment:
    """A run of prod that knows its release."""
    (tmp_path / "hosts.yml").write_text(TEXT)
    project = load(tmp_path / "hosts.yml")
    made = preview(project, project.environment("prod"), Options(tag="v1"))
    made.listener = Heard()
    made.release = made.wanted()._replace(id="17", reference="registry.test:5000/shop:v1", digest="")
    return made


def hook(run: Deployment, event: str, *words: str, timeout: float = 30.0) -> list[tuple[str, str]]:
    """Have a shell line for a hook; gives what the listener will be told."""
    settings = NO_HOOKS._replace(**{event: words}, timeout=timeout)
    run.environment = run.environment._replace(hooks=settings)
    assert isinstance(run.listener, Heard)
    return run.listener.told


def test_a_hook_is_told_what_happens(run: Deployment, tmp_path: Path) -> None:
    """As variables and as JSON on standard input, in the folder of hosts.yml; what it says is shown."""
    told = hook(run, "after_deploy", "sh", "-c", "cat >told.json; env | grep ^AXON_ >variables; echo done")
    hooks.after(run, None)
    assert ([("after_deploy", "done")], []) == (told, run.warnings)
    facts = json.loads((tmp_path / "told.json").read_text())
    assert ("after_deploy", "shop", "prod", "17", None, None) == tuple(
        facts[name] for name in ("event", "product", "environment", "release", "digest", "error")
    )
    variables = (tmp_path / "variables").read_text().splitlines()
    assert {"AXON_EVENT=after_deploy", "AXON_IMAGE=registry.test:5000/shop:v1", "AXON_DIGEST="} <= set(
        variables
    )
    assert {f"AXON_{name.upper()}" for name in facts} <= {
        line.partition("=")[0] for line in variables if line.startswith("AXON_")
    }


def test_the_first_one_can_stop_a_deploy(run: Deployment) -> None:
    """If it fails, nothing is done, and its exit code is told; if there is none, or it succeeds, the deploy goes on."""
    assert hooks.before(run) is None
    hook(run, "before_deploy", "true")
    assert hooks.before(run) is None
    told = hook(run, "before_deploy", "sh", "-c", "echo tests are red; exit 3")
    error = hooks.before(run)
    assert isinstance(error, StepFailedError)
    assert "prod: the hook before_deploy failed: sh ended with exit code 3; nothing was changed" in str(error)
    assert ("before_deploy", "tests are red") in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("false",), "false ended with exit code 1"),
        (("/none",), "/none cannot be started: No such file or directory"),
        (("sh", "-c", "exec sleep 60"), "sh had not ended after 0.3 s, and was stopped"),
        (("sh", "-c", "kill -9 $$"), "sh ended with exit code -9"),
    ],
)
def test_what_fails_afterwards_is_a_warning(run: Deployment, words: tuple[str, ...], expected: str) -> None:
    """The deploy has succeeded all the same."""
    hook(run, "after_deploy", *words, timeout=0.3 if "sleep" in words[-1] else 30.0)
    hooks.after(run, None)
    assert [f"the deployment succeeded, but after_deploy failed: {expected}"] == run.warnings


def test_a_failure_hook_hides_nothing(run: Deployment, tmp_path: Path) -> None:
    """It is told the error; its own failure is shown beside, and is no warning of a deploy that succeeded."""
    told = hook(run, "on_failure", "sh", "-c", 'echo "$AXON_ERROR $AXON_EXIT_CODE" >error; exit 9')
    hooks.after(run, StepFailedError("app1: no", hint="Look."))
    assert "app1: no\n  Look. 1\n" == (tmp_path / "error").read_text()
    assert ([("on_failure", "failed: sh ended with exit code 9")], []) == (told, run.warnings)


def test_a_hook_that_reads_nothing(run: Deployment) -> None:
    """What it is told may stay unread, however quickly it ends."""
    hook(run, "after_deploy", "sh", "-c", "exec <&-; exit 0")
    hooks.after(run, None)
    assert [] == run.warnings


def test_what_a_hook_leaves_running_is_not_waited_for(run: Deployment) -> None:
    """A child that keeps the output open does not keep the deploy."""
    told = hook(run, "after_deploy", "sh", "-c", "sleep 20 & echo begun", timeout=10.0)
    hooks.after(run, None)
    assert ([("after_deploy", "begun")], []) == (told, run.warnings)


def test_the_step_after_the_switch(run: Deployment) -> None:
    """It is in the plan where there is such a hook, and its failure is a warning."""
    assert () == hooks.switch_steps(run, ("switch",))
    hook(run, "after_switch", "false")
    [step] = hooks.switch_steps(run, ("switch",))
    assert (("switch",), "finish", ()) == (step.needs, step.otherwise, step.servers)
    step.prepare()
    assert ["the deployment succeeded, but after_switch failed: false ended with exit code 1"] == run.warnings


class Chat(http.server.BaseHTTPRequestHandler):
    """Takes messages, as a webhook of Slack does."""

    messages: list[Any]
    status = 200

    def do_POST(self) -> None:
        """Keep one."""
        self.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def chat() -> Iterator[tuple[type[Chat], str]]:
    """A webhook on this machine, and its URL."""
    handler = type("Handler", (Chat,), {"messages": []})
    server = http.server.HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}/services/T0/secret"
    server.shutdown()
    server.server_close()


def test_a_webhook_is_told_how_it_ended(run: Deployment, chat: tuple[type[Chat], str]) -> None:
    """After the endings that were asked for, in one line that says what, where, who, and why not."""
    handler, url = chat
    run.environment = run.environment._replace(notify=Notify(Secret(url), ("success", "failure")))
    hooks.after(run, None)
    hooks.after(run, StepFailedError("app1: no"))
    run.environment = run.environment._replace(notify=Notify(Secret(url), ("failure",)))
    hooks.after(run, None)
    good, bad = (one["text"] for one in handler.messages)
    assert good.startswith("shop prod: shop:v1 serves shop.test (deploy by ")
    assert bad.startswith("shop prod: deploy of shop:v1 FAILED (by ")
    assert bad.endswith("exit code 1): app1: no")
    assert [] == run.warnings


def test_a_webhook_that_fails(run: Deployment, chat: tuple[type[Chat], str]) -> None:
    """It is a warning that does not show the URL, which is a secret; so is one that is not there."""
    handler, url = chat
    handler.status = 403
    for address, expected in (
        (url, "it answered 403"),
        ("http://127.0.0.1:1/secret", "it cannot be reached"),
    ):
        run.environment = run.environment._replace(notify=Notify(Secret(address), ("success",)))
        run.warnings.clear()
        hooks.after(run, None)
        [told] = run.warnings
        assert (True, False) == (expected in told, "secret" in told), told
