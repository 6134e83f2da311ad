"""Configuration of Sphinx: ``sphinx-build -W -n docs build/docs``. Nothing is read from the network.

The pages are written for a reader of the repository, and link to each other as files: ```backup.rst <backup.rst>`_``.
The modules of ``_sphinx`` turn such links into links to pages, and document the stable names, commands and options.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "_sphinx"))

from imapshield import __version__

project = "imapshield"
author = copyright = "the authors of imapshield"
version = release = __version__
root_doc = "index"
exclude_patterns = ["_build"]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "commands", "file_links", "stable_names"]
smartquotes = False  # quotes and dashes are as they are typed, as in the repository
default_role = "code"  # a single backquote in a docstring encloses a name

html_theme = "furo"  # loads no font and no script from another site
html_title = f"imapshield {release}"
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}  # links to a page's source need a known host

autodoc_member_order = "bysource"
napoleon_use_ivar = True  # the fields of a dataclass have entries already
python_use_unqualified_type_names = True
maximum_signature_line_length = 100  # longer ones have a line for each parameter
nitpick_ignore_regex = [
    # Other packages and the standard library, which no inventory describes here.
    (r"py:.*", r".*\b(twisted|zope|collections|imaplib|pathlib|ssl|typing|unittest)\..*"),
    (r"py:exc", r"UnauthorizedLogin"),
    # Types in signatures of stable names which are not stable themselves, and so have no entry.
    (r"py:class", r"imapshield\..*|Delta|FetchItem|Listener|SearchKey|SequenceSet"),
]
