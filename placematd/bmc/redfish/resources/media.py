"""Virtual media: images that are loaded from elsewhere and that the guest has as its CD.

InsertMedia is answered at once with a task that follows the transfer. PATCH of Image, which some clients know alone,
begins the same; Inserted becomes true when the image is in.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from ...machine import Media
from ..messages import RedfishError
from ..resource import Action, Call, Json, Resource, Rule, boolean, collection, missing, one_of, text
from ..tasks import Task
from .media_source import PROTOCOLS, Unfit, Wish, name, protocol, shown, source, user_name
from .parts import HEALTHY
from .paths import VIRTUAL_MEDIA

INSERT, EJECT = "VirtualMedia.InsertMedia", "VirtualMedia.EjectMedia"
METHOD: Final = "Upload"
"""The whole image is loaded before the guest sees it (VirtualMedia schema, TransferMethod)."""
LONGEST_URI: Final = 2048

FIELDS: Final[Mapping[str, Rule]] = {
    "Inserted": boolean(),
    "WriteProtected": boolean(),
    "UserName": text(255, nullable=True),
    "Password": Rule("string", maximum=255, nullable=True, secret=True),
    "TransferProtocolType": one_of(*PROTOCOLS.values(), nullable=True),
    "TransferMethod": one_of(METHOD, nullable=True),
}


def slot(media: Media, *, on_its_way: bool = False) -> Json:
    """The VirtualMedia resource; a password is never read back, neither by itself nor in the image's URL."""
    full = media.inserted or on_its_way
    return {
        "Id": media.slot,
        "Name": f"Virtual {media.slot}",
        "MediaTypes": ["CD", "DVD"],
        "Image": shown(media.image) if full else None,
        "ImageName": name(media.image) if full else None,
        "Inserted": media.inserted,
        "WriteProtected": media.write_protected,
        "ConnectedVia": "URI" if media.inserted else "NotConnected",
        "UserName": user_name(media.image) if full else None,
        "Password": None,
        "TransferProtocolType": protocol(media.image) if full else None,
        "TransferMethod": METHOD,
        "Status": HEALTHY,
    }


def wish(body: Mapping[str, Any]) -> Wish:
    """What the parameters of InsertMedia, or the properties of a PATCH, ask for."""
    return Wish(
        image=body["Image"],
        write_protected=body.get("WriteProtected", True),
        user_name=body.get("UserName"),
        password=body.get("Password"),
        protocol=body.get("TransferProtocolType"),
    )


@dataclass(frozen=True)
class Transfer:
    """An image on its way into a slot."""

    task: Task
    image: str
    write_protected: bool


class Slots:
    """The slots of one machine, with what is on its way into them."""

    def __init__(self) -> None:
        self._transfers: dict[str, Transfer] = {}

    async def get(self, call: Call) -> Json:
        """The resource; an image on its way is told already, so that nobody takes the slot for a free one."""
        media = await find(call)
        transfer = self._transfer(media.slot)
        if transfer is None or media.inserted:
            return slot(media)
        waiting = Media(slot=media.slot, image=transfer.image, write_protected=transfer.write_protected)
        return slot(waiting, on_its_way=True)

    async def insert(self, call: Call) -> Task:
        """InsertMedia: a task that ends when the image is in."""
        if call.body.get("Inserted") is False:
            raise RedfishError("ActionParameterValueNotInList", "false", "Inserted", INSERT)
        wished = wish(call.body)
        try:
            image = source(wished)
        except Unfit as unfit:
            raise _unfit_parameter(unfit) from unfit
        media = await find(call)
        if media.inserted or self._transfer(media.slot):
            raise RedfishError("ResourceInUse")
        return self._start(call, media.slot, image, wished.write_protected)

    async def eject(self, call: Call) -> None:
        """EjectMedia: an image on its way is stopped, an empty slot is empty already."""
        media = await find(call)
        transfer = self._transfer(media.slot)
        if transfer:
            transfer.task.cancel()
        await call.machine.eject_media(media.slot)

    async def patch(self, call: Call) -> None:
        """The same through the resource's properties: Image or Inserted, the rest goes with Image."""
        body = call.body
        if body.get("Inserted") is False or ("Image" in body and body["Image"] is None):
            await self.eject(call)
        elif "Image" in body:
            await self._replace(call)
        else:
            raise RedfishError("PropertyMissing", "Image", at="Image")

    async def _replace(self, call: Call) -> None:
        wished = wish(call.body)
        try:
            image = source(wished)
        except Unfit as unfit:
            raise RedfishError("PropertyValueFormatError", unfit.value, unfit.name, at=unfit.name) from unfit
        media = await find(call)
        if self._transfer(media.slot):
            raise RedfishError("ResourceInUse")
        if media.inserted:
            await call.machine.eject_media(media.slot)
        self._start(call, media.slot, image, wished.write_protected)

    def _transfer(self, name: str) -> Transfer | None:
        transfer = self._transfers.get(name)
        return None if transfer is None or transfer.task.done else transfer

    def _start(self, call: Call, name: str, image: str, write_protected: bool) -> Task:
        async def work(task: Task) -> None:
            # Whoever cancels the task stops the transfer as well: every machine has it as a generator.
            async with aclosing(call.machine.insert_media(name, image, write_protected)) as steps:  # type: ignore[type-var]
                async for progress in steps:
                    task.progress(progress.done, progress.total)

        told = {"Image": shown(image), "WriteProtected": write_protected}
        task = replace(call, body=told).start("Insert virtual media", work)
        self._transfers[name] = Transfer(task, image, write_protected)
        return task


def _unfit_parameter(unfit: Unfit) -> RedfishError:
    if unfit.name == "TransferProtocolType":
        return RedfishError("ActionParameterValueConflict", unfit.name, unfit.value)
    return RedfishError("ActionParameterValueFormatError", unfit.value, unfit.name, INSERT)


async def find(call: Call) -> Media:
    """The slot that the URI names; 404 where there is none."""
    for media in await call.machine.media():
        if media.slot == call.parameters["id"]:
            return media
    raise missing(call)


async def _get_slots(call: Call) -> Json:
    return collection("Virtual Media", [f"{VIRTUAL_MEDIA}/{media.slot}" for media in await call.machine.media()])


def routes() -> Sequence[Resource]:
    """VirtualMedia of the system, which the manager links to as well."""
    slots = Slots()
    image = Rule("string", minimum=1, maximum=LONGEST_URI, secret=True)
    return [
        Resource(uri=VIRTUAL_MEDIA, type="VirtualMediaCollection.VirtualMediaCollection", get=_get_slots),
        Resource(
            uri=f"{VIRTUAL_MEDIA}/{{id}}",
            type="VirtualMedia.v1_6_5.VirtualMedia",
            get=slots.get,
            patch=slots.patch,
            writable={"Image": replace(image, nullable=True), **FIELDS},
            actions=(
                Action(INSERT, slots.insert, {"Image": image, **FIELDS}, required=("Image",)),
                Action(EJECT, slots.eject),
            ),
        ),
    ]
