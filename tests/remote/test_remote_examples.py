"""The examples of docs/batches.md, as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((PROJECT / "examples").glob("*.py"))
PAGE = (PROJECT / "docs" / "batches.md").read_text()
SHOWN = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
#: What the examples leave on a server.
LEFT = (Path("/var/tmp/axon-example"), Path("/var/tmp/axon-example-jobs"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_page_shows_the_file(example: Path) -> None:
    """The code on the page is the text of the file, which is short."""
    text = example.read_text()
    assert f"```python\n{text}```" in PAGE
    assert text.count("\n") <= 40


def test_every_example_is_run() -> None:
    """There is one shown run per example."""
    named = {
        match
        for block in SHOWN
        for match in re.findall(r"^\$ fab -r examples -c (\w+) ", block, re.MULTILINE)
    }
    assert {example.stem for example in EXAMPLES} == named


@pytest.mark.parametrize("shown", SHOWN, ids=lambda block: block.split()[5])
def test_the_page_shows_what_happens(
    sshd: Any,
    shown: str,
    tmp_path: Path,
    running: Callable[..., list[int]],
    wait_until: Callable[..., bool],
) -> None:
    """The commands on the page print what stands below them, and exit with the status that stands there."""
    host = sshd.host()
    sshd.known_hosts.write_text(sshd.known_line())
    sshd.configure(
        f"Host app1\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {host.user}\n  IdentityFile {sshd.key}\n"
    )
    for place in LEFT:
        shutil.rmtree(place, ignore_errors=True)
    try:
        assert shown == "".join(typed(command, sshd.ssh_config, tmp_path) for command in commands(shown))
        assert not LEFT[0].exists()
        assert wait_until(lambda: not running("sleep", "5400"))
    finally:
        shutil.rmtree(LEFT[1], ignore_errors=True)
        sshd.configure("")


def commands(shown: str) -> list[str]:
    return re.findall(r"^\$ (fab .*)$", shown, re.MULTILINE)


def typed(command: str, ssh_config: Path, folder: Path) -> str:
    """What a terminal shows after a command was typed, with its exit status if that is not 0."""
    program, *words = command.replace("-r examples", f"-r {PROJECT}/examples").split()
    done = subprocess.run(
        [Path(sys.executable).with_name(program), "-S", ssh_config, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
        cwd=folder,  # where no hosts.yml says that app1 is another server
        env=os.environ | {"PYTHONUNBUFFERED": "1", "HOME": str(folder)},
    )
    status = f"$ echo $?\n{done.returncode}\n" if done.returncode else ""
    return f"$ {command}\n{done.stdout}{status}"
