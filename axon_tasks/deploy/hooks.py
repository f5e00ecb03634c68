"""Around a deploy: commands of this machine, and a message to a webhook.

They are given facts as environment variables and as JSON on standard input. What goes wrong with one that comes after the
switch, or after a failure, is told and changes nothing: the deploy has ended the way it has.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

from axon_tasks.deploy.engine import Report, Step
from axon_tasks.deploy.release import utc_now, who
from axon_tasks.errors import AxonError, StepFailedError
from axon_tasks.remote import sanitize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from axon_tasks.deploy.run import Deployment

BEFORE, SWITCHED, DONE, FAILED = "before_deploy", "after_switch", "after_deploy", "on_failure"
#: What a webhook's `events` calls the two endings.
SUCCESS, FAILURE = "success", "failure"

#: Seconds for a webhook: nobody waits for it at the end of each deploy.
_WEBHOOK = 10.0
#: Seconds for what a hook has said before its end.
_LAST_WORDS = 1.0
#: Characters of a message, and of an error that is passed on.
_LONGEST = 2000


def facts(run: Deployment, event: str, error: AxonError | None = None) -> dict[str, Any]:
    """What a hook is told; what is not known is None.

    Args:
        run: The run.
        event: Which hook it is.
        error: Why the run failed.
    """
    release = run.release
    return {
        "event": event,
        "action": run.action,
        "product": run.environment.product,
        "environment": run.environment.name,
        "domain": run.environment.domain,
        "release": release.id if release else None,
        "image": release.reference if release else None,
        "digest": (release.digest or None) if release else None,
        "serves": run.switched,
        "who": who(),
        "when": utc_now(),
        "seconds": round(time.monotonic() - run.began, 2),
        "error": sanitize(str(error))[:_LONGEST] if error else None,
        "exit_code": error.code if error else None,
    }


def before(run: Deployment) -> AxonError | None:
    """Run the hook that can stop a deploy; gives why it does."""
    complaint = _call(run, BEFORE)
    if not complaint:
        return None
    return StepFailedError(
        f"{run.environment.name}: the hook {BEFORE} failed: {complaint}; nothing was changed",
        hint="What it said stands above.",
    )


def switch_steps(run: Deployment, needs: tuple[str, ...]) -> tuple[Step, ...]:
    """The step that runs the hook after the switch, beside what else follows it; none if there is no such hook."""
    hooks = run.environment.hooks
    if not hooks or not hooks.after_switch:
        return ()

    def prepare() -> None:
        _warn(run, SWITCHED, _call(run, SWITCHED))

    return (
        Step(
            "hook",
            f"run on this machine: {' '.join(hooks.after_switch)}",
            needs,
            otherwise="finish",
            prepare=prepare,
            learn=lambda _results: Report(SWITCHED),
        ),
    )


def after(run: Deployment, error: AxonError | None) -> None:
    """Run the hook that fits the end of a run, and tell the webhook; neither raises.

    Args:
        run: The run.
        error: Why it failed; None if it did not.
    """
    event = FAILED if error else DONE
    _warn(run, event, _call(run, event, error), failed=error is not None)
    notify = run.environment.notify
    if notify and (FAILURE if error else SUCCESS) in notify.events:
        complaint = post(notify.webhook.reveal(), message(run, error))
        _warn(run, "webhook", complaint, failed=error is not None)


def _warn(run: Deployment, event: str, complaint: str, *, failed: bool = False) -> None:
    """Tell that something of this kind failed; at once where the run itself has, because that is told last."""
    if not complaint:
        return
    if failed:
        run.listener.message(event, f"failed: {complaint}")
    else:
        run.warnings.append(f"the deployment succeeded, but {event} failed: {complaint}")


def _call(run: Deployment, event: str, error: AxonError | None = None) -> str:
    """Run one hook; gives what went wrong with it, empty if nothing did, or if there is none."""
    hooks = run.environment.hooks
    words = getattr(hooks, event) if hooks else None
    if hooks is None or not words:
        return ""
    told = facts(run, event, error)
    variables = {f"AXON_{name.upper()}": "" if value is None else str(value) for name, value in told.items()}
    try:
        return _run(run, event, words, variables, json.dumps(told), hooks.timeout)
    except (OSError, ValueError) as failed:
        reason = failed.strerror if isinstance(failed, OSError) else "that is no command"
        return f"{words[0]} cannot be started: {reason}"


def _run(
    run: Deployment, event: str, words: Sequence[str], variables: dict[str, str], told: str, limit: float
) -> str:
    running = subprocess.Popen(
        words,
        cwd=run.project.root,
        env={**os.environ, **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    # Not waited for longer than a moment: what it leaves running may keep its output open for ever.
    reader = threading.Thread(target=_listen, args=(run, event, running), name="axon-hook", daemon=True)
    reader.start()
    try:
        _feed(running, told)
        code = running.wait(limit)
    except subprocess.TimeoutExpired:
        running.kill()
        running.wait()
        return f"{words[0]} had not ended after {limit:g} s, and was stopped"
    finally:
        reader.join(_LAST_WORDS)
    return f"{words[0]} ended with exit code {code}" if code else ""


def _listen(run: Deployment, event: str, running: subprocess.Popen[str]) -> None:
    """Show what it says while it runs."""
    for line in running.stdout or ():
        if line.strip():
            run.listener.message(event, line.rstrip())


def _feed(running: subprocess.Popen[str], told: str) -> None:
    """Hand over the facts; whoever does not read them is none the worse."""
    assert running.stdin is not None  # noqa: S101  (a pipe was asked for)
    try:
        running.stdin.write(told)
        running.stdin.close()
    except OSError:
        pass


def message(run: Deployment, error: AxonError | None) -> str:
    """What people read in their chat."""
    place = f"{run.environment.product} {run.environment.name}"
    what = run.release.reference.rsplit("/", 1)[-1] if run.release else run.environment.image
    took = f"{time.monotonic() - run.began:.1f} s"
    if error is None:
        return f"{place}: {what} serves {run.environment.domain} ({run.action} by {who()}, {took})"
    first = sanitize(error.summary)
    return f"{place}: {run.action} of {what} FAILED (by {who()}, exit code {error.code}): {first}"[:_LONGEST]


def post(url: str, text: str) -> str:
    """Send a message as Slack's incoming webhooks take it; gives what went wrong, without the URL, which is a secret.

    Args:
        url: Where to.
        text: The message.
    """
    from http.client import HTTPException
    from urllib.request import Request, urlopen

    if not url.startswith(("https://", "http://")):
        return "its URL is none"
    data = json.dumps({"text": text}).encode()
    try:
        request = Request(url, data, {"Content-Type": "application/json"})  # noqa: S310  (the scheme was looked at)
        with urlopen(request, timeout=_WEBHOOK):  # noqa: S310  (likewise)
            return ""
    except (OSError, ValueError, HTTPException) as failed:
        code = getattr(failed, "code", None)
        return f"it answered {code}" if code else f"it cannot be reached ({type(failed).__name__})"
