"""The application's variables on real servers: listed without values, set, pushed, edited, and brought into force."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reading import PROJECT, in_a_terminal, wait_for
from schemas import conforming

if TYPE_CHECKING:
    from collections.abc import Iterator

    from products import Product

pytestmark = pytest.mark.lab

SECRET = "s3cret '$(id)' # \"x\""


@pytest.fixture
def file(product: Product, prod: dict[str, Any]) -> Iterator[str]:
    """The env file of prod, which is not there yet."""
    path = prod["env_file"] = f"/srv/{product.name}.env"
    yield path
    for server in ("app1", "app2"):
        product.lab.exec(server, ["rm", "-f", path])


def piped(product: Product, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that reads standard input."""
    return subprocess.run(
        product.command(*words, f"--hosts-file={product.write()}"),
        cwd=PROJECT, input=text, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip


def there(product: Product, file: str, server: str = "app1") -> tuple[str, str]:
    """What stands in the file, and its mode and owner."""
    said = product.lab.exec(server, f"cat {file}; stat -c '%a %U' {file}").stdout.splitlines(keepends=True)
    return "".join(said[:-1]), said[-1].strip()


def test_variables_are_set(product: Product, file: str) -> None:
    """A value comes from standard input, is never shown, and comes into force without a gap; other lines stay."""
    said = piped(product, f"{SECRET}\n", "env.set", "--env=prod", "--key=TOKEN")
    assert (0, False) == (said.returncode, "s3cret" in said.stdout + said.stderr), said.stderr
    assert "fab restart --env=prod" in said.stdout
    assert [(f"TOKEN={SECRET}\n", "600 root")] * 2 == [
        there(product, file, server) for server in ("app1", "app2")
    ]
    product.serve("v1")
    product.lab.exec("app1", f"echo '# mine' >>{file}; chown deploy {file}")
    product.lab.exec("app2", f"echo '# mine' >>{file}")
    said = piped(product, "blue", "env.set", "--env=prod", "--key=COLOUR", "--restart")
    assert (0, (200, "v1")) == (said.returncode, product.get()), said.stdout + said.stderr
    assert "  + COLOUR\n" in said.stdout
    assert (f"TOKEN={SECRET}\n# mine\nCOLOUR=blue\n", "600 deploy") == there(product, file)
    inside = product.fab("exec", "--env=prod", "--only=app2", "--", "/app/busybox", "env").stdout
    assert f"TOKEN={SECRET}\n" in inside
    assert "COLOUR=blue\n" in inside
    said = product.fab("env.set", "--env=prod", "--key=COLOUR", "--unset", "--yes")
    assert (0, True) == (said.returncode, "  - COLOUR\n" in said.stdout), said.stderr
    again = product.fab("env.set", "--env=prod", "--key=COLOUR", "--unset", "--yes")
    assert (0, "Nothing has changed.\n") == (again.returncode, again.stdout)
    # It was removed and not brought into force: that is made up for.
    late = product.fab("env.set", "--env=prod", "--key=COLOUR", "--unset", "--yes", "--restart")
    assert (0, True) == (late.returncode, "Nothing has changed." in late.stdout), late.stderr
    assert (
        "COLOUR" not in product.fab("exec", "--env=prod", "--only=app2", "--", "/app/busybox", "env").stdout
    )


def test_variables_are_listed(product: Product, file: str) -> None:
    """By name, with where they come from and whether the servers agree; no value is in it."""
    product.settings["defaults"]["container"]["env"] = {"SIZE": SECRET}
    product.lab.exec("app1", f"printf 'TOKEN=one-7\\nSIZE=9\\n' >{file}")
    product.lab.exec("app2", f"printf 'TOKEN=two-7\\nSIZE=9\\n' >{file}")
    said = product.fab("env.show", "--env=prod", "--json")
    found = conforming("env", said.stdout)
    both = ["app1", "app2"]
    assert [
        {"name": "SIZE", "hosts_yml": True, "servers": both, "same": True},
        {"name": "TOKEN", "hosts_yml": False, "servers": both, "same": False},
    ] == found["variables"]
    table = product.fab("env.show", "--env=prod").stdout
    assert "NOT the same" in table
    assert not [
        one
        for one in ("one-7", "two-7", "s3cret", "9")
        if one in table + said.stdout.replace(product.name, "")
    ]


def test_a_file_is_pushed(product: Product, file: str, tmp_path: Path) -> None:
    """What comes, changes and goes is shown first; it is asked, and written everywhere; a dry run writes nothing."""
    product.lab.exec("app1", f"printf 'A=1\\nB=2\\n' >{file}")
    local = tmp_path / "new.env"
    local.write_text("A=3\nC=4\n")
    words = ("env.push", "--env=prod", f"--file={local}")
    said = product.fab(*words, "--dry-run", "--restart")
    assert (0, "A=1\nB=2\n") == (said.returncode, there(product, file)[0]), said.stderr
    assert (
        f"{file} on app1:\n  + C\n  ~ A\n  - B\n{file} on app2:\n  + A\n  + C\nNothing was written."
        in said.stdout
    )
    said = product.fab(*words)
    assert (2, True) == (said.returncode, "Add --yes" in said.stderr), said.stderr
    said = product.fab(*words, "--yes")
    assert (0, [("A=3\nC=4\n", "600 root")] * 2) == (
        said.returncode, [there(product, file, server) for server in ("app1", "app2")],
    )  # fmt: skip


def test_what_is_refused(product: Product, file: str, prod: dict[str, Any], tmp_path: Path) -> None:
    """Wrong flags and files are 2 with a reason and without a value, and nothing is contacted."""
    local = tmp_path / "bad.env"
    local.write_text("A=1\nnot good-7\n")
    product.settings["hosts"]["app1"]["address"] = "10.77.0.99"
    for words, expected in (
        (("env.set", "--env=prod"), "--key is missing"),
        (("env.set", "--env=prod", "--key=A B"), "letters, digits and underscores"),
        (
            ("env.set", "--env=prod", "--key=A", "--unset", "--only=edge1"),
            "the application does not run there",
        ),
        (("env.set", "--env=prod", "--key=A"), "Nothing came for A on standard input"),
        (("env.push", "--env=prod", "--file=-"), "Add --yes"),
        (("env.push", "--env=prod", "--file=-", "--yes"), "there is no variable in it"),
        (("env.push", "--env=prod"), "--file is missing"),
        (("env.push", "--env=prod", "--file=/none"), "No such file"),
        (("env.push", "--env=prod", f"--file={local}"), "line 2: NAME=VALUE is needed"),
        (("env.edit", "--env=prod"), "An editor needs a terminal"),
    ):
        said = product.fab(*words)
        assert (2, True) == (said.returncode, expected in said.stderr), (words, said.stderr)
        assert "good-7" not in said.stderr
    del prod["env_file"]
    said = product.fab("env.push", "--env=prod", "--file=x")
    assert (2, True) == (said.returncode, "prod has no env file" in said.stderr), said.stderr


def test_an_editor(product: Product, file: str, tmp_path: Path) -> None:
    """It works on a private copy that is gone afterwards; a mistake can be mended; the restart is offered."""
    for server in ("app1", "app2"):
        product.lab.exec(server, f"printf 'A=1\\n' >{file}")
    product.serve("v1")
    editor = tmp_path / "editor"
    editor.write_text(
        "#!/bin/sh\n"
        f'echo "$1" >>{tmp_path}/opened; stat -c %a "$1" "${{1%/*}}" >>{tmp_path}/opened\n'
        f'if [ -e {tmp_path}/once ]; then printf \'A=1\\nGREETING=edited-7\\n\' >"$1"; else echo oops >"$1"; fi\n'
        f"touch {tmp_path}/once\n"
    )
    editor.chmod(0o755)
    running, said = in_a_terminal(product, "env.edit", "--env=prod", variables={"EDITOR": str(editor)})
    for question in ("Edit it again?", "Write it?", "Restart now"):
        wait_for(lambda: question in said.text, said)  # noqa: B023
        said.type("y\n")
    assert (0, False) == (running.wait(90), "edited-7" in said.text), said
    assert "line 1: NAME=VALUE is needed" in said.text
    assert "+ GREETING" in said.text
    opened = (tmp_path / "opened").read_text().split()
    assert ["600", "700"] * 2 == [one for one in opened if not one.startswith("/")]
    assert [] == [one for one in opened if one.startswith("/") and Path(one).exists()]
    inside = product.fab("exec", "--env=prod", "--only=app1", "--", "/app/busybox", "env").stdout
    assert "GREETING=edited-7\n" in inside


def test_files_that_differ_are_not_edited_as_one(product: Product, file: str) -> None:
    """env.edit says that they differ and how to see it, and opens no editor."""
    product.lab.exec("app1", f"echo A=1 >{file}")
    running, said = in_a_terminal(product, "env.edit", "--env=prod", variables={"EDITOR": "touch"})
    assert 1 == running.wait(30), said
    assert "are not the same" in said.text


def test_somebody_else_was_faster(product: Product, file: str) -> None:
    """A file that was changed between reading and writing is not overwritten, and it is said where it was written."""
    from axon_tasks.config import load
    from axon_tasks.deploy import variables
    from axon_tasks.errors import AxonError
    from axon_tasks.remote import Fleet

    for server in ("app1", "app2"):
        product.lab.exec(server, f"echo A=1 >{file}")
    project = load(product.write())
    with Fleet(project) as fleet:
        found = variables.read(fleet, project.environment("prod"))
        product.lab.exec("app2", f"echo A=2 >{file}")
        wanted = {server: one.changed("A", "3", "-") for server, one in found.files.items() if one}
        with pytest.raises(AxonError, match=r"(?s)app2.*changed by somebody else") as raised:
            variables.write(fleet, found, wanted)
    assert "It was written on app1." in str(raised.value)
    assert ["A=3\n", "A=2\n"] == [there(product, file, server)[0] for server in ("app1", "app2")]
