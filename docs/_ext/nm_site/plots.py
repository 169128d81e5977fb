"""matplotlib's plot directive in Markdown: it inserts reStructuredText, which Markdown's parser cannot take."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils import new_document
from matplotlib.sphinxext.plot_directive import PlotDirective
from myst_parser.mocking import MockRSTParser, MockStateMachine


class _Lines:
    """Takes what the directive inserts."""

    def __init__(self, real: Any) -> None:
        self.real, self.lines = real, []

    def insert_input(self, lines: list[str], source: str) -> None:
        self.lines += lines

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Plot(PlotDirective):
    """As matplotlib's, in pages of either language."""

    def run(self) -> list[nodes.Node]:
        if not self.state.document.settings.env.config.nm_pictures:
            return [nodes.image(uri="/_static/mark.svg", alt=self.options.get("alt", ""))]
        real = self.state_machine
        if not isinstance(real, MockStateMachine):
            return super().run()
        self.state_machine = taken = _Lines(real)
        found = super().run()
        document = new_document(self.state.document["source"], self.state.document.settings)
        document.reporter = self.state.document.reporter
        MockRSTParser().parse("\n".join(taken.lines), document)
        return [*found, *document.children]


def setup(app: Any) -> None:
    app.add_config_value("nm_pictures", True, "env", bool)  # without them the text alone is built, in seconds
    app.add_directive("plot", Plot, override=True)
