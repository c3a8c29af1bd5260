"""RESULTS.md and a card for every checkpoint, made from the index."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_lsc import datasets, plot
from keras_lsc.stability.report import GradientEnergies, StabilityReport
from keras_lsc.zoo import registry
from keras_lsc.zoo.recipes import Recipe, read_recipes
from keras_lsc.zoo.scores import Trained, figure, interval

RESULTS, CARDS = "RESULTS.md", "cards"
# Of a picture of energies, in inches.
_HEIGHT = 3.4


def write_pages(folder: Path) -> int:
    """Writes the table of all checkpoints and a card with a picture for each.

    Args:
        folder: Folder of the zoo.

    Returns:
        Number of cards.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    entries = registry.read_index(folder / registry.INDEX)
    known = [registry.info_of(name, entries[name]) for name in entries]
    known = sorted(known, key=lambda info: registry.natural_order(info.name))
    cards = folder / CARDS
    cards.mkdir(exist_ok=True)
    for old in cards.iterdir():
        if old.is_file() and old.stem not in entries:
            old.unlink()
    for info in known:
        (cards / f"{info.name}.md").write_text(card(info), encoding="utf-8")
        draw(info, cards / f"{info.name}.png")
    missing = [recipe for name, recipe in read_recipes(folder).items() if name not in entries]
    (folder / RESULTS).write_text(results(known, missing), encoding="utf-8")
    return len(known)


def results(known: list[registry.CheckpointInfo], missing: list[Recipe]) -> str:
    """The table of all checkpoints in Markdown."""
    shown = [info for info in known if not info.recipe.hidden]
    total = sum(info.bytes for info in known) / 1e6
    rows = [
        f"| [{info.name}]({CARDS}/{info.name}.md) | {info.dataset} | {info.depth}x{info.units} | "
        f"{info.recipe.goal} | {info.recipe.settings().get('mode', '-')} | "
        f"{_range(info, 'initial', 'radius')} | "
        f"{_range(info, 'stabilized', 'radius')} | {_range(info, 'stabilized', 'gain')} | "
        f"{_spread(info)} | {info.deviation:.3f} | {info.updates} | {info.bytes / 1e3:.1f} |"
        for info in shown
    ]
    absent = (
        "\nRecipes without a checkpoint here, because the data was not at hand, the build did not "
        "reach its tolerance, or it was not run; `keras-lsc build NAME` makes them:\n\n"
        "| data | recipes |\n|---|---|\n" + _by_dataset(missing) + "\n"
        if missing
        else ""
    )
    return (
        "# Checkpoints\n\n"
        "Made by `keras-lsc pages` from `index.json`; not to be edited by hand.\n\n"
        f"{len(shown)} checkpoints, {total:.1f} MB with the tiny ones that exist for tests. Radii "
        "and gains are the smallest and largest mean of a transition in time or depth, on "
        "validation data; `off` is the largest distance of a radius from its target. Energies are "
        "those of the gradient, the largest of a layer over the smallest, at first and now, where "
        "they were measured; of a levelled start, which makes no updates, `off` is the largest "
        "relative distance of an energy from the middle of all.\n\n"
        "| name | data | layers | target | mode | radii at first | radii | gains | energies | "
        "off | updates | kB |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
        + _trained_weights([info for info in shown if info.trained is not None])
        + absent
    )


def _trained_weights(known: list[registry.CheckpointInfo]) -> str:
    """The table of trained weights in Markdown; nothing where there are none."""
    rows = [
        f"| [{info.name}]({CARDS}/{info.name}.md) | {_title(made)} | "
        f"{figure(made.metric, made.test)} | {figure(made.metric, made.unrounded)} | "
        f"{interval(made.metric, made.seeds)} | {interval(made.metric, made.twin)} | "
        f"{len(made.seeds)} | {made.learning_rate:g}, {made.twin_learning_rate:g} | "
        f"{made.epochs} x {made.sequences['train']:,} | {made.seconds:.0f} | "
        f"{made.bytes / 1e3:.1f} |"
        for info in known
        if (made := info.trained) is not None
    ]
    if not rows:
        return ""
    total = sum(info.trained.bytes for info in known if info.trained is not None) / 1e6
    return (
        "\n## Trained weights\n\n"
        '`zoo.load(name, weights="trained")` has weights that were trained on the task of the '
        f"checkpoint, for {len(rows)} of them, {total:.1f} MB in all. Trainings are short, most "
        "on a part of the data: a place to begin from, and no records. `test` is what the stored "
        "weights score on the test split, `unrounded` what they did before they were rounded to a "
        "byte each. Means over seeds, of the order of the batches, have Student's 95 % interval; "
        "`default start` is the same network from its weights before pre-training, with the same "
        "data, batches and epochs. Of both the learning rate is the best of several on the "
        "validation split, tried with one seed. Seconds are those of all trainings of both. "
        "`keras-lsc train NAME` makes a row.\n\n"
        "| name | metric | test | unrounded | over seeds | default start | seeds | "
        "learning rates | epochs x sequences | seconds | kB |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _title(made: Trained) -> str:
    return made.metric.replace("_", " ")


def _by_dataset(recipes: list[Recipe]) -> str:
    names: dict[str, list[str]] = {}
    for recipe in recipes:
        names.setdefault(recipe.dataset, []).append(recipe.name)
    return "\n".join(f"| {dataset} | {', '.join(found)} |" for dataset, found in names.items())


def _driven(info: registry.CheckpointInfo, which: str) -> list[dict[str, Any]]:
    return [row for row in info.certificate[which]["transitions"] if row["kind"] != "input"]


def _range(info: registry.CheckpointInfo, which: str, figure: str) -> str:
    values = [row[figure] for row in _driven(info, which)]
    return f"{min(values):.2f} to {max(values):.2f}"


def _spread(info: registry.CheckpointInfo) -> str:
    found = [_energies(info, which) for which in ("initial", "stabilized")]
    return " to ".join(f"{one.spread:.3g}" for one in found if one is not None) or "-"


def _energies(info: registry.CheckpointInfo, which: str) -> GradientEnergies | None:
    return StabilityReport.from_dict(info.certificate[which]).gradient


def front_matter(
    tags: list[str],
    datasets_of_it: tuple[str, ...] = (),
    scores: registry.CheckpointInfo | None = None,
) -> str:
    """What the hub knows a model by, as the YAML at the top of its card.

    Args:
        tags: Words to find it by, beside those of all.
        datasets_of_it: Names of its data.
        scores: A checkpoint whose trained weights, if it has some, have their score in it.
    """
    lines = ["---", "library_name: keras", "license: apache-2.0", "tags:"]
    lines += [f"- {tag}" for tag in ("keras-lsc", "recurrent-neural-network", *tags)]
    if datasets_of_it:
        lines += ["datasets:", *(f"- {name}" for name in datasets_of_it)]
    if scores is not None and scores.trained is not None:
        made, task = scores.trained, datasets.info(scores.dataset)
        lines += [
            *("model-index:", f"- name: {scores.name}", "  results:", "  - task:"),
            f"      type: {'text-generation' if task.vocabulary else 'other'}",
            *("    dataset:", f"      name: {task.name}", f"      type: {task.name}"),
            *("      split: test", "    metrics:", f"    - type: {made.metric}"),
            f"      value: {made.test:.6g}",
        ]
    return "\n".join([*lines, "---", ""])


def card(info: registry.CheckpointInfo) -> str:
    """The card of a checkpoint in Markdown."""
    certificate, recipe = info.certificate, info.recipe
    task = datasets.info(recipe.dataset)
    before = {row["name"]: row for row in certificate["initial"]["transitions"]}
    rows = [
        f"| {row['name']} | {row['state']} | {before[row['name']]['radius']:.3f} | "
        f"{row['radius']:.3f} ± {row['radius_std']:.3f} | {before[row['name']]['gain']:.3f} | "
        f"{row['gain']:.3f} |"
        for row in certificate["stabilized"]["transitions"]
    ]
    given = {
        key: value
        for key, value in recipe.settings().items()
        if value is not None and value is not False and value != {}
    }
    settings = "\n".join(f"| {key} | {value} |" for key, value in given.items())
    versions = ", ".join(f"{name} {number}" for name, number in certificate["versions"].items())
    rates = ", ".join(f"{layer} {rate:.3f}" for layer, rate in info.firing_rates.items())
    firing = f"\nFiring rates on the same data: {rates}.\n" if rates else ""
    data = certificate["certificate_data"]
    if recipe.method == "level":
        off = "Largest relative distance of an energy from the middle of all"
        what, made_by = "Energy of the gradient at every layer", "Levelled, without updates"
    else:
        what = "Radii and gains of every transition"
        off, made_by = "Largest distance of a radius from the target", f"{info.updates} updates"
    return f"""{front_matter([info.cell], (info.dataset,), info)}
# {info.name}

{task.description} {info.parameters:,} parameters, stored in {info.bytes / 1e3:.1f} kB.

![{what} before and after]({info.name}.png)

```python
import keras_lsc

model = keras_lsc.zoo.load("{info.name}")
print(keras_lsc.zoo.verify("{info.name}"))  # measures the table below again
# The same network before pre-training.
start = keras_lsc.zoo.load("{info.name}", weights="initial")
```

`keras_lsc.zoo.fine_tune("{info.name}", "{recipe.dataset}")` trains it on its task;
`load(..., num_classes=...)` gives it a fresh readout.
{_training(info)}
## Certificate

| transition | of | radius at first | radius | gain at first | gain |
|---|---|---|---|---|---|
{chr(10).join(rows)}
{firing}
Mean and standard deviation over {certificate["stabilized"]["samples"]} points of
{data["shape"][0]} validation sequences (sha256 `{data["sha256"][:16]}`).
{_table_of_energies(info)}
{off} {info.deviation:.4f}. {made_by}, {info.seconds:.0f} s with the measurements.
Made on {certificate["backend"]} with {versions}. sha256 of the file: `{info.sha256}`.

## Recipe

| | |
|---|---|
{settings}

## Licence and citation

The checkpoint: {info.licence}; it contains no data. The data: {task.licence},
{task.homepage}. Cite the method (arXiv 2308.12075) and the data:

```bibtex
{task.citation.strip()}
```
"""


def _training(info: registry.CheckpointInfo) -> str:
    """What the trained weights score, in Markdown; nothing where there are none."""
    made = info.trained
    if made is None:
        return ""
    metric, data = made.metric, made.sequences
    rates = ", ".join(f"{rate:g}" for rate in made.learning_rates)
    of_trained = {row["name"]: row for row in info.certificate["trained"]["transitions"]}
    rows = "\n".join(
        f"| {name} | {row['radius']:.3f} ± {row['radius_std']:.3f} | {row['gain']:.3f} |"
        for name, row in of_trained.items()
    )
    gradient = StabilityReport.from_dict(info.certificate["trained"]).gradient
    energies = (
        ""
        if gradient is None
        else "\nThe energy of the gradient, largest of a layer over smallest, is "
        f"{gradient.spread:.3g} after training.\n"
    )
    return f"""
## Trained weights

```python
trained = keras_lsc.zoo.load("{info.name}", weights="trained")
```

| | {_title(made)} |
|---|---|
| stored weights, test split | {figure(metric, made.test)} |
| the same before they were rounded | {figure(metric, made.unrounded)} |
| {len(made.seeds)} seeds | {interval(metric, made.seeds)} |
| {len(made.twin)} seeds, from the default start | {interval(metric, made.twin)} |

{made.epochs} epochs of {data["train"]:,} sequences in batches of {made.batch_size}; kept is epoch
{made.best_epoch}, the best on {data["validation"]:,} validation sequences. There are
{data["test"]:,} test sequences. Learning rate of Adam {made.learning_rate:g}, and
{made.twin_learning_rate:g} from the default start: of {rates} the best on the validation split.
{made.seconds:.0f} s for all trainings of both, on {made.backend}, by `keras-lsc train {info.name}`.
Intervals are Student's of 95 %; seeds are those of the order of the batches.
{made.bytes / 1e3:.1f} kB, sha256 `{made.sha256}`.

| transition | radius after training | gain |
|---|---|---|
{rows}
{energies}"""


def _table_of_energies(info: registry.CheckpointInfo) -> str:
    """The energies of the gradient in Markdown; nothing where they were not measured."""
    before, after = (_energies(info, which) for which in ("initial", "stabilized"))
    if before is None or after is None:
        return ""
    rows = "\n".join(
        f"| {name} | {old:.3g} | {new:.3g} | {'-' if np.isnan(reach) else f'{reach:.2f}'} |"
        for name, old, new, reach in zip(
            after.layers, before.energy, after.energy, after.reach, strict=True
        )
    )
    return f"""
| layer | energy at first | energy | reach |
|---|---|---|---|
{rows}

Energy of the gradient of a random functional by what the layer gives out, over that at the last
layer; and the share of it from the first quarter of the steps. Mean over {after.sequences} of these
sequences.
"""


def draw(info: registry.CheckpointInfo, path: Path) -> None:
    """Writes the picture of what was asked for, before and after: radii and gains, or energies."""
    from matplotlib.figure import Figure

    before, after = (
        StabilityReport.from_dict(info.certificate[which]) for which in ("initial", "stabilized")
    )
    is_levelled = info.method == "level"
    height = _HEIGHT if is_levelled else plot.height_of_radii(len(_driven(info, "stabilized")))
    # Not of pyplot, which would keep every figure open.
    figure = Figure(figsize=(plot.WIDTH, height), layout="constrained")
    if is_levelled:
        ax = plot.energies({"at first": before, "levelled": after}, figure.subplots())
    else:
        ax = plot.radii(before, after, info.target, figure.subplots())
    ax.set_title(info.name, fontsize=10, loc="left")
    figure.savefig(path, dpi=90, metadata={"Software": None})
