"""The true radii and gains of a Keras model, by brute force: finite differences in float64 NumPy.

Nothing of the package is used, and nothing of how it works: the model is read from its public
configuration (`Model.get_config()`), every layer and cell is written here once more from its
equations, and every transition is a table of differences: an entry is moved, the step (or the
layers between) is run again. A layer or a cell of a user's own, of which nothing is known here,
is called itself; it computes in float32, so its differences are those of a wider stencil.

That the reading is right is checked every time: the outputs of the model in NumPy must be those
of the model itself.

Definitions. State: all state tensors of a cell that a derivative can pass through (a refractory
counter is none of them). Time: d(new state)/d(old state) at fixed input. Depth: d(output at step
t)/d(output of the recurrent layer below at t), at a fixed old state, through all layers between.
Input: the same by the layer's own input, where no recurrent layer is below. Feed-forward models:
d(input of a weighted layer)/d(input of the weighted layer before it), and the last one up to the
outputs, before a last softmax or sigmoid.

Where layers between change the number of steps (pooling, strides, cropping, padding, upsampling),
step t above is held against the last step below that has an effect on it through them, which is
found out by changing the steps; what keeps the number keeps the step, and so does a way of other
layers on which it comes back. Where only padding has an effect there is no transition.

Where a function has a kink (relu at exactly 0) there is no truth; keep the models away from it.

Points. Written down again from the description of `measure`, so that the same ones are taken: of
the data, the rows `default_rng(seed).permutation(len(x))[:samples]`; then, from
`default_rng([seed, 1])`, a permutation of these rows, repeated up to the number of samples, and
after it `random(samples)` in float32, the position of the point in each. A position is the
floor(position * n)-th of the n steps which the mask of the layer leaves; a sequence without such
a step has no point.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

# Central differences of second order in float64, and of fourth order in float32.
_FINE = ((1e-5, 0.5 / 1e-5), (-1e-5, -0.5 / 1e-5))
_H = 2e-2
_COARSE = ((_H, 8 / 12 / _H), (-_H, -8 / 12 / _H), (2 * _H, -1 / 12 / _H), (-2 * _H, 1 / 12 / _H))


class Fact(NamedTuple):
    """One transition: its name as `measure` gives it, and its Jacobians `(points, out, in)`."""

    name: str
    kind: str
    layer: str
    jacobians: np.ndarray

    @property
    def eigenvalues(self) -> np.ndarray:
        return np.linalg.eigvals(self.jacobians)

    @property
    def gain(self) -> float:
        """The RMS gain: root mean square over points and directions, forward and backward."""
        return float(np.sqrt(np.square(self._gains).mean()))

    @property
    def radius(self) -> float:
        """Mean over the points of the spectral radius; of the gain where there is none."""
        _, n_out, n_in = self.jacobians.shape
        if n_out != n_in:
            return float(self._gains.mean())
        return float(np.abs(self.eigenvalues).max(axis=1).mean())

    @property
    def _gains(self) -> np.ndarray:
        _, n_out, n_in = self.jacobians.shape
        norms = np.sqrt(np.square(self.jacobians).sum(axis=(1, 2)))
        return norms * math.sqrt((n_out + n_in) / (2 * n_out * n_in))


def facts(model: keras.Model, x: Any, samples: int, seed: int = 0) -> list[Fact]:
    """Every transition of a Sequential or functional model at the points of `measure`."""
    program = Program(model)
    arrays = program.in_order(x)
    count = len(arrays[0])
    drawn = np.random.default_rng(seed).permutation(count)[:samples]
    generator = np.random.default_rng([seed, 1])
    chosen = np.resize(generator.permutation(len(drawn)), samples)
    position = generator.random(samples).astype("float32")
    rows = [array[drawn[chosen]] for array in arrays]
    run = Run(program, rows)
    check_outputs(model, program, run, rows)
    if any(is_recurrent(call.layer) for call in run.order):
        return Recurrent(run, position).facts()
    return feed_forward(run)


def check_outputs(model: keras.Model, program: "Program", run: "Run", rows: list) -> None:
    """Fails if the model in NumPy is not the model."""
    by_name = dict(zip([symbolic.name for symbolic in model.inputs], rows, strict=True))
    names = tree.map_structure(lambda symbolic: symbolic.name, structure_of(model))
    given = tree.map_structure(lambda name: keras.ops.convert_to_tensor(by_name[name]), names)
    for found, key in zip(tree.flatten(model(given, training=False)), program.outputs, strict=True):
        np.testing.assert_allclose(
            run.get(key).data, to_numpy(found), rtol=2e-3, atol=2e-4, err_msg=f"output {key}"
        )


def structure_of(model: keras.Model) -> Any:
    """The inputs of a model in the structure in which it was made with them."""
    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def to_numpy(tensor: Any) -> np.ndarray:
    array = keras.ops.convert_to_numpy(keras.ops.stop_gradient(tensor))
    return array.astype("float64") if np.issubdtype(array.dtype, np.floating) else array


def weights_of(layer: Any) -> list[np.ndarray]:
    return [to_numpy(weight) for weight in layer.weights]


def jacobians(function: Any, x: np.ndarray, stencil: tuple) -> np.ndarray:
    """Differences of `function`, `(B, n) -> (B, m)`, at every row of `x`.

    It is called once, on all shifts of all points, and told for every row of which point it is.
    """
    points, n = x.shape
    shifts = np.array([shift for shift, _ in stencil])
    factors = np.array([factor for _, factor in stencil])
    grid = x[:, None, None, :] + shifts[:, None, None] * np.eye(n)
    of_point = np.repeat(np.arange(points), len(shifts) * n)
    y = function(grid.reshape(-1, n), of_point)
    y = y.reshape(points, len(shifts), n, -1)
    return np.einsum("k,pkjm->pmj", factors, y)


class Value:
    """An array and the mask that Keras would attach to it."""

    def __init__(self, data: np.ndarray, mask: np.ndarray | None = None):
        self.data = np.asarray(data)
        self.mask = mask

    def __getitem__(self, rows: np.ndarray) -> "Value":
        return Value(self.data[rows], None if self.mask is None else self.mask[rows])


class Ref:
    """Stands for a tensor in the arguments of a call."""

    def __init__(self, key: tuple):
        self.key = key


class Call(NamedTuple):
    layer: Any
    args: Any
    kwargs: Any
    key: tuple

    def refs(self) -> list[tuple]:
        leaves = tree.flatten((self.args, self.kwargs))
        return [leaf.key for leaf in leaves if isinstance(leaf, Ref)]


class Program:
    """The calls of a model, read from its configuration; those of nested models in their place.

    A tensor has the key (place, layer, call, output): `place` names the nested calls around it.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self.calls: dict[tuple, Call] = {}
        self.alias: dict[tuple, Any] = {}
        self.inputs = [(("input", k), 0) for k in range(len(model.inputs))]
        self.outputs = self._inline(model, [Ref(key) for key in self.inputs], ())
        self.outputs = [self.resolve(key) for key in self.outputs]

    def in_order(self, x: Any) -> list[np.ndarray]:
        """The arrays of `x` in the order of the model's inputs, as `fit` would pair them."""
        if isinstance(x, dict):
            structure = structure_of(self.model)
            if not isinstance(structure, dict):
                structure = {symbolic.name: symbolic for symbolic in self.model.inputs}
            key_of = {symbolic.name: key for key, symbolic in structure.items()}
            found = [
                x[key_of[s.name]] if key_of[s.name] in x else x[s.name] for s in self.model.inputs
            ]
        else:
            found = tree.flatten(x) if isinstance(x, list | tuple) else [x]
        return [np.asarray(array) for array in found]

    def is_input(self, key: tuple) -> bool:
        """Whether a tensor is an input of the model, cast at most."""
        while key not in self.inputs and isinstance(self.calls[key[:3]].layer, Cast):
            key = self.resolve(self.calls[key[:3]].refs()[0])
        return key in self.inputs

    def resolve(self, key: tuple) -> tuple:
        while key in self.alias:
            key = self.alias[key]
        return key

    def _inline(self, model: keras.Model, inputs: list[Ref], place: tuple) -> list[tuple]:
        if isinstance(model, keras.Sequential):
            (current,) = inputs
            current = self._cast(current, model.inputs[0].dtype, (*place, "cast"))
            for layer in model.layers:
                current = self._add(layer, [current], {}, place, 0)
            return [current.key]
        config = model.get_config()
        operations = {operation.name: operation for operation in model.operations}
        for ref, name in zip(inputs, config_names(config["input_layers"]), strict=True):
            dtype = operations[name].dtype
            cast = self._cast(ref, dtype, (*place, "cast", name))
            self.alias[place, name, 0, 0] = cast.key
        for entry in config["layers"]:
            for index, node in enumerate(entry["inbound_nodes"]):
                args, kwargs = (revived(node[part], place) for part in ("args", "kwargs"))
                self._add(operations[entry["name"]], args, kwargs, place, index)
        return [
            (place, name, index - self._first_node(operations[name]), output)
            for name, index, output in config_leaves(config["output_layers"])
        ]

    def _first_node(self, operation: Any) -> int:
        # Keras counts, of outputs alone, from 1 where a nested functional model made them.
        nested = isinstance(operation, keras.Model) and not isinstance(operation, keras.Sequential)
        return int(nested)

    def _cast(self, ref: Ref, dtype: str, place: tuple) -> Ref:
        return self._add(Cast(dtype), [ref], {}, place, 0)

    def _add(self, layer: Any, args: Any, kwargs: Any, place: tuple, index: int) -> Ref:
        name = layer.name
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            nested = (*place, (name, index))
            mask = kwargs.get("mask") if kwargs else None
            refs = [leaf for leaf in tree.flatten(args) if isinstance(leaf, Ref)]
            masks = tree.flatten(mask) if mask is not None else [None] * len(refs)
            refs = [
                ref if m is None else self._add(WithMask(), [ref, m], {}, (*nested, "mask", k), 0)
                for k, (ref, m) in enumerate(zip(refs, masks, strict=True))
            ]
            for k, key in enumerate(self._inline(layer, refs, nested)):
                self.alias[place, name, index, k] = key
        else:
            self.calls[place, name, index] = Call(layer, args, kwargs, (place, name, index))
        return Ref((place, name, index, 0))


class Cast:
    """What a functional model does to its inputs first."""

    def __init__(self, dtype: str):
        self.name = "cast"
        self.dtype = dtype


class WithMask:
    """Attaches a mask to a tensor, as `nested(x, mask=mask)` does."""

    name = "with_mask"


def config_leaves(config: Any) -> list[tuple]:
    """[name, index, output] triples of a nest of them, in the order of `keras.tree.flatten`."""
    if isinstance(config, list | tuple) and len(config) == 3 and isinstance(config[0], str):
        return [tuple(config)]
    parts = [config[key] for key in sorted(config)] if isinstance(config, dict) else list(config)
    return [leaf for part in parts for leaf in config_leaves(part)]


def config_names(config: Any) -> list[str]:
    return [name for name, _, _ in config_leaves(config)]


def revived(config: Any, place: tuple) -> Any:
    """Arguments of a call from their configuration, with a `Ref` for every tensor."""
    if isinstance(config, dict) and "class_name" in config:
        if config["class_name"] == "__keras_tensor__":
            name, index, output = config["config"]["keras_history"]
            return Ref((place, name, index, output))
        if config["class_name"] == "__slice__":
            return slice(*(config["config"][part] for part in ("start", "stop", "step")))
        if config["class_name"] == "__tuple__":
            return tuple(revived(item, place) for item in config["items"])
        return keras.saving.deserialize_keras_object(config)
    if isinstance(config, dict):
        return {key: revived(value, place) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [revived(value, place) for value in config]
    return config


class Run:
    """A program on some rows; every value is computed when it is first asked for."""

    def __init__(self, program: Program, rows: list[np.ndarray], known: dict | None = None):
        self.program = program
        self.values: dict[tuple, Value] = dict(known or {})
        for key, array in zip(program.inputs, rows, strict=True):
            self.values.setdefault(key, Value(array))
        self.records: dict[tuple, Record] = {}
        self.order: list[Call] = []
        self.is_exact = True

    def get(self, key: tuple) -> Value:
        key = self.program.resolve(key)
        if key not in self.values:
            self._call(self.program.calls[key[:3]])
        return self.values[key]

    def _call(self, call: Call) -> None:
        args, kwargs = tree.map_structure(
            lambda leaf: self.get(leaf.key) if isinstance(leaf, Ref) else leaf,
            (call.args, call.kwargs),
        )
        if is_recurrent(call.layer):
            outputs, self.records[call.key] = run_recurrent(call.layer, args, kwargs)
        else:
            outputs, exact = run_layer(call.layer, args, kwargs)
            self.is_exact = self.is_exact and exact
        self.order.append(call)
        for k, output in enumerate(outputs):
            self.values[*call.key, k] = output


class Recurrent:
    """The transitions of a model with recurrent layers."""

    def __init__(self, run: Run, position: np.ndarray):
        self.run = run
        self.position = position
        self.points = np.arange(len(position))
        self.calls = [call for call in run.order if is_recurrent(call.layer)]
        exact = run.is_exact and all(
            cell.is_exact for record in run.records.values() for p in record.passes
            for cell in p.cells
        )  # fmt: skip
        self.stencil = _FINE if exact else _COARSE

    def facts(self) -> list[Fact]:
        found = []
        for call in self.calls:
            record = self.run.records[call.key]
            at, step = self._steps(record)
            x = record.inputs[at, step]
            for k in range(len(record.passes[0].cells)):
                found.extend(self._time(call, record, at, step, k))
                if k == 0:
                    found.extend(self._from_below(call, record, at, step, x))
                else:
                    found.append(self._inside(call, record, at, step, k))
        return found

    def _steps(self, record: "Record") -> tuple[np.ndarray, np.ndarray]:
        """The points there are, and the step of each in the input of this layer."""
        mask = record.mask
        if mask is None:
            mask = np.ones(record.inputs.shape[:2], dtype=bool)
        points = self.points[mask.any(axis=1)]
        steps = []
        for p in points:
            valid = np.flatnonzero(mask[p])
            index = np.floor(self.position[p] * np.float32(len(valid))).astype(int)
            steps.append(valid[min(index, len(valid) - 1)])
        return points, np.array(steps, dtype=int)

    def _time(self, call: Call, record: "Record", at: Any, step: Any, k: int) -> list[Fact]:
        found = []
        for one in record.passes:
            cell = one.cells[k]
            x, states = one.at_cell(record.inputs[at, step], at, step, k)
            parts = [states[i] for i in cell.differentiable]
            shapes = [part.shape[1:] for part in parts]
            flat = np.concatenate([part.reshape(len(at), -1) for part in parts], axis=1)

            def next_state(z, p, cell=cell, x=x, states=states, shapes=shapes):
                moved = [state[p] for state in states]
                for i, part in zip(cell.differentiable, split(z, shapes), strict=True):
                    moved[i] = part
                fixed = (x[p], [state[p] for state in states])
                _, after = cell.step(x[p], moved, fixed)
                return np.concatenate(
                    [after[i].reshape(len(p), -1) for i in cell.differentiable], axis=1
                )

            label = one.name if len(one.cells) == 1 else f"{one.name}.{cell.name}"
            name = f"{label}.time"
            found.append(
                Fact(name, "time", call.layer.name, jacobians(next_state, flat, self.stencil))
            )
        return found

    def _inside(self, call: Call, record: "Record", at: Any, step: Any, k: int) -> Fact:
        (one,) = record.passes
        cell = one.cells[k]
        x, states = one.at_cell(record.inputs[at, step], at, step, k)

        def output(z, p):
            before = [state[p] for state in states]
            return cell.step(z, before, (x[p], before))[0]

        name = f"{one.name}.{cell.name}.depth"
        return Fact(name, "depth", call.layer.name, jacobians(output, x, self.stencil))

    def _output(self, call: Call, record: "Record", at: Any, step: Any, x: np.ndarray) -> Any:
        """Output of the layer at its step as a function of its input there, states fixed."""

        def output(z, p):
            outputs = []
            for one in record.passes:
                _, states = one.at_cell(x, at, step, 0)
                before = [state[p] for state in states]
                outputs.append(one.cells[0].step(z, before, (x[p], before))[0])
            return merged(call.layer, outputs)

        return output

    def _from_below(self, call: Call, record: Any, at: Any, step: Any, x: Any) -> list[Fact]:
        output = self._output(call, record, at, step, x)
        target = self.run.program.resolve(call.refs()[0])
        below = self._sources(target)
        layer = call.layer.name
        if not below:
            shape = x.shape[1:]

            def by_input(z, p):
                return output(z.reshape(-1, *shape), p).reshape(len(p), -1)

            flat = x.reshape(len(x), -1)
            return [Fact(f"{layer}.input", "input", layer, jacobians(by_input, flat, self.stencil))]
        found = []
        for source in below:
            lower = source[1]
            name = f"{layer}.depth" + (f"[{lower}]" if len(below) > 1 else "")
            known = {
                key: value
                for key, value in self.run.values.items()
                if key in self.run.program.inputs or key[:3] in self.run.records
            }

            def target_at(sequence, p, source=source, known=known):
                """What the layer above reads at its step, for other outputs of that below."""
                moved = {key: value[at[p]] for key, value in known.items()}
                moved[source] = Value(sequence, moved[source].mask)
                inputs = [moved[key].data for key in self.run.program.inputs]
                again = Run(self.run.program, inputs, moved)
                return again.get(target).data[np.arange(len(p)), step[p]]

            sequence = self.run.get(source).data[at]
            below = step
            if self._is_resampled(source, target):
                below = self._step_below(source, target, at, step)
            exists = np.flatnonzero(below >= 0)

            def through(z, p, sequence=sequence, below=below, exists=exists, target_at=target_at):
                p = exists[p]
                moved = sequence[p]
                moved[np.arange(len(p)), below[p]] = z
                return output(target_at(moved, p), p)

            start = sequence[exists, below[exists]]
            found.append(Fact(name, "depth", layer, jacobians(through, start, self.stencil)))
        return found

    def _is_resampled(self, source: tuple, target: tuple) -> bool:
        """Whether the number of steps changes on the way, by such layers alone."""
        changing = set()
        for key in self._way(source, target) - {source}:
            call = self.run.program.calls[key[:3]]
            if any(self._length(ref) != self._length(key) for ref in self._leading(source, call)):
                changing.add(type(call.layer).__name__)
        return bool(changing) and changing <= RESAMPLING

    def _length(self, key: tuple) -> int:
        return self.run.get(key).data.shape[1:2]

    def _leading(self, source: tuple, call: Call) -> list[tuple]:
        """The inputs of a call that `source` leads to."""
        refs = [self.run.program.resolve(ref) for ref in call.refs()]
        return [ref for ref in refs if self._way(source, ref)]

    def _step_below(self, source: tuple, key: tuple, at: Any, step: Any) -> np.ndarray:
        """The step of `source` for a step of `key` at every point; -1 where there is none."""
        if key == source:
            return step
        call = self.run.program.calls[key[:3]]
        routes = []
        for ref in self._leading(source, call):
            before = step
            if self._length(ref) != self._length(key):
                before = self._last_with_effect(call, ref, key, at, step)
            routes.append(self._step_below(source, ref, at, before))
        return np.maximum.reduce(routes)

    def _last_with_effect(self, call: Call, ref: tuple, key: tuple, at: Any, step: Any) -> Any:
        """The last step of `ref` that changes the step of `key` when it is changed itself."""
        known = {k: v for k, v in self.run.values.items() if k[:3] != call.key}
        points, length = len(at), self._length(ref)[0]
        p, k = np.repeat(np.arange(points), length), np.tile(np.arange(length), points)
        effect = np.zeros((points, length), dtype=bool)
        base = self.run.get(key).data[at, np.maximum(step, 0)]
        # Far away to both sides: the largest of some steps does not notice smaller ones.
        for change in (-9.0, 9.0):
            moved = {name: value[at[p]] for name, value in known.items()}
            sequence = moved[ref].data.copy()
            sequence[np.arange(len(p)), k] += change
            moved[ref] = Value(sequence, moved[ref].mask)
            again = Run(self.run.program, [moved[i].data for i in self.run.program.inputs], moved)
            found = again.get(key).data[np.arange(len(p)), np.maximum(step, 0)[p]]
            effect |= np.any(found != base[p], axis=-1).reshape(points, length)
        last = length - 1 - np.argmax(effect[:, ::-1], axis=1)
        return np.where(effect.any(axis=1) & (step >= 0), last, -1)

    def _way(self, source: tuple, key: tuple) -> set[tuple]:
        """All tensors that `source` leads to, without a recurrent layer, and that lead to `key`."""
        key = self.run.program.resolve(key)
        if key == source:
            return {key}
        call = self.run.program.calls.get(key[:3])
        if call is None or is_recurrent(call.layer):
            return set()
        way = set().union(*(self._way(source, ref) for ref in call.refs()))
        return way | {key} if way else way

    def _sources(self, target: tuple) -> list[tuple]:
        """Output sequences of recurrent layers that `target` is made of by other layers alone."""
        found, seen, pending = [], set(), [target]
        while pending:
            key = self.run.program.resolve(pending.pop())
            if key in seen or key in self.run.program.inputs:
                continue
            seen.add(key)
            call = self.run.program.calls[key[:3]]
            if is_recurrent(call.layer):
                if key[3] == 0:
                    found.append(key)
            else:
                pending.extend(call.refs())
        order = [call.key for call in self.calls]
        return sorted(found, key=lambda key: order.index(key[:3]))


def split(z: np.ndarray, shapes: list[tuple]) -> list[np.ndarray]:
    sizes = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = np.split(z, sizes, axis=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


def feed_forward(run: Run) -> list[Fact]:
    """The transitions of a model without recurrent layers."""
    program = run.program
    weighted = [call for call in run.order if is_weighted(call.layer)]
    source_of = {program.resolve(call.refs()[0]): call for call in reversed(weighted)}
    targets = [program.resolve(call.refs()[0]) for call in weighted[1:]]
    heads = [before_probability(program, key) for key in program.outputs]
    found, count = [], {}
    for target in dict.fromkeys([*targets, *heads]):
        starts = met_first(program, target, source_of)
        for source, call in source_of.items():
            if source not in starts or source == target:
                continue
            known = {key: run.values[key] for key in (*source_of, *program.inputs)}
            known = {key: value for key, value in known.items() if key != target}
            x = run.values[source].data

            def through(z, p, source=source, known=known, x=x, target=target):
                moved = {key: value[p] for key, value in known.items()}
                moved[source] = Value(z.reshape(-1, *x.shape[1:]), moved[source].mask)
                inputs = [moved[key].data for key in program.inputs]
                again = Run(program, inputs, moved)
                return logits(again, target, target in heads).reshape(len(p), -1)

            is_first = program.is_input(source) or call is weighted[0]
            kind = "input" if is_first else "depth"
            siblings = count.setdefault(call.layer.name, 0)
            count[call.layer.name] += 1
            name = f"{call.layer.name}.{kind}" + (f"[{siblings}]" if siblings else "")
            stencil = _FINE if run.is_exact else _COARSE
            flat = x.reshape(len(x), -1).astype("float64")
            found.append(Fact(name, kind, call.layer.name, jacobians(through, flat, stencil)))
    return found


def met_first(program: Program, target: tuple, sources: Any) -> set[tuple]:
    """Of `sources`, those that are met first on the way back from `target`."""
    met, seen, pending = set(), set(), [target]
    while pending:
        key = program.resolve(pending.pop())
        if key in sources and key != target:
            met.add(key)
        elif key not in seen and key not in program.inputs:
            seen.add(key)
            pending.extend(program.calls[key[:3]].refs())
    return met


def before_probability(program: Program, key: tuple) -> tuple:
    """The tensor before softmax and sigmoid layers at the end."""
    while key not in program.inputs:
        layer = program.calls[key[:3]].layer
        name = activation_name(layer)
        if is_weighted(layer) or name not in ("softmax", "sigmoid"):
            break
        key = program.resolve(program.calls[key[:3]].refs()[0])
    return key


def logits(run: Run, target: tuple, is_head: bool) -> np.ndarray:
    """The value of `target`; of a weighted layer at the end, before its softmax or sigmoid."""
    call = run.program.calls[target[:3]]
    if not (is_head and is_weighted(call.layer)):
        return run.get(target).data
    if activation_name(call.layer) not in ("softmax", "sigmoid"):
        return run.get(target).data
    args, kwargs = tree.map_structure(
        lambda leaf: run.get(leaf.key) if isinstance(leaf, Ref) else leaf, (call.args, call.kwargs)
    )
    outputs, _ = run_layer(call.layer, args, kwargs, activate=False)
    return outputs[0].data


def activation_name(layer: Any) -> str:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "")


def is_weighted(layer: Any) -> bool:
    is_table = isinstance(layer, keras.layers.Embedding | keras.layers.PReLU)
    weights = getattr(layer, "weights", [])
    return not is_table and any(len(weight.shape) >= 2 for weight in weights)


# ---------------------------------------------------------------------------------------------
# Recurrent layers


def is_recurrent(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Bidirectional) or hasattr(
        getattr(layer, "cell", None), "state_size"
    )


class Record(NamedTuple):
    """What a recurrent layer saw, and its passes along time."""

    inputs: np.ndarray
    mask: np.ndarray | None
    passes: list["Pass"]


class Pass:
    """A cell, or a stack of them, along a sequence: the states before every step `(B, T, ...)`."""

    def __init__(self, layer: Any, name: str):
        self.layer = layer
        self.name = name
        stacked = isinstance(layer.cell, keras.layers.StackedRNNCells)
        self.cells = [cell_of(cell) for cell in (layer.cell.cells if stacked else [layer.cell])]
        self.before: list[np.ndarray] = []

    def run(self, x: np.ndarray, mask: np.ndarray | None, start: list | None) -> tuple:
        """Outputs at every step, in the order in which they are taken, and the last states."""
        batch, length = x.shape[:2]
        states = start
        if states is None:
            states = [state for cell in self.cells for state in cell.start(batch)]
        order = range(length)[::-1] if self.layer.go_backwards else range(length)
        before: list[Any] = [None] * length
        outputs, held = [], None
        for t in order:
            before[t] = states
            output, new = self._step(x[:, t], states)
            if mask is not None:
                valid = mask[:, t].astype(bool)
                held = np.zeros_like(output) if held is None else held
                output = where(valid, output, held)
                new = [where(valid, n, old) for n, old in zip(new, states, strict=True)]
            held, states = output, new
            if mask is not None and self.layer.zero_output_for_mask:
                output = where(valid, output, np.zeros_like(output))
            outputs.append(output)
        self.before = [np.stack(parts, axis=1) for parts in zip(*before, strict=True)]
        return np.stack(outputs, axis=1), held, states

    def _step(self, x: np.ndarray, states: list) -> tuple[np.ndarray, list]:
        after = []
        for cell in self.cells:
            own, states = states[: len(cell.shapes)], states[len(cell.shapes) :]
            x, new = cell.step(x, own, (x, own))
            after.extend(new)
        return x, after

    def at_cell(self, x: np.ndarray, at: Any, step: Any, k: int) -> tuple[np.ndarray, list]:
        """Input and states of cell `k` at a step, the layer's input there being `x`."""
        states = [part[at, step] for part in self.before]
        for cell in self.cells[:k]:
            own, states = states[: len(cell.shapes)], states[len(cell.shapes) :]
            x, _ = cell.step(x, own, (x, own))
        return x, states[: len(self.cells[k].shapes)]


def where(rows: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    return np.where(rows.reshape(-1, *(1,) * (new.ndim - 1)), new, old)


def run_recurrent(layer: Any, args: Any, kwargs: dict) -> tuple[list[Value], Record]:
    kwargs = dict(kwargs)
    given = kwargs.pop("mask", None)
    start = kwargs.pop("initial_state", None)
    kwargs.pop("training", None)
    assert not kwargs, kwargs
    args = list(args)
    if len(args) > 1:
        start = args[1]
    sequence = args[0]
    if isinstance(sequence, list | tuple):
        sequence, start = sequence[0], list(sequence[1:])
        out_mask = mask = sequence.mask
    else:
        # Keras hands a mask on by itself only where the sequence is the only tensor given.
        out_mask, mask = sequence.mask, sequence.mask if start is None else None
    if given is not None:
        out_mask = mask = given.data.astype(bool)
    x = sequence.data.astype("float64")
    both = isinstance(layer, keras.layers.Bidirectional)
    if both:
        passes = [
            Pass(layer.forward_layer, f"{layer.name}.forward"),
            Pass(layer.backward_layer, f"{layer.name}.backward"),
        ]
    else:
        passes = [Pass(layer, layer.name)]
    states = (
        None if start is None else [leaf.data.astype("float64") for leaf in tree.flatten(start)]
    )
    outputs, last_states = [], []
    for k, one in enumerate(passes):
        own = states
        if states is not None and both:
            half = len(states) // 2
            own = states[half:] if k else states[:half]
        sequence_out, last, end = one.run(x, mask, own)
        result = sequence_out if layer.return_sequences else last
        if layer.return_sequences and both and k:
            result = result[:, ::-1]
        if not layer.return_sequences and mask is not None and one.layer.zero_output_for_mask:
            result = sequence_out[:, -1]
        outputs.append(result)
        last_states.extend(end)
    values = [Value(merged(layer, outputs), out_mask if layer.return_sequences else None)]
    if layer.return_state:
        values.extend(Value(state) for state in last_states)
    return values, Record(x, mask, passes)


def merged(layer: Any, outputs: list[np.ndarray]) -> np.ndarray:
    if len(outputs) == 1:
        return outputs[0]
    forward, backward = outputs
    return {
        "concat": lambda: np.concatenate([forward, backward], axis=-1),
        "sum": lambda: forward + backward,
        "ave": lambda: (forward + backward) / 2,
        "mul": lambda: forward * backward,
    }[layer.merge_mode]()


class Cell:
    """A cell in NumPy. `step` gets beside input and states those at which it is linearised.

    Only spikes need the latter: there they are exactly 0 or 1, and the derivative is that of the
    surrogate, so around them they are 0 or 1 plus surrogate times distance.
    """

    is_exact = True

    def __init__(self, cell: Any):
        self.cell = cell
        self.name = cell.name
        self.shapes = self.shapes_of(cell.state_size)
        self.differentiable = list(range(len(self.shapes)))
        self.read()

    def shapes_of(self, sizes: Any) -> list[tuple]:
        if isinstance(sizes, int):
            return [(sizes,)]
        return [
            shape
            for size in sizes
            for shape in ([(size,)] if isinstance(size, int) else self.nested(size))
        ]

    @staticmethod
    def nested(size: Any) -> list[tuple]:
        # A tuple in a list is the shape of one state; a list in a list is a list of states.
        if isinstance(size, tuple):
            return [size]
        return [(size,) for size in size]

    def read(self) -> None:
        """Reads the weights."""

    def start(self, batch: int) -> list[np.ndarray]:
        return [np.zeros((batch, *shape)) for shape in self.shapes]

    def step(self, x: np.ndarray, states: list, at: tuple) -> tuple[np.ndarray, list]:
        raise NotImplementedError


class Simple(Cell):
    def read(self):
        self.kernel, self.recurrent, *bias = weights_of(self.cell)
        self.bias = bias[0] if bias else 0.0
        self.activation = activation(self.cell.activation)

    def step(self, x, states, at):
        h = self.activation(x @ self.kernel + states[0] @ self.recurrent + self.bias)
        return h, [h]


class LongShortTerm(Cell):
    def read(self):
        self.kernel, self.recurrent, *bias = weights_of(self.cell)
        self.bias = bias[0] if bias else 0.0
        self.activation = activation(self.cell.activation)
        self.gate = activation(self.cell.recurrent_activation)

    def step(self, x, states, at):
        h, c = states
        i, f, g, o = np.split(x @ self.kernel + h @ self.recurrent + self.bias, 4, axis=-1)
        c = self.gate(f) * c + self.gate(i) * self.activation(g)
        h = self.gate(o) * self.activation(c)
        return h, [h, c]


class Gated(Cell):
    def read(self):
        self.kernel, self.recurrent, *bias = weights_of(self.cell)
        units, self.reset_after = self.cell.units, self.cell.reset_after
        bias = bias[0] if bias else np.zeros((2, 3 * units))
        self.bias = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
        self.activation = activation(self.cell.activation)
        self.gate = activation(self.cell.recurrent_activation)

    def step(self, x, states, at):
        (h,) = states
        u_z, u_r, u_n = np.split(self.recurrent, 3, axis=1)
        b_z, b_r, b_n = np.split(self.bias[1], 3)
        x_z, x_r, x_n = np.split(x @ self.kernel + self.bias[0], 3, axis=-1)
        z = self.gate(x_z + h @ u_z + b_z)
        r = self.gate(x_r + h @ u_r + b_r)
        memory = r * (h @ u_n + b_n) if self.reset_after else (r * h) @ u_n
        h = z * h + (1 - z) * self.activation(x_n + memory)
        return h, [h]


class Spiking(Cell):
    """LIF and adaptive LIF neurons (arXiv 2202.00282, section 2)."""

    def read(self):
        cell = self.cell
        units = cell.units
        self.kernel = to_numpy(cell.kernel)
        self.bias = to_numpy(cell.bias) if cell.use_bias else 0.0
        self.recurrent = np.zeros((units, units))
        if cell.recurrent:
            self.recurrent = to_numpy(cell.recurrent_kernel) * (1 - np.eye(units))
        self.alpha = np.exp(-1 / np.exp(to_numpy(cell.log_tau)))
        self.theta = np.exp(to_numpy(cell.log_threshold))
        self.slope = np.exp(to_numpy(cell.log_slope))
        self.beta = self.rho = None
        if hasattr(cell, "beta"):
            self.beta = to_numpy(cell.beta)
            self.rho = np.exp(-1 / np.exp(to_numpy(cell.log_tau_adaptation)))
        self.differentiable = [0, 1] if self.beta is not None else [0]

    def step(self, x, states, at):
        new, center = self.advance(x, states, at[1]), self.advance(*at, at[1])
        if self.cell.refractory:
            counter = at[1][-1]
            spiked = (counter <= 1) & (self.distance(center) > 0)
            new.append(np.where(spiked, self.cell.refractory + 1.0, np.maximum(counter - 1, 0)))
            center.append(new[-1])
        return new[0] if self.cell.output_kind == "voltage" else self.spikes(new, center), new

    def advance(self, x, states, center):
        """The new voltage, and adaptation, of states near `center`."""
        z = self.spikes(states, center)
        current = x @ self.kernel + z @ self.recurrent + self.bias
        reset = z if self.cell.reset_gradient else self.spikes(center, center)
        v = states[0]
        if self.cell.reset == "subtractive":
            v = self.alpha * v + current - self.theta * reset
        elif self.cell.reset == "multiplicative-1":
            v = (self.alpha * v + current) * (1 - reset)
        else:
            v = self.alpha * v * (1 - reset) + current
        if self.beta is None:
            return [v]
        return [v, self.rho * states[1] + (1 - self.rho) * z]

    def distance(self, states):
        u = states[0] - self.theta
        return u if self.beta is None else u - self.beta * states[1]

    def spikes(self, states, center):
        """0 or 1 at `center`, and on the surrogate's tangent beside it."""
        u, u_0 = self.distance(states), self.distance(center)
        z = (u_0 > 0) + self.slope * surrogate(self.cell.surrogate, u_0) * (u - u_0)
        if self.cell.refractory:
            # A spike sets the counter to refractory + 1; it is free to spike again at 0.
            z = z * ((center[-1] <= 0) | (center[-1] > self.cell.refractory))
        return z


def surrogate(of: Any, u: np.ndarray) -> np.ndarray:
    """The surrogate derivatives of the table in arXiv 2202.00282."""
    x, s = of.sharpness * u, sigmoid(4 * of.sharpness * u)
    shape = {
        "rectangular": 1.0 * (np.abs(x) < 0.5),
        "triangular": np.maximum(0, 1 - np.abs(x)),
        "exponential": np.exp(-2 * np.abs(x)),
        "gaussian": np.exp(-np.pi * x**2),
        "sigmoid_derivative": 4 * s * (1 - s),
        "fast_sigmoid": (1 + 2 * np.abs(x)) ** -2,
        "cauchy": 1 / (1 + (np.pi * x) ** 2),
        "q_pseudo_spike": (1 + 2 * np.abs(x) / (of.tail - 1)) ** -of.tail,
    }[of.shape]
    return of.dampening * shape


class LinearRecurrent(Cell):
    """Linear recurrent units (arXiv 2303.06349), in complex numbers."""

    def read(self):
        self.read_unit(self.cell)

    def read_unit(self, cell):
        w = {weight.name: to_numpy(weight) for weight in cell.weights}
        damping = np.exp(w["log_nu"]) + np.exp(w["log_damping"])
        self.decay = np.exp(-damping + 1j * np.exp(w["log_theta"]))
        self.into = (w["input_real"] + 1j * w["input_imag"]) * np.exp(w["log_gamma"])
        self.out = w["output_real"] + 1j * w["output_imag"]
        skip = w["feedthrough"]
        self.skip = np.diag(skip) if skip.ndim == 1 else skip

    def step(self, x, states, at):
        h = self.decay * (states[0] + 1j * states[1]) + x @ self.into
        return (h @ self.out).real + x @ self.skip, [h.real, h.imag]


class LinearRecurrentBlock(LinearRecurrent):
    """y = g x + GLU(GELU(unit(norm(x))))."""

    def read(self):
        self.read_unit(self.cell.lru)
        self.gamma, self.beta = weights_of(self.cell.norm)
        self.gate, self.gate_bias = weights_of(self.cell.gate)
        self.gain = to_numpy(self.cell.skip)

    def step(self, x, states, at):
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        normed = self.gamma * centred / np.sqrt(variance + self.cell.norm.epsilon) + self.beta
        inner, after = super().step(normed, states, at)
        value, opening = np.split(gelu(inner) @ self.gate + self.gate_bias, 2, axis=-1)
        return self.gain * x + value * sigmoid(opening), after


class Readout(Cell):
    def read(self):
        self.kernel = to_numpy(self.cell.kernel)
        self.bias = to_numpy(self.cell.bias) if self.cell.use_bias else 0.0
        self.decay = np.exp(-1 / np.exp(to_numpy(self.cell.log_tau)))

    def step(self, x, states, at):
        v = self.decay * states[0] + x @ self.kernel + self.bias
        return v, [v]


class Leaky(Cell):
    """Units with time constants (arXiv 2309.12927)."""

    def read(self):
        self.kernel = to_numpy(self.cell.kernel)
        self.recurrent = to_numpy(self.cell.recurrent_kernel) * (1 - np.eye(self.cell.units))
        self.bias = to_numpy(self.cell.bias) if self.cell.use_bias else 0.0
        self.tau = np.maximum(to_numpy(self.cell.tau), 1.0)
        self.activation = activation(self.cell.activation)

    def step(self, x, states, at):
        (h,) = states
        read = x @ self.kernel + h @ self.recurrent + self.bias
        h = self.activation((1 - 1 / self.tau) * h + read / self.tau)
        return h, [h]


class Own(Cell):
    """A cell of a user's: called itself, in the dtype that it has."""

    is_exact = False

    def read(self):
        sizes = self.cell.state_size
        sizes = [sizes] if isinstance(sizes, int) else list(sizes)
        # What RNN hands to `call` is what `get_initial_state` gives, or zeros of these sizes.
        if hasattr(self.cell, "get_initial_state"):
            self.structure = self.cell.get_initial_state(batch_size=1)
        else:
            self.structure = [
                keras.ops.zeros((1, size)) if isinstance(size, int) else self._zeros(size)
                for size in sizes
            ]
        self.shapes = [tuple(leaf.shape[1:]) for leaf in tree.flatten(self.structure)]
        self.differentiable = list(range(len(self.shapes)))

    @staticmethod
    def _zeros(size):
        if isinstance(size, tuple):
            return keras.ops.zeros((1, *size))
        return [keras.ops.zeros((1, s)) for s in size]

    def start(self, batch):
        if not hasattr(self.cell, "get_initial_state"):
            return super().start(batch)
        return [to_numpy(leaf) for leaf in tree.flatten(self.cell.get_initial_state(batch))]

    def step(self, x, states, at):
        tensors = [keras.ops.convert_to_tensor(s.astype("float32")) for s in states]
        packed = tree.pack_sequence_as(self.structure, tensors)
        output, new = self.cell(keras.ops.convert_to_tensor(x.astype("float32")), packed)
        return to_numpy(output), [to_numpy(leaf) for leaf in tree.flatten(new)]


KNOWN_CELLS = {
    "SimpleRNNCell": Simple,
    "LSTMCell": LongShortTerm,
    "GRUCell": Gated,
    "LIFCell": Spiking,
    "ALIFCell": Spiking,
    "LRUCell": LinearRecurrent,
    "LRUBlockCell": LinearRecurrentBlock,
    "LeakyReadoutCell": Readout,
    "LeakyRNNCell": Leaky,
}


def cell_of(cell: Any) -> Cell:
    kind = type(cell)
    is_known = kind.__module__.split(".")[0] in ("keras", "keras_lsc")
    return (KNOWN_CELLS[kind.__name__] if is_known else Own)(cell)


# ---------------------------------------------------------------------------------------------
# Activations and all other layers


def sigmoid(x):
    return 0.5 * (1 + np.tanh(0.5 * x))


def gelu(x):
    """What `keras.ops.gelu` is; `keras.activations.gelu` is exact."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x, axis=-1):
    shifted = np.exp(x - x.max(axis=axis, keepdims=True))
    return shifted / shifted.sum(axis=axis, keepdims=True)


ACTIVATIONS = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "relu6": lambda x: np.clip(x, 0.0, 6.0),
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "softplus": lambda x: np.logaddexp(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: (
        1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
    ),
    "silu": lambda x: x * sigmoid(x),
    "exponential": np.exp,
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "softmax": softmax,
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
}


def activation(function: Any) -> Any:
    return ACTIVATIONS["linear" if function is None else function.__name__]


def run_layer(layer: Any, args: Any, kwargs: dict, activate: bool = True) -> tuple[list, bool]:
    """Outputs with their masks, and whether they were computed in float64."""
    kwargs = {key: value for key, value in kwargs.items() if key != "training"}
    name = type(layer).__name__
    args = list(args)
    if name == "Cast":
        x = args[0]
        dtype = "float64" if "float" in layer.dtype else layer.dtype
        return [Value(x.data.astype(dtype), x.mask)], True
    if name == "WithMask":
        return [Value(args[0].data, args[1].data.astype(bool))], True
    if not isinstance(layer, keras.Layer):
        return [Value(OPERATIONS[name](layer, *plain(args), **plain(kwargs)))], True
    first = args[0] if args else next(iter(kwargs.values()))
    given = kwargs.pop("mask", None)
    mask = tree.map_structure(lambda v: v.mask, first)
    if given is not None:
        mask = tree.map_structure(lambda v: None if v is None else v.data.astype(bool), given)
    handler = LAYERS.get(name)
    is_known = type(layer).__module__.split(".")[0] in ("keras", "keras_lsc")
    if name in UNCHANGED and is_known:
        return [Value(first.data, mask)], True
    if handler is None or not is_known:
        return [own_layer(layer, args, kwargs, mask)], False
    data = handler(layer, *plain(args), **plain(kwargs), **extra(name, args, mask))
    if activate and name in ("Dense", "EinsumDense", *CONVOLUTIONS):
        data = activation(layer.activation)(data)
    return [Value(data, mask_after(layer, name, first, mask))], True


def plain(nest: Any) -> Any:
    return tree.map_structure(lambda v: v.data if isinstance(v, Value) else v, nest)


def extra(name: str, args: list, mask: Any) -> dict:
    """The masks that a layer computes with."""
    if name == "MultiHeadAttention":
        return {"masks": [v.mask for v in args if isinstance(v, Value)]}
    if name in ("Attention", "AdditiveAttention"):
        return {"masks": mask}
    if name in ("GlobalAveragePooling1D", "Softmax"):
        return {"mask": mask}
    return {}


def mask_after(layer: Any, name: str, first: Any, mask: Any) -> np.ndarray | None:
    if name == "Embedding":
        return first.data != 0 if layer.mask_zero else None
    if name == "Masking":
        return np.any(first.data != layer.mask_value, axis=-1)
    if name == "ApplyMask":
        return first[1].data.astype(bool)
    if name in ("GlobalAveragePooling1D", "Dot"):
        return None
    if name == "MultiHeadAttention":
        return mask
    if not layer.supports_masking or mask is None:
        return None
    if not isinstance(first, list | tuple):
        return mask
    if name == "Attention":
        return mask[0]
    if name == "Concatenate":
        if all(m is None for m in mask):
            return None
        wide = [
            np.ones(v.data.shape, bool) if m is None else m[..., None] & np.ones(v.data.shape, bool)
            for v, m in zip(first, mask, strict=True)
        ]
        return np.concatenate(wide, axis=layer.axis).any(axis=-1)
    if any(m is None for m in mask):
        return None
    return np.logical_or.reduce(mask)


def own_layer(layer: Any, args: list, kwargs: dict, mask: Any) -> Value:
    def to_tensor(value):
        if not isinstance(value, Value):
            return value
        data = value.data
        return keras.ops.convert_to_tensor(
            data.astype("float32") if data.dtype == np.float64 else data
        )

    args, kwargs = tree.map_structure(to_tensor, (args, kwargs))
    first = args[0]
    data = to_numpy(layer(*args, **kwargs))
    return Value(data, layer.compute_mask(first, mask) if layer.supports_masking else None)


def dense(layer, x):
    kernel = to_numpy(layer.kernel)
    return x @ kernel + (to_numpy(layer.bias) if layer.use_bias else 0.0)


def einsum_dense(layer, x):
    kernel, *bias = weights_of(layer)
    return np.einsum(layer.equation, x, kernel) + (bias[0] if bias else 0.0)


def time_distributed(layer, x):
    flat = x.reshape(-1, *x.shape[2:])
    (out,), exact = run_layer(layer.layer, [Value(flat)], {})
    assert exact
    return out.data.reshape(*x.shape[:2], *out.data.shape[1:])


def wrapped(layer, x):
    (out,), exact = run_layer(layer.layer, [Value(x)], {})
    assert exact
    return out.data


def normalised(x, axes, epsilon):
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)


def along(weight, x, axis):
    """A weight of one axis in the shape that broadcasts over `x`."""
    shape = [1] * x.ndim
    shape[axis] = -1
    return weight.reshape(shape)


def layer_normalization(layer, x):
    axes = tuple(layer.axis) if isinstance(layer.axis, list | tuple) else (layer.axis,)
    shape = [x.shape[k] if k in [a % x.ndim for a in axes] else 1 for k in range(x.ndim)]
    y = normalised(x, axes, layer.epsilon)
    y = y * to_numpy(layer.gamma).reshape(shape) if layer.scale else y
    return y + to_numpy(layer.beta).reshape(shape) if layer.center else y


def batch_normalization(layer, x):
    mean, variance = (
        along(to_numpy(w), x, layer.axis) for w in (layer.moving_mean, layer.moving_variance)
    )
    y = (x - mean) / np.sqrt(variance + layer.epsilon)
    y = y * along(to_numpy(layer.gamma), x, layer.axis) if layer.scale else y
    return y + along(to_numpy(layer.beta), x, layer.axis) if layer.center else y


def rms_normalization(layer, x):
    scale = np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + layer.epsilon)
    return x / scale * to_numpy(layer.scale)


def group_normalization(layer, x):
    groups = x.shape[-1] if layer.groups == -1 else layer.groups
    parts = x.reshape(*x.shape[:-1], groups, -1)
    axes = (*range(1, x.ndim - 1), x.ndim)
    y = normalised(parts, axes, layer.epsilon).reshape(x.shape)
    return y * to_numpy(layer.gamma) + to_numpy(layer.beta)


def unit_normalization(layer, x):
    return x / np.sqrt(np.maximum(np.square(x).sum(axis=-1, keepdims=True), 1e-24))


def padded(x, layer, axes, kernel_sizes):
    """`x` padded as a convolution or a pooling pads it, along `axes`."""
    widths = [(0, 0)] * x.ndim
    for axis, size, stride, rate in zip(
        axes, kernel_sizes, pair(layer.strides, axes), rates(layer, axes), strict=True
    ):
        reach = (size - 1) * rate
        if layer.padding == "causal":
            widths[axis] = (reach, 0)
        elif layer.padding == "same":
            out = -(-x.shape[axis] // stride)
            total = max((out - 1) * stride + reach + 1 - x.shape[axis], 0)
            widths[axis] = (total // 2, total - total // 2)
    return np.pad(x, widths)


def pair(value, axes):
    return [value] * len(axes) if isinstance(value, int) else list(value)


def rates(layer, axes):
    return pair(getattr(layer, "dilation_rate", 1), axes)


def windows(x, layer, sizes):
    """`x` at every tap of a kernel: a list over the taps of `(B, *out, features)`."""
    axes = list(range(1, 1 + len(sizes)))
    strides, steps = pair(layer.strides, axes), rates(layer, axes)
    counts = [
        (x.shape[a] - (k - 1) * r - 1) // s + 1
        for a, k, r, s in zip(axes, sizes, steps, strides, strict=True)
    ]
    taps = []
    for tap in np.ndindex(*sizes):
        index = [slice(None)] + [
            slice(t * r, t * r + (n - 1) * s + 1, s)
            for t, r, n, s in zip(tap, steps, counts, strides, strict=True)
        ]
        taps.append((tap, x[tuple(index)]))
    return taps


def convolution(layer, x):
    kernel = to_numpy(layer.kernel)
    sizes = kernel.shape[:-2]
    x = padded(x, layer, range(1, 1 + len(sizes)), sizes)
    groups = layer.groups
    y = sum(
        np.concatenate(
            [
                part @ own
                for part, own in zip(
                    np.split(at, groups, -1), np.split(kernel[tap], groups, -1), strict=True
                )
            ],
            axis=-1,
        )
        for tap, at in windows(x, layer, sizes)
    )
    return y + (to_numpy(layer.bias) if layer.use_bias else 0.0)


def depthwise(layer, x, kernel):
    sizes = kernel.shape[:-2]
    x = padded(x, layer, range(1, 1 + len(sizes)), sizes)
    return sum(
        (at[..., None] * kernel[tap]).reshape(*at.shape[:-1], -1)
        for tap, at in windows(x, layer, sizes)
    )


def separable_convolution(layer, x):
    kernel, pointwise, *bias = weights_of(layer)
    y = depthwise(layer, x, kernel) @ pointwise.reshape(pointwise.shape[-2:])
    return y + (bias[0] if bias else 0.0)


def depthwise_convolution(layer, x):
    kernel, *bias = weights_of(layer)
    return depthwise(layer, x, kernel) + (bias[0] if bias else 0.0)


def pooling(reduce):
    """Of the taps of a window those that are no padding count."""

    def pool(layer, x):
        sizes = pair(layer.pool_size, range(x.ndim - 2))
        axes = range(1, 1 + len(sizes))
        counted = padded(np.ones_like(x), layer, axes, sizes)
        taps = [at for _, at in windows(padded(x, layer, axes, sizes), layer, sizes)]
        inside = [at > 0 for _, at in windows(counted, layer, sizes)]
        return reduce(np.stack(taps), np.stack(inside))

    return pool


def largest(taps, inside):
    return np.where(inside, taps, -np.inf).max(axis=0)


def mean(taps, inside):
    return (taps * inside).sum(axis=0) / inside.sum(axis=0)


def global_average(layer, x, mask=None):
    if mask is None:
        return x.mean(axis=1)
    return (x * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)


def embedding(layer, x):
    return to_numpy(layer.embeddings)[x.astype(int)]


def masking(layer, x):
    return x * np.any(x != layer.mask_value, axis=-1, keepdims=True)


def prelu(layer, x):
    return np.where(x > 0, x, to_numpy(layer.alpha) * x)


def relu(layer, x):
    y = np.where(x >= layer.threshold, x, layer.negative_slope * (x - layer.threshold))
    return y if layer.max_value is None else np.minimum(y, layer.max_value)


def softmax_layer(layer, x, mask=None):
    assert mask is None
    return softmax(x, layer.axis)


def attention(layer, inputs, masks=None, use_causal_mask=False):
    query, value, key = (*inputs, inputs[1])[:3] if len(inputs) == 2 else inputs
    query_mask, value_mask = (None, None) if not masks else masks[:2]
    if type(layer).__name__ == "AdditiveAttention":
        scores = np.tanh(query[:, :, None] + key[:, None])
        scores = (scores * (to_numpy(layer.scale) if layer.use_scale else 1.0)).sum(axis=-1)
    else:
        scores = query @ key.swapaxes(1, 2)
        scores = scores * (to_numpy(layer.scale) if layer.use_scale else 1.0)
    if use_causal_mask:
        scores = np.where(np.tri(*scores.shape[1:], dtype=bool), scores, -1e9)
    if value_mask is not None:
        scores = np.where(value_mask[:, None], scores, -1e9)
    y = softmax(scores) @ value
    return y if query_mask is None else y * query_mask[..., None]


def multi_head_attention(layer, query, value, key=None, masks=(), use_causal_mask=False):
    key = value if key is None else key
    parts = weights_of(layer)
    if layer.get_config()["use_bias"]:
        kernels, biases = parts[::2], parts[1::2]
    else:
        kernels, biases = parts, [0.0] * 4
    q, k, v = (
        np.einsum("btd,dhe->bthe", x, kernels[i]) + biases[i]
        for i, x in enumerate((query, key, value))
    )
    scores = np.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(layer.get_config()["key_dim"])
    allowed = np.ones((len(q), 1, q.shape[1], k.shape[1]), dtype=bool)
    if use_causal_mask:
        allowed &= np.tri(*allowed.shape[2:], dtype=bool)
    query_mask, value_mask = [*masks, None, None][:2]
    if query_mask is not None:
        allowed &= query_mask[:, None, :, None]
    if value_mask is not None:
        allowed &= value_mask[:, None, None, :]
    heads = np.einsum("bhqk,bkhe->bqhe", softmax(np.where(allowed, scores, -1e9)), v)
    return np.einsum("bqhe,hed->bqd", heads, kernels[3]) + biases[3]


def dot(layer, inputs):
    x, y = inputs
    i, j = layer.axes if not isinstance(layer.axes, int) else (layer.axes, layer.axes)
    if layer.normalize:
        x, y = (v / np.sqrt(np.square(v).sum(a, keepdims=True)) for v, a in ((x, i), (y, j)))
    rest_x, rest_y = np.moveaxis(x, i, -1), np.moveaxis(y, j, 1)
    out = np.einsum("b...k,bk->b...", rest_x, rest_y) if y.ndim == 2 else rest_x @ rest_y
    return out[:, None] if out.ndim == 1 else out


def reshape(layer, x):
    return x.reshape(len(x), *layer.target_shape)


def upsampling(layer, x):
    return np.repeat(x, layer.size, axis=1)


def zero_padding(layer, x):
    widths = layer.padding if isinstance(layer.padding[0], tuple | list) else [layer.padding]
    return np.pad(x, [(0, 0), *(tuple(w) for w in widths), (0, 0)])


CONVOLUTIONS = (
    "Conv1D",
    "Conv2D",
    "SeparableConv1D",
    "SeparableConv2D",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
)
RESAMPLING = {
    "AveragePooling1D",
    "MaxPooling1D",
    "Conv1D",
    "SeparableConv1D",
    "DepthwiseConv1D",
    "Cropping1D",
    "ZeroPadding1D",
    "UpSampling1D",
}
UNCHANGED = {
    "InputLayer",
    "Dropout",
    "SpatialDropout1D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "ActivityRegularization",
    "FiringRateRegularizer",
}
LAYERS = {
    **dict.fromkeys(UNCHANGED),
    "Dense": dense,
    "EinsumDense": einsum_dense,
    "TimeDistributed": time_distributed,
    "SpectralNormalization": wrapped,
    "Activation": lambda layer, x: activation(layer.activation)(x),
    "ReLU": relu,
    "LeakyReLU": lambda layer, x: np.where(x > 0, x, layer.negative_slope * x),
    "ELU": lambda layer, x: np.where(x > 0, x, layer.alpha * np.expm1(np.minimum(x, 0))),
    "PReLU": prelu,
    "Softmax": softmax_layer,
    "LayerNormalization": layer_normalization,
    "BatchNormalization": batch_normalization,
    "RMSNormalization": rms_normalization,
    "GroupNormalization": group_normalization,
    "UnitNormalization": unit_normalization,
    "Rescaling": lambda layer, x: x * layer.scale + layer.offset,
    "Conv1D": convolution,
    "Conv2D": convolution,
    "SeparableConv1D": separable_convolution,
    "SeparableConv2D": separable_convolution,
    "DepthwiseConv1D": depthwise_convolution,
    "DepthwiseConv2D": depthwise_convolution,
    "MaxPooling1D": pooling(largest),
    "MaxPooling2D": pooling(largest),
    "AveragePooling1D": pooling(mean),
    "AveragePooling2D": pooling(mean),
    "GlobalAveragePooling1D": global_average,
    "GlobalAveragePooling2D": lambda layer, x: x.mean(axis=(1, 2)),
    "GlobalMaxPooling1D": lambda layer, x: x.max(axis=1),
    "GlobalMaxPooling2D": lambda layer, x: x.max(axis=(1, 2)),
    "Flatten": lambda layer, x: x.reshape(len(x), -1),
    "Reshape": reshape,
    "Permute": lambda layer, x: x.transpose(0, *layer.dims),
    "RepeatVector": lambda layer, x: np.repeat(x[:, None], layer.n, axis=1),
    "UpSampling1D": upsampling,
    "ZeroPadding1D": zero_padding,
    "Cropping1D": lambda layer, x: x[:, layer.cropping[0] : x.shape[1] - layer.cropping[1]],
    "Embedding": embedding,
    "Masking": masking,
    "ApplyMask": lambda layer, inputs: inputs[0],
    "MultiHeadAttention": multi_head_attention,
    "Attention": attention,
    "AdditiveAttention": attention,
    "Add": lambda layer, xs: np.sum(xs, axis=0) if same_shape(xs) else sum(xs),
    "Subtract": lambda layer, xs: xs[0] - xs[1],
    "Multiply": lambda layer, xs: math.prod(xs),
    "Average": lambda layer, xs: sum(xs) / len(xs),
    "Maximum": lambda layer, xs: np.maximum.reduce(xs),
    "Minimum": lambda layer, xs: np.minimum.reduce(xs),
    "Concatenate": lambda layer, xs: np.concatenate(xs, axis=layer.axis),
    "Dot": dot,
}


def numpy_function(function):
    return lambda operation, *args: function(*args)


OPERATIONS = {
    "Add": numpy_function(np.add),
    "Subtract": numpy_function(np.subtract),
    "Multiply": numpy_function(np.multiply),
    "TrueDivide": numpy_function(np.divide),
    "Tanh": numpy_function(np.tanh),
    "Sigmoid": numpy_function(sigmoid),
    "Relu": numpy_function(ACTIVATIONS["relu"]),
    "Square": numpy_function(np.square),
    "NotEqual": numpy_function(np.not_equal),
    "LogicalOr": numpy_function(np.logical_or),
    "ConvertToTensor": numpy_function(np.asarray),
    "GetItem": lambda _, x, key: x[tuple(key) if isinstance(key, list) else key],
    "ExpandDims": lambda operation, x: np.expand_dims(x, operation.axis),
    "Flip": lambda operation, x: np.flip(x, operation.axis),
    "Any": lambda operation, x: np.any(x, tuple(operation.axis), keepdims=operation.keepdims),
    "Concatenate": lambda operation, xs: np.concatenate(xs, axis=operation.axis),
    "ZerosLike": lambda operation, x: np.zeros_like(x, dtype=operation.dtype),
    "OnesLike": lambda operation, x: np.ones_like(x, dtype=operation.dtype),
}


def same_shape(arrays):
    return len({array.shape for array in arrays}) == 1
