"""What the experiments say, written by hand from the tables of the report.

The figures in it are those of the stored runs, which a test holds them against. Where new runs
change a table, rewrite the sentence.
"""

SUMMARY = """
The best pre-trained start, its target chosen on validation, is clearly better than the default one
on 16 of 51 networks, clearly worse on 2, and neither on 33. No target is better than the default on
more networks than it is worse on, so none is to be taken untried; the nearest is 1 in mode
"scales", clearly better than the default on 7 and clearly worse on 10 of 44 networks. Worst is 0.5
in mode "scales", clearly better than the default on 8 and clearly worse on 13 of 50 networks.
""".strip()

BY_CELL = """
Pre-train sigmoid networks (better on 5 of 5; the median test error is 0.40 times the default's;
validation chose far corner (2); variance (2); unbalanced (1)). For GRU networks it depends (better
on 5 of 15: 0.5 helps at depth 2 on ptb, steps 35 and at depth 5 on tiny_shakespeare, steps 64 and
at depth 2 on adding, length 25; "variance" helps at depth 2 on copy_memory, delay 20, symbols 5; 1,
weights helps at depth 2 on parity, delay 10, length 15, n 2). For LSTM networks it depends (better
on 5 of 15: 1 helps at depth 2 on ptb, steps 35 and at depth 2 on copy_memory, delay 10, symbols 5
and at depth 2 on copy_memory, delay 20, symbols 5; "variance" helps at depth 10 on smnist; 0.5
helps at depth 2 on tiny_shakespeare, steps 64). For relu networks it changes little (clearly so on
none of 3). For LIF networks it changes little (clearly so on none of 3). For tanh networks it
changes little (clearly so on none of 3). For LRU networks it depends (better on 1 of 4, worse on 1:
1 helps at depth 3 on tiny_shakespeare, steps 64; "variance" hurts at depth 6 on tiny_shakespeare,
steps 64, clipped at 1). For ALIF networks it depends (better on 0 of 3, worse on 1: "variance"
hurts at depth 5 on smnist_latency, steps 50). By depth it helps 10 of 34 with 2 layers, 3 of 9 with
5 layers, 2 of 4 with 10 layers.
""".strip()

BEST_TARGET = """
In the sweep of the balanced target, of 12 networks that learn anything, the interval of the best
target holds 1/√2 on 6, 0.5 on 1, 1 on 2, and the tried one that is nearest to the far-corner radius
on 7: the radius by which the energy law keeps the gradient from the last output to the first input,
nearer to 1 the longer the sequences and the fewer the layers. From network to network the best
target moves with that radius (Spearman's correlation 0.58, p = 0.046). Elsewhere "variance" and 1,
by scales, differ clearly on 18 recurrent networks: the one nearer to the far-corner radius is
better on 14 (78 % [55, 91]), "variance" on 9, 1 on 9. As a target of its own the radius is clearly
better and clearly worse than the default start on 4 and 4 of 12, than "variance" on 0 and 2 of 12,
than 1 on 3 and 0 of 9 networks.
""".strip()

CLOSING = """
No claim reaches further than these sizes, tasks and budgets: elsewhere measure first, and keep the
default start as one of those that validation chooses from.
""".strip()

BEFOREHAND = """
What `measure` says of the default start is gain_t² + gain_l², which the energy law wants to be 1.
Its distance from 1, |log|, tells in advance how far the test error falls (Spearman's correlation
0.38, p = 0.0058).
""".strip()

LEVELLED = """
Deep gated networks want a level gradient (`method="level"`; 32 units, the rows of 10,000 digits,
test accuracies): ten LSTM layers reach 86.8 % instead of 56.9 from their default start, twenty 60.3
instead of 11.2, which is chance, and twenty GRU layers 89.2 instead of 70.0, or 81.1 with
"variance". Forward levelling, as of LSUV, comes close: 84.7 with ten LSTM and 86.5 with twenty GRU
layers.
""".strip()

METHODS = """
""".strip()

TIMESCALES = """
""".strip()

SPARSITY = """
""".strip()

FLOSSING = """
""".strip()

BLIND = """
""".strip()

DEFAULTS = """
Layers that compute the same start unlike one another. Through ten layers of LSTM the gradient's
energy falls to 7e-6 of that at the top with the weights of Keras, to 3e-6 with those of flax.nnx
and to 2e-11 with those of torch; through ten of GRU to 0.13 (flax.linen), 0.045 (flax.nnx), 2e-4
(Keras) and 5e-6 (torch). Simple layers of Keras and Flax let it grow, 31 and 25 times; those of
torch let it fall to 8e-4. One layer alone forgets: of the gradient of its last step at most 4e-3 is
of the first quarter of 28 steps where there are no spikes, and 2e-11 with torch's RNN. Of the nine
spiking stacks of ten layers none has a neuron that fires from the fifth layer on, and none but this
package's from the third; there the gradient passes by the tails of the surrogates alone, and next
to nothing arrives: at most 1e-6 of the energy. Only one exponent is positive, that of Norse's
LIFRecurrent (+0.03). None of this says how well a start trains; it is what `measure` finds in
seconds, before.
""".strip()
