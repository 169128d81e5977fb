"""The documentation site: `make docs` builds it into build/site."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "_ext"))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # pictures are small; threads that wait for each other are not

project = "nm_ode"
author = "The nm_ode developers"
copyright = author
release = importlib.metadata.version("nm-ode")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "nm_site",
]
nitpicky = True
exclude_patterns = ["_ext", "pictures", "README.md"]
suppress_warnings = ["config.cache"]  # sphinx-gallery's settings hold functions

myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
myst_all_links_external = False

autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_mock_imports = ["lightning", "transformers"]
autosummary_generate = False
napoleon_google_docstring = napoleon_numpy_docstring = False  # nm_site calls it
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
add_module_names = False
python_use_unqualified_type_names = True

plot_html_show_source_link = False
plot_html_show_formats = False
plot_formats = ["svg"]

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"__init__\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("nm_site.gallery_figures.scrape",),
    "image_srcset": ["2x"],
    "capture_repr": (),
    "min_reported_time": 3600,
    "parallel": 2,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "remove_config_comments": True,
    "plot_gallery": os.environ.get("NM_ODE_GALLERY", "1") == "1",
}

nm_pictures = os.environ.get("NM_ODE_PICTURES", "1") == "1"

pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "nm_ode"
html_logo = html_favicon = "_static/mark.svg"
html_static_path = ["_static"]
html_css_files = ["nm_ode.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
