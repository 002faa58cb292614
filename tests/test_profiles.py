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


@pytest.mark.parametrize("name", ["cloud", "prod"])
def test_an_unknown_profile_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"no profile `{name}`; use `local` or `test`"):
        Profile.from_environment(name)


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
