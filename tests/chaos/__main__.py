"""The command line of the chaos suite.

python -m tests.chaos --all
python -m tests.chaos --only "kill executor" --only FLUSHALL --seconds 30 --keep
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.rig import Report, rig, table
from tests.chaos.scenarios import ALL


async def run(names: list[str], folder: Path, seconds: float, seed: int) -> list[Report]:
    """Runs these scenarios one after the other and tells of each as it ends."""
    reports = []
    async with rig(folder, seconds, seed) as made:
        for name in names:
            report = await made.run(ALL[name])
            reports.append(report)
            found = {kind: len(wrong) for kind, wrong in report.wrong.items() if wrong}
            print(
                f"{name}: {report.lifetimes} lifetimes, {report.faults} faults, longest step {report.longest:.1f} s, "
                f"{report.seconds:.0f} s; {found or 'well'}",
                file=sys.stderr,
                flush=True,
            )
            for kind, wrong in report.wrong.items():
                for each in wrong[:20]:
                    print(f"    {kind}: {each}", file=sys.stderr, flush=True)
            if found:
                print(f"    look at {report.folder}", file=sys.stderr, flush=True)
            for gone in report.exits[:10]:
                print(f"    {gone}", file=sys.stderr, flush=True)
    return reports


def main() -> int:
    """0: nothing was lost, doubled or stranded, and all was in time."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--all", action="store_true", help="every scenario, about twenty minutes")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one scenario; may be given again")
    parser.add_argument("--list", action="store_true", help="the scenarios' names")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long a fault lasts that has no end of its own")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn")
    parser.add_argument("--folder", type=Path, help="servers, logs and ledgers; default: a temporary one")
    given = parser.parse_args()
    if given.list or not (given.all or given.only):
        print("\n".join(f"{scenario.name:26}{scenario.what}" for scenario in ALL.values()))
        return 0
    strange = [name for name in given.only if name not in ALL]
    if strange:
        parser.error(f"there is no scenario {strange[0]!r}; --list names them")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tickwork-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=folder / "client.log", format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    begun = time.monotonic()
    reports = asyncio.run(run(given.only or list(ALL), folder, given.seconds, given.seed))
    print(table(reports))
    print(f"\n{time.monotonic() - begun:.0f} s, seed {given.seed}")
    wrong = [report for report in reports if any(report.wrong.values())]
    if not wrong and given.folder is None:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
