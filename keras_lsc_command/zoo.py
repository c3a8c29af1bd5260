"""Commands on the zoo: list, info, export, push, verify, build, train, pages."""

import fnmatch
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from keras_lsc_command import completion
from keras_lsc_command.answer import Answer
from keras_lsc_command.options import (
    DataDir,
    OnRay,
    ProcessCount,
    StoredWeights,
    parse_target,
)

if TYPE_CHECKING:
    from keras_lsc.zoo import CheckpointInfo
    from keras_lsc.zoo.recipes import Recipe
    from keras_lsc.zoo.trainer import Plan

Pattern = Annotated[
    str,
    typer.Argument(help='Names, with wildcards: "lstm_*".', autocompletion=completion.checkpoints),
]
CheckpointName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of a checkpoint.", autocompletion=completion.checkpoints
    ),
]
Patterns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="Names, with wildcards.", autocompletion=completion.checkpoints
    ),
]
ZooFolder = Annotated[
    Path, typer.Option("--zoo", help="Folder with the recipes, the index and the checkpoints.")
]


def list_checkpoints(
    pattern: Pattern = "*",
    dataset: Annotated[
        str | None, typer.Option(help="Only of this dataset.", autocompletion=completion.tasks)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Only of this target.",
            autocompletion=completion.of("variance", "unbalanced", "variance-unbalanced"),
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help='Only of this method, "lsc" or "level".',
            autocompletion=completion.of("lsc", "level"),
        ),
    ] = None,
    trained: Annotated[
        bool | None,
        typer.Option(help="Only those with trained weights, or only those without."),
    ] = None,
    hidden: Annotated[bool, typer.Option(help="The tiny ones for tests as well.")] = False,
    names: Annotated[bool, typer.Option("--names", help="Their names alone, one a line.")] = False,
) -> Answer:
    """List the checkpoints of the zoo.

    As far as there is room: task, cell, number of layers x their units, target radius or "level",
    number of parameters, size of the file, and how far it is off as the certificate has it: the
    largest distance of a radius from the target, or of an energy of the gradient from the others.
    With trained weights, what they score on the test split: accuracy, perplexity or squared error.
    """
    from keras_lsc import datasets, zoo
    from keras_lsc.arguments import one_of
    from keras_lsc.stability.targets import resolve

    filters: dict[str, Any] = {}
    if dataset is not None:
        filters["dataset"] = datasets.info(dataset).name
    if target is not None:
        filters["target"] = parse_target(target)
        resolve(filters["target"], depth=1, steps=1)
    if method is not None:
        filters["method"] = one_of("method", method, ("lsc", "level"))
    known = [
        zoo.info(name) for name in zoo.list(pattern, hidden=hidden, trained=trained, **filters)
    ]

    def show() -> None:
        if names:
            for one in known:
                typer.echo(one.name)
        elif known:
            _show_checkpoints(known)
        else:
            others = " with these options" if filters or trained is not None else ""
            typer.echo(f"No checkpoint matches {pattern!r}{others}.", err=True)

    fields = (
        *("name", "dataset", "cell", "depth", "units", "method", "target", "mode"),
        *("parameters", "bytes", "deviation"),
    )
    return Answer(
        [
            {
                **{field: getattr(one, field) for field in fields},
                "trained": None if one.trained is None else asdict(one.trained),
            }
            for one in known
        ],
        show,
    )


def _show_checkpoints(known: list["CheckpointInfo"]) -> None:
    from keras_lsc_command import tables
    from keras_lsc_command.tables import Column

    console = tables.console()
    columns = [
        Column("name", [one.name for one in known]),
        Column("task", [one.dataset for one in known], rank=4),
        Column("cell", [one.cell for one in known], rank=3),
        Column("layers", [f"{one.depth}x{one.units}" for one in known], is_number=True, rank=1),
        Column("target", [one.recipe.goal for one in known]),
        Column("params", [_in_short(one.parameters) for one in known], is_number=True, rank=2),
        Column("kB", [f"{one.bytes / 1e3:.1f}" for one in known], is_number=True),
        Column("deviation", [f"{one.deviation:.3f}" for one in known], is_number=True, rank=1),
        Column("trained", [_score(one) for one in known], is_number=True),
    ]
    console.print(tables.table(columns, console.width))


def _score(known: "CheckpointInfo") -> str:
    from keras_lsc.zoo.scores import figure

    return "-" if known.trained is None else figure(known.trained.metric, known.trained.test)


def _in_short(count: int) -> str:
    """A number in three digits.

    Example:
        >>> [_in_short(count) for count in (12, 30_909, 999_900, 1_234_567)]
        ['12', '30.9k', '1M', '1.23M']
    """
    if count < 1000:
        return str(count)
    if count < 999_500:
        return f"{count / 1e3:.3g}k"
    return f"{count / 1e6:.3g}M"


def info(name: CheckpointName) -> Answer:
    """Show what is known of a checkpoint: recipe, size, radii before and after."""
    from keras_lsc import zoo

    known = zoo.info(name)
    return Answer({**asdict(known), "recipe": known.recipe.to_dict()}, lambda: _show(known))


def _show(known: "CheckpointInfo") -> None:
    from keras_lsc import StabilityReport, datasets
    from keras_lsc_command import tables

    task, certificate, recipe = datasets.info(known.dataset), known.certificate, known.recipe
    before, after = (
        StabilityReport.from_dict(certificate[which]) for which in ("initial", "stabilized")
    )
    is_levelled = recipe.target is None
    wanted = {} if recipe.target is None else after.wanted(recipe.target)
    # Feed-forward networks have no time.
    kinds = ("time", "depth") if after.steps else ("depth",)
    goal = (
        "the same energy of the gradient at every layer"
        if is_levelled
        else "radius " + ", ".join(f"{wanted[kind]:.3f} in {kind}" for kind in kinds)
    )
    data = certificate["certificate_data"]
    # Those without which nothing could be built, and what is said above.
    said = (
        *("cell", "dataset", "depth", "units", "method", "target", "growth", "mode", "hidden"),
        *("options", "tolerance"),
    )
    settings = ", ".join(
        f"{key} {value}"
        for key, value in recipe.settings().items()
        if key not in said and value is not None
    )
    options = "".join(f", {key} {value}" for key, value in recipe.options.items())
    console = tables.console()

    def heading(text: str) -> None:
        console.print(f"\n{text}", style="bold")

    console.print(known.name, style="bold")
    console.print(f"{task.description}\n")
    console.print(
        tables.facts(
            {
                "network": f"{known.cell}, {known.depth} layers of {known.units} units",
                "task": f"{known.dataset}{options}",
                "target": f"{recipe.goal}: {goal}",
                "size": f"{known.parameters:,} parameters, stored in {known.bytes / 1e3:.1f} kB",
            }
        )
    )
    heading("Certificate")
    console.print(tables.change(before, after, wanted, console.width))
    console.print()
    if after.gradient is not None:
        console.print(tables.energies(before.gradient, after.gradient, console.width))
        console.print()
    what = "the middle of all energies" if is_levelled else "the target"
    measured = {
        "deviation": f"{known.deviation:.4f} from {what} at most (tolerance {recipe.tolerance})",
        "measured at": f"{after.samples} points of {data['shape'][0]} validation sequences, "
        f"sha256 {data['sha256'][:16]}",
    }
    if known.firing_rates:
        rates = (f"{name} {rate:.3f}" for name, rate in known.firing_rates.items())
        measured["firing rates"] = ", ".join(rates)
    console.print(tables.facts(measured))
    heading("Made by")
    made = "levelling" if is_levelled else f"{known.updates} updates of {recipe.mode}"
    versions = ", ".join(f"{key} {number}" for key, number in certificate["versions"].items())
    console.print(
        tables.facts(
            {
                "pre-training": f"{made}, {known.seconds:.0f} s with the measurements",
                "recipe": settings,
                "software": f"on {certificate['backend']} with {versions}",
                "sha256": known.sha256,
                "licence": f"{known.licence}; of the data {task.licence}, {task.homepage}",
            }
        )
    )
    if known.trained is not None:
        heading("Trained weights")
        console.print(tables.facts(_training(known)))
    heading("Use")
    # To be copied, so not broken.
    typer.echo(f'model = keras_lsc.zoo.load("{known.name}")')
    if known.trained is not None:
        typer.echo(f'model = keras_lsc.zoo.load("{known.name}", weights="trained")')
    typer.echo(f"keras-lsc fine-tune {known.name} --dataset {known.dataset}")


def _training(known: "CheckpointInfo") -> dict[str, str]:
    """What is known of trained weights, in words."""
    from keras_lsc.zoo.scores import figure, interval

    made = known.trained
    assert made is not None
    metric, title = made.metric, made.metric.replace("_", " ")
    rates = ", ".join(f"{rate:g}" for rate in made.learning_rates)
    found = f"{made.learning_rate:g} ({made.twin_learning_rate:g} of the default start)"
    return {
        title: f"{figure(metric, made.test)} on {made.sequences['test']:,} test sequences, "
        f"{figure(metric, made.unrounded)} before rounding",
        "over seeds": f"{interval(metric, made.seeds)} of {len(made.seeds)} (95 %); from the "
        f"default start {interval(metric, made.twin)}",
        "training": f"{made.epochs} epochs of {made.sequences['train']:,} sequences in batches of "
        f"{made.batch_size}, best {made.best_epoch}; {made.seconds:.0f} s for all trainings on "
        f"{made.backend}",
        "learning rate": f"{found}, of {rates} on validation",
        "command": f"keras-lsc train {known.name}",
        "stored in": f"{made.bytes / 1e3:.1f} kB, sha256 {made.sha256[:16]}",
    }


def export(
    name: CheckpointName,
    output: Annotated[
        Path, typer.Argument(metavar="OUT.keras", help="Where the model is written.")
    ],
    weights: StoredWeights = "stabilized",
) -> Answer:
    """Write a checkpoint as a .keras file, with its certificate inside."""
    from keras_lsc import zoo
    from keras_lsc_command.files import check_model_output

    check_model_output(output)
    zoo.export(name, output, weights=cast(Any, weights))
    size = output.stat().st_size
    return Answer(
        {"name": name, "output": str(output), "bytes": size},
        lambda: typer.echo(f"{name} is written to {output}, {size / 1e6:.2f} MB."),
    )


def push(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FOLDER",
            help="Name of a checkpoint, or a folder of keras_lsc.zoo.save.",
            autocompletion=completion.checkpoints,
        ),
    ],
    to: Annotated[
        str, typer.Argument(metavar="hf://OWNER/REPOSITORY", help="Made where there is none.")
    ],
    weights: StoredWeights = "stabilized",
    private: Annotated[
        bool, typer.Option("--private", help="Make a repository that is private.")
    ] = False,
) -> Answer:
    """Push a checkpoint with its card to the Hugging Face hub.

    The token is the one that "hf auth login" stored, or that HF_TOKEN holds.
    """
    from keras_lsc import zoo

    pushed = zoo.push(name, to, weights=cast(Any, weights), private=private)
    return Answer(asdict(pushed), lambda: typer.echo(f"It is loaded by\n{pushed}"))


def verify(
    names: Patterns = None,
    everything: Annotated[bool, typer.Option("--all", help="All checkpoints.")] = False,
    weights: StoredWeights = "stabilized",
    jobs: ProcessCount = 1,
    ray: OnRay = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="OUT.json", help="Where what was found is written, after each."),
    ] = None,
    data_dir: DataDir = None,
) -> Answer:
    """Measure checkpoints again and compare them with their certificates.

    A line each: whether it passed, the largest difference of a radius from the certificate, and how
    far the network is off what was asked for. One whose data is not on this computer is passed
    over, and the last line says how many are. The exit code is 1 where a certificate is not met,
    and where none could be measured.
    """
    from keras_lsc import zoo
    from keras_lsc.arguments import one_of
    from keras_lsc.files import write_json
    from keras_lsc.zoo.loading import STORED
    from keras_lsc.zoo.sweep import NO_DATA, PASSED, verify_all
    from keras_lsc_command.files import check_output

    trained = one_of("--weights", weights, STORED) == "trained"
    found = _chosen(names, everything, zoo.list(hidden=True, trained=trained or None))
    if output is not None:
        check_output(output)
    width = max(len("name"), *map(len, found))
    typer.secho(f"{'name':{width}}  result   difference  off", bold=True)
    told: list[dict[str, Any]] = []

    def finished(row: dict[str, Any]) -> None:
        told.append(row)
        if output is not None:
            write_json(output, told)
        verdict = "FAILED" if row["passed"] is False else row["verdict"]
        figures = f"{_figure(row['difference'], '.1e'):>10}  {_figure(row['deviation'], '.4f')}"
        typer.echo(f"{row['name']:{width}}  {verdict:7}  {figures}".rstrip())
        if row["passed"] is not None:
            for problem in row["problems"]:
                typer.echo(f"  {problem}")

    rows = verify_all(found, "ray" if ray else jobs, finished, data_dir, cast(Any, weights))
    if output is not None:
        write_json(output, rows)
    passed, absent = (
        sum(row["verdict"] == verdict for row in rows) for verdict in (PASSED, NO_DATA)
    )
    failed = len(rows) - passed - absent
    # One for all checkpoints of a dataset.
    reasons = dict.fromkeys(row["problems"][0] for row in rows if row["verdict"] == NO_DATA)

    def show() -> None:
        text = f"{passed} passed and {failed} failed on {rows[0]['backend']}"
        if absent:
            text += f"; {absent} were not measured, because their data is not on this computer"
        typer.echo(f"{text}.")
        for reason in reasons:
            typer.echo(f"  {reason}")

    return Answer(rows, show, failed=bool(failed) or not passed)


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Recipes, with wildcards.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All recipes.")] = False,
    jobs: ProcessCount = 1,
    ray: OnRay = False,
    folder: ZooFolder = Path("zoo"),
) -> Answer:
    """Make checkpoints from the recipes in the folder of the zoo; those it has are left alone.

    It can be interrupted and called again. The exit code is 1 where a build failed; one that is
    killed is begun anew.
    """
    from keras_lsc.zoo.build import build_all, is_built
    from keras_lsc.zoo.recipes import read_recipes
    from keras_lsc_command.bar import bar

    recipes = read_recipes(folder)
    if not recipes:
        raise ValueError(f"There are no recipes in {folder}; --zoo names their folder.")
    chosen = [recipes[name] for name in _chosen(names, everything, list(recipes))]
    done = sum(is_built(recipe, folder) for recipe in chosen)
    outcomes: list[dict[str, Any]] = []
    with bar("building", len(chosen), done) as advance:

        def finished(recipe: "Recipe", problem: str | None) -> None:
            outcomes.append({"name": recipe.name, "built": problem is None, "problem": problem})
            typer.echo(f"{recipe.name}: {problem or 'built'}")
            advance(recipe.name)

        failures = build_all(chosen, folder, "ray" if ray else jobs, finished)

    def show() -> None:
        built = sum(outcome["built"] for outcome in outcomes)
        typer.echo(f"{done} were built before, {built} are now, {len(outcomes) - built} failed.")

    return Answer(outcomes, show, failed=bool(failures))


def train(
    names: Patterns = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the plan names.")] = False,
    jobs: ProcessCount = 1,
    ray: OnRay = False,
    folder: ZooFolder = Path("zoo"),
) -> Answer:
    """Train checkpoints, and their twins from the default start, as trained/plan.toml says.

    Both try the learning rates of the plan, and train with every seed at the one that does best on
    the validation split. The weights that do best there go to the folder of the zoo, and scores to
    its index; what has been trained so is left alone. It can be interrupted and called again.
    """
    from keras_lsc.zoo import trainer
    from keras_lsc.zoo.scores import figure

    plans = trainer.read_plans(folder)
    chosen = [plans[name] for name in _chosen(names, everything, list(plans))]
    outcomes: list[dict[str, Any]] = []
    missing = []
    for plan in chosen:
        if trainer.is_trained(plan, folder):
            typer.echo(f"{plan.name}: trained before")
        else:
            missing.append(plan)

    def finished(plan: "Plan", lines: list[str], made: dict[str, Any]) -> None:
        if lines:
            typer.echo("\n  ".join([plan.name, *lines]))
        outcomes.append({"name": plan.name, **made})
        typer.echo(f"  test {made['metric']} {figure(made['metric'], made['test'])}")

    if ray or jobs > 1:
        trainer.train_all(missing, folder, "ray" if ray else jobs, finished)
    else:
        for plan in missing:
            typer.echo(plan.name)
            # Told one by one, as they are made.
            made = trainer.train(plan, folder, lambda line: typer.echo(f"  {line}"))
            finished(plan, [], made)

    def show() -> None:
        before = len(chosen) - len(outcomes)
        typer.echo(f"{before} were trained before, {len(outcomes)} are now.")

    return Answer(outcomes, show)


def pages(folder: ZooFolder = Path("zoo")) -> Answer:
    """Write RESULTS.md and the cards of the checkpoints from their index."""
    from keras_lsc.zoo.pages import RESULTS, write_pages
    from keras_lsc.zoo.registry import INDEX

    if not (folder / INDEX).is_file():
        raise FileNotFoundError(f"There is no {INDEX} in {folder}; --zoo names its folder.")
    count = write_pages(folder)
    return Answer(
        {"results": str(folder / RESULTS), "cards": count},
        lambda: typer.echo(f"{folder / RESULTS} and {count} cards are written."),
    )


def _chosen(names: list[str] | None, everything: bool, known: list[str]) -> list[str]:
    if everything:
        return known
    if not names:
        raise ValueError("Give the names of checkpoints, or --all.")
    chosen: list[str] = []
    for pattern in names:
        matching = fnmatch.filter(known, pattern)
        if not matching:
            from keras_lsc.zoo.registry import refuse

            raise refuse(pattern, known)
        chosen.extend(name for name in matching if name not in chosen)
    return chosen
