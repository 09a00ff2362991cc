"""Events on their way to a subscriber: HTTP POST, with bounded retries (EventService, EventDestination)."""

import asyncio
import logging

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest

from .events import Events, Listener
from .settings import Settings

log = logging.getLogger("placemat.bmc")

CONNECT_SECONDS, REQUEST_SECONDS = 5.0, 10.0


class Delivery:
    """Posts what listeners have waiting."""

    def __init__(self, events: Events, settings: Settings) -> None:
        self._events, self._settings = events, settings
        self._client = AsyncHTTPClient(force_instance=True, defaults={"user_agent": "placemat"})

    def start(self, listener: Listener) -> asyncio.Task[None]:
        """Deliver for as long as the subscription lasts."""
        return asyncio.get_running_loop().create_task(self._work(listener), name="redfish delivery")

    def close(self) -> None:
        """Let go of the client."""
        self._client.close()

    async def _work(self, listener: Listener) -> None:
        while (item := await listener.waiting.get()) is not None:
            while not await self._with_retries(listener, item[1]):
                policy = listener.subscription.retry
                log.warning("redfish: events do not reach subscription %s (%s)", listener.subscription.id, policy)
                if policy == "TerminateAfterRetries":
                    listener._task = None  # this very task; it ends here
                    await self._events.unsubscribe(listener.subscription.id)
                    return
                if policy == "SuspendRetries":
                    listener.suspended = True
                    break

    async def _with_retries(self, listener: Listener, body: bytes) -> bool:
        """Whether it arrived in as many attempts as there are."""
        for attempt in range(self._settings.values.delivery_attempts + 1):
            if attempt:
                await asyncio.sleep(self._settings.values.delivery_interval_seconds)
            if await self._post(listener, body):
                return True
        return False

    async def _post(self, listener: Listener, body: bytes) -> bool:
        subscription = listener.subscription
        request = HTTPRequest(
            subscription.destination,
            method="POST",
            body=body,
            headers={
                "Content-Type": "application/json;charset=utf-8",
                **{str(name): str(value) for name, value in subscription.headers},
            },
            connect_timeout=CONNECT_SECONDS,
            request_timeout=REQUEST_SECONDS,
            follow_redirects=False,
            validate_cert=subscription.verify,
        )
        try:
            await self._client.fetch(request)
        except (HTTPError, OSError, ValueError) as error:
            log.debug("redfish: subscription %s: %s", subscription.id, error)
            return False
        return True
