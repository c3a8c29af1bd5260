"""The command that trains: fine-tune."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from keras_lsc_command import completion
from keras_lsc_command.answer import Answer
from keras_lsc_command.imports import import_modules
from keras_lsc_command.options import (
    CheckpointOrFile,
    DataDir,
    Imports,
    Seed,
    TaskOptions,
    parse_options,
)

STARTS = ("stabilized", "initial", "trained")


def fine_tune(
    name: CheckpointOrFile,
    dataset: Annotated[
        str,
        typer.Option(help="Task: see keras-lsc datasets.", autocompletion=completion.tasks),
    ],
    epochs: Annotated[int, typer.Option(help="The most epochs; 0 only measures.")] = 20,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    batch_size: Annotated[int, typer.Option(help="Sequences of an update.")] = 32,
    patience: Annotated[
        int, typer.Option(help="Epochs without improvement after which training ends.")
    ] = 5,
    limit: Annotated[
        int | None, typer.Option(help="The most sequences of each split. Default: all.")
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            metavar="|".join(STARTS),
            help="Start: the checkpoint, the same network before pre-training, or the weights "
            "that were trained on its task.",
            autocompletion=completion.of(*STARTS),
        ),
    ] = "stabilized",
    option: TaskOptions = None,
    data_dir: DataDir = None,
    download: Annotated[
        bool, typer.Option(help="Fetch the data when it is not on this computer.")
    ] = True,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(metavar="OUT.keras", help="Where the trained model is written."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="BEST.keras", help="File for the best model, at every improvement."),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for TensorBoard.")
    ] = None,
    imports: Imports = None,
) -> Answer:
    """Train a checkpoint, or a saved model, on a task.

    Loss and metric are those of the task; a head that does not fit it is replaced. The weights of
    the epoch that did best on the validation split are kept.
    """
    import_modules(imports)
    import keras

    from keras_lsc import zoo
    from keras_lsc_command.files import check_model_output, save_model

    for path in (output, checkpoint):
        if path is not None:
            check_model_output(path, Path(name))
    if output is not None and checkpoint is not None and output.absolute() == checkpoint.absolute():
        raise ValueError(f"--output and --checkpoint are both {output}; name two files.")
    if tensorboard is not None and tensorboard.exists() and not tensorboard.is_dir():
        raise NotADirectoryError(f"--tensorboard {tensorboard} is no folder.")

    def tell(epoch: int, logs: dict[str, Any] | None) -> None:
        figures = ", ".join(
            f"{metric.replace('val_', 'validation ').replace('_', ' ')} {value:.4g}"
            for metric, value in (logs or {}).items()
        )
        typer.echo(f"epoch {epoch + 1}/{epochs}: {figures}")

    model, tuning = zoo.fine_tune(
        name,
        dataset,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        patience=patience,
        limit=limit,
        seed=seed,
        weights=cast(Any, weights),
        options=parse_options(option),
        data_dir=data_dir,
        download=download,
        checkpoint=checkpoint,
        tensorboard=tensorboard,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=tell)],
        verbose=0,
    )
    if output is not None:
        save_model(model, output)

    def show() -> None:
        _show(tuning)
        if output is not None:
            typer.echo(f"Saved: {output}")

    written = None if output is None else str(output)
    return Answer({**tuning.to_dict(), "output": written}, show)


def _show(tuning: Any) -> None:
    from keras_lsc_command import tables

    splits = (("validation", tuning.validation), ("test", tuning.test))
    figures = [f"{name} {split[tuning.metric]:.4g}" for name, split in splits if split]
    trained = len(tuning.history.get("loss", ()))
    options = "".join(f", {key} {value}" for key, value in tuning.options.items())
    tables.console().print(
        tables.facts(
            {
                "network": f"{tuning.model} ({tuning.weights})"
                + ", with a fresh head" * tuning.fresh_head,
                "task": f"{tuning.dataset}{options}",
                "training": f"{trained} epochs of {tuning.sequences['train']:,} sequences, best "
                f"{tuning.best_epoch}, {tuning.seconds:.0f} s on {tuning.backend}",
                tuning.metric.replace("_", " "): ", ".join(figures),
            }
        )
    )
