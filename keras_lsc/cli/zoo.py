"""Commands on the zoo: list, info, verify, build, pages."""

import fnmatch
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keras_lsc import datasets, zoo
from keras_lsc.cli.shared import (
    AsJson,
    Backend,
    DataDir,
    check_backend,
    parse_target,
    print_json,
)
from keras_lsc.stability.targets import resolve
from keras_lsc.zoo.build import build_all, is_built
from keras_lsc.zoo.pages import RESULTS, card, write_pages
from keras_lsc.zoo.recipes import Recipe, read_recipes
from keras_lsc.zoo.registry import INDEX, refuse

Pattern = Annotated[str, typer.Argument(help='Names, with wildcards: "lstm_*".')]
CheckpointName = Annotated[str, typer.Argument(metavar="NAME", help="Name of a checkpoint.")]
ZooFolder = Annotated[
    Path, typer.Option("--zoo", help="Folder with the recipes, the index and the checkpoints.")
]


def list_checkpoints(
    pattern: Pattern = "*",
    dataset: Annotated[str | None, typer.Option(help="Only of this dataset.")] = None,
    target: Annotated[str | None, typer.Option(help="Only of this target.")] = None,
    hidden: Annotated[bool, typer.Option(help="The tiny ones for tests as well.")] = False,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """List the checkpoints of the zoo."""
    check_backend(backend)
    filters: dict[str, Any] = {}
    if dataset is not None:
        filters["dataset"] = datasets.info(dataset).name
    if target is not None:
        filters["target"] = parse_target(target)
        resolve(filters["target"], depth=1, steps=1)
    names = zoo.list(pattern, hidden=hidden, **filters)
    if as_json:
        print_json(names)
        return
    for name in names:
        typer.echo(name)


def info(name: CheckpointName, backend: Backend = None, as_json: AsJson = False) -> None:
    """Show what is known of a checkpoint: recipe, size, radii before and after."""
    check_backend(backend)
    known = zoo.info(name)
    if as_json:
        print_json({**asdict(known), "recipe": known.recipe.to_dict()})
    else:
        typer.echo(card(known))


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Names, with wildcards.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All checkpoints.")] = False,
    data_dir: DataDir = None,
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Measure the radii of checkpoints again and compare them with their certificates.

    The exit code is 1 where a certificate is not met.
    """
    check_backend(backend)
    found = _chosen(names, everything, zoo.list(hidden=True))
    results = []
    for name in found:
        result = zoo.verify(name, data_dir=data_dir)
        results.append(result.to_dict())
        if not as_json:
            typer.echo(result)
    if as_json:
        print_json(results)
    if not all(result["passed"] for result in results):
        raise typer.Exit(1)


def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Recipes, with wildcards.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All recipes.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 1,
    folder: ZooFolder = Path("zoo"),
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Make checkpoints from the recipes in the folder of the zoo; those it has are left alone.

    It can be interrupted and called again. The exit code is 1 where a build failed.
    """
    check_backend(backend)
    recipes = read_recipes(folder)
    if not recipes:
        raise ValueError(f"There are no recipes in {folder}; --zoo names their folder.")
    chosen = [recipes[name] for name in _chosen(names, everything, list(recipes))]
    console = Console(stderr=as_json)
    outcomes = []
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        task = progress.add_task("building", total=len(chosen))
        progress.advance(task, sum(is_built(recipe, folder) for recipe in chosen))

        def finished(recipe: Recipe, problem: str | None) -> None:
            progress.advance(task)
            outcomes.append({"name": recipe.name, "built": problem is None, "problem": problem})
            console.print(f"{recipe.name}: {problem or 'built'}", highlight=False, markup=False)

        failures = build_all(chosen, folder, jobs, finished)
    if as_json:
        print_json(outcomes)
    if failures:
        raise typer.Exit(1)


def pages(
    folder: ZooFolder = Path("zoo"), backend: Backend = None, as_json: AsJson = False
) -> None:
    """Write RESULTS.md and the cards of the checkpoints from their index."""
    check_backend(backend)
    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"There is no {INDEX} in {folder}; --zoo names its folder.")
    count = write_pages(folder)
    if as_json:
        print_json({"results": str(folder / RESULTS), "cards": count})
    else:
        typer.echo(f"{folder / RESULTS} and {count} cards are written.")


def _chosen(names: list[str] | None, everything: bool, known: list[str]) -> list[str]:
    if everything:
        return known
    if not names:
        raise ValueError("Give the names of checkpoints, or --all.")
    chosen: list[str] = []
    for pattern in names:
        matching = fnmatch.filter(known, pattern)
        if not matching:
            raise refuse(pattern, known)
        chosen.extend(name for name in matching if name not in chosen)
    return chosen
