"""Ten thousand damaged inputs: whatever comes, an answer that is right or a refusal that is told.

    python -m fuzz [--count N] [--seed N] [--kinds A,B] [--replay KIND:INDEX]

One kind of input a module; `targets.KINDS` names them all. An input is drawn from the seed, the
name of its kind and its number alone, so that every one of them can be had again.
"""
