"""`invoke` starts here: the same tasks as `fab`, because both programs share one namespace."""

from axon_tasks.tasks import namespace

ns = namespace()
