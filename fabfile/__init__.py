"""`fab` starts here. Add tasks of your own beside this file and register them below."""

from axon_tasks.tasks import namespace

ns = namespace()
