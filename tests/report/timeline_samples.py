"""Timelines to draw: recorded with a clock that goes where the sample wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axon_tasks.deploy.timeline import Recorder, Timeline

if TYPE_CHECKING:
    from pathlib import Path

#: step: needs, and per server when the batch began and ended, with its sections' lengths
STEPS: dict[str, tuple[tuple[str, ...], dict[str, tuple[float, float, dict[str, float]]]]] = {
    "lock": ((), {"edge1": (0.14, 0.19, {"lock": 0.004})}),
    "inspect": (
        (),
        {
            "edge1": (0.14, 0.22, {"nginx": 0.011, "current": 0.003, "config": 0.012}),
            "app1": (0.16, 0.29, {"docker": 0.041, "env_file": 0.002, "containers": 0.028}),
            "app2": (0.21, 0.33, {"docker": 0.038, "env_file": 0.002, "containers": 0.026}),
        },
    ),
    "pull": ((), {"app1": (0.16, 0.52, {"pull": 0.31}), "app2": (0.21, 0.60, {"pull": 0.35})}),
    "stage": (("inspect",), {"edge1": (0.335, 0.43, {"stage": 0.02, "nginx_t": 0.021})}),
    "start": (
        ("lock", "stage", "pull"),
        {
            "app1": (0.605, 0.95, {"start": 0.19, "health": 0.1}),
            "app2": (0.605, 1.02, {"start": 0.2, "health": 0.16}),
        },
    ),
    "switch": (("start",), {"edge1": (1.025, 1.10, {"flip": 0.003, "confirm": 0.018})}),
    "record": (("switch",), {"edge1": (1.105, 1.16, {"record": 0.006})}),
    "retire": (
        ("switch",),
        {"app1": (1.105, 1.17, {"drain": 0.014}), "app2": (1.105, 1.19, {"drain": 0.015})},
    ),
}
CONNECTS = {"edge1": 0.14, "app1": 0.16, "app2": 0.21}


class Clock:
    """Goes forward when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def record(
    folder: Path | None = None,
    environments: tuple[str, ...] = ("prod",),
    *,
    shift: float = 0.25,
    failing: str = "",
) -> Recorder:
    """Record a deploy of these environments, each a little later than the one before.

    Args:
        folder: Where to keep it.
        environments: Their names.
        shift: Seconds between their beginnings.
        failing: A step that fails on its last server; the later ones are not there then.
    """
    clock = Clock()
    made = Recorder(command=f"fab deploy --env={','.join(environments)}", folder=folder, clock=clock)
    run = made.begin("run", "deploy")
    last = 0.0
    for index, environment in enumerate(environments):
        by, clock.now = index * shift, 1000.0 + index * shift
        whole = made.begin("environment", environment, parent=run, environment=environment)
        for server, seconds in CONNECTS.items():
            made.add(
                "connect", server, by + 0.04, by + seconds, parent=whole, environment=environment, server=server,
                round_trips=6, sent=3100, received=2800,
            )  # fmt: skip
        broken = False
        for step, (needs, servers) in STEPS.items():
            if broken:
                break
            clock.now = (
                1000.0
                + by
                + max((max(end for _, end, _ in STEPS[need][1].values()) for need in needs), default=0.04)
            )
            number = made.begin("step", step, parent=whole, environment=environment, needs=needs)
            for server, (started, ended, sections) in servers.items():
                bad = step == failing and server == list(servers)[-1]
                batch = made.add(
                    "batch", step, by + started, by + ended, parent=number, environment=environment, server=server,
                    outcome="failed" if bad else "ok", round_trips=1, sent=2100, received=900,
                )  # fmt: skip
                at = by + started + 0.02
                for label, length in sections.items():
                    made.add(
                        "section",
                        label,
                        at,
                        at + length,
                        parent=batch,
                        environment=environment,
                        server=server,
                    )
                    at += length
                last = max(last, by + ended)
            broken = step == failing
            made.end(
                number, at=by + max(end for _, end, _ in servers.values()), outcome="failed" if broken else "ok",
                note="localhost:5000/shop:v2 is sha256:0123456789ab…" if step == "pull" else "",
            )  # fmt: skip
        made.end(whole, at=last, outcome="failed" if failing else "ok")
    clock.now = 1000.0 + last + 0.012
    made.finish(outcome="failed" if failing else "ok", exit_code=1 if failing else 0)
    return made


def timeline(*environments: str, failing: str = "") -> Timeline:
    return record(environments=environments or ("prod",), failing=failing).timeline()
