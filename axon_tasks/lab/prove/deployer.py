"""`fab deploy` that kills itself at a boundary: the same calls as the task's, with a listener in between.

SIGKILL from within, and not from whoever watches: between two boundaries there may be less than a millisecond, and a
signal from outside would come anywhere.
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
from axon_tasks.lab.prove.boundaries import Watched
from axon_tasks.report import live

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from axon_tasks.config import Environment


def noting(path: Path | None, at: str) -> Callable[[str], None]:
    """What is done at each boundary.

    Args:
        path: File that gets each boundary's name as a line; None for none.
        at: The boundary at which to die; empty for none.
    """
    guard = threading.Lock()

    def reached(name: str) -> None:
        if path is not None:
            with guard, path.open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        if name == at:
            os.kill(os.getpid(), signal.SIGKILL)

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
        "--boundaries", type=Path, help="file for the names of the boundaries that were reached"
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as `fab` takes it
    try:
        return run(options.hosts_file, options.env, options.tag, noting(options.boundaries, options.kill_at))
    except AxonError as error:
        sys.stderr.write(f"{error}\n")
        return error.code


if __name__ == "__main__":
    sys.exit(main())
