"""The Invoke task modules that `fabfile` and `tasks.py` assemble."""
