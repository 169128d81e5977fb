"""References to a name where it was defined (annotations have it so) lead to where it is documented."""

from __future__ import annotations

from typing import Any

from docutils import nodes

from nm_site.names import resolve


def _resolve(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    domain = env.domains["py"]
    public = resolve(target)
    if public and public != target:
        found = domain.find_obj(env, None, None, public, "obj", 0)
        if found:
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)
    return contnode  # what is not ours, or has no entry: as text


def setup(app: Any) -> None:
    app.connect("missing-reference", _resolve, priority=900)
