"""How far a command is: a bar on a terminal, a line for each step elsewhere. All of it goes to standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress
from rich.console import Console


class Progress:
    """Shows one step after the other."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False)

    @contextmanager
    def step(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a step of `total` parts; call what it gives with the number of parts that were done since."""
        if not self._console.is_terminal:
            self.say(f"{name}: {total}")
            yield lambda _: None
            return
        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=self._console) as bar:
            task = bar.add_task(name, total=total)

            def advance(parts: int) -> None:
                bar.update(task, advance=parts)

            yield advance
