"""What can go wrong with a challenge, and the HTTP answer to it."""

from __future__ import annotations

from typing import ClassVar


class GatewayError(Exception):
    """Base of all errors that a caller is told about; the message names the input and the remedy."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    retry_after_s: int | None = None


def every_reason(kind: type[GatewayError]) -> list[str]:
    """The reasons of `kind` and of all errors derived from it."""
    return [kind.reason, *(reason for derived in kind.__subclasses__() for reason in every_reason(derived))]


class BadRequest(GatewayError):
    status, reason = 400, "bad_request"


class BadChallenge(GatewayError):
    status, reason = 422, "bad_challenge"


class UnknownKey(GatewayError):
    """Of the encrypted variant: the key is not known, or not any more. 400 as with the subnet's own miner."""

    status, reason = 400, "unknown_key"


class RequestTimedOut(GatewayError):
    """The body did not come."""

    status, reason = 408, "request_timed_out"


class Unauthorized(GatewayError):
    status, reason = 401, "unauthorized"


class Forbidden(GatewayError):
    status, reason = 403, "forbidden"


class Busy(GatewayError):
    status, reason, retry_after_s = 503, "busy", 5


class NoncesUnavailable(GatewayError):
    status, reason, retry_after_s = 503, "nonces_unavailable", 5


class DownloadFailed(GatewayError):
    status, reason = 502, "download_failed"


class HostRefused(GatewayError):
    """The video's host is not on the public internet."""

    status, reason = 422, "host_refused"


class StorageFull(GatewayError):
    """This host has no room for the video."""

    status, reason, retry_after_s = 507, "storage_full", 30


class DownloadTimedOut(GatewayError):
    status, reason = 504, "download_timed_out"


class BadVideo(GatewayError):
    status, reason = 422, "bad_video"


class CameraError(GatewayError):
    """Said on the operator's port, of no challenge."""

    reason = "camera"


class BadCamera(CameraError):
    status, reason = 422, "bad_camera"


class SourceNotAllowed(CameraError):
    """A camera is not where cameras may be."""

    status, reason = 403, "source_not_allowed"


class UnknownCamera(CameraError):
    status, reason = 404, "unknown_camera"


class CameraExists(CameraError):
    status, reason = 409, "camera_exists"


class NoPicture(CameraError):
    """Of a camera that sends none now."""

    status, reason, retry_after_s = 503, "no_picture", 1


class TooManyViewers(CameraError):
    status, reason, retry_after_s = 503, "too_many_viewers", 5


class TooManyCameras(CameraError):
    status, reason, retry_after_s = 503, "too_many_cameras", 5


class BadPicture(GatewayError):
    status, reason = 422, "bad_picture"


class InferenceUnavailable(GatewayError):
    status, reason, retry_after_s = 503, "inference_unavailable", 5


class InferenceFailed(GatewayError):
    status, reason = 502, "inference_failed"


class Stopping(GatewayError):
    status, reason, retry_after_s = 503, "stopping", 5


class ChallengeTimedOut(GatewayError):
    status, reason = 504, "challenge_timed_out"


class StartupError(Exception):
    """The gateway cannot start: a setting or a file is wrong."""
