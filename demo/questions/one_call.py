"""One call is enough: here a program gains nothing, and the demo says so."""

from __future__ import annotations

from typing import Any

from demo.data import query
from demo.questions.question import Question
from demo.recorded import Script, call

TEXT = "What is the name of the airport DEN, and how high does it lie? Keys: name, altitude (feet)."

PROGRAM = """\
airport = await get_airport(faa="DEN")
return {"name": airport["name"], "altitude": airport["altitude"]}
"""


def script() -> Script:
    [airport] = yield [call("get_airport", faa="DEN")]
    return {"name": airport["name"], "altitude": airport["altitude"]}


def expected() -> dict[str, Any]:
    [row] = query("SELECT name, alt AS altitude FROM airports WHERE faa = 'DEN'")
    return row


REMARK = "Code loses here: no turn is saved, the model writes more, and a sandbox has to run. Call the tool instead."
QUESTION = Question("One call is enough", TEXT, expected, (PROGRAM,), script, REMARK)
