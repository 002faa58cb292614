"""Blobs in local files keep the promises of the port, on a full disk and after a crash too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.small_disk import small_disk
from tickwork.adapters.blob.fs import FileBlobs
from tickwork.errors import StorageError, StorageFull
from tickwork.testing.conformance import BlobStoreConformance


class TestFileBlobs(BlobStoreConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.root = tmp_path / "blobs"

    async def open(self) -> FileBlobs:
        return FileBlobs(self.root)

    async def reopen(self, store: object) -> FileBlobs:
        return FileBlobs(self.root)

    async def damage(self, store: object, tenant_id: str, uri: str) -> None:
        (path,) = self.root.glob(f"{tenant_id}/*/{uri.rpartition('/')[2]}")
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        path.write_bytes(bytes(data))


async def test_what_dead_writers_left_is_swept_away(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    folder = tmp_path / "acme"
    folder.mkdir()
    left = [folder / f".writing-{int(dead.stdout)}-1", folder / f".writing-{os.getpid()}-999999"]
    alive = folder / f".writing-{os.getppid()}-1"
    for path in [*left, alive]:
        path.write_bytes(b"half")
    await FileBlobs(tmp_path).start()
    assert [path.exists() for path in left] == [False, False]
    assert alive.exists()


async def test_a_full_disk_keeps_every_blob_and_leaves_no_litter(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        blobs = FileBlobs(disk / "blobs")
        await blobs.start()
        kept = []
        with pytest.raises(StorageFull, match="bytes are free"):
            for n in range(100):
                data = os.urandom(64 * 1024)
                kept.append((*await blobs.put("acme", data), data))
                assert n < 99, "the disk is larger than the test thinks"
        assert kept
        assert not list((disk / "blobs").glob("*/.writing-*"))
        for uri, digest, data in kept:
            assert await blobs.get("acme", uri, digest) == data
        next((disk / "blobs").glob("*/*/" + kept.pop()[1])).unlink()
        uri, _ = await blobs.put("acme", b"again")
        assert await blobs.get("acme", uri) == b"again"


async def test_a_file_where_the_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("I am a file")
    with pytest.raises(StorageError, match="blobs"):
        await FileBlobs(tmp_path / "blobs").start()
