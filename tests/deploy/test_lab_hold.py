"""An environment that is held: every run is refused and told why, until it is released."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from reading import until_it_says
from schemas import conforming
from test_lab_lock import paste

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

WHY = "Black Friday, until 'Monday' \u00fc"


def done(product: Product, *words: str, code: int = 0) -> Any:
    said = product.fab(words[0], "--env=prod", *words[1:])
    assert code == said.returncode, (words, said.stdout + said.stderr)
    return said


@pytest.fixture
def held(shop: Product) -> Iterator[Product]:
    """The shared product, held."""
    done(shop, "lock.acquire", f"--message={WHY}")
    yield shop
    done(shop, "lock.release")


def test_every_run_is_refused_and_told_why(held: Product) -> None:
    """Whatever takes the lock ends with 3: by whom, since when, why, and a command that, pasted, releases it; nothing changes."""
    before = held.get(), held.containers("app1")
    runs = (
        ("deploy", "--tag=v2"), ("rollback",), ("restart",), ("restart", "--in-place"), ("steps.retire",), ("sync",),
        ("maintenance", "--on"), ("delete", "--yes"), ("deploy", "--tag=v2", "--wait-lock=1s"),
    )  # fmt: skip
    for words in runs:
        said = done(held, *words, code=3)
        assert re.search(rf"prod is held by \S+@\S+ since 20\S+ \([^)]*\): {WHY}, on edge1", said.stderr), (
            said.stderr
        )
    assert before == (held.get(), held.containers("app1"))
    command = re.search(r"fab lock\.release .*", said.stderr)
    assert command is not None
    released = paste(command.group())
    assert (0, True) == (released.returncode, WHY in released.stdout), released.stderr
    done(held, "lock.acquire", f"--message={WHY}")


def test_what_only_looks_tells_it(held: Product) -> None:
    """lock.status and status say so, as text and as JSON, and what looks goes on; a clean-up skips the environment."""
    shown = conforming("lock", done(held, "lock.status", "--json").stdout)
    assert ("free", WHY) == (shown["state"], shown["hold"]["message"])
    text = done(held, "lock.status").stdout
    assert (True, True) == (WHY in text, "fab lock.release --env=prod" in text)
    status = done(held, "status").stdout
    assert f"): {WHY}" in status
    [seen] = conforming("status", done(held, "status", "--json").stdout)["environments"]
    assert WHY == seen["lock"]["hold"]["message"]
    for flags in ((), ("--dry-run",)):
        cleaned = held.fab("cleanup", *flags)
        assert (0, True) == (cleaned.returncode, "prod: skipped, it is held by " in cleaned.stdout), (
            cleaned.stderr
        )
    for words in (("health",), ("history",), ("steps.inspect",)):
        done(held, *words)


def test_one_holds_it(held: Product) -> None:
    """A second one is refused with 3 and told who was first."""
    said = done(held, "lock.acquire", "--message=mine", code=3)
    assert f"): {WHY}, on edge1" in said.stderr
    assert WHY in done(held, "lock.status").stdout


def test_who_waits_goes_on_when_it_is_released(held: Product) -> None:
    """A deploy with --wait-lock says whom it waits for, and serves after the release."""
    waiting = held.begin("deploy", "--env=prod", "--tag=v1", "--wait-lock=10m")
    until_it_says(waiting, "the environment is held by ")
    done(held, "lock.release")
    said = waiting.communicate(timeout=90)
    assert 0 == waiting.returncode, said
    done(held, "lock.acquire", f"--message={WHY}")
    held.settle()


def test_it_is_released_by_whoever_may_deploy(shop: Product) -> None:
    """Releasing says whose it was; releasing what nobody holds says that, and is 0; both stand in the audit log."""
    assert "prod: nobody holds it; nothing was done\n" == done(shop, "lock.release").stdout
    done(shop, "lock.acquire", "--message=a freeze")
    assert re.match(
        r"prod: released; it was held by \S+ since .*: a freeze\n", done(shop, "lock.release").stdout
    )
    log = done(shop, "history", "--audit").stdout
    assert (True, True) == ("lock.acquire a freeze" in log, "lock.release" in log)


def test_nobody_holds_what_is_being_deployed(shop: Product) -> None:
    """While a deploy runs, acquire ends with 3 and says whose deploy it is, which goes on undisturbed."""
    shop.settings["defaults"]["health"] = {"path": "/api/health", "timeout": "60s"}
    running = shop.begin("deploy", "--env=prod", "--tag=sick")
    try:
        until_it_says(running, "not healthy after")
        said = done(shop, "lock.acquire", "--message=now", code=3)
        assert "--tag=sick" in said.stderr
        assert None is conforming("lock", done(shop, "lock.status", "--json").stdout)["hold"]
        assert None is running.poll()
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)


def test_wrong_ways_to_hold(product: Product) -> None:
    """Without a message it is 2 and nothing is contacted; a dry run prints the script; spoilt state is a hold like any other."""
    path = f"/var/lib/axon/{product.name}/prod"
    product.lab.exec("edge1", f"mkdir -p {path}; printf '\\033[2J\\n{{\\n' >{path}/held")
    said = done(product, "deploy", "--tag=v1", code=3)
    assert (True, False) == ("is held by somebody who left no name" in said.stderr, "\x1b" in said.stderr)
    assert "released" in done(product, "lock.release").stdout
    for host in product.settings["hosts"].values():
        host["port"] = 1
    assert "--message is empty" in done(product, "lock.acquire", code=2).stderr
    assert "lock_acquire" in done(product, "lock.acquire", "--message=x", "--dry-run").stdout
    assert "lock_release" in done(product, "lock.release", "--dry-run").stdout
