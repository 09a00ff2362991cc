import asyncio

from placematd.events import HISTORY_EVENTS, QUEUE_EVENTS, Event, Events, Subscription


async def message(subscription: Subscription) -> str:
    event = await subscription.get()
    assert event is not None
    return str(event["message"])


def test_a_late_listener_gets_the_recent_events_first_and_no_progress() -> None:
    async def scenario() -> list[str]:
        events = Events()
        events.publish("step", "bridge net0")
        events.publish("progress", "image", item="image", done=1, total=2)
        subscription = events.subscribe()
        events.publish("state", "up")
        return [await message(subscription) for _ in range(2)]

    assert asyncio.run(scenario()) == ["bridge net0", "up"]


def test_history_and_queue_are_bounded_and_keep_the_newest() -> None:
    async def scenario() -> tuple[str, str]:
        events = Events()
        slow = events.subscribe()
        for number in range(QUEUE_EVENTS + 5):
            events.publish("step", str(number))
        late = events.subscribe()
        return await message(slow), await message(late)

    assert asyncio.run(scenario()) == ("5", str(QUEUE_EVENTS + 5 - HISTORY_EVENTS))


def test_an_event_wakes_a_waiting_listener_also_from_another_thread() -> None:
    async def scenario() -> Event | None:
        events = Events()
        events.bind(asyncio.get_running_loop())
        subscription = events.subscribe()
        waiting = asyncio.ensure_future(subscription.get())
        await asyncio.to_thread(events.publish_threadsafe, "bmc", "here", node="worker-1", address="172.16.1.2")
        return await asyncio.wait_for(waiting, 30)

    event = asyncio.run(scenario())
    assert event is not None
    assert event["node"] == "worker-1" and event["address"] == "172.16.1.2" and event["kind"] == "bmc"


def test_an_unsubscribed_listener_that_waits_is_let_go() -> None:
    async def scenario() -> object:
        events = Events()
        subscription = events.subscribe()
        waiting = asyncio.ensure_future(subscription.get())
        await asyncio.sleep(0)
        events.unsubscribe(subscription)
        events.publish("step", "later")
        return await asyncio.wait_for(waiting, 30)

    assert asyncio.run(scenario()) is None
