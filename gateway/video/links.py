"""URLs of videos: what may be shown of one, share links that lead to a page, and pages that came instead of a video."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import parse_qs

import httpx

_LONGEST_SHOWN = 200
_DRIVE_HOSTS = ("drive.google.com", "docs.google.com", "drive.usercontent.google.com")
_DRIVE_DOWNLOAD = "drive.usercontent.google.com"


def shown(url: httpx.URL | str) -> str:
    """`url` for a log or a caller: without a password, and without its query, in which signatures travel."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        return "the URL"
    cut = str(parsed.copy_with(userinfo=b"", query=None, fragment=None))
    if len(cut) > _LONGEST_SHOWN:
        cut = f"{cut[:_LONGEST_SHOWN]}..."
    return f"{cut}?..." if parsed.query else cut


def is_drive(url: httpx.URL) -> bool:
    """Whether Google Drive is asked."""
    return url.host in _DRIVE_HOSTS


def direct(url: httpx.URL) -> httpx.URL:
    """Where the file of a Google Drive link for people lies; any other URL as it is."""
    if url.host not in _DRIVE_HOSTS[:2]:
        return url
    query = {name: values[0] for name, values in parse_qs(url.query.decode("ascii", "replace")).items()}
    in_path = re.match(r"/(?:a/[^/]+/)?(?:file|video)/d/([\w-]+)", url.path)
    name = in_path[1] if in_path else query.get("id", "") if url.path in ("/open", "/uc") else ""
    if not name:
        return url
    wanted = {"id": name, "export": "download", "confirm": "t"}
    if "resourcekey" in query:
        wanted["resourcekey"] = query["resourcekey"]
    return url.copy_with(host=_DRIVE_DOWNLOAD, path="/download", params=wanted)


def confirmed(page: bytes, url: httpx.URL) -> httpx.URL | None:
    """Where the button of Google Drive's "cannot scan this file for viruses" leads; None when it is another page."""
    reader = _Confirmation()
    reader.feed(page.decode("utf-8", "replace"))
    target = None
    if reader.action and reader.fields:
        target = url.join(reader.action).copy_merge_params(reader.fields)
    elif reader.link:
        target = url.join(reader.link)
    return target if target is not None and is_drive(target) and target != url else None


def page_kind(start: bytes) -> str:
    """What a body that begins so is, "a web page" for one; empty: nothing that is known not to be a video."""
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:512].lower()
    if re.match(rb"<(!doctype html|html|head|body|script|meta|title|!--)", text):
        return "a web page"
    if text.startswith((b"<?xml", b"<error", b"<!doctype")):
        return "a web page" if b"<html" in text else "an XML document"
    if re.match(rb"\{\s*(\"|\}|$)|\[\s*(\{|\"|\]|$)", text):
        return "JSON"
    return ""


class _Confirmation(HTMLParser):
    """The form with which Drive asks for consent, or the link that older pages have."""

    def __init__(self) -> None:
        super().__init__()
        self.action = self.link = ""
        self.fields: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form" and "download" in given.get("id", "") + given.get("action", ""):
            self.action, self._inside = given.get("action", ""), True
        elif tag == "input" and self._inside and given.get("name"):
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "a" and "confirm=" in given.get("href", ""):
            self.link = given["href"]

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
