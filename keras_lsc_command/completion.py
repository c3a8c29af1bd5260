"""What a shell completes; nothing here imports Keras."""

from collections.abc import Callable

from keras_lsc_command import package


def of(*words: str) -> Callable[[str], list[str]]:
    """Completes to one of some words."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def checkpoints(incomplete: str) -> list[str]:
    """Completes to a checkpoint; to one of the tiny ones for tests after their prefix only."""
    return sorted(
        name
        for name, recipe in package.recipes().items()
        if name.startswith(incomplete)
        and (incomplete.startswith("test_") or not recipe.get("hidden"))
    )


def tasks(incomplete: str) -> list[str]:
    """Completes to a task that there are checkpoints of."""
    found = {str(recipe.get("dataset")) for recipe in package.recipes().values()}
    return sorted(name for name in found if name.startswith(incomplete))
