"""Fork-join: ask several things at the same time, go on when all are answered."""

from axon_tasks import Batch, wait
from axon_tasks.remote import guard
from axon_tasks.tasks.base import Context, task

guard.install()


@task(per_host=True)
def check(c: Context) -> None:
    """Ask three things at the same time.

    Examples:
        fab -r examples -c fork_join -H app1 check
    """
    batches = [
        Batch("system").add("uname -s", "kernel").add("test -d /etc", "etc"),
        Batch("disk").add("df -P / | awk 'NR == 2 { print $6 }'", "mounted"),
        Batch("network").add("sleep 1; echo answers", "gateway"),
    ]
    pending = [batch.start(c) for batch in batches]
    fine = wait(*pending)
    for one in pending:
        for label, section in one.result().items():
            print(f"{one.name}/{label}: exit {section.exit_code} {section.stdout.strip()}".rstrip())
    print("all fine" if fine else "see above")
