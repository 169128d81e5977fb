"""DifferentialEquations.jl as an engine, through diffeqpy, in a process of its own.

    engine.py      the engine: OdeProblem in, OdeSolution out
    caller.py      the caller's side: start, keep warm, solve, end
    worker.py      the worker's side: one loop, whatever solves behind it
    protocol.py    what goes between them: frames, messages, shared vectors
    julia.py       Julia behind the worker; nm_bridge.jl what runs there
    methods.py     which methods there are, and which to take
    installing.py  what is installed, and how to install it

Torch and Julia in one process crash, deadlock and fight over signals on some builds (two LLVMs, two OpenMPs); in two
processes each of these is one error message. A right-hand side costs some 50 µs more for it.
"""
