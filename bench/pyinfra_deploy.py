"""The state of bench/contenders.py as a deploy of pyinfra: an operation for each thing."""

import io
import shlex
from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.facts.files import Directory
from pyinfra.operations import apt, files, server, systemd
from pyinfra.operations.util import any_changed

data = host.data
state = data.state

apt.packages(name="Packages", packages=state["packages"], no_recommends=True)

user, home, shell = state["user"]
server.group(name="Group", group=user, system=True)
server.user(
    name="User", user=user, group=user, home=home, shell=shell, system=True, ensure_home=False
)

for path, (owner, group, mode) in sorted(state["directories"].items()):
    files.directory(name=path, path=path, user=owner, group=group, mode=mode)

# What makes a unit restart, and systemd read the units again.
restart: dict[str, list[Any]] = {service: [] for service in data.services}
reload = []
for path, (owner, group, mode, content) in state["files"].items():
    put = files.put(
        name=path, src=io.StringIO(content), dest=path, user=owner, group=group, mode=mode
    )
    for service in set(data.due[path]) & set(restart):
        restart[service].append(put)
    if path.startswith("/etc/systemd/"):
        reload.append(put)
for path, target in data.links.items():
    reload.append(files.link(name=path, path=path, target=target, force=True))

shipped = None
for tree, archive in data.trees:
    if not host.get_fact(Directory, path=tree):
        there = f"/var/cache/{Path(archive).name}"
        files.put(name=f"Ship {tree}", src=archive, dest=there)
        new = f"{tree}.new"
        shipped = server.shell(
            name=f"Unpack {tree}",
            commands=[
                f"mkdir -p {new} && tar -C {new} -xf {there} && mv -T {new} {tree} && rm {there}"
            ],
        )
        at_release = {"STACK_RELEASE": data.release}
if shipped:
    if data.migrate:
        server.shell(name="Migrate", commands=[shlex.join(data.migrate)], _env=at_release)
    if data.static:
        server.shell(name="Static files", commands=[shlex.join(data.static)], _env=at_release)

switched = files.link(name="Switch", path=data.current, target=data.release, force=True)

systemd.daemon_reload(name="Reload systemd", _if=any_changed(*reload))
for name in state["units"]:
    if name not in restart:
        # A target is always stopped in the eyes of pyinfra, so it is not asked whether it runs.
        runs = None if name.endswith(".target") else True
        unit = systemd.service(name=name, service=name, enabled=True, running=runs)
        if runs is None:
            server.shell(
                name=f"Start {name}", commands=[f"systemctl start {name}"], _if=unit.did_change
            )
for name, reasons in restart.items():
    systemd.service(
        name=f"Restart {name}",
        service=name,
        restarted=True,
        _if=any_changed(*reasons, switched),
    )
    systemd.service(name=name, service=name, enabled=True, running=True)
