"""Every setting of the gateway, read from the environment and from .env."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from touchline.contract import CLASS_NAMES

FINNEY_NETUID = 44
FASTEST_S = 2.0
"""What the fastest miners of the subnet take."""
QUALITY_FLOOR = 0.94
"""Share of the people that a good answer finds."""
CHALLENGE_TIMEOUT_S = 120.0
"""Validators wait for twice as long."""
PROTOCOLS = ("soccer", "predict", "private")
"""What may be asked, each with a file in gateway/protocol/."""
_DEVICES = Path("/dev")
_NVIDIA_DEVICE = _DEVICES / "nvidiactl"
_OTHER_WORDS = {
    "log_level": {"warn": "warning", "fatal": "critical", "trace": "debug"},
    "device": {"gpu": "cuda"},
}
"""What others call the same choice, by setting."""


def is_loopback(host: str) -> bool:
    """Whether a name or address of this machine is one that only its own users reach."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Settings(BaseSettings):
    """Settings by environment name; names that operators of the subnet already use keep their meaning."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        # An empty value in .env means the default, as `NAME=` does in a shell script.
        env_ignore_empty=True,
        extra="ignore",
        # A threshold or a time of nan or inf compares with nothing as anybody means it.
        allow_inf_nan=False,
        frozen=True,
    )

    host: str = Field("0.0.0.0", description="Address the gateway listens on.")  # noqa: S104  a validator calls from outside
    port: int = Field(7999, ge=0, le=65535, description="Port the gateway listens on.")
    external_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port that `touchline register` announces, where another one leads here. 0: PORT.",
    )
    protocols: str = Field(
        "soccer",
        description="Contracts that are answered, with commas between: soccer (POST /soccer/challenge), predict "
        "(POST /predict), private (POST /challenge).",
    )
    verify_enabled: bool = Field(True, description="POST /challenge answers only what a validator signed.")
    blacklist_enabled: bool = Field(
        True, description="POST /challenge answers only validators with MIN_STAKE_THRESHOLD."
    )
    actions_predictor: str = Field(
        "",
        description="Who says for POST /challenge what happened: MODULE:FUNCTION in Python, or triton:MODEL. Empty: "
        "rules of Touchline.",
    )
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Verbosity of the log."
    )
    log_format: Literal["auto", "text", "json"] = Field(
        "auto", description="auto: text on a terminal, else a JSON object a line."
    )

    netuid: int = Field(FINNEY_NETUID, ge=0, le=65535, description="Subnet: 44, or 261 on the test network.")
    subtensor_network: Literal["finney", "test", "local"] = Field("finney", description="Chain to read the nodes from.")
    subtensor_address: str | None = Field(None, description="Chain endpoint; set, it wins over SUBTENSOR_NETWORK.")
    wallet_path: Path = Field(Path("~/.bittensor/wallets"), description="Folder that holds the wallets.")
    wallet_name: str = Field("default", description="Wallet of this miner.")
    hotkey_name: str = Field("default", description="Hotkey of this miner inside the wallet.")
    min_stake_threshold: float = Field(1000.0, ge=0, description="Least stake of a validator that is answered.")
    refresh_nodes: bool = Field(
        True, description="Read the nodes from the chain every 5 minutes; false: NODES_FILE only."
    )
    load_old_nodes: bool = Field(True, description="Use NODES_FILE at start until the chain has answered.")
    nodes_file: Path = Field(Path("nodes.json"), description="The saved metagraph; used nonces lie beside it.")

    nonce_redis_url: SecretStr = Field(
        SecretStr(""),
        description="Redis for used nonces, redis://HOST:PORT, where several gateways serve one hotkey. Empty: a file.",
    )

    triton_urls: str = Field(
        "127.0.0.1:8001",
        validation_alias=AliasChoices("triton_urls", "triton_url"),
        description="Triton's gRPC address, host:port; several with commas between. TRITON_URL is taken too.",
    )
    triton_shared_memory: Literal["auto", "system", "off"] = Field(
        "auto",
        description="Frames through shared memory: auto tries it, else bytes; system insists; off: bytes.",
    )
    inference_timeout_s: float = Field(30.0, gt=0, description="Longest wait for one reply of Triton.")

    device: Literal["cuda", "cpu", "mps"] = Field(
        default_factory=lambda: "cuda" if _NVIDIA_DEVICE.exists() else "cpu",
        description="What the host has; decides the defaults below and where videos are decoded. Default: detected.",
    )
    gpus: str = Field(
        "0",
        description="GPUs that serve, by their numbers in nvidia-smi with commas between; or all. Decides how many "
        "challenges are taken at once.",
    )
    img_size: int = Field(
        640, description="Width of the model input you expect; the served models decide, and a difference is logged."
    )
    batch_size: int = Field(0, ge=0, description="Frames in a slot. 0: 32 on a GPU, 16 on a CPU.")
    frame_stride: int = Field(
        2, ge=1, le=50, description="At most every n-th frame is inferred, fewer where time asks for it; "
        "the others are interpolated.",
    )  # fmt: skip
    pitch_stride: int = Field(
        0, ge=0, description="The same for the pitch model. 0: FRAME_STRIDE on a GPU, 10 on a CPU."
    )
    video_decoder: Literal["auto", "nvdec", "cpu"] = Field(
        "auto", description="auto: the CPU; with DEVICE=cuda and fewer than 4 cores NVDEC, where there is one."
    )
    prefetch_frames: int = Field(64, ge=1, description="Decoded frames in flight a challenge; bounds shared memory.")
    confidence: float = Field(0.35, ge=0, le=1, description="Least score of a box that starts a track.")
    keypoint_confidence: float = Field(0.5, ge=0, le=1, description="Keypoints below are answered as not seen.")
    track_buffer_size: int = Field(30, ge=0, description="Source frames at 30 fps that a lost track is remembered.")
    enable_torch_compile: bool = Field(False, description="Accepted from old .env files, has no effect.")

    max_concurrent_challenges: int = Field(0, ge=0, description="Challenges at once. 0: 4 a GPU, 2 on a CPU.")
    queue_s: float = Field(
        8.0, ge=0, description="Longest wait for a place when all are taken, the most stake first. 0: none waits."
    )
    challenge_budget_s: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto",
        description="Seconds until the answer: as many frames are inferred as fit. auto: as many as score best.",
    )
    fastest_s: float = Field(
        FASTEST_S, gt=0, lt=15, description="Seconds of the fastest miner, against which auto weighs its own speed."
    )
    quality_floor: float = Field(
        QUALITY_FLOOR,
        ge=0,
        le=1,
        description="Share of the people that auto wants found, where 15 seconds allow it.",
    )
    answer_cache_s: float = Field(120.0, ge=0, description="A video that is asked again so soon is not computed again.")
    challenge_timeout_s: float = Field(
        CHALLENGE_TIMEOUT_S, gt=0, description="A challenge that takes longer is given up with a 504."
    )
    download_timeout_s: float = Field(10.0, gt=0, description="Longest silence of the video's host.")
    video_proxy: SecretStr = Field(
        SecretStr(""),
        description="Proxy for downloads of videos, http(s)://[USER:PASSWORD@]HOST:PORT; no other is ever used.",
    )
    allow_private_video_hosts: bool = Field(
        False, description="Download videos also from this host and its private networks; for tests."
    )
    max_video_mb: int = Field(512, gt=0, description="Larger videos are refused.")
    max_video_frames: int = Field(20_000, gt=0, description="Longer videos are refused.")

    score_challenges: bool = Field(
        True, description="Score each answer by a validator's public rules when no challenge is in progress."
    )
    keep_challenges: int = Field(
        0, ge=0, description="Videos kept on disk with their answers, the last ones, for `touchline replay`."
    )
    keep_challenges_mb: int = Field(1000, gt=0, description="Room for them; the oldest make way.")
    keep_folder: Path = Field(Path("challenges"), description="Where kept challenges lie.")

    predict_token: SecretStr = Field(
        SecretStr(""),
        description="What callers of POST /predict send as `Authorization: Bearer`; only where HOST is this host's own "
        "may it be empty.",
    )
    predict_objects: str = Field(
        ",".join(CLASS_NAMES),
        description="Classes that POST /predict answers, in the order of the element's objects: the first is cls_id 0.",
    )
    max_predict_mb: int = Field(128, gt=0, description="Larger bodies of POST /predict and /challenge are refused.")
    max_picture_mb: int = Field(25, gt=0, description="Larger pictures behind a URL are refused.")

    metrics_host: str = Field(
        "127.0.0.1",
        description="Address of the operator's /metrics, /health and /openapi.json, which want no password.",
    )
    metrics_port: int = Field(7997, ge=0, le=65535, description="Their port. 0: none.")
    console_host: str = Field("127.0.0.1", description="Address of the operator's console; others need CONSOLE_TOKEN.")
    console_port: int = Field(7998, ge=0, le=65535, description="Port of the console. 0: no console.")
    console_token: str = Field("", description="Password of the console, with any user name.")
    console_challenges: int = Field(
        50, ge=1, le=1000, description="Challenges the console keeps, about half a MB each."
    )

    live: bool = Field(False, description="Watch cameras: pages, pictures and boxes at /live on the console's port.")
    cameras_file: Path | None = Field(None, description="YAML file of the cameras at start; docs/live.md has one.")
    live_allowed: str = Field(
        "",
        description="Networks and host names that cameras may be at, with commas between. Empty: all but this machine, "
        "link-local and multicast addresses.",
    )
    live_ca_file: Path | None = Field(
        None,
        description="PEM file of the CAs that sign rtsps:// and https:// cameras' certificates. Empty: public ones.",
    )
    live_files_dir: Path | None = Field(None, description="Folder whose files may be cameras. Empty: none.")
    live_max_cameras: int = Field(16, ge=1, le=256, description="Cameras at once.")
    live_viewers: int = Field(64, ge=1, le=4096, description="Viewers at once, WebSockets and MJPEG together.")
    live_share: float = Field(
        0.25, gt=0, le=0.9, description="Share of the engine that cameras may take while a challenge is answered."
    )
    live_transport: Literal["tcp", "udp"] = Field("tcp", description="How RTSP cameras send, if they do not say.")
    live_timeout_s: float = Field(5.0, gt=0, le=60, description="A camera silent for so long is connected anew.")
    live_stalled_s: float = Field(2.0, gt=0, le=60, description="A camera without a frame for so long is stalled.")
    live_batch_wait_ms: float = Field(
        20.0, ge=0, le=1000, description="Longest wait of a round for frames of further cameras."
    )
    live_max_age_s: float = Field(0.5, gt=0, le=60, description="Frames of cameras that are older are not inferred.")
    live_still_s: float = Field(10.0, gt=0, description="A picture unchanged for so long is told as still.")
    live_reconnect_still_s: float = Field(
        0.0, ge=0, description="A camera whose picture is unchanged for so long is connected anew. 0: never."
    )
    batch_accumulation_size: int = Field(1, ge=1, le=32, description="Newest frames of one camera a round, at most.")
    frame_skip: int = Field(1, ge=1, le=100, description="Every n-th frame of a camera is inferred, at most.")
    frame_jpeg_quality: int = Field(75, ge=1, le=100, description="JPEG quality of pictures for viewers.")
    stream_resize_factor: float = Field(
        1.0, gt=0, le=1, description="Pictures for viewers are made so much smaller, before MAX_STREAM_WIDTH."
    )
    max_stream_width: int = Field(640, ge=16, le=8192, description="Pictures for viewers are at most so wide.")

    @field_validator("*", mode="before")
    @classmethod
    def _as_people_write(cls, value: Any, info: ValidationInfo) -> Any:
        """Blanks around a value mean nothing, and of one that is chosen from a list neither does its case."""
        if not isinstance(value, str) or info.field_name in (None, "console_token"):
            return value
        name, value = str(info.field_name), value.strip()
        field = cls.model_fields[name]
        if any(get_origin(kind) is Literal for kind in (field.annotation, *get_args(field.annotation))):
            value = value.lower()
            value = _OTHER_WORDS.get(name, {}).get(value, value)
        if not value:
            return field.get_default(call_default_factory=True)
        return value

    @field_validator("device", mode="before")
    @classmethod
    def _without_number(cls, device: Any) -> Any:
        """cuda:0, as torch writes it. Which GPUs there are for is Triton's to know, and NVDEC takes the first."""
        return re.sub(r"^\s*cuda:\d+\s*$", "cuda", device, flags=re.IGNORECASE) if isinstance(device, str) else device

    @field_validator("wallet_path", "nodes_file", "keep_folder", "cameras_file", "live_ca_file", "live_files_dir")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        try:
            return path.expanduser() if path else None
        except RuntimeError:  # a user without a home: that no file is there is said by whoever wants one
            return path

    @field_validator("gpus")
    @classmethod
    def _number_gpus(cls, gpus: str) -> str:
        gpus = gpus.replace(" ", "").lower()
        if not re.fullmatch(r"all|\d+(,\d+)*", gpus):
            raise ValueError("is all, or numbers of nvidia-smi with commas between, as 0,1")
        return gpus

    @field_validator("protocols")
    @classmethod
    def _name_protocols(cls, protocols: str) -> str:
        names = _names(protocols.lower())
        unknown = [name for name in names if name not in PROTOCOLS]
        if unknown or not names:
            raise ValueError(f"{unknown[0] if unknown else 'nothing'} is no protocol; there are {', '.join(PROTOCOLS)}")
        return ",".join(names)

    @field_validator("predict_objects")
    @classmethod
    def _name_objects(cls, objects: str) -> str:
        names = _names(objects.lower())
        unknown = [name for name in names if name not in CLASS_NAMES]
        if unknown or not names:
            raise ValueError(f"{unknown[0] if unknown else 'nothing'} is no class; there are {', '.join(CLASS_NAMES)}")
        return ",".join(names)

    @field_validator("actions_predictor")
    @classmethod
    def _name_a_predictor(cls, predictor: str) -> str:
        if predictor and not re.fullmatch(r"[\w.]+:[\w.-]+", predictor):
            raise ValueError("is neither MODULE:FUNCTION nor triton:MODEL")
        return predictor

    @field_validator("triton_urls")
    @classmethod
    def _name_a_triton(cls, urls: str) -> str:
        addresses = _addresses(urls)
        if not addresses:
            raise ValueError("names no Triton; write host:port, several with commas between")
        for address in addresses:
            _check_triton(address)
        return urls

    @field_validator("video_proxy")
    @classmethod
    def _is_proxy(cls, proxy: SecretStr) -> SecretStr:
        url = proxy.get_secret_value()
        if url and not re.fullmatch(r"https?://([^\s/@\"']+@)?(\[[0-9a-fA-F:.]+\]|[^\s/@:\"'\[\]]+)(:\d{1,5})?/?", url):
            raise ValueError("is not http(s)://[USER:PASSWORD@]HOST:PORT; SOCKS is not spoken")
        return proxy

    @property
    def protocol_names(self) -> tuple[str, ...]:
        """PROTOCOLS, each once."""
        return _names(self.protocols)

    @property
    def triton_addresses(self) -> tuple[str, ...]:
        """TRITON_URLS, each address once."""
        return _addresses(self.triton_urls)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def gpu_numbers(self) -> tuple[int, ...]:
        """GPUS as numbers, each once; empty on a CPU, or where there is no device file to count them by."""
        if not self.on_gpu:
            return ()
        if self.gpus == "all":
            found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in _DEVICES.glob("nvidia*"))
            return tuple(sorted(int(name[1]) for name in found if name))
        return tuple(dict.fromkeys(map(int, self.gpus.split(","))))

    @property
    def gpu_count(self) -> int:
        """How many GPUs serve: one at least where there is any."""
        return max(1, len(self.gpu_numbers)) if self.on_gpu else 0

    @property
    def cuda_environment(self) -> dict[str, str]:
        """What tells CUDA to use GPUS, which it then numbers from 0 in that order; NVDEC takes the first."""
        if not self.on_gpu:
            return {}
        chosen = {} if self.gpus == "all" else {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpu_numbers))}
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", **chosen}

    @property
    def slot_frames(self) -> int:
        """Frames in one slot, which is the largest batch sent to Triton."""
        return self.batch_size or (32 if self.on_gpu else 16)

    @property
    def slots_per_challenge(self) -> int:
        """Slots one challenge may hold: one being filled, the others in Triton."""
        return max(2, -(-self.prefetch_frames // self.slot_frames))

    @property
    def effective_pitch_stride(self) -> int:
        """The pitch stride as a multiple of FRAME_STRIDE: the pitch model sees frames the player model sees."""
        wanted = self.pitch_stride or (self.frame_stride if self.on_gpu else 10)
        return max(1, -(-wanted // self.frame_stride)) * self.frame_stride

    @property
    def concurrent_challenges(self) -> int:
        return self.max_concurrent_challenges or (4 * self.gpu_count if self.on_gpu else 2)

    @property
    def concurrent_predictions(self) -> int:
        """Requests of pictures that are looked at at once; one is computed while the next is read and decoded."""
        if "predict" in self.protocol_names:
            return self.concurrent_challenges
        return int("private" in self.protocol_names)  # where a video is the rule

    @property
    def predict_object_names(self) -> tuple[str, ...]:
        """PREDICT_OBJECTS, each once."""
        return _names(self.predict_objects)

    @property
    def on_loopback(self) -> bool:
        """Only this host's own users reach the gateway."""
        return is_loopback(self.host)

    @property
    def console_on_loopback(self) -> bool:
        return is_loopback(self.console_host)

    @property
    def console_open(self) -> bool:
        """There is a console: it has a port, and a token where others could reach it."""
        return self.console_port > 0 and (self.console_on_loopback or bool(self.console_token))

    @property
    def hotkey_file(self) -> Path:
        return self.wallet_path / self.wallet_name / "hotkeys" / self.hotkey_name


def _names(listed: str) -> tuple[str, ...]:
    """What stands between the commas, each once."""
    return tuple(dict.fromkeys(name for part in listed.split(",") if (name := " ".join(part.split()))))


def _addresses(urls: str) -> tuple[str, ...]:
    """Host and port of each, once; what URLs have around them is left out."""
    bare = (re.sub(r"^(http|grpc)://", "", url.strip(), flags=re.IGNORECASE).rstrip("/") for url in urls.split(","))
    return tuple(dict.fromkeys(address for address in bare if address))


def _check_triton(address: str) -> None:
    """Raises ValueError for what gRPC would look for without end."""
    if re.match(r"(unix|dns|ipv4|ipv6):(?!\d+$)", address):
        return  # as gRPC itself writes addresses
    if "://" in address:
        raise ValueError(f"{address} is not host:port; Triton is asked by gRPC without TLS")
    found = re.fullmatch(r"(\[[0-9a-fA-F:.%\w]+\]|[^\s:/\[\]]+)(?::(\d+))?", address)
    if found is None:
        raise ValueError(f"{address} is not host:port; write an IPv6 address between brackets, as [::1]:8001")
    if found[2] is None:
        raise ValueError(f"{address} names no port; Triton's gRPC is at 8001 unless told otherwise: {address}:8001")
    if not 0 < int(found[2]) < 65536:
        raise ValueError(f"{address}: there is no port {found[2]}; Triton's gRPC is at 8001 unless told otherwise")
