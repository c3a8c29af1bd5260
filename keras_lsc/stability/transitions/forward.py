"""Runs a model, as the model itself does, and keeps what its transitions need."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import tree

from keras_lsc import backend
from keras_lsc.stability.data import in_order, input_structure
from keras_lsc.stability.graph import Call, Graph, Ref, filled_in
from keras_lsc.stability.layers import is_recurrent
from keras_lsc.stability.masks import mask_of
from keras_lsc.stability.recorder import Recorder, directions_of, state_shapes
from keras_lsc.stability.transitions.points import Points, Tensor, unflatten_states


class ForwardPass:
    """The forward pass of a model that stops at one point of every sequence.

    Args:
        model: A built Sequential or functional `keras.Model`.
        graph: Of the model.
        kept: Tensors to keep.
    """

    def __init__(self, model: keras.Model, graph: Graph, kept: tuple[Ref, ...]):
        self._model = model
        self._graph = graph
        self._kept = kept
        self._recurrent = [call for call in graph.calls if is_recurrent(call.layer)]
        self._recorders: dict[Call, Any] = {call: Recorder(call.layer) for call in self._recurrent}

    def sample(self, inputs: Any, position: Tensor) -> Points:
        """Runs the model once, without gradient, and stops at one point of every sequence.

        Args:
            inputs: A batch of the model's inputs, as the model takes it, or flat.
            position: `(batch,)` floats in [0, 1): where in each sequence, from its first to its
                last valid step.

        Returns:
            `Points`, on which every transition can be linearised.
        """

        def run() -> tuple[list[Tensor], dict[str, Tensor], list[dict[str, Any]]]:
            found: dict[Ref, Tensor | None] = {}
            values, records = self._run(inputs, self._calls_to_run, masks=found)
            masks = {str(k): found[ref] for k, ref in enumerate(self._kept)}
            return [values[ref] for ref in self._kept], _given(masks), list(map(_given, records))

        kept, masks, records = backend.no_gradient(run)
        records = [{"mask": None, "rate": None, **record} for record in records]
        return Points(
            dict(zip(self._kept, kept, strict=True)),
            {ref: masks[str(k)] for k, ref in enumerate(self._kept) if str(k) in masks},
            dict(zip(self._recurrent, records, strict=True)),
            position,
        )

    def outputs(self, inputs: Any) -> Any:
        """The outputs of the model, in inference, by the forward pass that finds its points.

        Args:
            inputs: A batch of the model's inputs, as the model takes it, or flat.

        Returns:
            What `model(inputs, training=False)` returns.
        """
        values, _ = self._run(inputs, self._graph.calls)
        found = [values[ref] for ref in self._graph.outputs]
        if isinstance(self._model, keras.Sequential):
            return found[0]
        return tree.pack_sequence_as(self._model.output, found)

    def perturbed_output(self, inputs: Any, perturbation: list[Tensor]) -> Tensor:
        """The last recurrent layer's output when something is added to the states.

        Args:
            inputs: A batch of the model's inputs.
            perturbation: For every cell what is added to its state after each step,
                `(batch, steps, state)`.

        Returns:
            The outputs of the last recurrent layer, as it returns them.
        """
        values, _ = self._run(inputs, self._calls_to_run, perturbation)
        return values[self._recurrent[-1].outputs[0]]

    def _run(
        self,
        inputs: Any,
        calls: Sequence[Call],
        perturbation: list[Tensor] | None = None,
        masks: dict[Ref, Tensor | None] | None = None,
    ) -> tuple[dict[Ref, Tensor], list[dict[str, Any]]]:
        """The tensors and the records of recurrent calls.

        The masks of the tensors that are kept are put into `masks`.
        """

        def read_masks(made: Iterable[Ref]) -> None:
            # At once: a layer may take the mask off its inputs, as MultiHeadAttention does.
            if masks is not None:
                masks.update((ref, mask_of(values[ref])) for ref in made if ref in self._kept)

        leaves = in_order(inputs, input_structure(self._model))
        entries = zip(self._graph.inputs, self._graph.entries, leaves, strict=True)
        values = {ref: entry(leaf) for ref, entry, leaf in entries}
        read_masks(values)
        remaining, records = list(perturbation or []), []
        for call in calls:
            if call in self._recorders:
                noise = []
                if perturbation is not None:
                    for cell in directions_of(call.layer)[0].cells:
                        noise.extend(unflatten_states(remaining.pop(0), state_shapes(cell)))
                outputs, record = self._record(call, values, noise)
                records.append(record)
            else:
                outputs = call.run(values)
            values.update(zip(call.outputs, tree.flatten(outputs), strict=True))
            read_masks(call.outputs)
        return values, records

    def _record(self, call: Call, values: dict[Ref, Tensor], noise: list[Tensor]) -> Any:
        options = {k: v for k, v in call.by_name.items() if k != "training" and v is not None}
        options = filled_in(options, values)
        if noise:
            options["perturbation"] = noise
        first = call.first_argument
        return self._recorders[call](filled_in(first, values), **options)

    @functools.cached_property
    def _calls_to_run(self) -> list[Call]:
        wanted = [*self._kept, *(ref for call in self._recurrent for ref in call.outputs)]
        needed = {call for ref in wanted for call in self._graph.between((), ref)[0]}
        return [call for call in self._graph.calls if call in needed]


def _given(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}
