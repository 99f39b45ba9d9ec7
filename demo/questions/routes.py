"""The busiest routes in every month: two levels, the second one wide."""

from __future__ import annotations

from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = """\
Among the eight busiest routes of 2013, which route had the month with the highest mean arrival delay? Keys: origin, \
dest, month (a number), mean_arrival_delay (one decimal), cancelled (the number of that month)."""

PROGRAM = """\
import asyncio

async def year(route):
    months = range(1, 13)
    delays = await asyncio.gather(
        *(route_delays(origin=route["origin"], dest=route["dest"], month=month) for month in months)
    )
    return [
        {
            "origin": route["origin"],
            "dest": route["dest"],
            "month": month,
            "mean_arrival_delay": d["mean_arrival_delay"],
            "cancelled": d["cancelled"],
        }
        for month, d in zip(months, delays)
        if d["mean_arrival_delay"] is not None
    ]

years = await asyncio.gather(*(year(route) for route in await busiest_routes(limit=8)))
worst = max((case for cases in years for case in cases), key=lambda case: case["mean_arrival_delay"])
worst["mean_arrival_delay"] = round(worst["mean_arrival_delay"], 1)
return worst
"""


def script() -> Script:
    [routes] = yield [call("busiest_routes", limit=8)]
    cases = [
        {"origin": route["origin"], "dest": route["dest"], "month": month} for route in routes for month in range(1, 13)
    ]
    delays = yield [call("route_delays", **case) for case in cases]
    worst, delay = max(zip(cases, delays, strict=True), key=lambda pair: pair[1]["mean_arrival_delay"])
    return worst | {"mean_arrival_delay": round(delay["mean_arrival_delay"], 1), "cancelled": delay["cancelled"]}


def expected() -> dict[str, Any]:
    [row] = query(
        """WITH busiest AS (SELECT origin, dest FROM flights GROUP BY origin, dest ORDER BY count(*) DESC LIMIT 8)
           SELECT origin, dest, month, round(avg(arr_delay), 1) AS mean_arrival_delay,
                  sum(dep_time IS NULL) AS cancelled
           FROM flights JOIN busiest USING (origin, dest)
           GROUP BY origin, dest, month ORDER BY avg(arr_delay) DESC LIMIT 1"""
    )
    return row


QUESTION = Question("Worst busy route", TEXT, expected, (PROGRAM,), script)
