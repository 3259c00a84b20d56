"""Every Prometheus series of the gateway, declared once."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics import MetricWrapperBase

from gateway.errors import CameraError, GatewayError, every_reason
from touchline import __version__
from touchline.stages import TIMES

_SECONDS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.15,
    0.25,
    0.5,
    0.75,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    10.0,
    12.0,
    15.0,
    30.0,
    60.0,
)

STRIDES = (1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 35, 50)


class Metrics:
    """The series, in a registry of their own so that two gateways in one process do not meet."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.challenges = Counter(
            "touchline_challenges", "Challenges by outcome: answered, or why not.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.in_progress = Gauge(
            "touchline_challenges_in_progress", "Challenges being worked on.", registry=self.registry
        )
        self.predictions = Counter(
            "touchline_predictions", "Requests of POST /predict by outcome: answered, or why not.", ["outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.prediction_seconds = Histogram(
            "touchline_prediction_seconds", "From an answered request of POST /predict to its answer.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.prediction_pictures = Histogram(
            "touchline_prediction_pictures", "Pictures of an answered request of POST /predict.",
            buckets=(1, 2, 3, 4, 8, 16, 32, 64, 128, 256), registry=self.registry,
        )  # fmt: skip
        self.queued = Gauge(
            "touchline_challenges_queued", "Challenges that wait for a place, see QUEUE_S.", registry=self.registry
        )
        self.queue_seconds = Histogram(
            "touchline_queue_seconds", "How long a challenge waited for its place.",
            buckets=(0.001, *_SECONDS), registry=self.registry,
        )  # fmt: skip
        self.reused = Counter(
            "touchline_answers_reused", "Challenges whose video was being answered already, or had just been.",
            registry=self.registry,
        )  # fmt: skip
        self.limit = Gauge("touchline_challenges_limit", "Challenges taken at once.", registry=self.registry)
        self.gpus = Gauge("touchline_gpus", "GPUs that are to serve, see GPUS; 0 on a CPU.", registry=self.registry)
        self.score = Gauge(
            "touchline_score", "What a validator's public rules give the last answer that was scored, 0 to 1, by part.",
            ["part"], registry=self.registry,
        )  # fmt: skip
        self.last_answer = Gauge(
            "touchline_last_answer_timestamp_seconds", "When a challenge was last answered; 0 before the first.",
            registry=self.registry,
        )  # fmt: skip
        self.slot_wait_seconds = Histogram(
            "touchline_slot_wait_seconds", "How long decoding waited for a free slot.",
            buckets=(0.001, 0.0025, *_SECONDS), registry=self.registry,
        )  # fmt: skip
        self.stage_seconds = Histogram(
            "touchline_stage_seconds", "Time of the stages of an answered challenge; they overlap.", ["stage"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.frames = Counter(
            "touchline_frames", "Frames decoded, and frames inferred.", ["kind"],
            registry=self.registry,
        )  # fmt: skip
        self.stride = Histogram(
            "touchline_stride", "Every n-th frame was inferred: planned before the first frame, and what came of it.",
            ["kind"], buckets=STRIDES, registry=self.registry,
        )  # fmt: skip
        self.model_seconds = Gauge(
            "touchline_model_frame_seconds", "Engine time of a frame, as the last challenge found it.", ["model"],
            registry=self.registry,
        )  # fmt: skip
        self.nvdec_failures = Counter(
            "touchline_nvdec_failures", "Videos that NVDEC began and gave up, so that the CPU decoded them.",
            registry=self.registry,
        )  # fmt: skip
        self.slots_free = Gauge(
            "touchline_slots_free", "Slots of shared memory that no challenge holds.", registry=self.registry
        )
        self.slots = Gauge("touchline_slots", "Slots of shared memory.", registry=self.registry)
        self.inference_ready = Gauge(
            "touchline_inference_ready", "1 while at least one Triton and its models are ready.", registry=self.registry
        )
        self.triton_ready = Gauge(
            "touchline_triton_ready", "1 while requests go to this Triton of TRITON_URLS.", ["triton"],
            registry=self.registry,
        )  # fmt: skip
        self.triton_frames = Gauge(
            "touchline_triton_frames_in_flight", "Frames of the requests under way at this Triton.", ["triton"],
            registry=self.registry,
        )  # fmt: skip
        self.triton_retries = Counter(
            "touchline_triton_retries", "Requests of this Triton that another one was asked again.", ["triton"],
            registry=self.registry,
        )  # fmt: skip
        self.nonces_ready = Gauge(
            "touchline_nonces_ready", "1 while it can be said whether a nonce was used before.", registry=self.registry
        )
        self.metagraph_age = Gauge(
            "touchline_metagraph_age_seconds", "Time since the nodes were read from the chain or the file.",
            registry=self.registry,
        )  # fmt: skip
        self.metagraph_interval = Gauge(
            "touchline_metagraph_refresh_interval_seconds", "How often the nodes are read from the chain; 0: never.",
            registry=self.registry,
        )  # fmt: skip
        self.registered = Gauge(
            "touchline_registered", "1 while the own hotkey is among the nodes.", registry=self.registry
        )
        self.incentive = Gauge("touchline_incentive", "Incentive of the own hotkey, 0 to 1.", registry=self.registry)
        self.budget = Gauge(
            "touchline_challenge_budget_seconds", "CHALLENGE_BUDGET_S; of auto, the latest.", registry=self.registry
        )
        self.metagraph_nodes = Gauge("touchline_metagraph_nodes", "Nodes known.", registry=self.registry)
        self.models = Gauge(
            "touchline_model_info", "Models in use, always 1.", ["model", "version"], registry=self.registry
        )
        self.viewers = ViewerMetrics(self.registry)
        self.live_frames = Counter(
            "touchline_live_frames", "Frames of cameras: received, inferred, or dropped and why.", ["camera", "kind"],
            registry=self.registry,
        )  # fmt: skip
        self.live_connections = Counter(
            "touchline_live_connections", "Connections to cameras: live, or why they failed or ended.",
            ["camera", "outcome"], registry=self.registry,
        )  # fmt: skip
        self.live_cameras = Gauge("touchline_live_cameras", "Cameras by state.", ["state"], registry=self.registry)
        self.live_last_frame = Gauge(
            "touchline_live_last_frame_timestamp_seconds", "When a frame last came; before the first: when added.",
            ["camera"], registry=self.registry,
        )  # fmt: skip
        self.live_still = Gauge(
            "touchline_live_still_seconds", "For how long the picture has not changed; 0 while it does.", ["camera"],
            registry=self.registry,
        )  # fmt: skip
        self.live_behind = Gauge(
            "touchline_live_behind", "1 while the engine infers fewer frames than it should.", ["camera"],
            registry=self.registry,
        )  # fmt: skip
        self.live_delay = Histogram(
            "touchline_live_delay_seconds", "From a frame's arrival until viewers can have it.", ["camera"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.live_stage_seconds = Histogram(
            "touchline_live_stage_seconds", "Time of a frame's stages in a round of cameras.", ["stage"],
            buckets=(0.001, 0.0025, *_SECONDS), registry=self.registry,
        )  # fmt: skip
        self.live_batch = Histogram(
            "touchline_live_batch_frames", "Frames in a round of cameras.", buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
            registry=self.registry,
        )  # fmt: skip
        self.build = Info("touchline_build", "This build.", registry=self.registry)
        self.build.info({"version": __version__})
        self._name_labels()

    def _name_labels(self) -> None:
        """Series that are counted from 0, so that a rate sees the first one."""
        for stage in TIMES:
            self.stage_seconds.labels(stage)
        others = every_reason(CameraError)
        for outcome in ("answered", "client_gone", *(one for one in every_reason(GatewayError) if one not in others)):
            self.challenges.labels(outcome)
            self.predictions.labels(outcome)
        for kind in ("decoded", "inferred"):
            self.frames.labels(kind)
        for kind in ("planned", "actual"):
            self.stride.labels(kind)


class ViewerMetrics:
    """Who watches cameras, and what they are sent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.watching = Gauge(
            "touchline_live_viewers", "Viewers of cameras now.", ["kind"], registry=registry
        )  # fmt: skip
        self.sent = Counter(
            "touchline_live_pictures_sent", "Frames of cameras that were sent to viewers, with a picture or without.",
            ["kind"], registry=registry,
        )  # fmt: skip
        self.skipped = Counter(
            "touchline_live_pictures_skipped", "Frames that a viewer did not get: it is slow, or asked for fewer.",
            ["kind", "reason"], registry=registry,
        )  # fmt: skip
        self.sent_bytes = Counter(
            "touchline_live_sent_bytes", "Bytes of frames that were sent to viewers.", ["kind"], registry=registry
        )
        self.encodes = Counter(
            "touchline_live_encodes", "Pictures compressed for viewers, each for all that want the same.",
            registry=registry,
        )  # fmt: skip
        for kind in ("websocket", "mjpeg", "picture"):
            self.sent.labels(kind)
            self.sent_bytes.labels(kind)
        for kind in ("websocket", "mjpeg"):
            self.watching.labels(kind)
            for reason in ("slow", "rate"):
                self.skipped.labels(kind, reason)


def value_of(metric: MetricWrapperBase) -> float:
    """What a series without labels says now."""
    return next(iter(metric.collect())).samples[0].value
