"""What an upstream can do with a send: the names of what the fakes play."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Script(StrEnum):
    """What the upstream does with one send; sends after the scripted ones are accepted."""

    # The send
    ACCEPT = "accepted"
    DELAY = "accepted, slow"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    ERROR_500 = "fault on send (500)"
    ERROR_503 = "fault on send (503)"
    CUT_BEFORE = "cut before the answer"
    CUT_WITHIN = "cut within the answer"
    CUT_AFTER = "cut after the answer"
    SILENT = "no answer in time"
    MALFORMED = "unreadable answer"
    ERROR_IN_200 = "200 with an error in it"
    REDIRECTED = "send redirected"
    BAD_KEY = "bad key"
    NO_CREDIT = "no credit"
    MODEL_GONE = "model gone"
    REJECTED = "request rejected"
    MODERATED = "moderated"
    # The questions about an accepted job
    READ_500 = "fault on a question (500)"
    READ_BUSY = "busy at a question"
    READ_CUT = "question cut off"
    READ_MALFORMED = "unreadable answer to a question"
    READ_REDIRECTED = "question redirected"
    LOST = "job forgotten"
    UNKNOWN_STATE = "unknown state"
    FAILED = "run failed"
    CANCELLED = "run cancelled upstream"
    NO_IMAGE = "done without an image"
    # The image
    BASE64_CUT = "base64 cut short"
    RESULT_HTML = "result is a web page"
    RESULT_HUGE = "result too large"
    RESULT_PRIVATE = "result on a private host"
    RESULT_REDIRECTED = "result redirected to a private host"
    RESULT_BROKEN = "download cut once"
    # Callbacks
    CALLBACK_TWICE = "callback delivered twice"
    CALLBACK_FORGED = "callback forged or stale"


MEANINGS: Final[Mapping[str, str]] = {
    Script.ACCEPT: "takes the job and finishes it",
    Script.DELAY: "takes the job and is asked several times before it is finished",
    Script.BUSY: "answers 429 (or its like) with a time to wait, then takes the job",
    Script.UNREACHABLE: "refuses the connection, then takes the job",
    Script.ERROR_500: "answers the send with 500: it may have taken the job",
    Script.ERROR_503: "answers the send with 503",
    Script.CUT_BEFORE: "takes the job and drops the connection without a byte",
    Script.CUT_WITHIN: "takes the job and drops the connection in the middle of the answer",
    Script.CUT_AFTER: "drops the connection after a whole answer",
    Script.SILENT: "takes the job and does not answer before the channel's timeout",
    Script.MALFORMED: "answers the send with broken JSON",
    Script.ERROR_IN_200: "answers the send with a success status and an error in the body",
    Script.REDIRECTED: "redirects the send to another host",
    Script.BAD_KEY: "does not know the key",
    Script.NO_CREDIT: "the operator's account there is empty or locked",
    Script.MODEL_GONE: "does not have the model (any more)",
    Script.REJECTED: "finds the request invalid",
    Script.MODERATED: "refuses or ends the job by its content policy",
    Script.READ_500: "answers one question about the job with 500",
    Script.READ_BUSY: "answers one question about the job with 429 and a time to wait",
    Script.READ_CUT: "drops the connection of one question about the job",
    Script.READ_MALFORMED: "answers one question about the job with broken JSON",
    Script.READ_REDIRECTED: "redirects one question about the job to another host",
    Script.LOST: "no longer knows a job that it took",
    Script.UNKNOWN_STATE: "names a state that its documentation does not, then finishes",
    Script.FAILED: "takes the job and fails at it",
    Script.CANCELLED: "takes the job and somebody cancels it there",
    Script.NO_IMAGE: "says that it is done, and there is no image",
    Script.BASE64_CUT: "sends an image whose base64 ends in the middle",
    Script.RESULT_HTML: "the image's URL leads to a web page",
    Script.RESULT_HUGE: "the image's URL announces more bytes than any image has",
    Script.RESULT_PRIVATE: "the image's URL leads into a private network",
    Script.RESULT_REDIRECTED: "the image's URL redirects into a private network",
    Script.RESULT_BROKEN: "the first download of the image breaks off",
    Script.CALLBACK_TWICE: "tells of the finished job twice",
    Script.CALLBACK_FORGED: "somebody else tells of the job, or tells it again too late",
}
"""What the upstream does, as the page says it."""
