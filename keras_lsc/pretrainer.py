"""LSCPretrainer, a Keras model that trains another one's radii to their target."""

import contextlib
import numbers
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_lsc.arguments import flag, integer, number, one_of, positive_integer
from keras_lsc.stability.accuracy import UPDATE
from keras_lsc.stability.data import in_order, input_structure
from keras_lsc.stability.finite import refuse_non_finite_weights
from keras_lsc.stability.firing_rates import RATES
from keras_lsc.stability.frozen import frozen_variables
from keras_lsc.stability.parametrization import Mode, Parametrization
from keras_lsc.stability.radius import RadiusKind, check_radius_kind, radii_and_gains
from keras_lsc.stability.targets import Target, checked, resolve
from keras_lsc.stability.trains_chosen import TrainsChosen
from keras_lsc.stability.transitions import TransitionMap, mean_over_points

Tensor = Any

_LEARNING_RATE = {"scales": 0.05, "weights": 0.005}
_BETA_2 = 0.95
_GOLDEN = 0.6180339887498949
# What mode "scales" lets the isotropy drift freely, as a logarithm, and what more drift costs.
_FREE_DRIFT = 0.1
_DRIFT_COST = 1.0
# What the relative distance of a firing rate to those of `firing_rates.RATES` costs.
_RATE_COST = 0.3
# What it costs that a weight's own constraint takes back a part of how far it was moved.
_VIOLATION_COST = 1.0


@keras.saving.register_keras_serializable(package="keras_lsc")
class LSCPretrainer(TrainsChosen):
    """Trains a model until every local transition, in time and depth, has its target radius.

    An ordinary Keras model around the one to stabilise: its output are the mean radii and gains
    of a batch of sequences, each looked at in one of its time steps; its loss is their mean
    squared distance to the target, divided by the target. The stock `fit` does the rest; labels
    in the data are ignored. After `fit` the wrapped model is stabilised in place.

    Weights in frozen layers (`trainable=False`) stay as they are. Weights with a constraint of
    Keras satisfy it: the radii are those of the constrained weights, before `fit` as after it.

    Args:
        model: a built Sequential or functional `keras.Model`, recurrent or feed-forward.
        target: "variance" (1/sqrt(2) each, rho_t^2 + rho_l^2 = 1), a positive number, a pair
            (rho_t, rho_l), "unbalanced" or "variance-unbalanced".
        mode: "scales" moves one scale per weight matrix (per gate block in a gated cell), the
            biases and the height of a spiking layer's surrogate derivative; other vectors, such
            as time constants, and in a gated cell the biases of a gate, move as a whole, and
            their single entries slower. "weights" moves every entry, as the paper does, and
            often lifts one outlier of the spectrum only.
        radius: What is driven to the target: "spectral", "rms" (the RMS gain) or "norm".
        include_input: whether the input transitions of first layers are driven to rho_l as well.
        seed: integer, of the time steps that are looked at.
        name: Name of this model.

    Attributes:
        transition_map: Transitions of the model.
        movable: the weights that shape a transition and are not frozen, each with the size of its
            cell's state and the index of its layer.

    Raises:
        TypeError: `model` is not a Sequential or functional Keras model.
        ValueError: the model has nothing to stabilise, or nothing that may be moved, an
            unsupported part, or NaN or infinite weights; a bad target, mode, radius or seed.

    Source: arXiv 2308.12075, section 4 (pre-training to stability).

    Example:
        >>> import keras, keras_lsc, numpy as np
        >>> x = np.random.normal(size=(256, 20, 3)).astype("float32")
        >>> model = keras.Sequential([keras.Input((20, 3)),
        ...     keras.layers.GRU(16, return_sequences=True), keras.layers.GRU(16)])
        >>> pretrainer = keras_lsc.LSCPretrainer(model)
        >>> pretrainer.compile()
        >>> history = pretrainer.fit(x, batch_size=32, epochs=8, verbose=0)
        >>> keras_lsc.measure(model, x).max_deviation("variance") < 0.1
        True
    """

    def __init__(
        self,
        model: keras.Model,
        target: Target = "variance",
        mode: Mode = "scales",
        radius: RadiusKind = "spectral",
        include_input: bool = False,
        seed: int = 0,
        name: str | None = None,
    ):
        one_of("mode", mode, _LEARNING_RATE)
        check_radius_kind(radius)
        flag("include_input", include_input)
        seed = integer("seed", seed, at_least=0)
        target = checked(target)
        transition_map = TransitionMap(model)
        refuse_non_finite_weights(model)
        # Its inputs are those of the model, which casts them itself. The weights it reads and the
        # scales it trains are not rounded, whatever the global policy is.
        precision = "float64" if model.variable_dtype == "float64" else "float32"
        super().__init__(name=name, autocast=False, dtype=precision)
        self.model = model
        self.target = target
        self.mode = mode
        self.radius = radius
        self.include_input = include_input
        self.seed = seed
        self.transition_map = transition_map
        rows = transition_map.transitions
        frozen = frozen_variables(model)
        self._targeted = [row for row in rows if include_input or row.kind != "input"]
        if not self._targeted:
            raise ValueError(
                f"Model {model.name!r} has a single layer and so only an input transition; "
                "nothing is left to stabilise. Pass include_input=True to stabilise that one."
            )
        self.movable = [
            row for row in transition_map.variables_taking_part if id(row.variable) not in frozen
        ]
        self._parametrization = Parametrization(
            [(row.variable, row.gate_width) for row in self.movable],
            mode,
            lambda shape, name: self.add_weight(shape=shape, initializer="zeros", name=name),
        )
        if not self._parametrization.trained:
            raise ValueError(
                f"Nothing of model {model.name!r} may be moved: every weight that shapes a "
                "transition is in a frozen layer. Set trainable=True on the layers to stabilise."
            )
        # As a step of Keras' own training does, which need not reach a weight that is moved.
        self._constraints = _Constraints(
            variable for variable in model.trainable_variables if id(variable) not in frozen
        )
        phase = np.random.default_rng(seed).random()
        self._phase = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(phase), trainable=False, name="phase"
        )
        self._isotropy = self.add_weight(
            shape=(len(self._targeted),), initializer="zeros", trainable=False, name="isotropy"
        )
        self._recent = RecentRadii([row.name for row in self._targeted])
        self._slots: _Slots | None = None
        self.built = True

    @property
    def trainable_variables(self) -> list[Any]:
        """The scales and the weights that shape a transition; nothing else is moved."""
        if not self.trainable:
            return []
        return self._parametrization.trained

    @property
    def holds_frozen_weights(self) -> bool:
        """Whether the wrapped model has weights in frozen layers."""
        return bool(frozen_variables(self.model))

    @property
    def averages_weights(self) -> bool:
        """Whether the optimiser puts averages of the weights in their place (`use_ema=True`)."""
        optimizers = [self.optimizer, getattr(self.optimizer, "inner_optimizer", None)]
        optimizers.extend(getattr(self.optimizer, "optimizers", []))
        return any(getattr(optimizer, "use_ema", False) for optimizer in optimizers)

    @property
    def constraints(self) -> dict[str, str]:
        """The constraints of the wrapped model's weights that hold, by the path of the weight."""
        return {
            variable.path: getattr(
                variable.constraint, "__name__", type(variable.constraint).__name__
            )
            for variable in self._constraints.variables
        }

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
        learning_rate: float | None = None,
        decay_updates: float | None = 60,
        **kwargs: Any,
    ) -> None:
        """Chooses the optimiser; loss and metrics are those of the pretrainer.

        Args:
            optimizer: an optimiser, or the name of one, which then gets `learning_rate`.
            loss: stands where Keras has it, and has to be None. A number is taken for the
                learning rate, which stood there up to version 0.1; that is deprecated.
            learning_rate: first learning rate of an optimiser given by name; None for 0.05 in
                mode "scales" (a relative change per update) and 0.005 in "weights".
            decay_updates: number of updates in which that rate halves, again and again; None
                keeps it.
            **kwargs: Other arguments, as `keras.Model.compile` takes them, without metrics.

        Raises:
            ValueError: no optimiser or one that other variables are trained with, a learning rate
                for an optimiser that has its own, a number of no use, or a loss or metrics.
        """
        if isinstance(loss, numbers.Real) and learning_rate is None:
            warnings.warn(
                "The learning rate of LSCPretrainer.compile is given by name: "
                f"compile(optimizer, learning_rate={loss!r}).",
                DeprecationWarning,
                stacklevel=2,
            )
            loss, learning_rate = None, loss
        given = {"loss": loss, **kwargs}
        for name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if given.get(name) is not None:
                raise ValueError(
                    f"A pretrainer has a loss and metrics of its own, got {name}="
                    f"{given[name]!r}. Leave it out."
                )
            kwargs.pop(name, None)
        if learning_rate is not None:
            learning_rate = number("learning_rate", learning_rate, at_least=0)
        if decay_updates is not None:
            decay_updates = number("decay_updates", decay_updates, above=0)
        if isinstance(optimizer, str):
            optimizer = keras.optimizers.get(optimizer)  # raises ValueError for an unknown name
            rate = _LEARNING_RATE[self.mode] if learning_rate is None else learning_rate
            if decay_updates is not None:
                rate = keras.optimizers.schedules.ExponentialDecay(rate, decay_updates, 0.5)
            optimizer.learning_rate = rate
            if hasattr(optimizer, "beta_2"):
                # Squared gradients fall by orders of magnitude on the way to the target.
                optimizer.beta_2 = _BETA_2
        elif learning_rate is not None:
            raise ValueError(
                f"learning_rate={learning_rate!r} is that of an optimizer given by its name; "
                f"{type(optimizer).__name__} has its own. Leave learning_rate out."
            )
        elif isinstance(optimizer, dict) and "class_name" in optimizer:
            optimizer = keras.optimizers.get(optimizer)
        if not isinstance(optimizer, keras.optimizers.Optimizer):
            raise ValueError(
                "optimizer must be a keras.optimizers.Optimizer or the name of one, got "
                f"{optimizer!r}."
            )
        if optimizer is not getattr(self, "optimizer", None):
            if optimizer.built:
                raise ValueError(
                    f"The optimizer {optimizer.name!r} already trains other variables, whose "
                    "moments it keeps. Give a new one."
                )
            self._slots = None
        if keras.backend.backend() == "tensorflow":
            kwargs.setdefault("jit_compile", False)  # XLA compiles for minutes
        super().compile(optimizer=optimizer, loss=None, metrics=None, **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        """Returns the optimiser, for a saved pretrainer to go on with."""
        self._build_optimizer()
        return {"optimizer": keras.saving.serialize_keras_object(self.optimizer)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded pretrainer with the optimiser of `get_compile_config`."""
        self.compile(keras.saving.deserialize_keras_object(config["optimizer"]))
        self._build_optimizer()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those of the pretrainer: the wrapped model's own are neither reset nor shown."""
        of_model = {id(metric) for metric in self.model.metrics}
        return [metric for metric in super().metrics if id(metric) not in of_model]

    def call(self, x: Any, training: bool = False) -> dict[str, Tensor]:
        """Returns mean "radius" and RMS "gain", on a batch, of every transition with a target.

        Args:
            x: a batch of the wrapped model's inputs.
            training: whether this is an update, after which other time steps are looked at.

        Returns:
            Two `(transitions,)` float32 tensors; for a model with spiking layers also their mean
            "rate" at the sampled steps, `(layers,)`, and for one with constraints "violation", how
            far off each such weight is before its constraint, relative and squared, `(weights,)`.
        """
        inputs = in_order(x, input_structure(self.model))
        batch = ops.shape(inputs[0])[0]
        spread = ops.cast(ops.arange(batch), "float32") * _GOLDEN + self._phase
        position = spread - ops.floor(spread)
        # The wrapped model reads its weights through the scope: scaled, and never written to.
        effective, violation = self._effective_weights()
        with keras.StatelessScope(state_mapping=effective):
            points = self.transition_map.sample(inputs, position)
            measured = radii_and_gains(
                [row.linearize(points) for row in self._targeted],
                self.radius,
                UPDATE,
            )
            weights = [row.weight(points) for row in self._targeted]
            weighted = list(zip(measured, weights, strict=True))
            radii = [mean_over_points(row.radius, weight) for row, weight in weighted]
            energies = [mean_over_points(row.gain**2, weight) for row, weight in weighted]
            result = {"radius": ops.stack(radii), "gain": ops.sqrt(ops.stack(energies))}
            spikes = self.transition_map.spikes(points)
        if spikes:
            firing = zip(spikes, points.firing_weights(), strict=True)
            result["rate"] = ops.stack([mean_over_points(*layer) for layer in firing])
        if violation:
            result["violation"] = ops.stack(violation)
        if training:
            self._isotropy.assign(self._first_isotropy(result))
            after = self._phase + ops.cast(batch, "float32") * _GOLDEN
            self._phase.assign(after - ops.floor(after))
        return result

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Mean of (radius - target)^2 / target over the transitions.

        Divided by the target, so that its derivative by a log scale is the deviation itself, for
        small radii ("unbalanced") as for large ones. In mode "scales" more than a little drift of
        the isotropy costs as well, and so do firing rates outside [0.02, 0.5]: the gradients of a
        silent layer are those of its surrogate alone. A weight that is moved to where its
        constraint does not let it go costs too, so that it finds its way back. Labels and sample
        weights are ignored.
        """
        del y, sample_weight, training
        targets = self._targets(x)
        loss = ops.mean(ops.square(y_pred["radius"] - targets) / targets)
        if self.mode == "scales" and self.radius == "spectral":
            drift = ops.log(_isotropy(y_pred) / self._first_isotropy(y_pred))
            excess = ops.relu(ops.abs(drift) - _FREE_DRIFT)
            loss = loss + _DRIFT_COST * ops.mean(ops.square(excess))
        if "rate" in y_pred:
            low, high = RATES
            missing = ops.relu(1.0 - y_pred["rate"] / low)
            surplus = ops.relu((y_pred["rate"] - high) / (1.0 - high))
            loss = loss + _RATE_COST * ops.mean(ops.square(missing) + ops.square(surplus))
        if "violation" in y_pred:
            loss = loss + _VIOLATION_COST * ops.mean(y_pred["violation"])
        # Keras warns of variables without a gradient; those that no targeted transition depends on,
        # such as the input weights of a linear bottom layer, have one of zero.
        return loss + 0.0 * sum(ops.sum(variable) for variable in self.trainable_variables)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Tensor]:
        """Updates and returns the recent radius and gain of every transition, and the worst."""
        del y, sample_weight
        self._recent.update_state(y_pred["radius"], y_pred["gain"], self._targets(x))
        return self.get_metrics_result()

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """`keras.Model.fit`, after which the wrapped model holds the stabilised weights.

        On any error, and when interrupted, the wrapped model gets back the weights it had, and
        the optimiser its state.
        """
        if batch_size is not None:
            batch_size = positive_integer("batch_size", batch_size)
        epochs = integer("epochs", epochs, at_least=0)
        if not self.compiled:
            raise ValueError("The pretrainer is not compiled. Call its compile() before fit().")
        self.refuse_mirrored()
        refuse_non_finite_weights(self.model)
        self._refuse_frozen_later()
        state = State(self.variables, self.metrics_variables)
        try:
            self.apply_constraints()
            slots = self._build_optimizer()
            of_optimizer = State(self.optimizer.variables)
            try:
                slots.follow()
                history = super().fit(x, y, batch_size, epochs, *args, **kwargs)
                # Keras ends by putting averages in the weights' place.
                slots.follow()
                self._refuse_non_finite()
                self.fold_scales()
            except BaseException:
                of_optimizer.restore()
                raise
        except BaseException:
            state.restore()
            raise
        return history

    def apply_constraints(self) -> None:
        """Lets the constraints of the wrapped model's weights act, as a step of training does."""
        for variable in self._constraints.variables:
            variable.assign(variable.constraint(variable.value))

    def fold_scales(self) -> None:
        """Puts the scales and shifts into the wrapped model's weights and sets them back.

        What the optimiser keeps of them (moments, averages, accumulated gradients) is set back
        too; its count of updates and its learning rate go on.

        Raises:
            FloatingPointError: a weight would become NaN or infinite; nothing is changed then.
        """
        reparametrized = [row.weight for row in self._parametrization.reparametrized]
        changed = [*reparametrized, *self._constraints.variables]
        values = {id(variable): value for variable, value in self._effective_weights()[0]}
        found = [(variable, ops.convert_to_numpy(values[id(variable)])) for variable in changed]
        _refuse([variable.path for variable, value in found if not np.isfinite(value).all()])
        for variable, value in found:
            variable.assign(value)
        self._parametrization.reset()
        if self._slots is not None:
            self._slots.reset()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "model": keras.saving.serialize_keras_object(self.model),
            "target": self.target,
            "mode": self.mode,
            "radius": self.radius,
            "include_input": self.include_input,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "LSCPretrainer":
        """Makes a pretrainer, with its model, from `get_config`."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return cls(**{**config, "model": model})

    def _first_isotropy(self, y_pred: dict[str, Tensor]) -> Tensor:
        """Isotropies of the first update: those of this one until there is a former one."""
        current, first = ops.stop_gradient(_isotropy(y_pred)), self._isotropy.value
        return ops.where(first == 0.0, current, first)

    def _effective_weights(self) -> tuple[list[tuple[Any, Tensor]], list[Tensor]]:
        """What the wrapped model computes with, and how far constraints took weights back."""
        values = self._parametrization.values(self.model.variables)
        reparametrized = {id(row.weight) for row in self._parametrization.reparametrized}
        violations = []
        for variable in self._constraints.variables:
            value = values[id(variable)]
            allowed = ops.stop_gradient(ops.cast(variable.constraint(value), ops.dtype(value)))
            if id(variable) in reparametrized:
                size = ops.sum(ops.square(allowed)) + keras.config.epsilon()
                violations.append(ops.sum(ops.square(value - allowed)) / size)
            # The gradient of a projected step: a constraint's own may be zero for good.
            values[id(variable)] = allowed + (value - ops.stop_gradient(value))
        return [(variable, values[id(variable)]) for variable in self.model.variables], violations

    def _build_optimizer(self) -> "_Slots":
        """Builds the optimiser, if it is not, and notes what it knows before the first update."""
        if self._slots is not None:
            return self._slots
        strategy = getattr(self, "distribute_strategy", None)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            if not self.optimizer.built:
                self.optimizer.build(self.trainable_variables)
        self._slots = _Slots(self.optimizer, self._parametrization)
        return self._slots

    def _refuse_frozen_later(self) -> None:
        frozen = frozen_variables(self.model)
        weights = self._parametrization.weights
        late = [weight.path for weight in weights if id(weight) in frozen]
        if late:
            raise ValueError(
                f"{len(late)} weight(s) of {self.model.name!r}, {late[0]!r} first, were frozen "
                "after this pretrainer was made. Make a new LSCPretrainer."
            )

    def _targets(self, x: Any) -> Tensor:
        steps = 0
        if self.transition_map.is_recurrent:
            steps = self.transition_map.steps(x) if "unbalanced" in str(self.target) else 1
        rho_time, rho_depth = resolve(self.target, self.transition_map.depth, steps)
        return ops.convert_to_tensor(
            [rho_time if row.kind == "time" else rho_depth for row in self._targeted], "float32"
        )

    def _refuse_non_finite(self) -> None:
        _refuse(
            [
                weight.path
                for weight in self.trainable_variables
                if not np.isfinite(ops.convert_to_numpy(weight)).all()
            ]
        )


def _refuse(non_finite: list[str]) -> None:
    if non_finite:
        raise FloatingPointError(
            f"Pre-training made {len(non_finite)} weight(s) NaN or infinite, {non_finite[0]!r} "
            "first; the model has its former weights. Use a smaller learning rate."
        )


class State:
    """The values of variables, to give them back when something fails.

    Args:
        *variables: lists of variables.
    """

    def __init__(self, *variables: Sequence[Any]):
        # Copies: what a backend shows of a tensor may change with it.
        self._values = [
            (variable, np.array(ops.convert_to_numpy(variable.value)))
            for some in variables
            for variable in some
        ]

    def restore(self) -> None:
        """Gives every variable its value back."""
        for variable, value in self._values:
            variable.assign(value)


class _Constraints:
    """The weights with a constraint, kept where Keras does not take them for the pretrainer's own.

    Args:
        variables: weights with and without constraints.
    """

    def __init__(self, variables: Iterable[Any]):
        self.variables = [variable for variable in variables if variable.constraint is not None]


class _Slots:
    """What an optimiser keeps of the variables it moves: moments, averages, sums of gradients.

    Its count of updates, its learning rate and its scale of the loss are none.

    Args:
        optimizer: built.
        parametrization: whose parameters are set back to zero when they are folded into weights.
    """

    def __init__(self, optimizer: Any, parametrization: Parametrization):
        parameters, free = parametrization.parameters, parametrization.free
        self._fresh: list[tuple[Any, np.ndarray]] = []
        self._averages: list[tuple[Any, Any]] = []
        for slot in optimizer.variables:
            name = slot.name
            of = next((variable for variable in free if _is_slot_of(variable, name)), None)
            of_parameter = any(_is_slot_of(variable, name) for variable in parameters)
            if of is not None and name.endswith("_average"):
                self._averages.append((slot, of))
            # Whose it is an optimiser of one's own need not say; what all share are scalars.
            of_unknown = of is None and len(slot.shape) > 0
            if of_parameter or of_unknown or name.endswith("gradient_accumulator"):
                self._fresh.append((slot, np.array(ops.convert_to_numpy(slot.value))))

    def reset(self) -> None:
        """Forgets the parameters, as they were before the first update."""
        for slot, value in self._fresh:
            slot.assign(value)

    def follow(self) -> None:
        """Has the averages of weights begin at what the weights are, in memory of their own.

        On JAX an update gives the memory of weights and averages away, and cannot give one twice.
        """
        for slot, variable in self._averages:
            slot.assign(ops.copy(variable.value))


def _is_slot_of(variable: Any, name: str) -> bool:
    """Whether Keras gives a slot of `variable` this name."""
    return name == variable.name or name.startswith(f"{variable.path.replace('/', '_')}_")


def _isotropy(y_pred: dict[str, Tensor]) -> Tensor:
    return (y_pred["gain"] + 1e-7) / (y_pred["radius"] + 1e-7)


@keras.saving.register_keras_serializable(package="keras_lsc")
class RecentRadii(keras.metrics.Metric):
    """Radius and gain of every transition over the last updates, and the largest deviation.

    An exponential mean over about ten updates: the radii move while they are averaged, and a
    mean since the start of an epoch would lag behind.

    Args:
        transitions: names of the transitions.
        decay: weight of the past in every update.
        name: Name of the metric.
    """

    def __init__(self, transitions: list[str], decay: float = 0.9, name: str = "recent_radii"):
        super().__init__(name=name)
        self.transitions = transitions
        self.decay = decay
        count = (len(transitions),)
        self._radius = self.add_variable(count, "zeros", name="radius")
        self._gain = self.add_variable(count, "zeros", name="gain")
        self._target = self.add_variable(count, "zeros", name="target")
        self._weight = self.add_variable((), "zeros", name="weight")

    def update_state(self, radius: Tensor, gain: Tensor, target: Tensor) -> None:
        """Adds the `(transitions,)` radii and gains of one update."""
        for mean, value in ((self._radius, radius), (self._gain, gain)):
            mean.assign(self.decay * mean + (1 - self.decay) * ops.cast(value, mean.dtype))
        self._target.assign(ops.cast(target, self._target.dtype))
        self._weight.assign(self.decay * self._weight + (1 - self.decay))

    def result(self) -> dict[str, Tensor]:
        """Returns `<transition>_radius` and `<transition>_gain` for each, and "max_deviation"."""
        weight = ops.maximum(self._weight, 1e-7)
        radius, gain = self._radius / weight, self._gain / weight
        deviation = ops.abs(radius - self._target)
        # Not every backend's largest of NaN and a number is NaN.
        worst = ops.where(ops.any(ops.isnan(deviation)), np.nan, ops.max(deviation))
        values = {"max_deviation": worst}
        for k, name in enumerate(self.transitions):
            values[f"{name}_radius"] = radius[k]
            values[f"{name}_gain"] = gain[k]
        return values

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"transitions": self.transitions, "decay": self.decay, "name": self.name}
