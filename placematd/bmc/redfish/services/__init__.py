"""The resources of the service itself: its root, sessions, accounts, events, tasks, registries and schemas."""

from collections.abc import Sequence

from ..resource import Resource
from .accounts import routes as accounts
from .events import routes as events
from .registries import routes as registries
from .root import route as root
from .schemas import schema_routes
from .sessions import routes as sessions
from .tasks import routes as tasks


def routes(machine: Sequence[Resource]) -> Sequence[Resource]:
    """All resources of this package, beside `machine`, those that belong to the machine."""
    own = [*accounts(), *events(), *registries(), *sessions(), *tasks()]
    return [*own, root([*own, *machine]), *schema_routes([*own, *machine])]
