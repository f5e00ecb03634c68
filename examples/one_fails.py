"""One of several fails: say which and why, end the others, leave no half-done work."""

from axon_tasks import Batch, PendingBatch, as_completed
from axon_tasks.errors import AxonError
from axon_tasks.remote import guard
from axon_tasks.tasks.base import Context, task

guard.install()
PLACE = "/var/tmp/axon-example"  # noqa: S108 - on the server, and removed at the end


def verdict(one: PendingBatch) -> str:
    """Say how a batch ended, in one line."""
    error = one.error()
    if error is not None:
        return f"no result: {error}"
    return ", ".join(
        f"{part.label} exit {part.exit_code} {part.stderr}" for part in one.result().values()
    ).strip()


@task(per_host=True)
def install(c: Context) -> None:
    """Do three things, one of which fails.

    Examples:
        fab -r examples -c one_fails -H app1 install
    """
    copy = Batch("copy").add(f"mkdir -p {PLACE}/files", "files").start(c)
    unpack = Batch("unpack").add("sleep 1; echo 'no space left' >&2; exit 3", "archive").start(c)
    index = Batch("index").add("sleep 5400", "words").start(c)
    pending = (copy, unpack, index)
    broken = next((one for one in as_completed(*pending) if one.error() or not one.result().ok), None)
    if broken is not None:
        for one in pending:
            one.cancel()
            print(f"{one.name}: {verdict(one)}")
        Batch("undo").add(f"rm -rf {PLACE}", "remove").run(c)
        raise AxonError(f"{broken.name} failed, so nothing was installed", hint="make room and try again")
