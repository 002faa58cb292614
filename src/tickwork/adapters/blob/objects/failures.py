"""What an object store's refusals mean, in a sentence for people: what happened, where, what to do next.

The client's own text carries whole answers of the server and is long; of it only the status, the server's code and its
sentence are kept, and whatever is secret is struck out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tickwork.errors import ServerAway, StorageError, StorageFull

_STATUS = re.compile(r"status code: (?P<status>\d{3}[^:<\n]*)")
_CODE = re.compile(r"<Code>(?P<code>[^<]{1,100})</Code>")
_SENTENCE = re.compile(r"<(?:Message|Details)>(?P<text>[^<]{1,300})</(?:Message|Details)>")
_CAUSE = re.compile(r"kind: (Connect|Timeout|Decode|Interrupted)|(dns error|tcp connect error|Connection refused)")
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "fd00:ec2::254")
_FULL = ("QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "XMinioStorageFull")
_CREDENTIALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed")
PASSING = ("408", "409", "412", "429")
"""Answers of 4xx that another try may not get."""


def server_code(error: BaseException) -> str:
    """The word by which the server names what is wrong; empty when it did not say."""
    found = _CODE.search(str(error))
    return found["code"] if found else ""


def is_final(error: BaseException) -> bool:
    """Whether another try would get the same answer."""
    found = _STATUS.search(str(error))
    return found is not None and found["status"].startswith("4") and not found["status"].startswith(PASSING)


REASONS = ("exists", "damaged", "throttled", "server", "timeout", "connection")
"""Why a put or get is begun again, for those who count; the client's own tries inside are not seen."""


def why(error: BaseException) -> str:
    """One of REASONS for an error after which another try is made."""
    text = str(error)
    found = _STATUS.search(text)
    if type(error).__name__ == "AlreadyExistsError" or (found and found["status"][:3] in ("409", "412")):
        return "exists"
    if (found and found["status"][:3] in ("429", "503")) or server_code(error) == "SlowDown":
        return "throttled"
    if found:
        return "server"
    return "timeout" if isinstance(error, TimeoutError) or "Timeout" in text else "connection"


class Refusals:
    """Makes the errors of one object store. `secrets`: what must not stand in any of them."""

    def __init__(self, where: str, secrets: Iterable[str]) -> None:
        self._where = where
        self._secrets = tuple(secret for secret in secrets if secret)

    def refused(self, doing: str, error: BaseException) -> StorageError:
        """The error for what the client raised while it was `doing` something."""
        text, code, reason = str(error), server_code(error), self._reason(error)
        here = f"{doing} failed: {self._where}"
        if code == "NoSuchBucket":
            return StorageError(f"{here} does not exist. Create it, or correct its name in TICKWORK_BLOB_URL.")
        if any(host in text for host in _METADATA):
            return StorageError(
                f"{here} needs credentials, and none were found: neither in TICKWORK_BLOB_URL nor in the environment "
                f"(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_*), and this machine has no identity that "
                f"gives some ({reason})."
            )
        if code in _CREDENTIALS or type(error).__name__ == "UnauthenticatedError":
            return StorageError(
                f"{here} does not accept the credentials ({reason}). Check the key and its secret, whether they have "
                "expired, and this machine's clock."
            )
        if type(error).__name__ == "PermissionDeniedError":
            return StorageError(
                f"{here} does not allow it ({reason}). The credentials need to read and write objects there "
                "(s3:GetObject, s3:PutObject, s3:AbortMultipartUpload), and to use its encryption key if it has one."
            )
        if code in _FULL or "status code: 507" in text:
            return StorageFull(f"{here} has no room left ({reason}). What was kept is safe; make room and try again.")
        if is_final(error):
            return StorageError(f"{here} refused ({reason}). Check the options in TICKWORK_BLOB_URL.")
        return ServerAway(
            f"{here} cannot be reached or does not work now ({reason}). It was tried several times; check that it "
            "runs and can be reached from here, and try again."
        )

    def _reason(self, error: BaseException) -> str:
        text = str(error)
        parts = [found["status"].strip() if (found := _STATUS.search(text)) else "", server_code(error)]
        if sentence := _SENTENCE.search(text):
            parts.append(sentence["text"])
        if not any(parts):
            parts = list(dict.fromkeys(a or b for a, b in _CAUSE.findall(text))) or [text.partition("\n")[0][:200]]
        reason = ", ".join(part for part in parts if part)
        for secret in self._secrets:
            reason = reason.replace(secret, "***")
        return reason
