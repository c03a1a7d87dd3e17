"""Settings of the documentation's site.

    sphinx-build -W -c docs . site

The sources are the Markdown files of the project folder, of docs/ and of configs/, and the docstrings: so a link means the
same on the site as in the repository. Links, headings and pictures that are not there are warnings, which -W makes errors.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
shutil.rmtree(ROOT / 'docs' / 'api', ignore_errors=True)  # pages of modules that are gone

project = 'mmmlo'
copyright = '2026, the mmmlo authors'
root_doc = 'docs/index'
extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.autosummary', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
include_patterns = ['*.md', 'docs/*.md', 'docs/[et]*/*.md', 'docs/api/*.rst', 'configs/*/README.md']
# What is not read is not walked through either: data/ may be a link to millions of files.
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ('docs', 'configs')]

html_theme = 'furo'
html_title = 'mmmlo'
html_show_sphinx = False

# Tutorials are executed with each build; a cell that fails is a warning, which -W makes an error.
nb_execution_mode = 'force'
nb_execution_timeout = 300
nb_execution_show_tb = True
nb_merge_streams = True

myst_heading_anchors = 4  # as GitHub makes them

autodoc_default_options = {'members': True, 'ignore-module-all': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autosummary_generate = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # else a dataclass's fields stand there twice
