# Stochastic paths, by StochasticDiffEq where the project has it. Loaded by julia.py at the first one.

module NMNoise

using StochasticDiffEq, SciMLBase, PythonCall

"""
Paths of du = drift dt + factor dW from 0 to `time`, one for each seed. The drift is asked for across the process
boundary; the noise is additive and lives here. `factor` is a vector (diagonal noise) or an n×r matrix.
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
    adaptive = name != "EM"
    for (index, seed) in enumerate(seeds)
        problem = SDEProblem(f, copy(y0), (0.0, time); seed = seed, options...)
        integrator = init(problem, algorithm; dt = step, adaptive = adaptive, save_everystep = false,
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
