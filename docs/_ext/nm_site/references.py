"""References to a name where it was defined (annotations have it so) lead to where it is documented."""

from __future__ import annotations

from typing import Any

from docutils import nodes

from nm_site.names import documented, resolve


def _resolve(app: Any, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    domain = env.domains["py"]
    public = resolve(target)
    if public and public != target and domain.find_obj(env, None, None, public, "obj", 0):
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, contnode)
    if public and public not in documented():  # a field, which has no entry of its own: its class has it
        owner = public.rpartition(".")[0]
        return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", owner, node, contnode)
    if node["refdoc"].startswith("reference/") and not node.get("refexplicit"):
        return contnode  # of an annotation or a docstring's section: another library's, or not public
    return None


def setup(app: Any) -> None:
    app.connect("missing-reference", _resolve, priority=900)
