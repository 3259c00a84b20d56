"""Reading /metrics."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.scraped import NotScraped, Sample, scraped
from local.validator import served_file

PAGE = """# HELP frames_total Frames.
# TYPE frames_total counter
frames_total{kind="decoded"} 61.0
frames_total{kind="a } b, \\"c\\"",gpu="0"} 1e+06 1700000000000
frames_total_of_another 3
# TYPE nv_inference_count counter
nv_inference_count{model="player",version="1"} 2
ready 1.0
"""


def test_samples_have_their_labels_and_values_and_no_others_name(tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text(PAGE)
    with served_file(tmp_path / "metrics") as url:
        assert scraped(url, "frames_total") == [
            Sample({"kind": "decoded"}, 61),
            Sample({"kind": 'a } b, "c"', "gpu": "0"}, 1e6),
        ]
        # A counter as Triton writes it.
        assert scraped(url, "nv_inference_count") == [Sample({"model": "player", "version": "1"}, 2)]
        assert scraped(url, "ready") == [Sample({}, 1)]
        assert scraped(url, "missing") == []


def test_what_is_no_metrics_page_is_said_with_its_url(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("<!doctype html><html><body>no metrics</body></html>\n")
    with served_file(tmp_path / "page") as url, pytest.raises(NotScraped, match=f"{url} gives no metrics"):
        scraped(url, "ready")
    for url in ("http://127.0.0.1:9/metrics", "http://[::bad/metrics"):
        with pytest.raises(NotScraped, match="gives no metrics"):
            scraped(url, "ready")
