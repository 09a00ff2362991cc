"""Changes of nftables' rules, as the kernel tells them."""

import asyncio

import pytest

from placematd.firewall import Firewalls
from placematd.firewall_watch import FirewallWatch, mend
from placematd.passage import Passages, observe_closed_chains
from placematd.plan import Plan
from placematd.resources import Firewall, Passage

pytestmark = pytest.mark.integration

THEIRS = "table inet theirs {\nchain f {\ntype filter hook forward priority 10; policy drop;\n}\n}\n"


def watching(net, act):
    """How often the watch called while `act` ran, which is told when it did."""

    async def scenario():
        calls = asyncio.Queue()

        async def changed():
            calls.put_nowait(None)

        watch = FirewallWatch(changed, settle_seconds=0.2)
        watch.start()
        try:
            await act(calls)
        finally:
            watch.close()
        return calls.qsize()

    return asyncio.run(scenario())


def test_many_changes_are_one_call(private_net):
    async def act(calls):
        for number in range(5):
            private_net.sh("nft", "add", "table", "inet", f"t{number}")
        await asyncio.wait_for(calls.get(), 30)

    assert watching(private_net, act) == 0


def test_a_later_change_is_another_call(private_net):
    async def act(calls):
        for number in range(2):
            private_net.sh("nft", "add", "table", "inet", f"t{number}")
            await asyncio.wait_for(calls.get(), 30)

    assert watching(private_net, act) == 0


def test_listing_rules_is_no_change(private_net):
    async def act(calls):
        private_net.sh("nft", "list", "ruleset")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(calls.get(), 1)

    assert watching(private_net, act) == 0


def test_a_change_in_another_network_namespace_is_none_here(private_net):
    private_net.sh("ip", "netns", "add", "other")

    async def act(calls):
        private_net.sh("ip", "netns", "exec", "other", "nft", "add", "table", "inet", "t")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(calls.get(), 1)

    assert watching(private_net, act) == 0


def plan():
    chains = observe_closed_chains()
    passages = [
        Passage(
            name=f"p-{chain.table}", family=chain.family, table=chain.table, chain=chain.chain, interfaces=("net0",)
        )
        for chain in chains
    ]
    return Plan(cluster="c", resources=(Firewall(name="placemat-c", rules="chain forward {\n}"), *passages))


def test_what_was_lost_is_put_back_and_then_nothing_is_left_to_do(private_net):
    adapters = {"firewall": Firewalls(), "passage": Passages()}
    private_net.sh("nft", "-f", "-", input=THEIRS)
    assert [str(change.key) for change in mend(plan(), adapters)] == ["firewall placemat-c", "passage p-theirs"]
    assert mend(plan(), adapters) == []
    before = private_net.sh("nft", "--stateless", "list", "ruleset")
    private_net.sh("nft", "-f", "-", input="delete table inet theirs\n" + THEIRS)
    assert [(change.action, str(change.key)) for change in mend(plan(), adapters)] == [("create", "passage p-theirs")]
    assert sorted(private_net.sh("nft", "--stateless", "list", "ruleset")) == sorted(before)


def test_what_is_needed_no_more_is_taken_away(private_net):
    adapters = {"firewall": Firewalls(), "passage": Passages()}
    private_net.sh("nft", "-f", "-", input=THEIRS)
    mend(plan(), adapters)
    private_net.sh("nft", "chain inet theirs f { policy accept; }")
    assert [(change.action, str(change.key)) for change in mend(plan(), adapters)] == [("remove", "passage p-theirs")]
    assert "net0" not in private_net.sh("nft", "list", "ruleset")
