"""Fuzz every target in turn, guided by coverage, and show the progress: `python -m tests.fuzz SECONDS [TARGET...]`.

Inputs that reached new code are kept in `.fuzz/<target>` for the next run, and an input that failed in `.fuzz`. The exit code is 1
if a target failed.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

FOLDER = Path(".fuzz")
LINE = re.compile(r"#(\d+)\s+(\w+)\s+cov: (\d+)")
"""A progress line of libFuzzer: the number of inputs tried, the kind of event, and the number of code branches reached."""

SLOWEST = 10
"""The most seconds that one input may take."""


class Result(NamedTuple):
    """The result for one target.

    `places` counts the branches reached in the instrumented code, `seeded` those that the first inputs reached. `failed` is the
    path of the log if the target failed, else empty.
    """

    tried: int
    seeded: int
    places: int
    failed: str


def prepare(name: str) -> tuple[Path, Path]:
    """Return the folder of a target's inputs, with the seeds in it, and the file of its dictionary."""
    folder = FOLDER / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name].inputs):
        (folder / f"seed-{number}").write_bytes(seed)
    words = folder.with_suffix(".words")
    escaped = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in SEEDS[name].words)
    words.write_text("".join(f'"{word}"\n' for word in escaped))
    return folder, words


def fuzz(name: str, seconds: int, progress: Progress) -> Result:
    """Fuzz one target for `seconds`, show its progress, and return the result."""
    folder, words = prepare(name)
    task = progress.add_task(name, total=seconds, tried=0, places=0)
    options = [f"-max_total_time={seconds}", f"-timeout={SLOWEST}", "-max_len=4096", f"-artifact_prefix={FOLDER}/"]
    if SEEDS[name].words:  # a file without any is refused
        options.append(f"-dict={words}")
    command = [sys.executable, "-m", "tests.fuzz.one", name, *options, str(folder)]
    tried = seeded = places = 0
    output: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if (found := LINE.match(line)) is not None:
                tried, places = int(found[1]), int(found[3])
                seeded = places if found[2] == "INITED" else seeded
                progress.update(task, tried=tried, places=places)
            progress.update(task, completed=min(seconds, progress.tasks[task].elapsed or 0))
    progress.update(task, completed=seconds)
    if process.returncode == 0:
        return Result(tried, seeded, places, "")
    (FOLDER / f"{folder.name}.log").write_text("".join(output))
    return Result(tried, seeded, places, str(FOLDER / f"{folder.name}.log"))


def main(seconds: int, names: list[str]) -> int:
    """Fuzz the named targets, or all of them, print the results, and return the exit code."""
    console = Console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[tried]:,} inputs, {task.fields[places]} places"),
        TimeRemainingColumn(),
    )
    results: dict[str, Result] = {}
    with Progress(*columns, console=console) as progress:
        for name in names or TARGETS:
            results[name] = fuzz(name, seconds, progress)
    table = Table("target", "inputs tried", "places reached", "new ones", "failed")
    for name, result in results.items():
        new = result.places - result.seeded
        table.add_row(name, f"{result.tried:,}", str(result.places), str(new), result.failed or "nothing")
    table.add_section()
    table.add_row("all", f"{sum(result.tried for result in results.values()):,}")
    console.print(table)
    return 1 if any(result.failed for result in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
