"""The aircraft of one day's flights. The registry lacks some of them: the first program fails and is repaired."""

from __future__ import annotations

from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = """\
Which aircraft flew from LGA to ORD on 2013-07-03? Keys: flights (how many there were), unlisted (how many different \
aircraft the registry does not list), mean_seats (over the flights whose aircraft is listed, one decimal), oldest_year \
(the earliest year in which one of them was built)."""

HOPEFUL = """\
import asyncio

flights = await list_flights(origin="LGA", dest="ORD", date="2013-07-03")
tailnums = sorted({f["tailnum"] for f in flights if f["tailnum"]})
planes = dict(zip(tailnums, await asyncio.gather(*(get_plane(tailnum=t) for t in tailnums))))
seats = [planes[f["tailnum"]]["seats"] for f in flights if f["tailnum"]]
return {
    "flights": len(flights),
    "unlisted": 0,
    "mean_seats": round(sum(seats) / len(seats), 1),
    "oldest_year": min(p["year_built"] for p in planes.values() if p["year_built"]),
}
"""

REPAIRED = """\
import asyncio

flights = await list_flights(origin="LGA", dest="ORD", date="2013-07-03")
tailnums = sorted({f["tailnum"] for f in flights if f["tailnum"]})
found = await asyncio.gather(*(get_plane(tailnum=t) for t in tailnums), return_exceptions=True)
planes = {t: p for t, p in zip(tailnums, found) if not isinstance(p, Exception)}
seats = [planes[f["tailnum"]]["seats"] for f in flights if f["tailnum"] in planes]
return {
    "flights": len(flights),
    "unlisted": len(tailnums) - len(planes),
    "mean_seats": round(sum(seats) / len(seats), 1),
    "oldest_year": min(p["year_built"] for p in planes.values() if p["year_built"]),
}
"""


def script() -> Script:
    [flights] = yield [call("list_flights", origin="LGA", dest="ORD", date="2013-07-03")]
    tailnums = sorted({flight["tailnum"] for flight in flights if flight["tailnum"]})
    found = yield [call("get_plane", tailnum=tailnum) for tailnum in tailnums]
    planes = {tailnum: plane for tailnum, plane in zip(tailnums, found, strict=True) if plane}
    seats = [planes[flight["tailnum"]]["seats"] for flight in flights if flight["tailnum"] in planes]
    return {
        "flights": len(flights),
        "unlisted": len(tailnums) - len(planes),
        "mean_seats": round(sum(seats) / len(seats), 1),
        "oldest_year": min(plane["year_built"] for plane in planes.values() if plane["year_built"]),
    }


def expected() -> dict[str, Any]:
    [row] = query(
        """SELECT count(*) AS flights, count(DISTINCT CASE WHEN p.tailnum IS NULL THEN f.tailnum END) AS unlisted,
                  round(avg(seats), 1) AS mean_seats, min(p.year) AS oldest_year
           FROM flights f LEFT JOIN planes p USING (tailnum)
           WHERE origin = 'LGA' AND dest = 'ORD' AND month = 7 AND day = 3"""
    )
    return row


REMARK = "The first program did not expect the gaps; its failure and the repair are counted."
QUESTION = Question("Aircraft of one day", TEXT, expected, (HOPEFUL, REPAIRED), script, REMARK)
