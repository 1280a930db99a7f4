"""What every page may use."""

import msgspec

from calotype.assets.port import AssetStore
from calotype.console.render import Renderer
from calotype.console.sessions import Sessions
from calotype.console.throttle import Throttle
from calotype.domain.catalog import Catalog
from calotype.domain.clock import Clock
from calotype.services.accounts import Accounts
from calotype.services.assets import Assets
from calotype.services.audit import Audit
from calotype.services.cancelling import Cancelling
from calotype.services.deleting import Deleting
from calotype.services.delivery import Delivery
from calotype.services.feed import Feed
from calotype.services.operating import Operating
from calotype.services.references import ReferenceIntake
from calotype.services.routing import Router
from calotype.services.signin import Links
from calotype.services.submission import Submission
from calotype.services.thumbnails import Thumbnails
from calotype.services.usage import Usage
from calotype.services.watching import Watching
from calotype.services.webhooks import Webhooks
from calotype.settings import Settings
from calotype.store.port import Store


class Console(msgspec.Struct, frozen=True):
    """The services behind the pages, and what makes pages of them."""

    settings: Settings
    catalog: Catalog
    router: Router
    store: Store
    accounts: Accounts
    assets: Assets
    asset_store: AssetStore
    cancelling: Cancelling
    deleting: Deleting
    delivery: Delivery
    feed: Feed
    references: ReferenceIntake
    submission: Submission
    thumbnails: Thumbnails
    webhooks: Webhooks
    audit: Audit
    operating: Operating
    watching: Watching
    usage: Usage
    links: Links
    clock: Clock
    render: Renderer
    sessions: Sessions
    throttle: Throttle
