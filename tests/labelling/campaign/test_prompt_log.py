"""What is kept of a request."""

from slicecast.labelling.campaign.prompt_log import MAX_PROMPTS, prompts_of


def test_points_by_label_and_the_rest_by_key():
    request = {"model": "sam2", "image": "x", "spleen": [[1, 2, 3]], "background": [], "roi": [1, 2, 3, 4, 5, 6]}
    assert prompts_of({**request, "label_names": ["a"]}) == {"spleen": [[1, 2, 3]], "roi": [1, 2, 3, 4, 5, 6]}


def test_of_many_only_the_number():
    assert prompts_of({"foreground": [[0, 0, n] for n in range(MAX_PROMPTS + 1)], "axis": "axial"}) == {
        "foreground": MAX_PROMPTS + 1,
        "axis": "axial",
    }
