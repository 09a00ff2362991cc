"""Where the machine's resources are: ids as in placemat v2, whose URLs people have in their scripts."""

from typing import Final

from ..resource import ROOT

SYSTEMS: Final = f"{ROOT}/Systems"
SYSTEM_ID: Final = "System.Embedded.1"
SYSTEM: Final = f"{SYSTEMS}/{SYSTEM_ID}"
CHASSIS_COLLECTION: Final = f"{ROOT}/Chassis"
CHASSIS_ID: Final = "System.Embedded.1"
CHASSIS: Final = f"{CHASSIS_COLLECTION}/{CHASSIS_ID}"
MANAGERS: Final = f"{ROOT}/Managers"
MANAGER_ID: Final = "BMC"
MANAGER: Final = f"{MANAGERS}/{MANAGER_ID}"

BIOS: Final = f"{SYSTEM}/Bios"
BOOT_OPTIONS: Final = f"{SYSTEM}/BootOptions"
ETHERNET: Final = f"{SYSTEM}/EthernetInterfaces"
LOG_SERVICES: Final = f"{SYSTEM}/LogServices"
MEMORY: Final = f"{SYSTEM}/Memory"
PROCESSORS: Final = f"{SYSTEM}/Processors"
SECURE_BOOT: Final = f"{SYSTEM}/SecureBoot"
SIMPLE_STORAGE: Final = f"{SYSTEM}/SimpleStorage"
STORAGE: Final = f"{SYSTEM}/Storage"
VIRTUAL_MEDIA: Final = f"{SYSTEM}/VirtualMedia"

DRIVES: Final = f"{CHASSIS}/Drives"
SENSORS: Final = f"{CHASSIS}/Sensors"
TRUSTED: Final = f"{CHASSIS}/TrustedComponents"
THERMAL: Final = f"{CHASSIS}/ThermalSubsystem"
POWER: Final = f"{CHASSIS}/PowerSubsystem"
ENVIRONMENT: Final = f"{CHASSIS}/EnvironmentMetrics"

NETWORK_PROTOCOL: Final = f"{MANAGER}/NetworkProtocol"
MANAGER_LOG_SERVICES: Final = f"{MANAGER}/LogServices"
MANAGER_ETHERNET: Final = f"{MANAGER}/EthernetInterfaces"

UPDATE_SERVICE: Final = f"{ROOT}/UpdateService"
FIRMWARE: Final = f"{UPDATE_SERVICE}/FirmwareInventory"
