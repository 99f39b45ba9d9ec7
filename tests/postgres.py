"""A PostgreSQL server for tests: a cluster of its own in a temporary folder, on a Unix socket, gone when they end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HELP = "PostgreSQL's server programs are missing; install them (Debian: apt-get install postgresql), as .ci/run does"


def programs() -> Path:
    """The folder of the server's programs.

    Raises:
        RuntimeError: they are not installed.
    """
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if (found := shutil.which("initdb")) is not None:
        candidates.append(Path(found).resolve().parent)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise RuntimeError(_HELP)


@contextmanager
def server() -> Iterator[str]:
    """A running server; gives the connection string of its database."""
    folder = programs()
    root = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
    user = _user(root)

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd=root, capture_output=True, text=True, env=_env(root))
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")

    data = root / "data"
    try:
        run(str(folder / "initdb"), "-D", str(data), "-U", "test", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories={root} -c fsync=off -c max_connections=200"
        run(str(folder / "pg_ctl"), "-D", str(data), "-l", str(root / "log"), "-w", "-t", "60", "-o", options, "start")
        try:
            yield f"postgresql://test@/postgres?host={root}"
        finally:
            run(str(folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _user(root: Path) -> int | None:
    """Whom to run as: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(root, user.pw_uid, user.pw_gid)
        return user.pw_uid
    raise RuntimeError("no ordinary user to run PostgreSQL as")


def _env(root: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "HOME": str(root), "LANG": "C", "LC_ALL": "C"}
