"""docs/settings.md is what the code says."""

from simprompt.cli.settings import PAGE, page


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make settings`"
