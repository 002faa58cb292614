"""Which adapter serves which port."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickwork.adapters.blob.fs import FileBlobs
from tickwork.adapters.bus.memory import MemoryBus
from tickwork.adapters.kv.memory import MemoryKV
from tickwork.adapters.state.sqlite import SqliteStore
from tickwork.clock import SystemClock
from tickwork.errors import UsageError
from tickwork.profiles import Profile


def test_the_local_profile_is_one_folder(tmp_path: Path) -> None:
    profile = Profile.local(tmp_path / "home")
    assert profile.home == tmp_path / "home"
    assert profile.state_url.endswith("/home/tickwork.db")
    assert profile.blob_url.endswith("/home/blobs")


def test_the_home_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWORK_HOME", str(tmp_path / "elsewhere"))
    assert Profile.from_environment().home == tmp_path / "elsewhere"


def test_a_url_in_the_environment_takes_the_place_of_the_profiles_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWORK_BLOB_URL", "file:///somewhere")
    assert Profile.from_environment("test").blob_url == "file:///somewhere"


def test_each_scheme_finds_its_adapter(tmp_path: Path) -> None:
    clock, profile = SystemClock(), Profile.local(tmp_path)
    assert isinstance(profile.open_bus(clock), MemoryBus)
    assert isinstance(profile.open_store(clock), SqliteStore)
    assert isinstance(profile.open_blobs(clock), FileBlobs)
    assert isinstance(profile.open_kv(clock), MemoryKV)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UsageError, match="no profile `prod`; use `local`, `cloud` or `test`"):
        Profile.from_environment("prod")


CLOUD = {
    "TICKWORK_BUS_URL": "kafka://broker:9092",
    "TICKWORK_STATE_URL": "postgresql://tickwork:geheim@db/tickwork",
    "TICKWORK_BLOB_URL": "s3://blobs?region=eu-central-1&access_key_id=me&secret_access_key=geheim",
    "TICKWORK_KV_URL": "rediss://:geheim@kv",
}


def test_the_cloud_profile_is_four_urls_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in CLOUD.items():
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("TICKWORK_PROFILE", "cloud")
    profile = Profile.from_environment()
    assert profile == Profile.cloud(CLOUD)
    assert (profile.name, profile.home) == ("cloud", None)
    assert [profile.bus_url, profile.state_url, profile.blob_url, profile.kv_url] == list(CLOUD.values())


def test_all_urls_that_are_missing_are_named_at_once_with_what_to_set() -> None:
    with pytest.raises(UsageError) as refused:
        Profile.cloud({"TICKWORK_KV_URL": "redis://kv", "TICKWORK_BLOB_URL": ""})
    said = str(refused.value)
    for name, form in (
        ("TICKWORK_BUS_URL", "kafka://HOST:9092"),
        ("TICKWORK_STATE_URL", "postgresql://USER:PASSWORD@HOST:5432/DATABASE"),
        ("TICKWORK_BLOB_URL", "s3://BUCKET?region=REGION"),
    ):
        assert f"{name} is not set" in said
        assert form in said
    assert "TICKWORK_KV_URL" not in said


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("TICKWORK_STATE_URL", "sqlite:////var/tickwork.db"),
        ("TICKWORK_BUS_URL", "memory://"),
        ("TICKWORK_KV_URL", "memory://"),
        ("TICKWORK_BLOB_URL", "file:///var/blobs"),
    ],
)
def test_what_separate_processes_could_not_share_is_refused(name: str, url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Profile.cloud({**CLOUD, name: url})
    scheme = url.partition(":")[0]
    assert f"{name} is {scheme}://, which no other process could share" in str(refused.value)
    assert "geheim" not in str(refused.value)


def test_a_third_partys_adapter_may_serve_the_cloud_profile() -> None:
    assert Profile.cloud({**CLOUD, "TICKWORK_BUS_URL": "pigeon://roof"}).bus_url == "pigeon://roof"


def test_no_message_shows_a_password() -> None:
    profile = Profile.cloud(
        {**CLOUD, "TICKWORK_STATE_URL": "postgressql://tickwork:geheim@db/tickwork?password=geheim"}
    )
    with pytest.raises(UsageError, match="no adapter serves the state at `postgressql://db/tickwork`") as refused:
        profile.open_store(SystemClock())
    assert "geheim" not in str(refused.value)


def test_an_unknown_scheme_says_what_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKWORK_BUS_URL", "carrier-pigeon://roof")
    with pytest.raises(UsageError, match="no adapter serves the bus at `carrier-pigeon://roof`; shipped: memory://"):
        Profile.from_environment("test").open_bus(SystemClock())


def test_a_third_party_brings_an_adapter_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        def load(self) -> object:
            return lambda url, clock: ("opened", url)

    def found(*, group: str, name: str) -> list[Entry]:
        return [Entry()] if (group, name) == ("tickwork.bus", "pigeon") else []

    monkeypatch.setattr("tickwork.profiles.entry_points", found)
    monkeypatch.setenv("TICKWORK_BUS_URL", "pigeon://roof")
    assert Profile.from_environment("test").open_bus(SystemClock()) == ("opened", "pigeon://roof")
