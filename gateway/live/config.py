"""What is asked of a camera: its address without secrets in it, how often and by which models it is looked at."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.errors import BadCamera, SourceNotAllowed
from gateway.video.playlist import is_playlist
from touchline.contract import BALL_MODEL, PITCH_MODEL, PLAYER_MODEL
from touchline.video_live import SCHEMES

MODELS: Final = (PLAYER_MODEL, PITCH_MODEL, BALL_MODEL)
RECONNECTING: Final = frozenset({"url", "username", "password", "transport", "loop", "verify"})
"""What a change of connects anew."""
_PORTS: Final = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_ID: Final = r"[a-z0-9][a-z0-9_-]{0,31}"
_SHOWN: Final = {"channel", "subtype", "stream", "profile", "resolution", "fps", "codec", "unicast", "proto"}
"""What may be shown of a query; everything else could be a secret."""


class CameraConfig(BaseModel):
    """As POST /live/cameras and CAMERAS_FILE give it; None is what the settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, hide_input_in_errors=True)

    id: str = Field("", pattern=f"^({_ID})?$")
    name: str = Field("", max_length=64)
    url: SecretStr
    """Without user and password, which are taken out of it; its query may hold secrets of its own."""
    username: SecretStr = SecretStr("")
    password: SecretStr = SecretStr("")
    transport: Literal["tcp", "udp"] | None = None
    verify: bool = True
    """Its certificate is looked at, where it speaks TLS."""
    enabled: bool = True
    loop: bool = False
    """A file begins again at its end."""
    skip: int | None = Field(None, ge=1, le=100)
    max_fps: float | None = Field(None, gt=0, le=1000)
    quality: int | None = Field(None, ge=1, le=100)
    width: int | None = Field(None, ge=16, le=8192, validation_alias=AliasChoices("width", "size"))
    models: Annotated[tuple[Literal["player", "pitch", "ball"], ...], Field(min_length=1)] = ("player", "pitch", "ball")

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, given: Any) -> Any:
        """User and password have fields of their own."""
        if not isinstance(given, dict) or not isinstance(given.get("url"), str):
            return given
        url = given["url"].strip()
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("url cannot be read; special characters of a password go into `password`") from None
        scheme = parts.scheme.lower()
        # What comes after a raw / or ? of a password would be shown as a path.
        if "@" in parts.path + parts.query + parts.fragment and scheme in SCHEMES:
            raise ValueError("url has an @ behind the host; special characters of a password go into `password`")
        if scheme == "file" or "@" not in parts.netloc:
            return given
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        bare = f"[{host}]" if ":" in (host or "") else host or ""
        given = {**given, "url": urlunsplit(parts._replace(netloc=bare + (f":{port}" if port else "")))}
        if given.get("username") in (None, ""):
            given["username"] = unquote(user)
        if given.get("password") in (None, ""):
            given["password"] = unquote(password)
        return given

    @field_validator("username", "password", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: SecretStr) -> SecretStr:
        text = url.get_secret_value()
        if re.search(r"[\x00-\x20\x7f]", text):
            raise ValueError("has a blank or control character; write it as %20")
        parts = urlsplit(text)
        if parts.scheme.lower() == "file":
            if not parts.path.strip("/"):
                raise ValueError("names no file; write file:NAME, a path in LIVE_FILES_DIR")
        elif parts.scheme.lower() not in SCHEMES or not parts.hostname:
            raise ValueError(f"is none of {', '.join(f'{scheme}://HOST' for scheme in SCHEMES)} and file:NAME")
        return url

    @property
    def scheme(self) -> str:
        return urlsplit(self.url.get_secret_value()).scheme.lower()

    @property
    def is_playlist(self) -> bool:
        """Whose files are opened one by one, each host by its name."""
        return is_playlist(self.url.get_secret_value())

    @property
    def speaks_tls(self) -> bool:
        return self.scheme in ("rtsps", "https")

    @property
    def host(self) -> tuple[str, int]:
        """Name or address, and port."""
        parts = urlsplit(self.url.get_secret_value())
        return parts.hostname or "", parts.port or _PORTS.get(self.scheme, 0)

    @property
    def shown_url(self) -> str:
        """Without all that may be a secret."""
        parts = urlsplit(self.url.get_secret_value())
        query = "&".join(
            f"{name}={value if name.lower() in _SHOWN else '***'}"
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        )
        return urlunsplit(parts._replace(query=query, fragment=""))

    @property
    def has_credentials(self) -> bool:
        return bool(self.username.get_secret_value() or self.password.get_secret_value())

    def address_at(self, address: str) -> str:
        """The whole URL with secrets, of the host's `address`.

        A web server with TLS is asked by its name, by which it chooses the certificate; that tells it from any other.
        """
        parts = urlsplit(self.url.get_secret_value())
        host, port = self.host
        at = host if self.scheme == "https" and self.verify else address
        user, password = (quote(one.get_secret_value(), safe="") for one in (self.username, self.password))
        login = f"{user}:{password}@" if self.has_credentials else ""
        return urlunsplit(parts._replace(netloc=f"{login}{f'[{at}]' if ':' in at else at}:{port}", fragment=""))

    def file_in(self, folder: Path | None) -> Path:
        """The file that is meant. Raises SourceNotAllowed for one that is not in `folder`."""
        path = unquote(urlsplit(self.url.get_secret_value()).path)
        if folder is None:
            raise SourceNotAllowed("files may not be cameras here; LIVE_FILES_DIR names a folder whose files may")
        root = folder.resolve()
        found = (root / path).resolve()
        if not found.is_relative_to(root):
            raise SourceNotAllowed("the file is not in LIVE_FILES_DIR")
        return found


def camera_config(given: Any) -> CameraConfig:
    """Raises BadCamera, which names the field and quotes nothing."""
    try:
        config = CameraConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise BadCamera(f"{where}: {what}" if where else what) from None
    if not config.id:
        word = re.sub(r"[^a-z0-9]+", "-", config.name.lower()).strip("-")[:24] or "camera"
        config = config.model_copy(update={"id": f"{word}-{secrets.token_hex(2)}"})
    return config


def patched(config: CameraConfig, patch: Any) -> CameraConfig:
    """`config` with a merge patch (RFC 7396) upon it: null is the default again, what is left out stays.

    Raises BadCamera.
    """
    if not isinstance(patch, dict):
        raise BadCamera("the patch is a JSON object")
    if patch.get("id", config.id) != config.id:
        raise BadCamera("id: cannot be changed; add another camera")
    if "size" in patch:
        patch = {("width" if name == "size" else name): value for name, value in patch.items()}
    given = {name: getattr(config, name) for name in config.model_fields_set | {"id"}}
    given = {name: one.get_secret_value() if isinstance(one, SecretStr) else one for name, one in given.items()}
    if isinstance(patch.get("url"), str):
        # A password is of the host that it was given for.
        try:
            other = urlsplit(patch["url"].strip()).hostname != config.host[0]
        except ValueError:
            other = True
        if other:
            given.pop("username", None), given.pop("password", None)
    merged = {**given, **patch}
    return camera_config({name: value for name, value in merged.items() if value is not None or name == "url"})
