from __future__ import annotations

from tlfast.core.local_paths import hide_paths


def test_paths_are_hidden_in_all_texts_of_a_manifest_and_other_values_stay():
    manifest = {
        "settings": {"data": "/home/me/photos", "weights": "/mnt/w/net.pth", "out": "exports", "epochs": 3},
        "data": {"source": "/home/me/photos", "notes": ["3 images in /home/me/photos/red"], "unreadable": [{"path": "/srv/x.png", "reason": "a/b"}]},
        "weights": {"source": "/mnt/w/net.pth (--weights)", "sha256": "12"},
    }
    assert hide_paths(manifest) == {
        "settings": {"data": "photos", "weights": "net.pth", "out": "exports", "epochs": 3},
        "data": {"source": "photos", "notes": ["3 images in photos/red"], "unreadable": [{"path": "x.png", "reason": "a/b"}]},
        "weights": {"source": "net.pth (--weights)", "sha256": "12"},
    }
    assert hide_paths({"settings": {}, "task_file": "/home/me/birds.py"}) == {"settings": {}, "task_file": "birds.py"}
    assert hide_paths({"settings": {"data": "/photos"}, "note": "1/2"}) == {"settings": {"data": "photos"}, "note": "1/2"}
