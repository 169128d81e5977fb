"""DifferentialEquations.jl as an engine, through diffeqpy, in a process of its own.

    engine.py        the engine: OdeProblem in, OdeSolution out
    session.py       the caller's side: one worker, started at the first job and kept; its lock
    conversation.py  one job: answering the worker's questions until it is done
    process.py       the worker process: starting it, ending it, how it ended
    signals.py       SIGINT deferred in critical sections
    protocol.py      what goes between the two processes: frames, messages, shared vectors
    worker.py        the worker's side: one loop around a backend that solves
    julia.py         the backend that is Julia; nm_bridge.jl and nm_noise.jl are what runs there
    methods.py       which methods there are, and which to take
    installing.py    what is installed, and how to install it
    offline.py       installing from a depot that has all already
    project.py       what a Julia project has, by its files; the versions that have been seen running

Torch and Julia in one process crash, deadlock and fight over signals on some builds (two LLVMs, two OpenMPs); in two
processes each of these is one error message. A right-hand side costs some 50 µs more for it.
"""
