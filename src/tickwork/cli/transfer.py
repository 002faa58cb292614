"""`tickwork lifetimes export` and `import`: a lifetime as one file, out of one installation and into another."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from tickwork.cli import output
from tickwork.cli.failure import Refusal
from tickwork.cli.options import HERE, By, Id, Json, Place
from tickwork.errors import NotFound, StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tickwork.ports import BlobStore
    from tickwork.runtime import Runtime
    from tickwork.transfer.exporting import Exported
    from tickwork.transfer.importing import Imported
    from tickwork.transfer.reading import Export


def export(
    lifetime: Id,
    /,
    *,
    to: Annotated[
        Path | None, Parameter(show_default=False, help="The file to write; packed when its name ends in .gz.")
    ] = None,
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Write a lifetime to one file: its log, graph, policies, large payloads and children. Without --to on stdout.

    The file holds whatever the log holds, and nothing else: no credentials, no code. Works beside the process that
    runs the lifetime.
    """
    from tickwork.cli.reach import looking
    from tickwork.transfer.exporting import Exporting

    if to is None and json:
        raise Refusal("--json tells what was written, and without --to that is on stdout.", "Name the file: --to FILE.")
    if to is None and sys.stdout.isatty():
        raise Refusal("An export is a file for machines; this is a terminal.", "Name the file: --to FILE.")

    async def work(sink: IO[bytes]) -> Exported:
        async with looking(place) as runtime, _blobs(runtime) as blobs:
            return await Exporting(runtime.store, blobs, sink).export(lifetime, tenant=place.tenant)

    if to is None:
        exported = asyncio.run(work(sys.stdout.buffer))
    else:
        with _written(to) as sink:
            exported = asyncio.run(work(sink))
    if json:
        output.emit_json({"file": str(to), **_document(exported)})
    else:
        what = [output.count(exported.records, "record")]
        if exported.lifetimes > 1:
            what.append(output.count(exported.lifetimes - 1, "child lifetime"))
        if exported.blobs:
            what.append(output.count(exported.blobs, "blob"))
        output.say(f"{exported.lifetime_id}: {', '.join(what)}" + (f" in {to}" if to is not None else ""), "dim")
    return 0


def import_(
    file: Annotated[
        str,
        Parameter(allow_leading_hyphen=True, help="A file that `lifetimes export` wrote, packed or not; - for stdin."),
    ],
    /,
    *,
    max_bytes: Annotated[
        int | None, Parameter(show_default=False, help="Bytes that it may have, unpacked. Default: 8 GiB.")
    ] = None,
    by: By = "",
    json: Json = False,
    place: Place = HERE,
) -> int:
    """Take over a lifetime that another installation exported: look at it, replay it, fork it.

    Everything is checked before anything is written; exit code 4 when the file is not whole or was changed. A lifetime
    that had not ended is PAUSED here until somebody resumes it. The same file again changes nothing.
    """
    from tickwork.cli.carry import user
    from tickwork.cli.reach import only_record, opened
    from tickwork.transfer.importing import Importing
    from tickwork.transfer.lines import MAX_FILE
    from tickwork.transfer.reading import read

    if place.profile == "test":
        raise Refusal("--profile test keeps everything in memory: what is imported would be gone with this command.")
    only_record()

    async def work(proved: Export) -> Imported:
        async with opened(place, guarded=False) as runtime, _blobs(runtime) as blobs:
            importing = Importing(runtime.store, blobs, runtime.clock)
            return await runtime.guard(importing.take(proved, tenant=place.tenant, by=by or user()))

    with _opened(file) as source, read(source, limit=MAX_FILE if max_bytes is None else max_bytes) as proved:
        done = asyncio.run(work(proved))
    if json:
        output.emit_json(_document(done))
    else:
        _print(done)
    return 0


@contextlib.asynccontextmanager
async def _blobs(runtime: Runtime) -> AsyncIterator[BlobStore]:
    """The large payloads beside the runtime's records."""
    blobs = runtime.profile.open_blobs(runtime.clock)
    await blobs.start()
    try:
        yield blobs
    finally:
        await blobs.stop()


@contextlib.contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name once it is whole and on disk. Raises StorageError."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                if path.name.endswith(".gz"):
                    # Without a name and a time the same lifetime is the same file.
                    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                        yield packed  # type: ignore[misc]  # it is written to, and nothing else
                else:
                    yield file
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.") from None


@contextlib.contextmanager
def _opened(name: str) -> Iterator[io.BufferedReader]:
    """The file, or stdin. Raises NotFound; Refusal when it cannot be read."""
    if name == "-":
        yield io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - what goes wrong while it is open is no fault of the file
    except FileNotFoundError:
        raise NotFound(f"There is no file {name}.") from None
    except OSError as error:
        raise Refusal(f"{name} cannot be read: {error.strerror}.") from None
    with file:
        yield file


def _document(done: Exported | Imported) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(done)
    return found


def _print(done: Imported) -> None:
    """What became of the file, and what can be done with it now."""
    if done.created:
        children = f" and {output.count(len(done.created) - 1, 'child lifetime')}" if len(done.created) > 1 else ""
        output.say(f"imported {done.lifetime_id}{children}: {output.count(done.records, 'record')}, {done.status}")
    else:
        output.say(f"already there: {done.lifetime_id}, {done.status}")
    if done.diverges is not None:
        output.say(f"Its log does not replay: {done.diverges}.", "yellow")
    for label in done.registered:
        output.say(f"{label} is registered without its code; to run or fork it: tickwork graph register GRAPH", "dim")
    if done.status == "PAUSED" and done.created:
        output.say(
            "It had not ended, and where it comes from it may still run: it stays as it is until you resume it.", "dim"
        )
