"""What a task pays when it ends: for as many of its images as were made."""

from calotype.domain.catalog import Catalog
from calotype.domain.errors import InternalError, UnknownModel
from calotype.domain.pricing import cancelled, price
from calotype.domain.task import Task
from calotype.services.routing import Router


class Prices:
    """The prices of the catalog and of the channels in force."""

    def __init__(self, catalog: Catalog, router: Router) -> None:
        self._catalog = catalog
        self._router = router

    def of(self, task: Task, count: int) -> int:
        """For so many images: their share of what was reserved, or less where that is the price."""
        asked = min(count, task.request.n)
        share = task.reserved * asked // task.request.n
        unit = self._unit(task)
        return share if unit is None else min(share, unit * asked)

    def of_cancelled(self, task: Task, count: int) -> int:
        """For so many images that were made although the client had asked for the task to stop."""
        unit = self._unit(task)
        if task.cancel_free or unit is None:
            return 0
        unit = min(unit, task.reserved // task.request.n)
        return min(count, task.request.n) * cancelled(self._catalog.get(task.model), unit)

    def _unit(self, task: Task) -> int | None:
        """What one image costs now; None when the operator took the model or its price away."""
        channel = self._router.get(task.channel_id)
        served = None if channel is None else channel.served(task.model)
        try:
            return price(self._catalog.get(task.model), task.request.parameters, 1, served)
        except (UnknownModel, InternalError):
            return None
