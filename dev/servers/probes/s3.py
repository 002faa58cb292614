"""S3 over plain HTTP with signatures of version 4, for objects that fit in memory."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
from dataclasses import dataclass

from . import NotReady

REGION = "us-east-1"


@dataclass(frozen=True)
class S3Client:
    """Signs with one access key. Names of buckets and objects are taken as they are: letters, digits, `/`, `-`, `.`."""

    port: int
    key: str
    secret: str
    seconds: float = 5

    def call(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """The status and the body of the answer."""
        host = f"127.0.0.1:{self.port}"
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        digest = hashlib.sha256(body).hexdigest()
        headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        request = f"{method}\n{path}\n\n{lines}\n{names}\n{digest}"
        scope = f"{now[:8]}/{REGION}/s3/aws4_request"
        signed = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, signed.encode(), "sha256").hex()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.seconds)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise NotReady(f"it does not speak HTTP: {error!r}") from None
        finally:
            connection.close()

    def demand(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The body of a good answer. Raises NotReady with the status and the beginning of a bad one."""
        status, answer = self.call(method, path, body)
        if status >= 300:
            raise NotReady(f"{method} {path} got {status}: {answer[:200].decode(errors='replace')}")
        return answer
