"""`tickwork doctor` finds what is wrong and says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.cli.process import Cli
from tickwork.adapters.blob.objects.examination import Examination as Bucket
from tickwork.adapters.bus.kafka.examination import Topic
from tickwork.cli.doctor_cloud import clock_of, listed, tls_of
from tickwork.cli.doctor_kafka import few_replicas, insync_of
from tickwork.cli.doctor_stores import encryption_of, kept_of, rules_of


def test_a_sound_machine_is_said_to_be_so(cli: Cli) -> None:
    ran = cli("doctor", "--json")
    assert ran.json["healthy"] is True
    checks = {row["check"]: row for row in ran.json["checks"]}
    for name in ("python", "tickwork", "conditions", "sqlite", "home", "space", "fsync", "holder", "store"):
        assert checks[name]["state"] == "ok", checks[name]
    assert "All is well" in cli("doctor").err


def test_a_home_that_is_a_file_is_found(cli: Cli, home: Path) -> None:
    home.write_text("not a folder")
    ran = cli("doctor", "--json", code=4)
    (bad,) = [row for row in ran.json["checks"] if row["state"] == "bad"]
    assert bad["check"] == "home"
    assert "--home" in bad["todo"]


def test_a_database_that_is_none_is_found(cli: Cli, home: Path) -> None:
    home.mkdir()
    (home / "tickwork.db").write_bytes(b"this is no database, whatever its name says" * 100)
    ran = cli("doctor", code=4)
    assert "store" in ran.out
    assert "1 check found something wrong" in ran.err


def test_a_variable_that_is_left_in_a_shell_is_seen(cli: Cli) -> None:
    ran = cli("doctor", "--json", TICKWORK_BUS_URL="kafka://me:geheim@broker:9092/prod")
    (note,) = [row for row in ran.json["checks"] if row["check"] == "adapters"]
    assert note["state"] == "note"
    assert "TICKWORK_BUS_URL is set: kafka://broker:9092/prod" in note["found"]
    assert "geheim" not in ran.out


def test_without_any_server_named_all_four_are_missing(cli: Cli) -> None:
    ran = cli("doctor", "--json", "--profile", "cloud", code=4)
    missing = [row["found"] for row in ran.json["checks"] if row["state"] == "bad"]
    assert missing == [f"TICKWORK_{name}_URL is not set" for name in ("BUS", "STATE", "BLOB", "KV")]


SECOND = 1_000_000


@pytest.mark.parametrize(
    ("ahead", "doubt", "state", "says"),
    [
        (0, 500, "ok", "as this host's, to 1 ms"),
        (300_000, 1_000, "ok", "300 ms ahead of"),
        (-90 * SECOND, 1_000, "bad", "90.0 s behind"),
        (1_400_000, 500_000, "ok", "1.4 s ahead"),
        (1_600_000, 500_000, "bad", "1.6 s ahead"),
        (3_600 * SECOND, 0, "bad", "60 min ahead"),
    ],
)
def test_clocks_that_differ_by_more_than_a_second_are_found(ahead: int, doubt: int, state: str, says: str) -> None:
    """A doubt as large as the difference is no finding: a header names whole seconds."""
    found = clock_of("postgres", 10_000 * SECOND, 10_000 * SECOND + ahead, doubt)
    assert (found.check, found.state) == ("postgres clock", state)
    assert says in found.found


def test_a_clock_that_is_not_told_is_no_finding() -> None:
    assert clock_of("kafka", 10, 0, 0).state == "note"


@pytest.mark.parametrize(
    ("hosts", "encrypted", "state"),
    [
        (("127.0.0.1", "::1", "[::1]", "localhost", "db.localhost", "/run/postgresql"), False, "ok"),
        (("127.0.0.1", "10.0.0.7"), False, "bad"),
        (("db.example",), False, "bad"),
        (("db.example",), True, "ok"),
    ],
)
def test_tls_may_be_off_only_where_nothing_leaves_this_machine(
    hosts: tuple[str, ...], encrypted: bool, state: str
) -> None:
    found = tls_of("kafka", hosts, "turn it on", encrypted=encrypted)
    assert found.state == state
    assert (found.todo == "turn it on") is (state == "bad")


def test_many_names_are_cut_short() -> None:
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed([str(n) for n in range(1_503)]) == "0, 1, 2 and 1,500 more"


BUCKET = Bucket(
    where="the bucket `b`", scheme="s3", endpoint="", sse="", seconds=0.01, same=True, if_absent=True, removed=True,
    headers={}, asked=0, told=0, doubt=0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "here", "state", "says"),
    [
        ({}, False, "bad", "none that the server tells of"),
        ({}, True, "note", "none that the server tells of"),
        ({"headers": None}, False, "note", "cannot be told"),
        ({"scheme": "gs", "headers": None}, False, "ok", "Google"),
        ({"sse": "sse-c", "headers": None}, False, "ok", "own key"),
        ({"headers": {"x-amz-server-side-encryption": "aws:kms"}, "sse": "aws:kms"}, False, "ok", "aws:kms"),
        ({"headers": {"x-amz-server-side-encryption": "AES256"}, "sse": "aws:kms"}, False, "bad", "asks for aws:kms"),
    ],
)
def test_encryption_of_a_bucket_is_judged_by_what_is_known(
    change: dict[str, Any], here: bool, state: str, says: str
) -> None:
    found = encryption_of(msgspec.structs.replace(BUCKET, **change), here=here)
    assert found.state == state
    assert says in found.found


def test_a_rule_that_deletes_payloads_is_found_and_versions_are_told() -> None:
    headers = {"x-amz-expiration": 'expiry-date="Fri, 23 Dec 2026"', "x-amz-version-id": "3sL4"}
    found = {one.check: one for one in rules_of(msgspec.structs.replace(BUCKET, headers=headers))}
    assert found["bucket lifecycle"].state == "bad"
    assert found["bucket versions"].state == "ok"
    (versions,) = rules_of(BUCKET)
    assert versions.state == "note"


def test_a_server_that_does_not_know_put_if_absent_is_found() -> None:
    assert kept_of(BUCKET).state == "ok"
    assert "put-if-absent" in kept_of(msgspec.structs.replace(BUCKET, if_absent=False)).found
    assert kept_of(msgspec.structs.replace(BUCKET, if_absent=False)).state == "bad"
    assert kept_of(msgspec.structs.replace(BUCKET, same=False)).state == "bad"


@pytest.mark.parametrize(
    ("replication", "insync", "wanted", "says"),
    [
        (3, "2", 2, ""),
        (1, "1", 0, ""),
        (3, "1", 0, "1 of 3 replicas: what one broker alone has is acknowledged"),
        (3, "1", 2, "fewer than the 2"),
        (2, "2", 2, "nothing can be published while one broker is away"),
        (1, "2", 0, "there is 1 replica"),
    ],
)
def test_replicas_in_sync_are_judged_with_how_many_there_are(
    replication: int, insync: str, wanted: int, says: str
) -> None:
    said = insync_of(Topic("data-plane.x", "x", 4, replication, 0, 0, {"min.insync.replicas": insync}), wanted)
    assert (said == "") is (says == "")
    assert says in said


@pytest.mark.parametrize(
    ("replication", "wanted", "brokers", "enough"),
    [(1, 0, 1, True), (1, 0, 3, False), (2, 0, 3, True), (2, 3, 3, False)],
)
def test_one_copy_of_each_message_is_found_where_there_could_be_more(
    replication: int, wanted: int, brokers: int, enough: bool
) -> None:
    assert (few_replicas(Topic("data-plane.x", "x", 4, replication, 0, 0, {}), wanted, brokers) == "") is enough
