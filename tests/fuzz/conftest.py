"""A server in this process, a golden click, and a way to try out what nobody would think of."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from labelserver import ROOT, TestClient, serving, write_studies

REPORT = ROOT / "build" / "fuzz.txt"
GOLDEN = {"foreground": [[12, 10, 8]], "result_extension": ".nrrd"}
EXPECTED = (501, 502, 503, 504)
"""Server errors with a sentence: the PACS is away, the queue is full."""


@dataclass
class Fuzzed:
    """A server that has to stay well, whatever it is sent.

    Args:
        client: of the server.
        studies: its folder.
        golden: the mask of a click, before anything odd has happened.
    """

    client: TestClient
    studies: Path
    golden: bytes = b""

    def click(self) -> bytes:
        """Segment the image `first`, which nothing else touches."""
        query = {"image": "first", "output": "image"}
        answer = self.client.post("/infer/sam2_single", params=query, data={"params": json.dumps(GOLDEN)})
        assert answer.status_code == 200, answer.text
        return answer.content

    def require_well(self) -> None:
        """The server lives, and the golden click gives the same mask."""
        assert self.client.get("/healthz").status_code == 200
        assert self.click() == self.golden

    def require_no_accident(self, answer: Any) -> None:
        """What was sent may be refused, but not be an internal error."""
        assert answer.status_code < 500 or answer.status_code in EXPECTED, (answer.url, answer.text[:2000])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    """A server on two images; `first` is for the golden click, `second` for everybody."""
    folder = tmp_path_factory.mktemp("fuzz")
    studies = write_studies(folder / "studies")
    with serving(folder / "app", studies, {"labels": "spleen,liver"}) as client:
        fuzzed = Fuzzed(client, studies)
        fuzzed.golden = fuzzed.click()
        yield fuzzed
        fuzzed.require_well()
        assert client.get("/datastore/?output=all").status_code == 200


def few(number: int, *, random: bool = False) -> Any:
    """Settings for so many examples: the same in every run, or random ones."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=not random,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> Callable[[float], float]:
    """Give a part's share of the time for fuzzing."""
    return lambda share: share * float(request.config.getoption("--fuzz-s"))


def try_out(act: Callable[..., None], *, examples: int, seconds: float | None = None, **made: st.SearchStrategy) -> int:
    """Call `act` with so many made-up arguments; given seconds, with random ones, again and again, while these last.

    Returns:
        How often it was called.
    """
    end, count = time.monotonic() + (seconds or 0.0), 0

    def counted(**arguments: Any) -> None:
        nonlocal count
        if seconds is None or time.monotonic() < end:
            count += 1
            act(**arguments)

    once = given(**made)(few(examples, random=seconds is not None)(counted))
    once()
    while time.monotonic() < end:
        once()
    return count


@pytest.fixture
def trying() -> Callable[..., int]:
    """Return `try_out`."""
    return try_out


@pytest.fixture
def report() -> Callable[[str, int, float], None]:
    """Note how many cases were tried in how many seconds."""

    def note(what: str, cases: int, since_s: float) -> None:
        REPORT.parent.mkdir(exist_ok=True)
        with REPORT.open("a", encoding="utf-8") as stream:
            stream.write(f"{what}: {cases} cases in {time.monotonic() - since_s:.0f} s\n")

    return note
