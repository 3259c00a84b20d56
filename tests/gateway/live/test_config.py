"""What is asked of a camera: passwords taken out of addresses and never shown, errors that name the field alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BadCamera, SourceNotAllowed, StartupError
from gateway.live.cameras import cameras_of
from gateway.live.config import camera_config, patched

SECRET = "p@ss/w:%#?"


def test_user_and_password_of_an_address_become_fields_that_are_written_and_never_shown() -> None:
    config = camera_config({"url": "rtsp://bob:p%40ss%2Fw%3A%25%23%3F@10.0.0.5:8554/ch1", "id": "north"})
    assert config.shown_url == "rtsp://10.0.0.5:8554/ch1"
    assert config.password.get_secret_value() == SECRET
    assert config.address_at("10.0.0.5") == "rtsp://bob:p%40ss%2Fw%3A%25%23%3F@10.0.0.5:8554/ch1"
    assert SECRET not in repr(config) + str(config) and "bob" not in repr(config)


def test_a_password_field_may_hold_any_characters() -> None:
    config = camera_config({"url": "rtsp://10.0.0.5/ch1", "username": "bob", "password": SECRET})
    assert config.address_at("10.0.0.5") == "rtsp://bob:p%40ss%2Fw%3A%25%23%3F@10.0.0.5:554/ch1"


def test_values_of_a_query_are_shown_only_where_they_cannot_be_secrets() -> None:
    url = "rtsp://10.0.0.5/live?channel=2&user=bob&password=s3cret&x=9"
    config = camera_config({"url": url})
    assert config.shown_url == "rtsp://10.0.0.5/live?channel=2&user=***&password=***&x=***"
    assert "s3cret" in config.address_at("10.0.0.5")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": "ftp://canary:canary@host/x"}, "url: is none of"),
        ({"url": "rtsp://"}, "url: is none of"),
        ({"url": "rtsp://bob:canary/x@host/ch1"}, "special characters"),
        ({"url": "rtsp://[canary/ch1"}, "url cannot be read"),
        ({"url": "rtsp://host/a canary"}, "url: has a blank"),
        ({"url": "file:"}, "url: names no file"),
        ({}, "url: Field required"),
        ({"url": "rtsp://h/", "id": "No Canary"}, "id: "),
        ({"url": "rtsp://h/", "models": ["canary"]}, "models.0: "),
        ({"url": "rtsp://h/", "models": []}, "models: "),
        ({"url": "rtsp://h/", "quality": 101}, "quality: "),
        ({"url": "rtsp://h/", "colour": "canary"}, "colour: "),
        ({"url": ["canary"]}, "url: "),
        ("canary", "dictionary"),
    ],
)
def test_wrong_input_is_named_and_not_quoted(given: Any, said: str) -> None:
    with pytest.raises(BadCamera) as refused:
        camera_config(given)
    assert said in str(refused.value)
    assert "canary" not in str(refused.value).lower()


def test_without_an_id_one_is_made_of_the_name_and_chance() -> None:
    first, second = (camera_config({"url": "rtsp://h/", "name": "North Stand, 2"}) for _ in range(2))
    assert first.id.startswith("north-stand-2-") and first.id != second.id


def test_a_patch_keeps_what_it_leaves_out_and_null_is_the_default_again() -> None:
    config = camera_config(
        {"url": "rtsp://10.0.0.5/", "id": "a", "password": "x", "username": "u", "skip": 3, "size": 320}
    )
    named = patched(config, {"name": "North"})
    assert (named.name, named.skip, named.password.get_secret_value(), named.width) == ("North", 3, "x", 320)
    assert patched(named, {"skip": None, "password": None}).skip is None
    assert not patched(named, {"password": None, "username": None}).has_credentials
    with pytest.raises(BadCamera, match="id: cannot be changed"):
        patched(config, {"id": "b"})
    with pytest.raises(BadCamera, match="url: "):
        patched(config, {"url": None})


def test_a_password_is_not_taken_along_to_another_host() -> None:
    config = camera_config({"url": "rtsp://bob:x@10.0.0.5/", "id": "a"})
    assert patched(config, {"url": "rtsp://10.0.0.5/other"}).has_credentials
    assert not patched(config, {"url": "rtsp://10.0.0.6/"}).has_credentials


@pytest.mark.parametrize("url", ["file:../outside.mp4", "file:///etc/passwd", "file:link.mp4", "file:%2e%2e/o.mp4"])
def test_a_file_outside_of_the_folder_is_refused(url: str, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (tmp_path / "outside.mp4").touch()
    (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    with pytest.raises(SourceNotAllowed, match="not in LIVE_FILES_DIR"):
        camera_config({"url": url}).file_in(folder)
    with pytest.raises(SourceNotAllowed, match="LIVE_FILES_DIR names a folder"):
        camera_config({"url": url}).file_in(None)


def test_a_file_in_the_folder_is_found_by_its_name_and_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "a clip.mp4").touch()
    for url in ("file:a%20clip.mp4", f"file://{tmp_path}/a%20clip.mp4"):
        assert camera_config({"url": url}).file_in(tmp_path) == (tmp_path / "a clip.mp4").resolve()


def test_cameras_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text("cameras:\n- {id: north, url: 'rtsp://10.0.0.5/1', skip: 2}\n- url: file:c.mp4\n  loop: true\n")
    first, second = cameras_of(file)
    assert (first.id, first.skip, second.loop) == ("north", 2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cameras: [", "is not YAML, line 1"),
        ("north: rtsp://canary@h/", "has no list `cameras`"),
        ("- url: ftp://canary@h/", "camera 1: url: is none of"),
        ("- {url: 'rtsp://h/', id: A}", "camera 1: id: "),
    ],
)
def test_a_wrong_file_is_named_with_the_place_of_the_mistake(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "cameras.yaml"
    file.write_text(text)
    with pytest.raises(StartupError) as refused:
        cameras_of(file)
    assert f"CAMERAS_FILE {file}" in str(refused.value) and said in str(refused.value)
    assert "canary" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: No such file"):
        cameras_of(tmp_path / "none.yaml")
