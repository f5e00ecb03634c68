"""Acting on real environments: commands in containers and on servers, and restarts."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from reading import in_a_terminal, wait_for
from schemas import conforming

if TYPE_CHECKING:
    from products import Product

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("uncovered")]

BUSYBOX = "/app/busybox"


def execute(product: Product, *words: str, flags: tuple[str, ...] = ()) -> Any:
    """Run `fab exec`; its flags stand before the `--`."""
    return product.fab("exec", "--env=prod", *flags, "--", *words)


def results(product: Product, *words: str, flags: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    said = execute(product, *words, flags=("--json", *flags))
    return conforming("exec", said.stdout)["results"]  # type: ignore[no-any-return]


def test_a_command_in_the_containers_that_serve(shop: Product) -> None:
    """It runs in what gets traffic, on all app servers, to the letter; also while an older release still drains."""
    shop.serve("v1")
    with shop.holding():
        shop.serve("v2")
        found = results(shop, BUSYBOX, "sh", "-c", 'echo "$VERSION $1"', "x", "a  '$HOME' \"b\"")
        assert [("app1", 0, "v2 a  '$HOME' \"b\"\n"), ("app2", 0, "v2 a  '$HOME' \"b\"\n")] == [
            (one["server"], one["exit_code"], one["stdout"]) for one in found
        ]
        [seen] = json.loads(shop.fab("status", "--env=prod", "--json").stdout)["environments"]
        server, release = next(
            (app["server"], one["release"])
            for app in seen["app"]
            for one in app["containers"]
            if not one["traffic"]
        )
        [told] = results(shop, BUSYBOX, "env", flags=(f"--only={server}", f"--release={release}"))
        assert (release, True) == (told["release"], "VERSION=v1\n" in told["stdout"])
    said = execute(shop, BUSYBOX, "echo", "hello")
    assert (0, ["app1 | hello", "app2 | hello"]) == (said.returncode, sorted(said.stdout.splitlines()))
    assert "hello\n" == execute(shop, BUSYBOX, "echo", "hello", flags=("--only=app2",)).stdout


def test_how_a_command_ended(shop: Product) -> None:
    """Where it did not end with 0 is told, with exit code 1; output goes to its own stream."""
    said = execute(shop, BUSYBOX, "sh", "-c", "echo no >&2; exit 3")
    assert (1, "") == (said.returncode, said.stdout)
    assert "app1 | no\n" in said.stderr
    assert "prod: the command did not end with 0: app1 3, app2 3" in said.stderr
    shop.settings["hosts"]["app2"].update(
        address="10.77.0.99", private_address="10.77.0.99", connect_timeout="2s"
    )
    said = execute(shop, BUSYBOX, "true")
    assert (4, True) == (said.returncode, "app2 (10.77.0.99" in said.stderr), said.stderr


def test_a_command_on_the_servers(shop: Product) -> None:
    """--host runs it on every server, without a container; one word is a line for the shell; --sudo is root."""
    found = results(shop, 'echo "$(hostname) $1" | tr a-z A-Z', flags=("--host",))
    assert [("edge1", "EDGE1 \n"), ("app1", "APP1 \n"), ("app2", "APP2 \n")] == [
        (one["server"], one["stdout"]) for one in found
    ]
    said = execute(shop, "id", "-un", flags=("--host", "--only=edge1", "--sudo"))
    assert (0, "root\n") == (said.returncode, said.stdout), said.stderr
    shown = execute(shop, "touch", "/tmp/never", flags=("--host", "--dry-run"))
    assert (0, 3) == (shown.returncode, shown.stdout.count("would be sent; nothing was contacted"))
    late = results(shop, "sleep", "60", flags=("--host", "--only=edge1", "--timeout=1s"))
    assert (None, True) == (late[0]["exit_code"], "took longer than 1 s" in late[0]["error"])


def test_wrong_ways_to_execute(product: Product) -> None:
    """A container that is not there is 1, and says what to look at; wrong flags are 2."""
    said = execute(product, BUSYBOX, "true")
    assert (1, True) == (said.returncode, "no container that gets traffic runs" in said.stderr), said.stderr
    assert "fab status --env=prod" in said.stderr
    for flags, words in {
        ("--sudo",): "--sudo goes with --host",
        ("--only=app9",): "There are: edge1, app1, app2",
        ("--only=edge1",): "the application does not run there",
        ("--interactive",): "A terminal is needed",
        ("--interactive", "--json"): "do not go together",
        ("--interactive", "--host", "--sudo"): "call sudo in the shell there",
        ("--release=v1",): "the id of a release is needed",
        ("--timeout=soon",): "a duration is needed",
        ("-i",): "For a terminal: --interactive",
    }.items():
        said = execute(product, "true", flags=flags)
        assert (2, True) == (said.returncode, words in said.stderr), (flags, said.stderr)


def test_a_terminal_in_a_container(shop: Product) -> None:
    """Keys arrive as they are pressed, the size is known there, Ctrl-C is the program's, and its exit code is fab's."""
    running, said = in_a_terminal(
        shop, "exec", "--env=prod", "--only=app2", "--interactive", after=("--", BUSYBOX, "sh")
    )
    try:
        wait_for(lambda: "#" in said.text or "$" in said.text, said)
        said.type("/app/busybox stty size; echo v-$((40 + 2))\n")
        wait_for(lambda: "v-42" in said.text and "30 200" in said.text, said)
        said.type("/app/busybox sleep 99\n")
        time.sleep(0.5)
        said.type("\x03")
        said.type("echo still-$((1 + 1)); exit 7\n")
        assert 7 == running.wait(20), said
        assert "still-2" in said.text
        assert "app2: it ended with exit code 7" in said.text
    finally:
        running.kill()


def test_ctrl_c_ends_a_command_on_the_servers(shop: Product) -> None:
    """What runs on servers ends with the command, and nothing stays there."""
    running, said = in_a_terminal(
        shop, "exec", "--env=prod", "--host", after=("--", "echo begun; sleep 4321")
    )
    wait_for(lambda: said.text.count("begun") == 3, said)
    running.send_signal(signal.SIGINT)
    assert 130 == running.wait(15)
    until_gone(shop, "sleep 4321", "edge1", "app1", "app2")


@pytest.mark.parametrize("only", ["edge1", "edge1,app1,app2"])
def test_a_reader_who_has_had_enough_ends_it(shop: Product, only: str) -> None:
    """Like `| head`: whatever runs on, at all places it ends when nobody reads what is said any more."""
    flags = ("exec", "--env=prod", "--host", f"--only={only}", f"--hosts-file={shop.write()}")
    with subprocess.Popen(
        shop.command(*flags, "--", "yes", f"of-{shop.name}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert f"of-{shop.name}" in running.stdout.readline().decode()
        running.stdout.close()
        assert 0 == running.wait(60)
        assert b"" == (running.stderr.read() if running.stderr else b"")
    until_gone(shop, f"yes of-{shop.name}", *only.split(","))


def until_gone(product: Product, words: str, *servers: str) -> None:
    """Wait until no program of that command line runs on any of these servers."""
    # In brackets, the first letter does not find the shell that looks for it.
    look = f"pgrep -f '[{words[0]}]{words[1:]}'"
    wait_for(lambda: not any(product.lab.exec(one, look, check=False).stdout for one in servers), words)


def restarted(product: Product, *flags: str) -> Any:
    done = product.fab("restart", "--env=prod", *flags)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done


def test_a_restart_drops_no_request(shop: Product) -> None:
    """New containers of the same digest replace the old ones under load; a rollback then goes past the repetition."""
    shop.serve("v1")
    shop.settle()
    shop.serve("v2")
    shop.settle()
    before = shop.containers("app1")
    with shop.under_load() as seen:
        restarted(shop, "--wait")
    assert (0, True) == (seen["failed"], seen["ok"] > 100), seen
    assert (1, True) == (len(shop.containers("app1")), shop.containers("app1") != before)
    newest, repeated, before_it, *_ = json.loads(shop.fab("history", "--env=prod", "--json").stdout)[
        "releases"
    ]
    assert ("restart", repeated["id"], repeated["digest"]) == (
        newest["action"],
        newest["of"],
        newest["digest"],
    )
    assert (True, True) == (newest["current"], before_it["previous"])


def test_a_restart_brings_changed_variables_into_force(product: Product, prod: dict[str, Any]) -> None:
    """The env file is read anew, and a rollback goes back to the release that ran with the old one."""
    product.on("app1")
    file = f"/srv/{product.name}.env"
    prod["env_file"] = file
    product.lab.exec("app1", f"echo GREETING=first >{file}")
    product.serve("v1")
    product.lab.exec("app1", f"echo GREETING=second >{file}")
    restarted(product, "--wait")
    [told] = results(product, BUSYBOX, "env")
    assert "GREETING=second\n" in told["stdout"]
    newest, oldest = json.loads(product.fab("history", "--env=prod", "--json").stdout)["releases"]
    assert ("restart", "", True) == (newest["action"], newest["of"], oldest["previous"])
    assert 0 == product.fab("rollback", "--env=prod").returncode
    [told] = results(product, BUSYBOX, "env")
    assert "GREETING=first\n" in told["stdout"]
    product.lab.exec("app1", ["rm", file])


def test_a_restart_in_place(shop: Product) -> None:
    """The same containers are started again, one server after the other, and it stands in the audit log."""
    before = [shop.containers(server) for server in ("app1", "app2")]
    began = started(shop)
    restarted(shop, "--in-place", "--only=app2")
    now = started(shop)
    assert before == [shop.containers(server) for server in ("app1", "app2")]
    assert (True, True) == (began["app1"] == now["app1"], began["app2"] != now["app2"])
    assert 200 == shop.get()[0]
    assert "restart-in-place on app2" in shop.fab("history", "--env=prod", "--audit").stdout
    restarted(shop, "--in-place")
    assert started(shop)["app1"] != began["app1"]


def started(product: Product) -> dict[str, str]:
    """When the one container of each app server was started."""
    return {
        server: product.lab.exec(
            server, ["docker", "inspect", "--format", "{{.State.StartedAt}}", *product.containers(server)]
        ).stdout
        for server in ("app1", "app2")
    }


def test_there_is_nothing_to_restart(product: Product) -> None:
    """Before the first deploy it fails with 1 and says so, both ways; --only alone is refused with 2."""
    for flags, code, words in (
        ((), 1, "nothing of this tool serves"),
        (("--in-place",), 1, "there is no release that serves on all"),
        (("--only=app1",), 2, "--only goes with --in-place"),
    ):
        done = product.fab("restart", "--env=prod", *flags)
        assert (code, True) == (done.returncode, words in done.stderr), done.stderr


def test_a_restart_that_does_not_become_healthy(shop: Product) -> None:
    """Settings that make it sick change nothing: the old containers keep serving."""
    before = shop.get(), shop.containers("app1"), shop.containers("app2")
    shop.settings["defaults"]["health"] |= {"expect_body": "never", "timeout": "2s"}
    done = shop.fab("restart", "--env=prod")
    assert (1, before) == (
        done.returncode, (shop.get(), shop.containers("app1"), shop.containers("app2")),
    ), done.stderr  # fmt: skip
