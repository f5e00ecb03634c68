"""The Invoke task modules that `fabfile` and `tasks.py` assemble.

In a fabfile of your own:

    from axon_tasks.tasks import namespace
    ns = namespace()
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invoke.collection import Collection


def namespace() -> Collection:
    """Every task, as one collection for both programs, `fab` and `invoke`.

    It also closes two gaps of the programs themselves: connections that `fab -H` makes verify host keys, and
    wrong flags end with exit status 2.
    """
    # fab never writes .pyc files for what a fabfile imports (invoke #68), so that each start would compile again.
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    # What an import makes is never garbage; looking for it after each 700 objects slows the start, and looking through
    # all of it once more at the very end keeps the prompt away for longer than a switch takes.
    gc.set_threshold(100_000, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)

    from invoke.collection import Collection

    from axon_tasks.remote import guard
    from axon_tasks.tasks import (
        acting,
        bench,
        cleanup,
        config,
        demo,
        deploy,
        env,
        jobs,
        lab,
        lock,
        looking,
        maintenance,
        prove,
        releases,
        servers,
        ship,
        steps,
        timeline,
        upkeep,
        usage,
    )

    guard.install()
    usage.install()
    collection = Collection(
        deploy.deploy,
        ship.build,
        ship.push,
        ship.ship,
        releases.rollback,
        releases.history,
        looking.status,
        looking.health,
        looking.logs,
        looking.stats,
        looking.diff,
        looking.doctor,
        acting.exec_,
        acting.restart,
        maintenance.maintenance,
        upkeep.sync,
        upkeep.delete,
        timeline.timeline,
        cleanup.cleanup,
        demo.demo,
        bench.bench,
        prove.prove,
    )
    for module in (steps, jobs, lock, env, servers, config, lab):
        collection.add_collection(module.namespace)
    # Reading the operator's terminal would swallow what a script pipes in, and feed it at 95 bytes a second.
    collection.configure({"run": {"in_stream": False}})
    return collection
