"""Options that several commands share, said once: where the home is, which tenant, in which form to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tickwork.errors import UsageError
from tickwork.model.ids import DEFAULT_TENANT, TENANT


def flag(*names: str, help: str) -> Parameter:
    """An option without a value: it is given or not."""
    return Parameter(name=names, negative="", show_default=False, help=help)


Json = Annotated[bool, flag("--json", help="Print one JSON document instead of a table.")]
JsonLines = Annotated[bool, flag("--jsonl", help="Print one JSON document per line.")]
Id = Annotated[str, Parameter(help="The lifetime's id, or a prefix of it that is unique.")]
By = Annotated[str, Parameter(show_default=False, help="Who does this, for the record. Default: your login name.")]


@Parameter(name="*")
@dataclass(frozen=True)
class Place:
    """Which Tickwork is meant."""

    home: Annotated[
        Path,
        Parameter(
            name="--home", env_var="TICKWORK_HOME", help="Folder that holds the records, the blobs and the lock."
        ),
    ] = Path(".tickwork")
    tenant: Annotated[str, Parameter(name="--tenant", env_var="TICKWORK_TENANT", help="Whose lifetimes.")] = (
        DEFAULT_TENANT
    )
    profile: Annotated[
        Literal["local", "cloud", "test"],
        Parameter(
            name="--profile",
            env_var="TICKWORK_PROFILE",
            help="local: SQLite and files in the home. cloud: the servers of TICKWORK_*_URL. test: in memory, gone "
            "when the command ends.",
        ),
    ] = "local"

    def __post_init__(self) -> None:
        if not TENANT.fullmatch(self.tenant):
            raise UsageError(
                f"`{self.tenant}` cannot be a tenant's name: use letters, digits, - and _, at most 63, beginning with "
                "a letter or a digit."
            )


HERE = Place()
"""What commands take when nothing else is said."""
