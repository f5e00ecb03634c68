"""Files that the tests of the configuration load."""

from __future__ import annotations

from collections.abc import Callable

from axon_tasks.config import Fault, Project

Loader = Callable[..., Project]
Finder = Callable[..., list[Fault]]

VALID = """\
product: shop
image: registry.example.com:5000/shop
hosts:
  edge1: {address: 203.0.113.10}
  app1: {address: app1.example.com, private_address: 10.0.1.21, user: deploy, port: 2222}
defaults:
  health: {path: /api/health, timeout: 60s}
environments:
  prod:
    system: [edge1]
    app: [app1]
    domain: shop.example.com
"""

FULL = """\
product: shop
image: registry.example.com:5000/shop
registry: {username: deploy, password: "${PASSWORD}"}
known_hosts: ssh/known_hosts
hosts:
  edge1: {address: 203.0.113.10, key: ~/.ssh/id, passphrase: "${PASSPHRASE}", host_keys: accept-new}
  app1: {address: app1.example.com, private_address: 10.0.1.21, user: deploy, port: 2222, jump: edge1, key: keys/app}
  app2: {address: "2001:db8::2", jump: "me@bastion.example.com:22", connect_timeout: 3s}
defaults:
  aliases: [www.example.com, m.example.com]
  container: {port: 8080, env: {A: one, B: two}, volumes: [/srv/a:/a]}
  health: {expect_status: 204, timeout: 60s}
  tls: {certificate: /etc/ssl/a.pem, key: /etc/ssl/a.key}
environments:
  staging: {system: [edge1], app: [app2], domain: staging.example.com, aliases: [], tls: ~, tag: v2}
  prod:
    system: [edge1]
    app: [app1, app2]
    domain: shop.example.com
    env_file: /srv/shop/.env.prod
    image: other.example.com/shop
    switch: reload
    container:
      env: {B: "2", C: three}
      command: [serve, "--port", "8080"]
      cpus: 1.50
      memory: 512m
    health: {expect_status: [200, 204], interval: 250ms}
    ports: {first: 31000, last: 31001}
"""
SECRETS = {"PASSWORD": "hunter2", "PASSPHRASE": "opensesame", "HOME": "/nowhere"}
