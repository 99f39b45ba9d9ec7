"""Every airline in every summer month: a plain cross product."""

from __future__ import annotations

from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = """\
Which airline had the highest mean arrival delay in a summer month (June, July or August), and in which one? Leave out \
an airline's month with fewer than 100 scheduled flights. Keys: airline (its full name), month (a number), \
mean_arrival_delay (one decimal)."""

PROGRAM = """\
import asyncio

carriers = await list_carriers()
cases = [(c, month) for c in carriers for month in (6, 7, 8)]
delays = await asyncio.gather(*(carrier_delays(carrier=c["code"], month=month) for c, month in cases))
ranked = [
    (d["mean_arrival_delay"], c["name"], month)
    for (c, month), d in zip(cases, delays)
    if d["scheduled"] >= 100 and d["mean_arrival_delay"] is not None
]
worst, name, month = max(ranked)
return {"airline": name, "month": month, "mean_arrival_delay": round(worst, 1)}
"""


def script() -> Script:
    [carriers] = yield [call("list_carriers")]
    cases = [(carrier, month) for carrier in carriers for month in (6, 7, 8)]
    delays = yield [call("carrier_delays", carrier=carrier["code"], month=month) for carrier, month in cases]
    worst, name, month = max(
        (delay["mean_arrival_delay"], carrier["name"], month)
        for (carrier, month), delay in zip(cases, delays, strict=True)
        if delay["scheduled"] >= 100
    )
    return {"airline": name, "month": month, "mean_arrival_delay": round(worst, 1)}


def expected() -> dict[str, Any]:
    [row] = query(
        """SELECT a.name AS airline, month, round(avg(arr_delay), 1) AS mean_arrival_delay
           FROM flights JOIN airlines a USING (carrier) WHERE month IN (6, 7, 8)
           GROUP BY carrier, month HAVING count(*) >= 100 ORDER BY avg(arr_delay) DESC LIMIT 1"""
    )
    return row


QUESTION = Question("Worst airline in summer", TEXT, expected, (PROGRAM,), script)
