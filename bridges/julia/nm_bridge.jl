# What runs in Julia: solves whose right-hand side is asked for across the process boundary, and the charge laws, which
# need nothing from outside. Loaded by julia.py. docs/bridge.md's rules are named where they apply.

module NMBridge

using OrdinaryDiffEq, OrdinaryDiffEqLowOrderRK, OrdinaryDiffEqStabilizedRK, OrdinaryDiffEqBDF, OrdinaryDiffEqSDIRK
using OrdinaryDiffEqVerner, OrdinaryDiffEqRosenbrock
using SciMLBase, LinearSolve, ADTypes, PythonCall

# SciMLBase 3 renamed it.
const look_anew! =
    isdefined(SciMLBase, :derivative_discontinuity!) ? SciMLBase.derivative_discontinuity! : SciMLBase.u_modified!

"A row of the shared vectors, without a copy."
row(address::Int, n::Int) = unsafe_wrap(Array, Ptr{Float64}(address), n)

"""
Algorithm by name.

Rule 4: implicit methods are matrix-free, for a dense Jacobian of a network is out of reach. Products with the Jacobian
are the field's own (`field`, `laws`; rule 13); what is left to differentiate, in time, goes by finite differences, for
ForwardDiff's dual numbers cannot cross the boundary and would give wrong results silently.
Rule 8: `eigen_est` of stabilised methods takes a Float64, of `uprev`: after a rejected step `u` is what was rejected.
"""
function algorithm(name::String, kind::String, sharpness)
    constructor = getproperty(@__MODULE__, Symbol(name))
    if kind == "implicit"
        return constructor(linsolve = KrylovJL_GMRES(), autodiff = AutoFiniteDiff(), concrete_jac = false)
    end
    if kind == "stabilised" && sharpness !== nothing
        return constructor(eigen_est = integrator -> (integrator.eigen_est =
            pyconvert(Float64, sharpness(integrator.t, integrator.uprev))))
    end
    return constructor()
end

"""
The field as an ODEFunction. Rule 3: in place, and fully specialised on Vector{Float64}. Rule 10: a plain function of
exactly (du, u, p, t). Rule 13: a method that needs the Jacobian's product asks the caller for it, who has one, or takes
a difference quotient whose step does not depend on |v|; `request_jvp` is nothing for methods that need none.
"""
function field(request_rhs, request_jvp, state, rate, direction)
    rhs = function (du, u, p, t)
        copyto!(state, u)
        request_rhs(Float64(t))
        copyto!(du, rate)
        return nothing
    end
    if request_jvp === nothing
        return ODEFunction{true, SciMLBase.FullSpecialize}(rhs)
    end
    jvp = function (Jv, v, u, p, t)
        copyto!(state, u)
        copyto!(direction, v)
        request_jvp(Float64(t))
        copyto!(Jv, rate)
        return nothing
    end
    return ODEFunction{true, SciMLBase.FullSpecialize}(rhs; jvp = jvp)
end

"""
Solve, handing out a sample at each of `times`.

Rule 5: samples are steps (`tstops`), exact for every method, where interpolation is wrong for some. Rule 6: a failure
is a return code. Rule 9: nothing is saved; a sample is copied out and let go.
"""
function run(f, y0::Vector{Float64}, times::Vector{Float64}, alg, abstol, on_sample; options...)
    integrator = init(ODEProblem(f, y0, (first(times), last(times))), alg; abstol, tstops = times,
        save_everystep = false, save_start = false, save_end = false, dense = false, options...)
    on_sample(0, y0)
    next = 2
    while next <= length(times)
        step!(integrator)
        running = integrator.sol.retcode in (ReturnCode.Default, ReturnCode.Success)
        running || break
        while next <= length(times) && times[next] <= integrator.t
            on_sample(next - 1, integrator.u)
            next += 1
        end
    end
    stats = integrator.stats
    code = next > length(times) ? "Success" : string(integrator.sol.retcode)
    return (code, Float64(integrator.t), Int(stats.naccept), Int(stats.nreject))
end

"Ends with the process that asked, for there is no frame to notice it by. Windows has no such call."
orphaned(parent) = !Sys.iswindows() && ccall(:getppid, Cint, ()) != parent

"""
The driven laws of all charges in one solve, compiled, with no callback.

During step k: m[k, c] Q̈ + b[k, c] Q̇ + κ[c] Q = F[k, c] (order 2), or Q̇ = −κ[c] Q + F[k, c] (order 1). The drivers
jump at `times`, so the solve takes a step to each and looks at the field anew. Evaluations are counted here, for
`stats.nf` has two more for each iteration of GMRES (rule 13).
"""
mutable struct Law
    order::Int
    k::Int
    evaluations::Int
    products::Int
    m::Matrix{Float64}
    b::Matrix{Float64}
    kappa::Vector{Float64}
    force::Matrix{Float64}
end

function law!(du, u, p::Law, t)
    n = length(p.kappa)
    p.evaluations += 1
    if p.order == 1
        @inbounds for c in 1:n
            du[c] = p.force[c, p.k] - p.kappa[c] * u[c]
        end
    else
        @inbounds for c in 1:n
            du[c] = u[n + c]
            du[n + c] = (p.force[c, p.k] - p.b[c, p.k] * u[n + c] - p.kappa[c] * u[c]) / p.m[c, p.k]
        end
    end
    return nothing
end

"The law's Jacobian times v: the law is linear, and its force is no part of it."
function law_jvp!(Jv, v, u, p::Law, t)
    n = length(p.kappa)
    p.products += 1
    if p.order == 1
        @inbounds for c in 1:n
            Jv[c] = -p.kappa[c] * v[c]
        end
    else
        @inbounds for c in 1:n
            Jv[c] = v[n + c]
            Jv[n + c] = (-p.b[c, p.k] * v[n + c] - p.kappa[c] * v[c]) / p.m[c, p.k]
        end
    end
    return nothing
end

function laws(order, m, b, kappa, force, y0, times, alg, reltol, abstol, parent; options...)
    law = Law(order, 1, 0, 0, m, b, kappa, force)
    f = ODEFunction{true, SciMLBase.FullSpecialize}(law!; jvp = law_jvp!)
    integrator = init(ODEProblem(f, y0, (first(times), last(times)), law), alg; reltol, abstol, tstops = times,
        maxiters = 10^9, save_everystep = false, save_start = false, save_end = false, dense = false, options...)
    n = length(kappa)
    charges = Matrix{Float64}(undef, n, length(times))
    charges[:, 1] = y0[1:n]
    next = 2
    while next <= length(times)
        step!(integrator)
        integrator.sol.retcode in (ReturnCode.Default, ReturnCode.Success) || break
        orphaned(parent) && exit(1)
        while next <= length(times) && times[next] <= integrator.t
            charges[:, next] = integrator.u[1:n]
            next += 1
            if next <= length(times)
                law.k = next - 1
                look_anew!(integrator, true)
            end
        end
    end
    code = next > length(times) ? "Success" : string(integrator.sol.retcode)
    return (code, Float64(integrator.t), law.evaluations, law.products, charges)
end

end
