"""The sensors of the chassis: the same readings as IPMI's, for Redfish's clients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ...machine import Health, Inventory, Machine
from ...sensors import CPU_LOAD, INLET_TEMPERATURE, MEMORY_USED, POWER_CONSUMPTION
from ..resource import Call, Json, Resource, collection, link
from .parts import HEALTHY, pick
from .paths import CHASSIS, ENVIRONMENT, POWER, SENSORS, SYSTEM, THERMAL

INLET, CPU, MEMORY_USE, WATTS = "InletTemp", "CPULoad", "MemoryUsed", "Power"
METRICS: Final = f"{THERMAL}/ThermalMetrics"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One sensor with what it reads now; `type`, `units` and `context` are values of the Sensor schema."""

    name: str
    value: float
    type: str
    units: str
    context: str
    maximum: float
    related: str


def readings(health: Health, inventory: Inventory) -> dict[str, Reading]:
    """All sensors by id."""
    used = 100 * health.memory_used_mib / inventory.memory_mib if inventory.memory_mib else 0.0
    temperature = ("Temperature", "Cel", "Intake", 100.0, CHASSIS)
    return {
        INLET: _reading(INLET_TEMPERATURE.name, health.inlet_celsius, *temperature),
        CPU: _reading(CPU_LOAD.name, health.cpu_load_percent, "Percent", "%", "CPU", 100.0, SYSTEM),
        MEMORY_USE: _reading(MEMORY_USED.name, used, "Percent", "%", "Memory", 100.0, SYSTEM),
        WATTS: _reading(POWER_CONSUMPTION.name, health.power_watts, "Power", "W", "Chassis", 2000.0, CHASSIS),
    }


def _reading(name: str, value: float, kind: str, units: str, context: str, maximum: float, related: str) -> Reading:
    rounded = round(value, 1)
    return Reading(name=name, value=rounded, type=kind, units=units, context=context, maximum=maximum, related=related)


def sensor(name: str, reading: Reading) -> Json:
    """The Sensor resource."""
    return {
        "Id": name,
        "Name": reading.name,
        "Reading": reading.value,
        "ReadingType": reading.type,
        "ReadingUnits": reading.units,
        "ReadingRangeMin": 0,
        "ReadingRangeMax": reading.maximum,
        "PhysicalContext": reading.context,
        "RelatedItem": [link(reading.related)],
        "Status": HEALTHY,
    }


def excerpt(name: str, reading: Reading) -> Json:
    """A sensor's reading inside another resource."""
    return {"DataSourceUri": f"{SENSORS}/{name}", "Reading": reading.value}


def environment(seen: dict[str, Reading]) -> Json:
    """The EnvironmentMetrics of the chassis."""
    return {
        "Id": "EnvironmentMetrics",
        "Name": "Environment Metrics",
        "TemperatureCelsius": excerpt(INLET, seen[INLET]),
        "PowerWatts": excerpt(WATTS, seen[WATTS]),
    }


def thermal_metrics(seen: dict[str, Reading]) -> Json:
    """The temperatures of the chassis."""
    inlet = {**excerpt(INLET, seen[INLET]), "DeviceName": seen[INLET].name, "PhysicalContext": seen[INLET].context}
    return {
        "Id": "ThermalMetrics",
        "Name": "Thermal Metrics",
        "TemperatureSummaryCelsius": {"Intake": excerpt(INLET, seen[INLET])},
        "TemperatureReadingsCelsius": [inlet],
    }


async def _seen(machine: Machine) -> dict[str, Reading]:
    return readings(await machine.health(), await machine.inventory())


async def _get_sensors(call: Call) -> Json:
    return collection("Sensors", [f"{SENSORS}/{name}" for name in await _seen(call.machine)])


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
    live = frozenset({"Reading"})
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
