"""The fork server: a fresh interpreter with an empty environment that hands out confined guests.

Started by the host as `python -s -S -B -P zygote.py FD` with PYTHONHASHSEED set and nothing else in its environment;
descriptor FD is a SOCK_SEQPACKET socket. The first message is the configuration; the answer is the isolation report.
Each later message asks for one guest and carries two descriptors: the guest's end of its data socket, and the status
socket, on which the zygote answers with the guest's pidfd and, at its end, its exit code.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from typing import Any

# Set up by `main` before a guest is forked; a guest inherits them.
_MEMORY_BASE = 0


def main() -> None:
    """Serve until the host closes its end."""
    control = socket.socket(fileno=int(sys.argv[1]))
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
    filter_ = None
    reason = f"no table for {confine.MACHINE}" if confine.MACHINE not in ("x86_64", "aarch64") else None
    if reason is None:
        filter_ = confine.Filter()
        reason = confine.works(lambda: (confine.no_new_privileges(), filter_.install()))
    layers["seccomp"] = reason or "on"
    layers["rlimits"] = (
        confine.works(lambda: confine.set_limits(memory=1 << 30, cpu=60, base=base)) or "on"
    )
    layers["process"] = "on"
    if config["isolation"] == "process":
        filter_, layers["seccomp"] = None, "off"
    layers["namespaces"] = _enter_namespaces(control)
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass
    layers["root"] = _empty_root() if layers["namespaces"] == "on" else "the host's"
    confine.no_new_privileges()
    ruleset = confine.landlock()
    layers["landlock"] = "none" if ruleset is None else f"on (ABI {ruleset[1]})"
    if ruleset is not None:
        confine.restrict_self(ruleset[0])
    try:
        confine.drop_capabilities()
        layers["capabilities"] = "none"
    except OSError as error:
        layers["capabilities"] = str(error)
    confine.harden()
    mandatory = ["rlimits"] if config["isolation"] == "process" else ["seccomp", "rlimits"]
    report["missing"] = [f"{name}: {layers[name]}" for name in mandatory if layers[name] != "on"]
    return report, {"filter": filter_, "ruleset": None if ruleset is None else ruleset[0], "base": base}


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
    return "on"


def _empty_root() -> str:
    from toolchord_guest import confine

    try:
        confine.empty_root()
        return "empty"
    except OSError as error:
        return f"the host's ({error})"


def _serve(control: socket.socket, state: dict[str, Any]) -> None:
    """Fork guests on request, report their ends, stop when the host is gone."""
    poller = select.poll()
    poller.register(control, select.POLLIN)
    living: dict[int, tuple[int, int]] = {}  # pidfd -> (pid, status descriptor)
    while True:
        for descriptor, _ in poller.poll():
            if descriptor != control.fileno():
                poller.unregister(descriptor)
                pid, status = living.pop(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os.close(descriptor)
                _send(status, str(code).encode())
                os.close(status)
                continue
            message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
            if not message:
                for pidfd in living:  # guests die with the host, also where no pid namespace sees to it
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                _become_guest(descriptors[0], json.loads(message), state)
            os.close(descriptors[0])
            pidfd = os.pidfd_open(pid)
            living[pidfd] = (pid, descriptors[1])
            poller.register(pidfd, select.POLLIN)
            _send(descriptors[1], b"pidfd", [pidfd])


def _send(status: int, message: bytes, descriptors: list[int] | None = None) -> None:
    with socket.socket(fileno=os.dup(status)) as end:
        try:
            socket.send_fds(end, [message], descriptors or [], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the host does not care for this guest any more


def _become_guest(data: int, request: dict[str, Any], state: dict[str, Any]) -> None:
    """In the forked child: close, confine, serve. The filter is in place before any byte of a program is read."""
    from toolchord_guest import confine, worker

    code = 97
    try:
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
