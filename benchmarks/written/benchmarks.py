"""The numbers and tables in docs/benchmarks.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from zoo.table import counted

from written.results import count, number, percent, power, read, source, table


def _times(value: float) -> str:
    return f"×{value:.1f}"


def _against(entry: Any, name: str) -> tuple[str, str]:
    """Gradients of another solver at the same error, and its time, as multiples."""
    theirs = entry.get(name)
    if theirs is None:
        return "not reached", ""
    more = f"{count(theirs['gradients'])} ({_times(theirs['times_the_gradients'])})"
    return more, _times(theirs["times_the_wall_time"])


def _equal_error(flow: str) -> str:
    rows = []
    for entry in read("flow_solve")[flow]["at_equal_error"]:
        mine = entry["auto"]
        first = [power(mine["rtol"]), mine["method"], power(mine["error"]), count(mine["gradients"])]
        rows.append([*first, *_against(entry, "torchdiffeq"), *_against(entry, "scipy")])
    head = ["rtol", "method", "error / motion", "gradients"]
    return table([*head, "torchdiffeq dopri5", "its time", "SciPy RK45", "its time"], rows)


def _cheapest() -> str:
    """A row for each accuracy, a column for each optimiser."""
    results = read("modified_flow")
    studies = ("plain_descent", "heavy_ball", "adam")
    found = {name: {row["error_at_most"]: row for row in results[name]["cheapest"]} for name in studies}

    def cell(name: str, target: float) -> str:
        row = found[name].get(target)
        if row is None:
            return "not reached"
        first, *others = [row["cheapest"], *row["then"]]
        other = next((one for one in others if not one["flow"].startswith("iterated map")), None)
        then = f"; {_short(other['flow'])}: {count(other['cost'])}" if other else ""
        return f"{_short(first['flow'])}: {count(first['cost'])}{then}"

    targets = sorted({target for of in found.values() for target in of}, reverse=True)
    head = ["error", *(results[name]["optimizer"] for name in studies)]
    return table(head, [[power(target), *(cell(name, target) for name in studies)] for target in targets])


def _short(flow: str) -> str:
    return flow.replace("iterated map, ", "").replace("torchdiffeq dopri5, ", "dopri5 on the ")


def _gradients() -> str:
    rows = [
        [row["model"], count(row["parameters"]), count(row["samples"]), number(row["ms_plain"], 3)]
        + [f"{row[kind]['ratio_median']:.3f}" for kind in ("into_out", "fresh")]
        for row in read("gradient_cost")["results"]
    ]
    head = ["network", "P", "samples", "plain pass, ms", "into a given vector", "into a new one"]
    return table(head, rows)


def _speed() -> str:
    speed = read("large")["speed"]
    rows = [
        [
            solver,
            *(f"{row['solvers'][solver]['ratio']:.2f}" if solver in row["solvers"] else "" for row in speed),
        ]
        for solver in speed[0]["solvers"]
    ]
    return table(["solver", *(f"P = {number(row['parameters'])}" for row in speed)], rows)


def _recorder() -> str:
    networks = read("recorder")["networks"]
    kinds = list(networks[0]["beside_the_bare_loop"])
    rows = [
        [kind, *(percent(one["beside_the_bare_loop"][kind]["share_of_a_step"]) for one in networks)]
        for kind in kinds
    ]
    head = [
        f"{_named(one['network'])}, P = {number(one['parameters'])}, batch {one['batch']}" for one in networks
    ]
    return table(["recorded at each step", *head], rows)


def _named(network: str) -> str:
    return {"vgg11_4096": "VGG-11", "vgg11_4096_batch128": "VGG-11", "resnet18": "ResNet-18"}[network]


def _symmetries() -> str:
    found = read("symmetry")
    rows = [
        [
            row["network"],
            count(row["parameters"]),
            count(row["charges"] if isinstance(row["charges"], int) else sum(row["charges"].values())),
            f"{row['seconds']:.1f}",
        ]
        for row in (*found["discovery"], found["large"])
    ]
    return table(["network", "P", "charges", "seconds, verified"], rows)


def _charges() -> str:
    rows = [
        [row["network"], count(row["parameters"]), count(row["charges"]), percent(row["share_of_a_step"])]
        for row in read("symmetry")["recording"]
    ]
    return table(["network, batches of 64", "P", "charges", "share of a step"], rows)


def _worker() -> str:
    rows = [
        [count(row["n"]), *(number(row[place]["median"]) for place in ("in_process", "worker"))]
        for row in read("bridge")["stand_in"]["microseconds_per_rhs"]
    ]
    return table(["numbers in the state", "in this process, µs", "in a worker, µs"], rows)


def _memory() -> str:
    rows = [
        [members, f"{sizes['command_mb']:.0f}", f"{sizes['largest_other_mb']:.0f}"]
        for members, sizes in read("batch")["memory"].items()
    ]
    return table(["members", "the command, MB", "its largest process, MB"], rows)


def _sources() -> Iterator[tuple[str, Callable[[], str]]]:
    names = "bridge batch central_flow flow_solve gradient_cost large method_choice model_zoo modified_flow recorder"
    for name in (*names.split(), "symmetry", "work_precision"):
        yield f"from.{name}", lambda name=name: source(name)


def _points(flow: str, solver: str) -> list[Any]:
    return [row for row in read("work_precision")[flow]["solvers"][solver] if "error" in row]


OURS = ("nm_ode BDF", "nm_ode DOP853", "nm_ode RK23", "nm_ode RKC2")
THEIRS = ("torchdiffeq dopri5", "scipy.integrate RK45")


def _least_work(flow: str) -> str:
    """Gradients, and time in brackets, of each method for an error of at most this."""
    targets = (
        (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
        if flow == "smooth"
        else (1e-1, 1e-2, 1e-3, 5e-4, 2e-4)
    )
    solvers = ("nm_ode auto", *OURS, *THEIRS)
    rows = []
    for target in targets:
        cells = []
        for solver in solvers:
            good = [row for row in _points(flow, solver) if row["error"] <= target]
            best = min(good, key=lambda row: row["gradients"], default=None)
            cells.append("" if best is None else f"{count(best['gradients'])} ({count(best['time'])})")
        rows.append([power(target), *cells])
    return table(["error at most", *(name.removeprefix("nm_ode ") for name in solvers)], rows)


def _regret() -> dict[str, float]:
    regrets = [row["regret"] for row in read("method_choice")["rows"]]
    return {"flows": len(regrets), "best": sum(r <= 1 for r in regrets), "worst": max(regrets)}


def _rival(name: str, key: str, digits: int = 3) -> Callable[[], str]:
    return lambda: number(read("central_flow")["rival"][name][key], digits)


def _problem(name: str, *path: str) -> Callable[[], str]:
    def text() -> str:
        found = read(name)
        for key in path:
            found = found[key]
        return str(found["problem"]).rstrip(".")

    return text


def _zoo(key: str) -> Callable[[], str]:
    return lambda: str(counted(read("model_zoo")["networks"])[key])


def _zoo_seconds(of: Callable[[list[float]], float]) -> Callable[[], str]:
    return lambda: number(of([row["seconds"] for row in read("model_zoo")["networks"]]))


VALUES: dict[str, Callable[[], str]] = {
    **dict(_sources()),
    "smooth.problem": _problem("flow_solve", "smooth"),
    "smooth.horizon": lambda: count(read("flow_solve")["smooth"]["horizon"]),
    "smooth.sharpness": lambda: " to ".join(number(x) for x in read("flow_solve")["smooth"]["sharpness"]),
    "smooth.least": lambda: _least_work("smooth"),
    "smooth.equal": lambda: _equal_error("smooth"),
    "kinked.problem": _problem("flow_solve", "kinked"),
    "kinked.horizon": lambda: count(read("flow_solve")["kinked"]["horizon"]),
    "kinked.floor": lambda: power(read("flow_solve")["kinked"]["reference_error"]),
    "kinked.nearest": lambda: power(min(row["error"] for row in _points("kinked", "nm_ode auto"))),
    "kinked.least": lambda: _least_work("kinked"),
    "kinked.equal": lambda: _equal_error("kinked"),
    "choice.flows": lambda: str(_regret()["flows"]),
    "choice.best": lambda: str(_regret()["best"]),
    "choice.worst": lambda: percent(_regret()["worst"] - 1, 0),
    "speed": _speed,
    "speed.samples": lambda: str(read("large")["speed"][0]["samples"]),
    "gradients": _gradients,
    "modified.problem": _problem("modified_flow"),
    "modified.hvp": lambda: number(read("modified_flow")["cost_in_gradients"]["hvp"]),
    "modified.third": lambda: number(read("modified_flow")["cost_in_gradients"]["third_derivative"]),
    "modified.cheapest": _cheapest,
    "modified.runs": lambda: ", ".join(
        str(read("modified_flow")[name]["the_run_itself"]["cost"])
        for name in ("plain_descent", "heavy_ball", "adam")
    ),
    "modified.warm": lambda: str(read("modified_flow")["adam"]["warm_steps"]),
    "recorder": _recorder,
    "recorder.bytes": lambda: count(read("recorder")["networks"][0]["checkpoint_over_step"]),
    "symmetries": _symmetries,
    "symmetries.memory": lambda: number(read("symmetry")["large"]["share_of_model"]),
    "charges": _charges,
    "zoo.all": _zoo("all"),
    "zoo.judged": _zoo("judged"),
    "zoo.complete": _zoo("complete"),
    "zoo.by_hand": lambda: "{as by hand} of {by hand}".format_map(counted(read("model_zoo")["networks"])),
    "zoo.median": _zoo_seconds(statistics.median),
    "zoo.most": _zoo_seconds(max),
    "worker": _worker,
    "worker.short": lambda: number(read("bridge")["stand_in"]["a_short_solve_again_ms"]),
    "worker.start": lambda: number(read("bridge")["stand_in"]["start_up_seconds"]),
    "batch.rate": lambda: number(read("batch")["rate"]["two_over_one"], 3),
    "batch.with_start": lambda: number(read("batch")["rate"]["two_over_one_with_start_of_16"], 3),
    "batch.an_hour": lambda: " and ".join(
        count(x) for x in read("batch")["rate"]["members_an_hour"].values()
    ),
    "batch.memory": _memory,
    "together.members": lambda: str(read("batch")["together"]["members"]),
    "together.parameters": lambda: count(read("batch")["together"]["parameters"]),
    "together.ratio": lambda: f"{read('batch')['together']['looped_over_vectorised']:.1f}",
    "central.problem": _problem("central_flow", "rival"),
    "central.cost": _rival("nm_ode", "cost"),
    "central.without": _rival("nm_ode", "cost_without_the_record", 2),
    "central.distance": _rival("nm_ode", "mean_after_the_jump"),
    "central.one": _rival("paper_one_substep", "cost"),
    "central.one_distance": _rival("paper_one_substep", "mean_after_the_jump"),
    "central.four": _rival("paper_four_substeps", "cost"),
    "central.gradient": _rival("gradient_flow", "mean_after_the_jump"),
    "central.floor": _rival("own", "mean_after_the_jump"),
}
