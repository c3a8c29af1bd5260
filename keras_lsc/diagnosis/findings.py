"""What can be wrong with a network, in the order in which one thing brings about the next."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


class Fault(NamedTuple):
    """A kind of finding: what to do about it, and how that is known.

    Attributes:
        advice: What to do, in one sentence.
        evidence: What that rests on.
    """

    advice: str
    evidence: str


# A network has all of its findings; its verdict is the first of them in this order.
FAULTS = {
    "input_not_finite": Fault(
        "Clean the data: drop or fill these values before training.",
        "Every weight becomes NaN with the first gradient.",
    ),
    "weight_not_finite": Fault(
        "Load weights from before it diverged, and train on with a smaller learning rate or with "
        "clipnorm=1.",
        "Nothing that a network with such a weight gives out is a number.",
    ),
    "overflow": Fault(
        "Scale the inputs, or the weights of that layer, down, or compute in a wider dtype.",
        "All weights are finite, and what comes out is not.",
    ),
    "constant_input": Fault(
        "Look at how the data is loaded: all sequences are the same at every step.",
        "No network can tell apart what is the same.",
    ),
    "padding": Fault(
        "Cut the sequences to the length of what they hold, and batch those of like length.",
        "What is masked changes no state and has no gradient.",
    ),
    "unmasked_padding": Fault(
        "Put keras.layers.Masking first (Embedding(..., mask_zero=True) for tokens), or cut the "
        "sequences.",
        "A state has to be carried through all padding, which no gradient asks it to be.",
    ),
    "dead_units": Fault(
        "Make the biases of that layer larger or its weights smaller, or use another activation; "
        "then start anew.",
        "A unit that is the same for every input has no gradient that could revive it.",
    ),
    "silent_spikes": Fault(
        "Raise the input weights of that layer or lower its threshold, until a neuron fires in a "
        "hundredth of the steps or more; keras_lsc.callbacks.FiringRateSchedule keeps it there.",
        "Layers above a silent one are told nothing (keras_lsc guide on spiking networks).",
    ),
    "saturated_spikes": Fault(
        "Lower the input weights of that layer or raise its threshold.",
        "A neuron that fires at every step says nothing about its input.",
    ),
    "saturated": Fault(
        "Scale what that layer reads to unit variance, or its weights down.",
        "The slope of tanh and sigmoid is next to nothing at their bounds, and with it the "
        "gradient.",
    ),
    "exploding_in_time": Fault(
        "keras_lsc.stabilize(model, x) takes the radii in time to a target; clipnorm=1 helps where "
        "gradients are large now and then only.",
        "arXiv 2308.12075: radii in time above 1 make gradients grow exponentially with the steps.",
    ),
    "exploding_in_depth": Fault(
        'keras_lsc.stabilize(model, x, method="level") gives every layer the same energy.',
        "One step of the optimizer then moves the lower layers far, or clipping leaves nothing for "
        "the upper ones (arXiv 2308.12075, section 2).",
    ),
    "vanishing_in_time": Fault(
        "keras_lsc.stabilize(model, x) takes the radii in time to a target; for LSTM a larger "
        "forget bias does as well (unit_forget_bias=True, or larger).",
        "In this project's experiments it helped all networks whose gain_t^2 + gain_l^2 was below "
        "0.25, a third of those up to 0.5 and one in sixteen above.",
    ),
    "vanishing_in_depth": Fault(
        'keras_lsc.stabilize(model, x, method="level") gives every layer the same energy; for '
        "sigmoid cells stabilize(model, x), which moves recurrent weights too.",
        "In this project's experiments stabilizing helped all networks whose gain_t^2 + gain_l^2 "
        "was below 0.25, a third of those up to 0.5 and one in sixteen above.",
    ),
    "saturated_gates": Fault(
        "Scale what that layer reads to unit variance, or its weights down.",
        "A gate that is open or shut whatever comes does not learn; of default starts next to none "
        "are, of networks that learned to read digits at most an eighth.",
    ),
    "vanishing_forward": Fault(
        'keras_lsc.stabilize(model, x, method="level"), or a normalization between the layers.',
        "What two inputs differ by is lost in rounding before it reaches the head.",
    ),
    "exploding_forward": Fault(
        'keras_lsc.stabilize(model, x, method="level"), or a normalization between the layers.',
        "Two inputs that hardly differ end far apart: nothing that is learnt holds for the next.",
    ),
    "learning_rate": Fault(
        "Compile with a learning rate of at most that which held.",
        "Training steps from these weights, with a copy of the model's own optimizer.",
    ),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a network.

    Attributes:
        kind: What it is, a key of `FAULTS`.
        where: name of the layer or weight that it begins at; None where it is at no single one.
        what: one sentence, with the number that it is told by.
    """

    kind: str
    where: str | None
    what: str

    @property
    def advice(self) -> str:
        """What to do, in one sentence."""
        return FAULTS[self.kind].advice

    @property
    def evidence(self) -> str:
        """What the advice rests on."""
        return FAULTS[self.kind].evidence

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')}: {self.what} {self.advice}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the finding as a dictionary of JSON types, advice and evidence included."""
        return {**asdict(self), "advice": self.advice, "evidence": self.evidence}


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """The findings, causes first."""
    order = list(FAULTS)
    return tuple(sorted(findings, key=lambda finding: order.index(finding.kind)))
