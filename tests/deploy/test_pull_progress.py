"""How far a pull is, from what `docker pull` writes without a terminal."""

from __future__ import annotations

from axon_tasks.deploy.starting import Layers

TOLD = """\
v2: Pulling from shop
a3ed95caeb02: Pulling fs layer
1c5c8bd0e6ba: Pulling fs layer
77f0b7a5ee9d: Already exists
a3ed95caeb02: Verifying Checksum
a3ed95caeb02: Download complete
a3ed95caeb02: Pull complete
Digest: sha256:d9dfe807009e1c24a14b6fbce8a299f19e3441bbe22968b0f25a07e4ae5a7154
Status: Downloaded newer image for registry.test/shop:v2
"""


def test_layers_are_counted() -> None:
    """Layers that were there before count as done, and other lines are not taken for layers."""
    layers = Layers()
    news = [layers.told for line in TOLD.splitlines() if layers.take(line)]
    assert ("0 of 1 layers", "2 of 3 layers") == (news[0], layers.told)
