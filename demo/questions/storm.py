"""A search that stops at the first hit: each step depends on the one before it, so nothing runs in parallel."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = """\
Going through 2013 day by day from 1 January, on which day were at least half of the departures from EWR cancelled for \
the first time? Do not ask for days after it. Keys: date (YYYY-MM-DD), scheduled, cancelled."""

PROGRAM = """\
from datetime import date, timedelta

day = date(2013, 1, 1)
while day.year == 2013:
    found = await daily_departures(origin="EWR", date=day.isoformat())
    if found["cancelled"] * 2 >= found["scheduled"]:
        return {"date": day.isoformat(), "scheduled": found["scheduled"], "cancelled": found["cancelled"]}
    day += timedelta(days=1)
return {"date": None, "scheduled": None, "cancelled": None}
"""


def script() -> Script:
    day = date(2013, 1, 1)
    while True:
        [found] = yield [call("daily_departures", origin="EWR", date=day.isoformat())]
        if found["cancelled"] * 2 >= found["scheduled"]:
            return {"date": day.isoformat(), "scheduled": found["scheduled"], "cancelled": found["cancelled"]}
        day += timedelta(days=1)


def expected() -> dict[str, Any]:
    [row] = query(
        """SELECT printf('2013-%02d-%02d', month, day) AS date, count(*) AS scheduled,
                  sum(dep_time IS NULL) AS cancelled
           FROM flights WHERE origin = 'EWR' GROUP BY month, day
           HAVING sum(dep_time IS NULL) * 2 >= count(*) ORDER BY month, day LIMIT 1"""
    )
    return row


REMARK = "Each step needs the one before: nothing to call together, but a program may loop."
QUESTION = Question("First stormy day", TEXT, expected, (PROGRAM,), script, REMARK)
