"""Who says what happened in a scene: the rules of gateway/actions.py, or a predictor of the operator's own."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tritonclient.grpc.aio as grpcclient
from tritonclient.utils import InferenceServerException

from gateway.actions import spotted
from gateway.errors import PredictorFailed, StartupError
from gateway.inference.triton import CHANNEL, going_on
from gateway.scene import Scene
from gateway.settings import Settings
from touchline.actions import FRAMES_A_SECOND, RULES, Action

SCENE: Final = "scene"
ACTIONS: Final = "actions"
COLUMNS: Final = 5
"""Of a row of the scene's tensor: x, y in metres, team (0, 1 or -1), keeper, seen."""
LEAST_CONFIDENCE: Final = 0.5
_TRITON: Final = "triton:"

Predictor = Callable[[Scene], Awaitable[list[Action]]]
"""Raises PredictorFailed."""


def predictor_of(settings: Settings) -> Predictor:
    """What ACTIONS_PREDICTOR names. Raises StartupError for a module or function that is not there."""
    name = settings.actions_predictor
    if not name:
        return _by_rules
    if name.startswith(_TRITON):
        model = name.removeprefix(_TRITON)
        return lambda scene: _by_triton(settings.triton_addresses, model, settings.inference_timeout_s, scene)
    return _by_function(name)


async def _by_rules(scene: Scene) -> list[Action]:
    return await asyncio.to_thread(spotted, scene)


def _by_function(name: str) -> Predictor:
    """MODULE:FUNCTION of the working directory or of PYTHONPATH, which runs in a thread of its own."""
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module of somebody else's does when it is loaded
        raise StartupError(
            f"ACTIONS_PREDICTOR={name}: module {module_name} cannot be loaded: {error!r}; it has to lie in the working "
            "directory or on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise StartupError(
            f"ACTIONS_PREDICTOR={name}: {module.__file__} has no plain function {function_name}(scene) that gives "
            "(frame, label) or (frame, label, confidence)"
        )

    async def predict(scene: Scene) -> list[Action]:
        try:
            return checked(await asyncio.to_thread(lambda: list(function(scene))), len(scene.ball))
        except PredictorFailed:
            raise
        except Exception as error:
            raise PredictorFailed(f"{name} failed: {error!r}") from error

    return predict


def checked(answered: Iterable[Any], frames: int) -> list[Action]:
    """Actions of a clip of so many frames, from what somebody else's code answered. Raises PredictorFailed."""
    actions = []
    for item in answered:
        try:
            frame, label, confidence = (*item, 1.0)[:3]
            action = Action(int(frame), str(label), float(confidence))
        except (TypeError, ValueError) as error:
            raise PredictorFailed(f"{item!r} is not (frame, label) or (frame, label, confidence)") from error
        if not 0 <= action.frame < frames:
            raise PredictorFailed(f"{item!r}: the clip has the frames 0 to {frames - 1}")
        if action.label not in RULES:
            raise PredictorFailed(f"{item!r}: there is no label {label}; there are {', '.join(RULES)}")
        if not 0 <= action.confidence <= 1:  # also refuses NaN
            raise PredictorFailed(f"{item!r}: a confidence lies between 0 and 1")
        actions.append(action)
    return sorted(actions)


async def _by_triton(addresses: tuple[str, ...], model: str, timeout_s: float, scene: Scene) -> list[Action]:
    """Ask the first Triton that answers for `actions` FP32 [frames, 15] of `scene` FP32 [frames, people + 1, 5]."""
    tensor = grpcclient.InferInput(SCENE, [len(scene.ball), scene.feet.shape[1] + 1, COLUMNS], "FP32")
    tensor.set_data_from_numpy(scene_tensor(scene))
    failed = "there is no Triton"
    for address in addresses:
        try:
            found = await asyncio.shield(going_on(_answer(address, model, tensor, timeout_s)))
        except InferenceServerException as error:
            failed = f"at {address}: {error}"
            continue
        if found is None or found.shape != (len(scene.ball), len(RULES)):
            shape = None if found is None else list(found.shape)
            raise PredictorFailed(
                f"model {model} at {address} answers {ACTIONS} {shape}, not [{len(scene.ball)}, {len(RULES)}]"
            )
        return peaks(np.asarray(found, np.float64))
    raise PredictorFailed(f"model {model} of ACTIONS_PREDICTOR does not answer: {failed}")


async def _answer(address: str, model: str, tensor: grpcclient.InferInput, timeout_s: float) -> npt.NDArray[Any] | None:
    client = grpcclient.InferenceServerClient(address, channel_args=CHANNEL)
    try:
        return (await client.infer(model, [tensor], client_timeout=timeout_s)).as_numpy(ACTIONS)  # type: ignore[no-any-return]
    finally:
        await client.close()


def scene_tensor(scene: Scene) -> npt.NDArray[np.float32]:
    """float32 [frames, people + 1, 5], the ball first; rows of zeros for who is not seen."""
    places = np.concatenate([scene.ball[:, None], scene.feet], axis=1) / 100
    seen = np.asarray(np.isfinite(places).all(axis=2))
    teams, keepers = np.append(-1.0, scene.teams), np.append(0.0, scene.keepers)
    rows = np.concatenate(
        [places, *(np.broadcast_to(each, seen.shape)[..., None] for each in (teams, keepers, 1.0))], axis=2
    )
    return np.where(seen[..., None], rows, 0.0).astype(np.float32)


def peaks(probabilities: npt.NDArray[np.float64]) -> list[Action]:
    """Of float64 [frames, 15], columns in the order of RULES: the frames that are the likeliest about them.

    Two actions of one label are at least its tolerance apart.
    """
    actions = []
    for column, (label, rule) in zip(probabilities.T, RULES.items(), strict=True):
        left = np.where(np.isfinite(column), column, 0.0)
        reach = max(1, math.floor(rule.tolerance_s * FRAMES_A_SECOND))
        while len(left) and left.max() >= LEAST_CONFIDENCE:
            frame = int(left.argmax())
            actions.append(Action(frame, label, float(min(left[frame], 1.0))))
            left[max(0, frame - reach) : frame + reach + 1] = 0.0
    return sorted(actions)
