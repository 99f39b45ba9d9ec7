"""A PostgreSQL server of the tests' own: in a folder, behind a socket, gone when it is left."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path:
    """The folder of the server's programs; AssertionError if it is not installed."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name))
    assert folders, "PostgreSQL is not installed: apt-get install postgresql"
    return folders[-1]


@contextmanager
def cluster() -> Iterator[str]:
    """A running server; gives the connection string. It runs as another user if this one is root."""
    folder = Path(tempfile.mkdtemp(prefix="tc-pg-", dir="/tmp"))  # a socket's path is short
    user = None
    if os.getuid() == 0:
        user = next(name for name in ("postgres", "nobody") if _exists(name))
        shutil.chown(folder, user)
    data = folder / "data"

    def run(program: str, *arguments: str) -> None:
        command = [str(programs() / program), *arguments]
        # To a file: a server that inherits a pipe keeps it open.
        with (folder / "said").open("a+") as said:
            ended = subprocess.run(
                command, cwd=folder, user=user, stdin=subprocess.DEVNULL, stdout=said, stderr=said, timeout=120,
                env={"PATH": os.defpath, "LC_ALL": "C"}, check=False,
            )  # fmt: skip
            said.seek(0)
            assert ended.returncode == 0, f"{program}: {said.read()[-2000:]}"

    try:
        run("initdb", "-D", str(data), "-U", "toolchord", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c max_connections=50"
        run("pg_ctl", "start", "-w", "-D", str(data), "-l", str(folder / "log"), "-o", options)
        try:
            yield f"host={folder} user=toolchord dbname=postgres"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(data))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
