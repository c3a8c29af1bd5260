"""Who is in a race of starts, and what came of it."""

from dataclasses import asdict, dataclass
from typing import Any

from keras_lsc.stability.tables import html_table, text_table

DEFAULT = "default"
HEADER = ("start", "learning rate", "steps", "score", "minus default", "seconds of the start")


@dataclass(frozen=True)
class Entrant:
    """A start with a learning rate, and how far it came.

    Attributes:
        start: "default", a method, or a target as text.
        learning_rate: Learning rate.
        steps: training steps made.
        score: the monitored value on the validation data after these; None before the first.
        ahead: the score minus that of the best entrant from the default start after as many steps,
            and half the width of its 95 % interval, from parts of the validation data; None for
            that one itself.
        seconds: that the start took.
        problem: why it did not run or went out, else None.
    """

    start: str
    learning_rate: float
    steps: int = 0
    score: float | None = None
    ahead: tuple[float, float] | None = None
    seconds: float = 0.0
    problem: str | None = None


@dataclass(frozen=True)
class StartRace:
    """What came of a race of starts.

    Attributes:
        entrants: Tuple of `Entrant`, the winner first, those that went further before the others.
        monitor: name of what was monitored.
        steps: training steps of all entrants together.
    """

    entrants: tuple[Entrant, ...]
    monitor: str
    steps: int

    @property
    def winner(self) -> Entrant:
        """The entrant whose start the model holds."""
        return self.entrants[0]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The rows of a table as texts, in the order of `HEADER`."""
        return [
            (
                entrant.start,
                f"{entrant.learning_rate:.3g}",
                str(entrant.steps),
                "-" if entrant.score is None else f"{entrant.score:.4g}",
                "-" if entrant.ahead is None else "{:+.3g} ± {:.2g}".format(*entrant.ahead),
                entrant.problem or f"{entrant.seconds:.1f}",
            )
            for entrant in self.entrants
        ]

    @property
    def note(self) -> str:
        """What is to be said below the table."""
        return (
            f"{self.monitor} on the validation data; differences from the best default entrant "
            f"after as many steps, with 95 % intervals; {self.steps} training steps in all"
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the race as a dictionary of JSON types."""
        return {
            "entrants": [asdict(entrant) for entrant in self.entrants],
            "monitor": self.monitor,
            "steps": self.steps,
        }

    def __str__(self) -> str:
        return f"{text_table(HEADER, self.rows, 1)}\n{self.note}"

    def _repr_html_(self) -> str:
        return f"{html_table('starts', HEADER, self.rows, 1)}<p>{self.note}</p>"
