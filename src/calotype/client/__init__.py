"""A client of a running server, over nothing but its public API.

    from calotype.client import Calotype

    with Calotype() as client:
        client.generate("A lighthouse", model="gpt-image-2").save("lighthouse.png")

``AsyncCalotype`` is the same for asyncio. Submitting is safe to repeat: each request carries an
idempotency key, so that one whose answer was lost is sent again and still bought once.
"""

from calotype.client.aio import AsyncCalotype, AsyncTask, AsyncTaskTimeout
from calotype.client.documents import (
    Balance,
    Billing,
    File,
    Image,
    Model,
    State,
    TaskError,
    TaskEvent,
    TaskView,
    WebhookSecret,
    WebhookSettings,
)
from calotype.client.errors import (
    APIError,
    AuthenticationError,
    BillingError,
    CalotypeError,
    ConflictError,
    ConnectionFailed,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TaskFailed,
    WaitTimeout,
    WebhookVerificationError,
)
from calotype.client.requests import GenerationRequest, Reference
from calotype.client.sync import Calotype, Task, TaskTimeout
from calotype.client.webhooks import WebhookEvent, verify_webhook

__all__ = [
    "APIError",
    "AsyncCalotype",
    "AsyncTask",
    "AsyncTaskTimeout",
    "AuthenticationError",
    "Balance",
    "Billing",
    "BillingError",
    "Calotype",
    "CalotypeError",
    "ConflictError",
    "ConnectionFailed",
    "File",
    "GenerationRequest",
    "Image",
    "InvalidRequestError",
    "Model",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "Reference",
    "ServerError",
    "State",
    "Task",
    "TaskError",
    "TaskEvent",
    "TaskFailed",
    "TaskTimeout",
    "TaskView",
    "WaitTimeout",
    "WebhookEvent",
    "WebhookSecret",
    "WebhookSettings",
    "WebhookVerificationError",
    "verify_webhook",
]
