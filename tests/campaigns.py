"""A campaign's state as if people had worked."""

from slicecast.campaign.events import GENESIS, Draft, Kind, chain
from slicecast.campaign.state import fold


def played(cases: int = 6, *, slices: int = 10, second: bool = True):
    """Two people, `cases` cases, each compared with the model's first answer; the first one read twice."""
    events, number, digest = [], 0, GENESIS

    def add(when_s, *drafts):
        nonlocal number, digest
        new = chain(drafts, number=number, previous=digest, when_s=when_s)
        events.extend(new)
        number, digest = new[-1].number, new[-1].digest

    for n in range(cases):
        name, who, start = f"case-{n}", "ann" if n % 3 else "bob", 1000.0 * n
        add(start, Draft(Kind.ADDED, name, "server"))
        add(start, Draft(Kind.LEASED, name, who, {"until": start + 900}))
        add(start + 50, Draft(Kind.PREDICTED, name, who, {"mean_confidence": 0.5, "model": "sam2"}))
        add(start + 90, Draft(Kind.SUBMITTED, name, who, {"tag": "final", "sha256": "ab", "version": 1}))
        near = [(k, 0.95 - 0.08 * k) for k in range(slices)]  # the further from the prompt, the worse
        signs = [[0.6, 1.0, 0.7, 0.9, 1.0, k, 0.8, iou] for k, iou in near]
        result = {"dice": 0.5 + 0.05 * n, "nsd": 0.9, "hd95_mm": 2.5, "tolerance_mm": 2.0}
        add(
            start + 91,
            Draft(
                Kind.COMPARED,
                name,
                "server",
                {"against": "draft", "who": who, **result, "signs": signs, "model_hash": "w:1"},
            ),
        )
    if second:
        add(1e5, Draft(Kind.SUBMITTED, "case-0", "cid", {"task": "second", "tag": "second-cid"}))
        result = {"dice": 0.93, "nsd": 0.97, "hd95_mm": 1.5, "tolerance_mm": 2.0}
        add(1e5, Draft(Kind.COMPARED, "case-0", "server", {"against": "second", "who": "cid", **result}))
        add(1e5 + 1, Draft(Kind.REJECTED, "case-1", "rita", {"why": "=hole()"}))
    return fold(events)
