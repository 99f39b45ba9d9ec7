"""Details of every destination, then more about the best three: three levels, with gaps in the directory."""

from __future__ import annotations

from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = """\
Among the airports served from EWR in June, which three lie highest, and how late did flights from EWR reach them that \
month? Leave out airports that the directory does not list. Key: airports, a list of three objects from the highest \
down, each with faa, altitude (feet) and mean_arrival_delay (one decimal)."""

PROGRAM = """\
import asyncio

async def look_up(faa):
    try:
        return await get_airport(faa=faa)
    except Exception:
        return None  # not listed

served = await destinations(origin="EWR", month=6)
airports = [a for a in await asyncio.gather(*(look_up(d["dest"]) for d in served)) if a]
highest = sorted(airports, key=lambda a: a["altitude"], reverse=True)[:3]
delays = await asyncio.gather(*(route_delays(origin="EWR", dest=a["faa"], month=6) for a in highest))
return {
    "airports": [
        {"faa": a["faa"], "altitude": a["altitude"], "mean_arrival_delay": round(d["mean_arrival_delay"], 1)}
        for a, d in zip(highest, delays)
    ]
}
"""


def script() -> Script:
    [served] = yield [call("destinations", origin="EWR", month=6)]
    found = yield [call("get_airport", faa=destination["dest"]) for destination in served]
    highest = sorted(filter(None, found), key=lambda airport: airport["altitude"], reverse=True)[:3]
    delays = yield [call("route_delays", origin="EWR", dest=airport["faa"], month=6) for airport in highest]
    return {
        "airports": [
            {
                "faa": airport["faa"],
                "altitude": airport["altitude"],
                "mean_arrival_delay": round(delay["mean_arrival_delay"], 1),
            }
            for airport, delay in zip(highest, delays, strict=True)
        ]
    }


def expected() -> dict[str, Any]:
    found = query(
        """SELECT faa, alt AS altitude, round(avg(arr_delay), 1) AS mean_arrival_delay
           FROM flights JOIN airports ON dest = faa WHERE origin = 'EWR' AND month = 6
           GROUP BY faa ORDER BY alt DESC LIMIT 3"""
    )
    return {"airports": found}


QUESTION = Question("Highest destinations", TEXT, expected, (PROGRAM,), script)
