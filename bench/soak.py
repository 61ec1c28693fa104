"""Hours of load with faults: processes are killed, disks fail and stall, others hold locks; nothing may be lost.

``python -m bench.soak --minutes 5`` (or ``--hours 8``) ends with a table, and with status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.shim import compile_shim
from tests.faults.sizes import new_seed
from tests.faults.soaking import Outcome, soak
from tests.faults.zygote import Zygote


def show(outcome: Outcome, seconds: float, seed: int) -> None:
    console = Console()
    table = Table(title=f"soak of {seconds / 60:.1f} minutes, seed {seed}")
    table.add_column("what")
    table.add_column("kind")
    table.add_column("number", justify="right")
    for what, kinds in (
        ("operations", outcome.operations),
        ("faults survived", outcome.faults - Counter({"none": outcome.faults["none"]})),
        ("errors told", outcome.errors),
        ("lost or wrong", Counter({"": outcome.lost})),
    ):
        for kind, number in sorted(kinds.items()):
            table.add_row(what, kind, f"{number:,}")
        table.add_section()
    console.print(table)
    for problem in outcome.problems[:50]:
        console.print(problem, markup=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run, as far as the machine's timing lets it")
    options = parser.parse_args()
    seed = new_seed() if options.seed is None else options.seed
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        shim = compile_shim(Path(name))
        if shim is None:
            print("no C compiler: without I/O errors, full and stalled disks", file=sys.stderr)
        folder = Path(name) / "files"
        folder.mkdir()
        with Zygote(shim) as zygote:
            outcome = soak(zygote, folder, options.minutes * 60 + options.hours * 3600, random.Random(seed))
    show(outcome, time.monotonic() - started, seed)
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
