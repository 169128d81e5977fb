# Stochastic paths, by StochasticDiffEq where the project has it. Loaded by julia.py at the first one.

module NMNoise

using StochasticDiffEq, SciMLBase, PythonCall

"""
Paths of du = drift dt + factor dW from 0 to `time`, one for each seed. The drift is asked for across the process
boundary; the noise is additive and lives here. `factor` is a vector (diagonal noise) or an n×r matrix.

Rule 12: always with the caller's step. Where these methods reject steps, the paths have another variance than the
equation's, silently.

`init` puts the end of the time span among the times to stop at, so the last step is shortened to end at `time`, noise
included, and a step longer than `time` becomes that one.
"""
function paths(request, state, rate, y0::Vector{Float64}, factor, time, step, seeds, name::String, on_member)
    drift = function (du, u, p, t)
        copyto!(state, u)
        request(Float64(t))
        copyto!(du, rate)
        return nothing
    end
    noise = function (du, u, p, t)
        copyto!(du, factor)
        return nothing
    end
    isdefined(StochasticDiffEq, Symbol(name)) || error("StochasticDiffEq has no method $name")
    algorithm = getproperty(StochasticDiffEq, Symbol(name))()
    f = SDEFunction{true, SciMLBase.FullSpecialize}(drift, noise)
    options = factor isa Vector ? (;) : (; noise_rate_prototype = zeros(size(factor)))
    for (index, seed) in enumerate(seeds)
        # A seed of 0 stands for a random one there.
        problem = SDEProblem(f, copy(y0), (0.0, time); seed = seed + 1, options...)
        integrator = init(problem, algorithm; dt = step, adaptive = false, save_everystep = false,
            save_start = false, save_end = false, dense = false)
        while integrator.t < time
            step!(integrator)
            integrator.sol.retcode in (ReturnCode.Default, ReturnCode.Success) || break
        end
        integrator.t >= time || return string(integrator.sol.retcode)
        all(isfinite, integrator.u) || return "Unstable"
        on_member(index - 1, integrator.u)
    end
    return "Success"
end

end
