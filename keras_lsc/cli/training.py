"""The command that trains: fine-tune."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import keras
import typer

from keras_lsc import zoo
from keras_lsc.cli.shared import (
    AsJson,
    Backend,
    CheckpointOrFile,
    DataDir,
    Seed,
    TaskOptions,
    check_backend,
    check_model_output,
    parse_options,
    print_json,
    save_model,
)


def fine_tune(
    name: CheckpointOrFile,
    dataset: Annotated[str, typer.Option(help="Task: see keras-lsc datasets.")],
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
            metavar="stabilized|initial",
            help="Start: the checkpoint, or the same network before pre-training.",
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
    backend: Backend = None,
    as_json: AsJson = False,
) -> None:
    """Train a checkpoint, or a saved model, on a task.

    Loss and metric are those of the task; a head that does not fit it is replaced. The weights of
    the epoch that did best on the validation split are kept.
    """
    check_backend(backend)
    for path in (output, checkpoint):
        if path is not None:
            check_model_output(path, Path(name))
    if output is not None and checkpoint is not None and output.absolute() == checkpoint.absolute():
        raise ValueError(f"--output and --checkpoint are both {output}; name two files.")
    if tensorboard is not None and tensorboard.exists() and not tensorboard.is_dir():
        raise NotADirectoryError(f"--tensorboard {tensorboard} is no folder.")
    model, tuning = zoo.fine_tune(
        name,
        dataset,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        patience=patience,
        limit=limit,
        seed=seed,
        weights=cast(Literal["stabilized", "initial"], weights),
        options=parse_options(option),
        data_dir=data_dir,
        download=download,
        checkpoint=checkpoint,
        tensorboard=tensorboard,
        callbacks=[_EpochPrinter(epochs, to_stderr=as_json)],
        verbose=0,
    )
    if output is not None:
        save_model(model, output)
    if as_json:
        written = None if output is None else str(output)
        print_json({**tuning.to_dict(), "output": written})
        return
    typer.echo(tuning)
    if output is not None:
        typer.echo(f"Saved: {output}")


class _EpochPrinter(keras.callbacks.Callback):
    """Prints a line at the end of every epoch."""

    def __init__(self, epochs: int, to_stderr: bool):
        super().__init__()
        self.epochs = epochs
        self.to_stderr = to_stderr

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        figures = ", ".join(
            f"{name.replace('val_', 'validation ').replace('_', ' ')} {value:.4g}"
            for name, value in (logs or {}).items()
        )
        typer.echo(f"epoch {epoch + 1}/{self.epochs}: {figures}", err=self.to_stderr)
