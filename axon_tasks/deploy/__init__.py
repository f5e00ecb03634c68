"""Decides: steps, the plan, the engine that runs it."""
