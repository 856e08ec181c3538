"""Notes on the files and folders that a search for images leaves out."""

from tlfast.data.left_out import LINK, LeftOut


def test_long_lists_are_shortened():
    left_out = LeftOut()
    for number in range(7):
        for _ in range(9 - number):
            left_out.add_file(f"notes.{number}")
        left_out.add_folder(LINK, f"photos/link{number}")
    assert left_out.describe("photos/") == [
        "42 files are not images and are left out: 9 .0, 8 .1, 7 .2, 6 .3, 5 .4 and 2 other suffixes",
        "links to folders are not followed: link0, link1, link2, link3, link4 and 2 more",
    ]


def test_nothing_left_out_gives_no_note():
    left_out = LeftOut()
    left_out.add_file(".DS_Store")
    assert left_out.describe() == []
