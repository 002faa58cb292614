"""What `tickwork doctor` says of Redis and of a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tickwork.adapters.blob.objects.examination import examine as examine_bucket
from tickwork.adapters.kv.redis import examine as examine_redis
from tickwork.cli import output
from tickwork.cli.doctor import Finding
from tickwork.cli.doctor_cloud import clock_of, is_here, tls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tickwork.adapters.blob.objects.examination import Examination as Bucket
    from tickwork.adapters.kv.redis import Examination as Server
    from tickwork.ports import Clock

OLDEST = 6
"""The first version of Redis that is known to work."""


async def redis(url: str, clock: Clock, _limit: float) -> list[Finding]:
    """All that is to be said of the server that `url` names. StorageError when it does not answer."""
    seen = await examine_redis(url, clock)
    return [
        _server(seen),
        tls_of(
            "redis", (seen.host,), "Turn TLS on at the server, and write rediss:// in TICKWORK_KV_URL.",
            encrypted=seen.encrypted,
        ),
        *_eviction(seen),
        clock_of("redis", seen.asked, seen.told, seen.doubt),
    ]  # fmt: skip


def _server(seen: Server) -> Finding:
    facts = seen.facts
    valkey, version = facts.get("valkey_version"), facts.get("redis_version", "")
    name = f"Valkey {valkey}" if valkey else f"Redis {version}".strip()
    text = f"{name}: {seen.where}, answered in {output.milliseconds(seen.seconds * 1_000)}"
    if not seen.keeps:
        return Finding("redis", "bad", f"{text}; what was set cannot be read back", "Look at its memory and its log.")
    if version and version.split(".")[0].isdigit() and int(version.split(".")[0]) < OLDEST:
        return Finding("redis", "bad", f"{text}: it is too old", "Use Redis 6 or newer, or Valkey.")
    if facts.get("cluster_enabled") == "1":
        return Finding("redis", "bad", f"{text}: in cluster mode", "Use a server without cluster mode.")
    if facts.get("role") == "slave":
        return Finding("redis", "bad", f"{text}: it is a replica", "Name the primary in TICKWORK_KV_URL.")
    if not seen.replaces:
        said = f"{text}; EVAL is refused, so that an attempt may begin in the moment in which it is given up"
        return Finding("redis", "bad", said, "Let the user of TICKWORK_KV_URL run EVAL (ACL SETUSER ... +eval).")
    return Finding("redis", "ok", text)


def _eviction(seen: Server) -> Iterator[Finding]:
    check, policy = "redis eviction", seen.facts.get("maxmemory_policy")
    if policy is None:
        yield Finding(check, "note", "cannot be told: this user may not ask (INFO)")
        return
    bounded = seen.facts.get("maxmemory", "0") != "0"
    limit = f"maxmemory {seen.facts.get('maxmemory_human')}" if bounded else "no maxmemory"
    if policy == "noeviction":
        yield Finding(check, "ok", f"noeviction, {limit}")
    elif bounded:
        said = f"{policy}, {limit}: claims that are evicted look like workers that never took their input"
        yield Finding(check, "bad", said, "CONFIG SET maxmemory-policy noeviction, and in redis.conf.")
    else:
        said = f"{policy}, {limit}: nothing is evicted until there is one"
        yield Finding(check, "note", said, "CONFIG SET maxmemory-policy noeviction, and in redis.conf.")


async def bucket(url: str, clock: Clock, limit: float) -> list[Finding]:
    """All that is to be said of the bucket that `url` names. StorageError when it cannot be used."""
    seen = await examine_bucket(url, clock, limit)
    host = urlsplit(seen.endpoint).hostname or ""
    return [
        kept_of(seen),
        tls_of(
            "bucket", (host,), "Write endpoint=https://... in TICKWORK_BLOB_URL.",
            encrypted=not seen.endpoint.startswith("http://"),
        ),
        encryption_of(seen, here=bool(seen.endpoint) and is_here(host)),
        *rules_of(seen),
        clock_of("bucket", seen.asked, seen.told, seen.doubt),
    ]  # fmt: skip


def kept_of(seen: Bucket) -> Finding:
    """Whether it keeps what is put, and puts only what is absent."""
    server = (seen.headers or {}).get("server", "")
    text = f"{seen.where}{f' ({server})' if server else ''}"
    if not seen.same:
        return Finding("bucket", "bad", f"{text}: what was read is not what was written", "Do not use this server.")
    if not seen.if_absent:
        return Finding(
            "bucket",
            "bad",
            f"{text}: put-if-absent (If-None-Match: *) replaced what was there",
            "Use a server that knows it: S3 itself, Google Cloud Storage, or a newer version of this one.",
        )
    took = output.milliseconds(seen.seconds * 1_000)
    return Finding("bucket", "ok", f"{text}: written in {took}, read back, put-if-absent works")


def encryption_of(seen: Bucket, *, here: bool) -> Finding:
    """How objects lie there. `here`: on this machine, where it is worth a note alone."""
    check = "bucket encryption"
    if seen.scheme == "gs":
        return Finding(check, "ok", "Google Cloud Storage encrypts all that it keeps")
    if seen.sse == "sse-c":
        return Finding(check, "ok", "with your own key (sse-c)")
    if seen.headers is None:
        return Finding(check, "note", "cannot be told: the server does not say how it keeps an object")
    found = seen.headers.get("x-amz-server-side-encryption")
    if found and seen.sse and found != seen.sse:
        said = f"{found}, and TICKWORK_BLOB_URL asks for {seen.sse}"
        return Finding(check, "bad", said, "Look at the bucket's own encryption settings and its policy.")
    if found:
        key = seen.headers.get("x-amz-server-side-encryption-aws-kms-key-id", "")
        return Finding(check, "ok", f"{found}{f', key {key}' if key else ''}")
    said = "none that the server tells of: payloads lie there as they are"
    todo = "Add sse=AES256, or sse=aws:kms&kms_key=KEY, to TICKWORK_BLOB_URL, or set the bucket's default encryption."
    return Finding(check, "note" if here else "bad", said, todo)


def rules_of(seen: Bucket) -> Iterator[Finding]:
    """Versions, and rules that delete, as far as one object's headers tell."""
    if seen.headers is None:
        yield Finding("bucket rules", "note", "versioning and lifecycle cannot be told: these credentials do not sign")
        return
    if expires := seen.headers.get("x-amz-expiration"):
        yield Finding(
            "bucket lifecycle",
            "bad",
            f"a rule deletes objects ({expires}): records would point to nothing",
            "Limit the rule to other prefixes. Only incomplete multipart uploads may be removed by one.",
        )
    if seen.scheme == "gs":
        return
    version = seen.headers.get("x-amz-version-id", "null")
    if version != "null":
        yield Finding("bucket versions", "ok", "kept: an object that was changed from outside can be restored")
    else:
        yield Finding("bucket versions", "note", "none are kept: what is deleted by mistake is gone without a backup")
