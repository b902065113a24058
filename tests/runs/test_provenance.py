"""Where a result comes from."""

import subprocess

from forgetlib.runs import provenance


def test_figures_do_not_make_a_commit_another(tmp_path, monkeypatch):
    def git(*command):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)

    places = [tmp_path / name for name in ("forgetlib/studies.py", "figures/check.csv")]
    for place in places:
        place.parent.mkdir()
        place.write_text("1")
    monkeypatch.setattr(provenance, "PACKAGE", places[0].parent)
    assert provenance._commit() == ""
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    commit = provenance._commit()
    assert len(commit) >= 7 and not commit.endswith("+")
    places[1].write_text("2")
    assert provenance._commit() == commit
    places[0].write_text("2")
    assert provenance._commit() == commit + "+"
