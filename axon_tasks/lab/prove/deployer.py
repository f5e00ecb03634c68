"""`fab deploy` that kills itself at a boundary, or cuts itself off: the same calls as the task's, with a listener in between.

From within, and not by whoever watches: between two boundaries there may be less than a millisecond, and what comes from
outside would come anywhere.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from axon_tasks.config import load
from axon_tasks.deploy.connections import Connections
from axon_tasks.deploy.run import Options
from axon_tasks.deploy.runner import deploy
from axon_tasks.deploy.timeline import Recorder
from axon_tasks.errors import AxonError
from axon_tasks.lab import machine
from axon_tasks.lab.prove.boundaries import Watched
from axon_tasks.remote import transport
from axon_tasks.report import live

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.config import Environment


def die() -> None:
    """End at once, with nothing tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def noting(path: Path | None, at: str, happens: Callable[[], None] = die) -> Callable[[str], None]:
    """What is done at each boundary.

    Args:
        path: File that gets each boundary's name as a line; None for none.
        at: The boundary at which something happens; empty for none.
        happens: That.
    """
    guard = threading.Lock()

    def reached(name: str) -> None:
        if path is not None:
            with guard, path.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        if name == at:
            happens()

    return reached


def run(hosts_file: str, env: str, tag: str, reached: Callable[[str], None]) -> int:
    """Deploy, as `fab deploy` does.

    Returns:
        Its exit code.
    """
    project = load(hosts_file)
    environment: Environment = project.environment(env)
    command = shlex.join(["fab", "deploy", f"--env={env}", f"--tag={tag}"])
    recorder = Recorder(command=command, folder=project.root)
    options = Options(tag=tag, command=command, run_id=recorder.run_id)
    with Connections(project, recorder) as connections, live.screen(sys.stdout, [env]) as screen:
        connections.open_early(environment.servers)
        outcomes = deploy(
            project, connections, [environment], options, lambda name: Watched(screen.listener(name), reached)
        )
    error = outcomes[0].error
    recorder.finish(outcome="failed" if error else "ok", exit_code=error.code if error else 0)
    if error is not None:
        raise error
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=(__doc__ or "")[:80])
    for name in ("--hosts-file", "--env", "--tag"):
        parser.add_argument(name, required=True)
    parser.add_argument("--kill-at", default="", help="boundary at which to die")
    parser.add_argument(
        "--cut-at", default="", help="boundary at which the network to one server swallows everything"
    )
    parser.add_argument("--cut", default="", help="the address of that server")
    parser.add_argument(
        "--peer-timeout",
        type=int,
        default=transport.PEER_TIMEOUT,
        help="seconds until a silent server is gone",
    )
    parser.add_argument(
        "--boundaries", type=Path, help="file for the names of the boundaries that were reached"
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `fab` takes it
    transport.PEER_TIMEOUT = options.peer_timeout
    reached = noting(options.boundaries, options.kill_at)
    if options.cut_at:
        reached = noting(options.boundaries, options.cut_at, lambda: machine.cut(options.cut))
    try:
        return run(options.hosts_file, options.env, options.tag, reached)
    except AxonError as error:
        sys.stderr.write(f"{error}\n")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
