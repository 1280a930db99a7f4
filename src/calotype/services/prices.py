"""What a task pays when it ends: for as many of its images as were made."""

from calotype.domain.catalog import Catalog
from calotype.domain.errors import UnknownModel
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
        channel = self._router.get(task.channel_id)
        try:
            model = self._catalog.get(task.model)
        except UnknownModel:  # the operator took it away since
            return share
        served = None if channel is None else channel.served(task.model)
        return min(share, price(model, task.request.parameters, asked, served))

    def of_cancelled(self, task: Task, count: int) -> int:
        """For so many images that were made although the client had asked for the task to stop."""
        if task.cancel_free:
            return 0
        try:
            return cancelled(self._catalog.get(task.model), self.of(task, count))
        except UnknownModel:
            return 0
