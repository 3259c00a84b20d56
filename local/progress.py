"""Progress bars, alike everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@contextmanager
def progress_bar(console: Console, title: str, unit: str = "frames") -> Iterator[Advance]:
    """A bar while the block runs; where there is no terminal, one line when it is done."""
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def spinner(console: Console, title: str) -> Iterator[None]:
    """A spinner with the time while the block runs, for waits whose length nobody knows."""
    with Progress(
        TextColumn("{task.description:<24}"), SpinnerColumn(finished_text="✓"), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task(title, total=1)
        yield
        progress.update(task, completed=1)
