"""What is found in the graph of a model: its transitions, and what they need."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras

from keras_lsc.stability.graph import Call, Ref
from keras_lsc.stability.transitions.points import Transition


class TakingPart(NamedTuple):
    """A weight that shapes transitions.

    Attributes:
        variable: Variable of the model.
        gate_width: size of the state of the cell that it is of; None for that of another layer.
        layer: index of the layer whose transitions it shapes, the first of several.
    """

    variable: Any
    gate_width: int | None
    layer: int


@dataclass(frozen=True, eq=False)
class Found:
    """The transitions of a model, or of a part of it.

    Attributes:
        transitions: Transitions, in the order of the layers.
        kept: Tensors that the forward pass has to keep, for what lies between two layers.
        taking_part: Layers whose variables shape a transition that is driven to a target, each
            with the layers and models that it is part of, and the index of that transition's layer.
        depth: Number of recurrent (else weighted) layers, the paper's L.
    """

    transitions: tuple[Transition, ...] = ()
    kept: tuple[Ref, ...] = ()
    taking_part: tuple[tuple[Any, tuple[Any, ...], int], ...] = ()
    depth: int = 0


def joined(parts: Iterable[Found], depth: int) -> Found:
    """What all parts of a model have: every tensor once, and no two transitions of one name."""
    parts = list(parts)
    return Found(
        _with_unique_names([row for part in parts for row in part.transitions]),
        tuple(dict.fromkeys(ref for part in parts for ref in part.kept)),
        tuple(layer for part in parts for layer in part.taking_part),
        depth,
    )


def layers_of(stage: Sequence[Call], layer: int) -> tuple[tuple[Any, tuple[Any, ...], int], ...]:
    """The layers that a stage calls, which shapes a transition of `layer`, as `taking_part`."""
    return tuple(
        (call.layer, call.owners, layer) for call in stage if isinstance(call.layer, keras.Layer)
    )


def _with_unique_names(rows: Sequence[Transition]) -> tuple[Transition, ...]:
    named: dict[str, Transition] = {}
    for row in rows:
        counted = (f"{row.name}[{count}]" for count in itertools.count(2))
        name = next(name for name in itertools.chain([row.name], counted) if name not in named)
        named[name] = replace(row, name=name)
    return tuple(named.values())
