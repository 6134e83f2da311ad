"""Sphinx: links to files become links to pages, and the pages that the index links are its table of contents.

Files outside of docs/, such as CHANGELOG.rst, are included by a page in ``included/``, whose name is that of the file
in lower case, with ``-`` for ``/``.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform


class FileLinks(SphinxTransform):
    """Turns links to files into links to pages, names languages, and corrects paths of images in included files."""

    default_priority = 5  # before images are collected

    def apply(self, **_kwargs: Any) -> None:
        """Change the document."""
        for link in list(self.document.findall(nodes.reference)):
            path = link.get("refuri", "").partition("#")[0]
            if path.endswith(".rst") and "://" not in path:
                link.replace_self(self._reference(link, path))
        for block in self.document.findall(nodes.literal_block):
            # Without this, Sphinx takes commands and configurations for Python.
            is_python = re.search(r"^(from \S+ )?import ", block.astext(), re.MULTILINE)
            block["language"], block["force"] = "python" if is_python else "text", True
        if self._is_included:
            for image in self.document.findall(nodes.image):
                image["uri"] = "../" + image["uri"].removeprefix("docs/")

    def _reference(self, link: nodes.reference, path: str) -> pending_xref:
        reference = pending_xref(
            "", nodes.inline("", "", *link.children),
            refdoc=self.env.docname, refdomain="std", reftype="doc", refexplicit=True, refwarn=True,
            reftarget=f"/{self._page(path)}",
        )  # fmt: skip
        reference.source, reference.line = link.source, link.line
        return reference

    @property
    def _is_included(self) -> bool:
        return self.env.docname.startswith("included/")

    def _page(self, path: str) -> str:
        """Return the name of the page of a linked file."""
        if not self._is_included:
            return page_name(path)
        path = path.removeprefix("../")
        return page_name(path.removeprefix("docs/") if path.startswith("docs/") else f"../{path}")


def page_name(path: str) -> str:
    """Return the name of the page of a file; `path` is relative to docs/."""
    name = path.removesuffix(".rst")
    if name.startswith("../"):
        return "included/" + name.removeprefix("../").lower().replace("/", "-")
    return name


def add_contents(_app: Sphinx, name: str, source: list[str]) -> None:
    """Add a table of contents to the index: the pages that it links, so that they are listed once."""
    if name == "index":
        pages = map(page_name, re.findall(r"<([\w./-]+\.rst)>`_", source[0]))
        source[0] += "\n\n.. toctree::\n   :hidden:\n\n" + "".join(f"   {page}\n" for page in pages)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.add_transform(FileLinks)
    app.connect("source-read", add_contents)
    return {"parallel_read_safe": True}
