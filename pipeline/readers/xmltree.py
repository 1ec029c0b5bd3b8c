"""lxml, set up for files from anywhere: no external entities, no network, no huge trees.

Text of a tree without recursion.
"""

from __future__ import annotations

from lxml import etree

from pipeline import errors


def parse(data: bytes, what: str) -> etree._Element:
    """The root of well-formed XML.

    Depth is bounded by libxml2 itself (256), entity expansion by its amplification check.

    Raises:
        DocumentError: damaged.

    """
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        return etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        raise errors.DocumentError("damaged", f"{what} is not well-formed XML: {error}") from error


def local(element: etree._Element) -> str:
    """The tag without its namespace; "" for comments and entities."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
