"""The sensors of the chassis: the readings and thresholds of IPMI's sensors, for Redfish's clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...ipmi.commands.sensors import ANALOGUE, Thresholds, analogue_value
from ...machine import Health, Inventory, Machine, PowerState
from ...sensors import CPU_LOAD, INLET_TEMPERATURE, MEMORY_USED, POWER_CONSUMPTION
from ..resource import Call, Json, Resource, collection, link
from .parts import HEALTHY, pick
from .paths import CHASSIS, ENVIRONMENT, POWER, SENSORS, SYSTEM, THERMAL

INLET, WATTS = "InletTemp", "Power"
METRICS: Final = f"{THERMAL}/ThermalMetrics"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How Redfish names what an IPMI sensor measures; values of the Sensor schema."""

    number: int
    """Of the IPMI sensor."""
    type: str
    units: str
    context: str
    range: tuple[float, float]
    related: str


KINDS: Final = {
    INLET: Kind(
        number=INLET_TEMPERATURE.number,
        type="Temperature",
        units="Cel",
        context="Intake",
        range=(-64, 63),
        related=CHASSIS,
    ),
    "CPULoad": Kind(number=CPU_LOAD.number, type="Percent", units="%", context="CPU", range=(0, 100), related=SYSTEM),
    "MemoryUsed": Kind(
        number=MEMORY_USED.number, type="Percent", units="%", context="Memory", range=(0, 100), related=SYSTEM
    ),
    WATTS: Kind(
        number=POWER_CONSUMPTION.number, type="Power", units="W", context="Chassis", range=(0, 1020), related=CHASSIS
    ),
}


def readings(health: Health, inventory: Inventory, power: PowerState) -> dict[str, float | None]:
    """The readings by id; None where a sensor has none without power."""
    found: dict[str, float | None] = {}
    for name, kind in KINDS.items():
        analogue = ANALOGUE[kind.number]
        dark = analogue.needs_power and power == "Off"
        found[name] = None if dark else round(analogue_value(analogue, health, inventory.memory_mib), 1)
    return found


def sensor(name: str, reading: float | None) -> Json:
    """The Sensor resource."""
    kind, analogue = KINDS[name], ANALOGUE[KINDS[name].number]
    payload: Json = {
        "Id": name,
        "Name": analogue.sensor.name,
        "Reading": reading,
        "ReadingType": kind.type,
        "ReadingUnits": kind.units,
        "ReadingRangeMin": kind.range[0],
        "ReadingRangeMax": kind.range[1],
        "PhysicalContext": kind.context,
        "RelatedItem": [link(kind.related)],
        "Status": status(reading, analogue.thresholds),
    }
    return payload | ({"Thresholds": thresholds(analogue.thresholds)} if analogue.thresholds else {})


def status(reading: float | None, limits: Thresholds | None) -> Json:
    """The Status of a sensor: its health says which thresholds the reading has reached."""
    if reading is None:
        return {"State": "UnavailableOffline"}
    health = "OK"
    if limits and not limits.lower_noncritical < reading < limits.upper_noncritical:
        inside = limits.lower_critical < reading < limits.upper_critical
        health = "Warning" if inside else "Critical"
    return {"State": "Enabled", "Health": health}


def thresholds(limits: Thresholds) -> Json:
    """The Thresholds of a sensor."""
    return {
        "UpperCritical": {"Reading": limits.upper_critical},
        "UpperCaution": {"Reading": limits.upper_noncritical},
        "LowerCaution": {"Reading": limits.lower_noncritical},
        "LowerCritical": {"Reading": limits.lower_critical},
    }


def excerpt(name: str, reading: float | None) -> Json:
    """A sensor's reading inside another resource."""
    return {"DataSourceUri": f"{SENSORS}/{name}", "Reading": reading}


def environment(seen: dict[str, float | None]) -> Json:
    """The EnvironmentMetrics of the chassis."""
    return {
        "Id": "EnvironmentMetrics",
        "Name": "Environment Metrics",
        "TemperatureCelsius": excerpt(INLET, seen[INLET]),
        "PowerWatts": excerpt(WATTS, seen[WATTS]),
    }


def thermal_metrics(seen: dict[str, float | None]) -> Json:
    """The temperatures of the chassis."""
    inlet = excerpt(INLET, seen[INLET])
    named = {"DeviceName": INLET_TEMPERATURE.name, "PhysicalContext": KINDS[INLET].context}
    return {
        "Id": "ThermalMetrics",
        "Name": "Thermal Metrics",
        "TemperatureSummaryCelsius": {"Intake": inlet},
        "TemperatureReadingsCelsius": [inlet | named],
    }


async def _seen(machine: Machine) -> dict[str, float | None]:
    return readings(await machine.health(), await machine.inventory(), await machine.power_state())


async def _get_sensors(_: Call) -> Json:
    return collection("Sensors", [f"{SENSORS}/{name}" for name in KINDS])


async def _get_sensor(call: Call) -> Json:
    return sensor(*pick(await _seen(call.machine), call))


async def _get_environment(call: Call) -> Json:
    return environment(await _seen(call.machine))


async def _get_thermal(_: Call) -> Json:
    name = {"Id": "ThermalSubsystem", "Name": "Thermal Subsystem"}
    return {**name, "Status": HEALTHY, "ThermalMetrics": link(METRICS)}


async def _get_thermal_metrics(call: Call) -> Json:
    return thermal_metrics(await _seen(call.machine))


async def _get_power(_: Call) -> Json:
    return {"Id": "PowerSubsystem", "Name": "Power Subsystem", "Status": HEALTHY}


def routes() -> Sequence[Resource]:
    """Sensors, and the three subsystems that a chassis of today shows them in."""
    live = frozenset({"Reading", "Status"})
    shown = frozenset({"TemperatureCelsius", "PowerWatts"})
    temperatures = frozenset({"TemperatureSummaryCelsius", "TemperatureReadingsCelsius"})
    return [
        Resource(uri=SENSORS, type="SensorCollection.SensorCollection", get=_get_sensors),
        Resource(uri=f"{SENSORS}/{{id}}", type="Sensor.v1_10_3.Sensor", get=_get_sensor, volatile=live),
        Resource(
            uri=ENVIRONMENT,
            type="EnvironmentMetrics.v1_4_0.EnvironmentMetrics",
            get=_get_environment,
            volatile=shown,
        ),
        Resource(uri=THERMAL, type="ThermalSubsystem.v1_4_0.ThermalSubsystem", get=_get_thermal),
        Resource(
            uri=METRICS, type="ThermalMetrics.v1_3_2.ThermalMetrics", get=_get_thermal_metrics, volatile=temperatures
        ),
        Resource(uri=POWER, type="PowerSubsystem.v1_1_3.PowerSubsystem", get=_get_power),
    ]
