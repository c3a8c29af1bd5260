"""Finds the transitions of the weighted layers of a feed-forward model."""

from dataclasses import replace

from keras import ops

from keras_lsc.stability.graph import Call, Entry, Graph, Ref
from keras_lsc.stability.layers import is_probability, is_weighted, without_activation
from keras_lsc.stability.masks import with_mask
from keras_lsc.stability.transitions.found import Found, joined, layers_of
from keras_lsc.stability.transitions.points import (
    Function,
    Points,
    Tensor,
    Transition,
    flatten_features,
)


def find_feed_forward(graph: Graph) -> Found:
    """Returns a transition for every weighted layer, with what follows it up to the next.

    Args:
        graph: Of a model without recurrent layers.

    Raises:
        ValueError: No layer has a weight matrix.
    """
    weighted = [call for call in graph.calls if is_weighted(call.layer)]
    if not weighted:
        raise ValueError(
            f"Model {graph.name!r} has no recurrent layer and no layer with a weight "
            "matrix, so it has no transitions. Its layers: "
            f"{', '.join(sorted({type(c.layer).__name__ for c in graph.calls}))}."
        )
    read = [_origin(graph, call.first_input) for call in weighted]
    # A tensor that several layers read counts as the input of the first of them.
    layer_of = {ref: read.index(ref) for ref in read}
    heads = [_logits(graph, ref) for ref in graph.outputs]
    parts: dict[int, list[Found]] = {index: [] for index in range(len(weighted))}
    for target in dict.fromkeys([*read[1:], *heads]):
        if graph.producer(target) is None:
            # No layer leads to an input of the model.
            continue
        stage, starts = graph.between([ref for ref in layer_of if ref is not target], target)
        for source in (ref for ref in starts if ref in layer_of):
            index = layer_of[source]
            of_layer = parts[index]
            transition = _transition(
                graph, weighted[index], (source, target), (stage, starts), index, target in heads
            )
            if of_layer:
                transition = replace(transition, name=f"{transition.name}[{len(of_layer)}]")
            taking_part = layers_of(stage, index) if transition.kind == "depth" else ()
            of_layer.append(Found((transition,), starts, taking_part))
    return joined((part for of_layer in parts.values() for part in of_layer), len(weighted))


def _transition(
    graph: Graph,
    layer: Call,
    ends: tuple[Ref, Ref],
    between: tuple[tuple[Call, ...], tuple[Ref, ...]],
    index: int,
    is_head: bool,
) -> Transition:
    (source, target), (stage, starts) = ends, between
    last = graph.producer(target)
    assert last is not None
    drop_activation = is_head and is_weighted(last.layer) and is_probability(last.layer)

    def linearize(points: Points) -> tuple[Function, Tensor]:
        x = points.values[source]
        shape = (-1, *x.shape[1:])

        def next_input(flat: Tensor) -> Tensor:
            values = {ref: points.masked(ref) for ref in starts if ref is not source}
            values[source] = with_mask(ops.reshape(flat, shape), points.masks.get(source))
            if drop_activation:
                with without_activation(last.layer):
                    values = graph.run(stage, values)
            else:
                values = graph.run(stage, values)
            return flatten_features(values[target])

        return next_input, flatten_features(x)

    kind = "input" if graph.producer(source) is None or index == 0 else "depth"
    name = f"{layer.layer.name}.{kind}{graph.suffix(layer)}"
    return Transition(name, kind, index, "output", linearize)


def _logits(graph: Graph, ref: Ref) -> Ref:
    # Cross-entropy hands its gradient to the logits, so a last softmax is not on its path.
    call = graph.producer(ref)
    while call is not None and (
        isinstance(call.layer, Entry)
        or (is_probability(call.layer) and not is_weighted(call.layer))
    ):
        ref = call.first_input
        call = graph.producer(ref)
    return ref


def _origin(graph: Graph, ref: Ref) -> Ref:
    """The tensor that enters a nested model as `ref`; `ref` itself if it is none of those."""
    call = graph.producer(ref)
    while call is not None and isinstance(call.layer, Entry):
        ref = call.first_input
        call = graph.producer(ref)
    return ref
