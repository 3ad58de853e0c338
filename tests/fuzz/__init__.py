"""Fuzzing of the stack's whole input path: scripts of frames, commands and time against a stack in virtual time.

`make fuzz MODE=python|compiled SECONDS=...` runs it, `test_corpus.py` replays what was found worth keeping.

    script.py      an input: a list of steps, as bytes
    mutate.py      new inputs from old ones
    world.py       a stack, its peers, and what each step does
    door.py        what has to become of a frame before TCP sees it, by code that shares nothing with the stack's
    invariants.py  what holds in the core's memory at any time
    targets/       one file a target: which steps, which limits
    guided.py      the search by coverage, of the stack as plain Python (atheris)
    compiled.py    the search at speed, of the stack compiled with bounds checks
"""
