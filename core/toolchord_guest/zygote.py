"""The fork server: a fresh interpreter with an empty environment that hands out confined guests.

Started by the host as `python -s -S -B -P zygote.py FD` with PYTHONHASHSEED set and nothing else in its environment;
descriptor FD is a SOCK_SEQPACKET socket. The first message is the configuration; the answer is the isolation report.
Each later message asks for one guest and carries two descriptors: the guest's end of its data socket, and the status
socket, on which the zygote answers with the guest's pidfd and, at its end, its exit code; or with "!" and the reason
why there is no guest. Where nobody hears the first answer, the guest is killed at once.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Serve until the host closes its end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    os.environ.clear()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    _attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))  # each guest holds two descriptors here
    config = json.loads(control.recv(1 << 16))
    sys.path[:0] = config["path"]
    from toolchord_guest import worker

    extra = config["preload"]
    for name in extra:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    worker.warm_up(unrestricted=config["unrestricted"])
    sys.path.clear()
    sys.path_importer_cache.clear()
    report, state = _enclose(control, config)
    gc.collect()
    gc.freeze()
    control.send(json.dumps(report).encode())
    if report["missing"]:
        return
    _serve(control, state)


def _enclose(control: socket.socket, config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put up every layer that holds for the zygote too, and find out which the guests can have."""
    from toolchord_guest import confine

    with open("/proc/self/status", encoding="ascii") as status:
        base = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) << 10
    report: dict[str, Any] = {"layers": {}, "missing": [], "pid": os.getpid()}
    layers = report["layers"]
    layers["process"] = confine.works(lambda: None) or "on"
    filter_ = confine.Filter() if confine.MACHINE in confine.MACHINES else None
    layers["seccomp"] = f"no table for {confine.MACHINE}" if filter_ is None else confine.works(filter_.install) or "on"
    layers["rlimits"] = confine.works(lambda: confine.set_limits(memory=1 << 30, cpu=60, base=base)) or "on"
    if config["isolation"] == "process":
        filter_, layers["seccomp"] = None, "off"
    mandatory = ["process", "rlimits"] if config["isolation"] == "process" else ["process", "seccomp", "rlimits"]
    report["missing"] = [f"{name}: {layers[name]}" for name in mandatory if layers[name] != "on"]
    if report["missing"]:
        return report, {}
    layers["namespaces"] = _enter_namespaces(control)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass
    layers["root"] = _attempt(confine.empty_root, "empty") if layers["namespaces"] == "on" else "the host's"
    _attempt(confine.no_new_privileges)  # the filter needs it, and was tried with it; Landlock too
    ruleset, layers["landlock"] = _enter_landlock()
    layers["capabilities"] = _attempt(confine.drop_capabilities, "none")
    layers["executable memory"] = _attempt(confine.harden, "denied for good")
    return report, {"filter": filter_, "ruleset": ruleset, "base": base, "pid": os.getpid()}


def _attempt(step: Callable[[], object], success: str = "on") -> str:
    """Do what is good to have: `success`, or why it can't be had."""
    try:
        step()
    except (OSError, ValueError) as error:
        return f"none ({error})"
    return success


def _enter_landlock() -> tuple[int | None, str]:
    """A ruleset that each guest can enter once more, and what there is to report."""
    from toolchord_guest import confine

    ruleset, abi = confine.landlock()
    if ruleset is None:
        return None, f"none ({os.strerror(-abi)})"
    report = _attempt(lambda: confine.restrict_self(ruleset), f"on (ABI {abi})")
    return ruleset if report.startswith("on") else None, report


def _enter_namespaces(control: socket.socket) -> str:
    from toolchord_guest import confine

    def rehearsal() -> None:
        confine.unshare_all()
        if os.fork() == 0:  # the first child is the namespace's init; only it can mount there
            confine.empty_root()
            os._exit(0)
        if os.wait()[1] != 0:
            raise OSError("the namespaces can't be furnished")

    reason = confine.works(rehearsal)
    if reason is not None:
        return reason
    confine.unshare_all()
    child = os.fork()
    if child:
        control.close()
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
    confine.die_with_parent()
    return "on"


def _serve(control: socket.socket, state: dict[str, Any]) -> None:
    """Fork guests on request, report their ends, stop when the host is gone."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    living: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, status descriptor)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor == control.fileno():
                message, descriptors, _, _ = socket.recv_fds(control, 4096, 2, socket.MSG_CMSG_CLOEXEC)
                if not message:
                    for pidfd in living:  # guests die with the host, also where no pid namespace sees to it
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os._exit(0)
                if len(descriptors) == 2:
                    _make_guest(descriptors[0], descriptors[1], json.loads(message), state, poller, living)
                else:  # no room here for its descriptors: the host sees that its ends are closed
                    for descriptor in descriptors:
                        os.close(descriptor)
                continue
            poller.unregister(descriptor)
            pid, status = living.pop(descriptor)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.close(descriptor)
            _send(status, str(code).encode())
            os.close(status)


def _make_guest(
    data: int,
    status: int,
    request: dict[str, Any],
    state: dict[str, Any],
    poller: select.poll,
    living: dict[int, tuple[int, int]],
) -> None:
    """Fork a guest and tell the host, or tell why there is none."""
    pid = 0
    try:
        pid = os.fork()
        if pid == 0:
            _become_guest(data, request, state)
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        _send(status, f"!{error}".encode())
        os.close(status)
        return
    finally:
        os.close(data)
    living[pidfd] = (pid, status)
    poller.register(pidfd, select.POLLIN)
    if not _send(status, b"pidfd", [pidfd]):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _send(status: int, message: bytes, descriptors: list[int] | None = None) -> bool:
    """Tell the host something about a guest; whether it still cares."""
    try:
        with socket.socket(fileno=os.dup(status)) as end:
            socket.send_fds(end, [message], descriptors or [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def _become_guest(data: int, request: dict[str, Any], state: dict[str, Any]) -> None:
    """In the forked child: close, confine, serve. The filter is in place before any byte of a program is read."""
    from toolchord_guest import confine, worker

    code = 97
    try:
        confine.die_with_parent()
        if os.getppid() != state["pid"]:
            os._exit(code)
        ruleset = state["ruleset"]
        high = confine.SOCKET + 60
        os.dup2(data, high, inheritable=False)
        if ruleset is not None:
            os.dup2(ruleset, high + 1, inheritable=False)
        os.closerange(0, high)
        os.closerange(high + 2, 1 << 16)
        os.dup2(high, confine.SOCKET)
        os.close(high)
        if ruleset is not None:
            confine.restrict_self(high + 1)
            os.close(high + 1)
        confine.undumpable()
        confine.set_limits(memory=request["memory"], cpu=request["cpu"], base=state["base"])
        if state["filter"] is not None:
            state["filter"].install()
        code = worker.serve(confine.SOCKET)
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
