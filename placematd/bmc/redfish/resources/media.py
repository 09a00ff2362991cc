"""Virtual media: images that are loaded from elsewhere and that the guest has as its CD.

InsertMedia is answered at once with a task that follows the transfer. PATCH of Image, which some clients know alone,
is answered when the image is in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Final

from ...machine import Machine, Media
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
    "Password": text(255, nullable=True),
    "TransferProtocolType": one_of(*PROTOCOLS.values(), nullable=True),
    "TransferMethod": one_of(METHOD, nullable=True),
}

Tell = Callable[[float, float | None], None]


def slot(media: Media) -> Json:
    """The VirtualMedia resource; a password is never read back, neither by itself nor in the image's URL."""
    full = media.inserted
    return {
        "Id": media.slot,
        "Name": f"Virtual {media.slot}",
        "MediaTypes": ["CD", "DVD"],
        "Image": shown(media.image) if full else None,
        "ImageName": name(media.image) if full else None,
        "Inserted": full,
        "WriteProtected": media.write_protected,
        "ConnectedVia": "URI" if full else "NotConnected",
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


class Slots:
    """The slots of one machine, and which of them are being filled."""

    def __init__(self) -> None:
        self._loading: dict[str, Task | None] = {}

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
        self._check_free(media)

        async def work(task: Task) -> None:
            with self._filling(media.slot, task):
                await _load(call.machine, media.slot, image, wished.write_protected, task.progress)

        told = {"Image": shown(wished.image), "WriteProtected": wished.write_protected}
        owner = call.account.slot if call.account else 0
        task = call.services.tasks.start("Insert virtual media", work, target=call.uri, body=told, owner=owner)
        self._loading[media.slot] = task
        return task

    async def eject(self, call: Call) -> None:
        """EjectMedia: an image on its way is stopped, an empty slot is empty already."""
        media = await find(call)
        task = self._loading.get(media.slot)
        if task:
            task.cancel()
        await call.machine.eject_media(media.slot)

    async def patch(self, call: Call) -> None:
        """The same through the resource's properties."""
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
        if media.inserted:
            await call.machine.eject_media(media.slot)
        elif media.slot in self._loading:
            raise RedfishError("ResourceInUse")
        with self._filling(media.slot, None):
            await _load(call.machine, media.slot, image, wished.write_protected, lambda _done, _total: None)

    def _check_free(self, media: Media) -> None:
        if media.inserted or media.slot in self._loading:
            raise RedfishError("ResourceInUse")

    @contextmanager
    def _filling(self, name: str, task: Task | None) -> Iterator[None]:
        self._loading[name] = task
        try:
            yield
        finally:
            if self._loading.get(name) is task:
                del self._loading[name]


def _unfit_parameter(unfit: Unfit) -> RedfishError:
    if unfit.name == "TransferProtocolType":
        return RedfishError("ActionParameterValueConflict", unfit.name, unfit.value)
    return RedfishError("ActionParameterValueFormatError", unfit.value, unfit.name, INSERT)


async def _load(machine: Machine, slot: str, image: str, write_protected: bool, tell: Tell) -> None:
    """Fill a slot; whoever cancels stops the transfer as well, since every machine has it as a generator."""
    async with aclosing(machine.insert_media(slot, image, write_protected)) as transfer:  # type: ignore[type-var]
        async for progress in transfer:
            tell(progress.done, progress.total)


async def find(call: Call) -> Media:
    """The slot that the URI names; 404 where there is none."""
    for media in await call.machine.media():
        if media.slot == call.parameters["id"]:
            return media
    raise missing(call)


async def _get_slots(call: Call) -> Json:
    return collection("Virtual Media", [f"{VIRTUAL_MEDIA}/{media.slot}" for media in await call.machine.media()])


async def _get_slot(call: Call) -> Json:
    return slot(await find(call))


def routes() -> Sequence[Resource]:
    """VirtualMedia of the system, which the manager links to as well."""
    slots = Slots()
    image = text(LONGEST_URI, 1)
    return [
        Resource(uri=VIRTUAL_MEDIA, type="VirtualMediaCollection.VirtualMediaCollection", get=_get_slots),
        Resource(
            uri=f"{VIRTUAL_MEDIA}/{{id}}",
            type="VirtualMedia.v1_6_5.VirtualMedia",
            get=_get_slot,
            patch=slots.patch,
            writable={"Image": text(LONGEST_URI, 1, nullable=True), **FIELDS},
            actions=(
                Action(INSERT, slots.insert, {"Image": image, **FIELDS}, required=("Image",)),
                Action(EJECT, slots.eject),
            ),
        ),
    ]
