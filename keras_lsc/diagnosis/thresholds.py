"""From where on a number is called a fault, and why there.

Energies are squared: a factor of 1e4 in energy is one of 100 in the gradient itself.
"""

# An energy over that of the top layer. Adam makes up for factors of 100 in a gradient (its steps do
# not depend on the size of gradients) but not for their noise and rounding. In the experiments with
# levelled starts ("When to use which" of docs/method/levelling.md) default starts whose gradient
# was off by less trained like any other.
DEPTH_RATIO = 1e4
# The same of differences, forward: their rounding, in float32, is of energy 1e-14.
FORWARD_RATIO = 1e10
# Energy of the gradient from the first quarter of the steps over all of it; 0.25 where it is even.
# What is below 1e-14 is lost when float32 adds it to the rest: weights are moved by the last steps
# alone.
FORGOTTEN_SHARE = 1e-14
# Energy of the gradient at the first steps over that at the last ones, of one layer. Default starts
# have at most 25, up to forty layers of LSTM; networks that learned to read digits at most 15.
TIME_GROWTH = 100.0
# gain_t^2 + gain_l^2 of a start, and on what share of such networks stabilizing helped in the
# experiments ("In short" of experiments/RESULTS.md).
WEAK_STEPS = 0.25
HELPED = ((WEAK_STEPS, "all"), (0.5, "a third"), (float("inf"), "one in sixteen"))
# What share of a layer's units has to be the same whatever the input, for the layer to be dead.
# With Keras' default start and inputs of unit variance it is less than a tenth, also of relu.
DEAD_SHARE = 0.5
# How close an output is to the bounds of its activation to count as saturated: tanh' is 0.06 there.
SATURATED_AT = 0.97
# What share of a layer's outputs has to be, and of the values of its gates. Of default starts it is
# at most 0.02 and 0; of networks that learned to read digits, to a loss of 0.005, 0.27 and 0.13.
SATURATED_SHARE = 0.5
SATURATED_GATES = 0.2
# What share of the steps has to be padding for next to nothing to be left to learn from.
PADDED_SHARE = 0.9
# The same of padding that no layer masks.
UNMASKED_SHARE = 0.5
# Training steps of a trial of a learning rate, the share of them at its end whose mean loss counts,
# and by what factor that has to exceed the loss at its beginning.
TRIAL_STEPS = 20
TRIAL_END = 0.25
TRIAL_GROWTH = 2.0
# Share of the gradient of a sequence's last output that memory is said to hold.
MEMORY_SHARE = 0.99
