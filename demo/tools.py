"""The demo's tools: narrow look-ups over the flights of 2013, each answering one small question, as real APIs do."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic can't read typing's own before Python 3.12

from demo.data import query
from toolchord import create_registry, register_tool

Origin = Literal["EWR", "JFK", "LGA"]
registry = create_registry()


class Carrier(TypedDict):
    """An airline."""

    code: str
    name: str


class Route(TypedDict):
    """A pair of airports and how often it was flown in 2013."""

    origin: str
    dest: str
    flights: int


class Destination(TypedDict):
    """An airport that was served from an origin."""

    dest: str
    flights: int


class Airport(TypedDict):
    """An airport; altitude in feet."""

    faa: str
    name: str
    lat: float
    lon: float
    altitude: int
    timezone: str


class Delays(TypedDict):
    """Delays in minutes; a mean is None where nothing flew."""

    scheduled: int
    cancelled: int
    mean_departure_delay: float | None
    mean_arrival_delay: float | None


class Flight(TypedDict):
    """One scheduled flight; delays in minutes, None if it did not fly; times as HHMM."""

    carrier: str
    number: int
    tailnum: str | None
    scheduled_departure: int
    departure_delay: int | None
    arrival_delay: int | None


class Plane(TypedDict):
    """An aircraft as the registry describes it."""

    tailnum: str
    year_built: int | None
    manufacturer: str
    model: str
    seats: int


class Weather(TypedDict):
    """One hour at an airport: degrees Fahrenheit, miles per hour, inches, miles; None where not measured."""

    hour: int
    temperature: float | None
    wind_speed: float | None
    wind_gust: float | None
    precipitation: float | None
    visibility: float | None


DELAYS = """
    SELECT count(*) AS scheduled, coalesce(sum(dep_time IS NULL), 0) AS cancelled,
           avg(dep_delay) AS mean_departure_delay, avg(arr_delay) AS mean_arrival_delay
    FROM flights WHERE """


async def fetch(sql: str, *parameters: Any) -> list[Any]:
    """Run a statement in a thread, so that calls started together overlap."""
    return await asyncio.to_thread(query, sql, *parameters)


async def fetch_delays(where: str, *parameters: Any) -> Delays:
    """Count the delays of the flights that a condition selects."""
    [row] = await fetch(DELAYS + where, *parameters)
    return row  # type: ignore[no-any-return]


def month_and_day(date: str) -> tuple[int, int]:
    """Split a date of 2013 (``2013-MM-DD``)."""
    year, month, day = date.split("-")
    if year != "2013":
        raise ValueError(f"no data for {date}: only 2013 is recorded")
    return int(month), int(day)


@register_tool(registry=registry, capabilities=["read_only"])
async def list_carriers() -> list[Carrier]:
    """List the airlines that flew from New York in 2013."""
    return await fetch("SELECT carrier AS code, name FROM airlines ORDER BY carrier")


@register_tool(registry=registry, capabilities=["read_only"])
async def busiest_routes(limit: int = 10) -> list[Route]:
    """List the routes with the most flights in 2013, the busiest first."""
    return await fetch(
        "SELECT origin, dest, count(*) AS flights FROM flights GROUP BY origin, dest ORDER BY flights DESC LIMIT ?",
        limit,
    )


@register_tool(registry=registry, capabilities=["read_only"])
async def destinations(origin: Origin, month: int) -> list[Destination]:
    """List the airports that were served from an origin in one month."""
    return await fetch(
        "SELECT dest, count(*) AS flights FROM flights WHERE origin = ? AND month = ? GROUP BY dest", origin, month
    )


@register_tool(registry=registry, capabilities=["read_only"])
async def get_airport(faa: str) -> Airport:
    """Look up an airport by its FAA code. Fails for a code that the directory does not list."""
    found = await fetch(
        "SELECT faa, name, lat, lon, alt AS altitude, tzone AS timezone FROM airports WHERE faa = ?", faa
    )
    if not found:
        raise LookupError(f"no airport {faa!r} in the directory")
    return found[0]  # type: ignore[no-any-return]


@register_tool(registry=registry, capabilities=["read_only"])
async def get_plane(tailnum: str) -> Plane:
    """Look up an aircraft by its tail number. Fails for one that the registry does not list."""
    found = await fetch(
        "SELECT tailnum, year AS year_built, manufacturer, model, seats FROM planes WHERE tailnum = ?", tailnum
    )
    if not found:
        raise LookupError(f"no aircraft {tailnum!r} in the registry")
    return found[0]  # type: ignore[no-any-return]


@register_tool(registry=registry, capabilities=["read_only"])
async def list_flights(origin: Origin, dest: str, date: str) -> list[Flight]:
    """List the flights of one route on one day of 2013 (YYYY-MM-DD), in order of departure."""
    return await fetch(
        """SELECT carrier, flight AS number, tailnum, sched_dep_time AS scheduled_departure,
                  dep_delay AS departure_delay, arr_delay AS arrival_delay
           FROM flights WHERE origin = ? AND dest = ? AND month = ? AND day = ? ORDER BY sched_dep_time""",
        origin,
        dest,
        *month_and_day(date),
    )


@register_tool(registry=registry, capabilities=["read_only"])
async def route_delays(origin: Origin, dest: str, month: int) -> Delays:
    """Sum up the delays of one route in one month."""
    return await fetch_delays("origin = ? AND dest = ? AND month = ?", origin, dest, month)


@register_tool(registry=registry, capabilities=["read_only"])
async def carrier_delays(carrier: str, month: int) -> Delays:
    """Sum up the delays of one airline (its two-character code) in one month."""
    return await fetch_delays("carrier = ? AND month = ?", carrier, month)


@register_tool(registry=registry, capabilities=["read_only"])
async def daily_departures(origin: Origin, date: str) -> Delays:
    """Sum up the departures of one airport on one day of 2013 (YYYY-MM-DD)."""
    return await fetch_delays("origin = ? AND month = ? AND day = ?", origin, *month_and_day(date))


@register_tool(registry=registry, capabilities=["read_only"])
async def hourly_weather(origin: Origin, date: str) -> list[Weather]:
    """List the weather at an origin, hour by hour, for one day of 2013 (YYYY-MM-DD)."""
    return await fetch(
        """SELECT hour, temp AS temperature, wind_speed, wind_gust, precip AS precipitation, visib AS visibility
           FROM weather WHERE origin = ? AND month = ? AND day = ? ORDER BY hour""",
        origin,
        *month_and_day(date),
    )
