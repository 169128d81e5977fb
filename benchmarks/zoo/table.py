"""docs/zoo.md from the results: a line for each network, what is missed and why, counts by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.expected import EXPECTED
from zoo.notes import MISSED

Row = Mapping[str, Any]

_HEAD = """# Named architectures

Made by `make pages` from what `benchmarks/model_zoo.py --save` measured; do not edit.

Each is a small network of random weights (tens to hundreds of parameters, one or two blocks), in float64, with the loss
that its field uses. Columns: trainable parameters; charges found, by kind; seconds and memory of `symmetries_of` with
its verification, on a machine that others use too; then three judgements that share nothing with the rules:

- **by hand**: the count from the mathematics, where one was made (`benchmarks/zoo/expected.py` has the derivations);
- **search**: how many independent charges, quadratic or linear in θ, a numerical search finds conserved, and how many
  of them are explained by what was found ("all": every one). It solves ⟨g, 2Bθ + c⟩ = 0 at as many random parameters
  and batches as it has unknowns, and at as many more until the solutions stay: products of rows and of columns of every
  parameter, squares and shifts of entries (up to 1600 unknowns; empty where there are more).
- **sound**: θ carried a finite way along every generator leaves the loss of fresh batches (to 1e-8 of it).

The environment: that of nm_ode, and beside it
`pip install --no-deps transformers timm torch_geometric huggingface-hub httpx2 httpcore2 truststore tokenizers \\
safetensors tqdm xxhash`. timm is imported without torchvision, which it needs for transforms of images only.

"""


def document(rows: Sequence[Row]) -> str:
    """The whole page."""
    lines = [
        _HEAD,
        _summary(rows),
        "",
        "| network | code | loss | P | t | s | r | m | s | MB | by hand | search | sound |",
    ]
    lines.append("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    lines += [_line(row) for row in rows]
    lines += ["", "t, s, r, m: translations, scales, rescales, distinct entries of matrix charges.", ""]
    lines += ["## What is missed, and why", ""]
    lines += [_missed(row) for row in rows if _lacks(row) or _refused(row)]
    lines += ["", "## Counted by hand", ""]
    for name, expected in EXPECTED.items():
        counts = ", ".join(f"{k} {v}" for k, v in expected.counts.items() if v) or "none"
        lines.append(f"- **{name}** ({counts}): {expected.why}.")
    return "\n".join(lines) + "\n"


def _of_all(row: Row) -> Row | None:
    """The search, if it was of all entries: one of rows and columns alone compares badly with shifts of entries."""
    search = row.get("search")
    return search if search is not None and search["whole"] else None


def _refused(row: Row) -> bool:
    return "refused" in row


def _lacks(row: Row) -> int:
    """Charges that are missed: by the search, or else by hand."""
    search = _of_all(row)
    if search is not None:
        return int(search["conserved"] - search["explained"])
    expected = EXPECTED.get(row["name"])
    if expected is not None and "charges" in row:
        return sum(expected.counts.values()) - sum(row["charges"].values())
    return 0


def _judged(row: Row) -> bool:
    return _of_all(row) is not None or row["name"] in EXPECTED


def counted(rows: Sequence[Row]) -> dict[str, int]:
    """How many networks there are, were refused, were judged for completeness, and of these are complete."""
    done = [row for row in rows if not _refused(row)]
    judged = [row for row in done if _judged(row)]
    by_hand = [row for row in done if row["name"] in EXPECTED]
    return {
        "all": len(rows),
        "refused": len(rows) - len(done),
        "judged": len(judged),
        "complete": sum(_lacks(row) == 0 for row in judged),
        "not judged": len(done) - len(judged),
        "by hand": len(by_hand),
        "as by hand": sum(EXPECTED[row["name"]].counts == row["charges"] for row in by_hand),
    }


def _summary(rows: Sequence[Row]) -> str:
    n = counted(rows)
    done = [row for row in rows if not _refused(row)]
    moved = [row["name"] for row in done if row.get("unsound")]
    defects = [row["name"] for row in done if row["defects"]]
    return (
        f"{n['all']} networks: {n['complete']} complete, {n['judged'] - n['complete']} with charges missed, "
        f"{n['refused']} refused, {n['not judged']} not judged for completeness. "
        f"By hand {n['as by hand']} of {n['by hand']} agree. Unsound: {', '.join(moved) or 'none'}. "
        f"Called a defect of nm_ode: {', '.join(defects) or 'none'}."
    )


def _line(row: Row) -> str:
    first = (
        f"| {row['name']} | {row.get('source', '')} | {row.get('loss', '')} | {row.get('parameters', '')} |"
    )
    if _refused(row):
        return f"{first} | | | | {row['seconds']:.1f} | | {_hand(row)} | {_search(row)} | refused |"
    counts = " | ".join(str(n) for n in row["charges"].values())
    sound = "NO" if row.get("unsound") else ("yes" if "unsound" in row else "")
    return f"{first} {counts} | {row['seconds']:.1f} | {row['peak_mb']:.0f} | {_hand(row)} | {_search(row)} | {sound} |"


def _hand(row: Row) -> str:
    expected = EXPECTED.get(row["name"])
    if expected is None:
        return ""
    if row.get("charges") == expected.counts:
        return "agrees"
    return " ".join(f"{kind[0]}{n}" for kind, n in expected.counts.items() if n)


def _search(row: Row) -> str:
    search = _of_all(row)
    if search is None:
        return ""
    if search["conserved"] == search["explained"]:
        return f"all {search['conserved']}"
    return f"{search['explained']} of {search['conserved']}"


def _missed(row: Row) -> str:
    why = MISSED.get(row["name"], "")
    if _refused(row):
        return f"- **{row['name']}**: refused. {why or row['refused'][:300]}"
    return f"- **{row['name']}**: {_lacks(row)} missed" + (f": {why}." if why else ".")
