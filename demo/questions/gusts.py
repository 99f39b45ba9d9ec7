"""Weather against delays, day by day: bulky results of which little matters."""

from __future__ import annotations

from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = """\
Call a day gusty if a gust of at least 30 mph was measured at JFK in any hour of it. How many days of January 2013 \
were gusty, and what was the mean departure delay of all flights that left JFK on gusty days, and on the others? (Mean \
over flights, not over days.) Keys: gusty_days, gusty_delay, other_delay (minutes, one decimal)."""

PROGRAM = """\
import asyncio

dates = [f"2013-01-{day:02}" for day in range(1, 32)]
weather, departures = await asyncio.gather(
    asyncio.gather(*(hourly_weather(origin="JFK", date=date) for date in dates)),
    asyncio.gather(*(daily_departures(origin="JFK", date=date) for date in dates)),
)
minutes = {True: 0.0, False: 0.0}
flown = {True: 0, False: 0}
gusty_days = 0
for hours, day in zip(weather, departures):
    gusty = any((hour["wind_gust"] or 0) >= 30 for hour in hours)
    gusty_days += gusty
    left = day["scheduled"] - day["cancelled"]
    flown[gusty] += left
    minutes[gusty] += left * (day["mean_departure_delay"] or 0)
return {
    "gusty_days": gusty_days,
    "gusty_delay": round(minutes[True] / flown[True], 1),
    "other_delay": round(minutes[False] / flown[False], 1),
}
"""


def script() -> Script:
    dates = [f"2013-01-{day:02}" for day in range(1, 32)]
    results = yield [
        call(name, origin="JFK", date=date) for date in dates for name in ("hourly_weather", "daily_departures")
    ]
    gusty: list[tuple[int, float]] = []
    other: list[tuple[int, float]] = []
    for hours, day in zip(results[::2], results[1::2], strict=True):
        windy = any((hour["wind_gust"] or 0) >= 30 for hour in hours)
        (gusty if windy else other).append((day["scheduled"] - day["cancelled"], day["mean_departure_delay"]))
    return {"gusty_days": len(gusty), "gusty_delay": mean(gusty), "other_delay": mean(other)}


def mean(days: list[tuple[int, float]]) -> float:
    """Mean of daily means, each weighed by its flights."""
    return round(sum(flights * delay for flights, delay in days) / sum(flights for flights, _ in days), 1)


def expected() -> dict[str, Any]:
    [row] = query(
        """WITH gusty AS (
               SELECT day FROM weather WHERE origin = 'JFK' AND month = 1 GROUP BY day HAVING max(wind_gust) >= 30
           )
           SELECT (SELECT count(*) FROM gusty) AS gusty_days,
                  round(avg(CASE WHEN day IN (SELECT day FROM gusty) THEN dep_delay END), 1) AS gusty_delay,
                  round(avg(CASE WHEN day NOT IN (SELECT day FROM gusty) THEN dep_delay END), 1) AS other_delay
           FROM flights WHERE origin = 'JFK' AND month = 1"""
    )
    return row


QUESTION = Question("Gusts and delays", TEXT, expected, (PROGRAM,), script)
