"""Which page `serve` serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from initspawn.cli.confinement import PAGE, gateway_config
from initspawn.cli.exits import UsageError
from initspawn.cli.page import aliases_of, page_of
from initspawn.plan import Api, Plan


def plan(*pages: str | None) -> Plan:
    apis = tuple(Api(uid=f"api{number}", api=f"api{number}", page=page) for number, page in enumerate(pages))
    return Plan(user=1000, group=1000, apis=apis)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    place = tmp_path / "site"
    place.mkdir(mode=0o755)
    (place / "index.html").write_text("page")
    (place / "index.html").chmod(0o644)
    return place


def test_none_is_the_test_page() -> None:
    assert page_of(plan(None, None), None, privileged=True) is None


def test_the_one_that_an_api_brings(site: Path) -> None:
    assert page_of(plan(None, str(site)), None, privileged=True) == str(site)
    assert page_of(plan(str(site), str(site)), None, privileged=True) == str(site)


def test_the_option_comes_first(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.parent)
    assert page_of(plan("/a", "/b"), "site", privileged=False) == str(site)


def test_two_are_one_too_many() -> None:
    with pytest.raises(UsageError, match=r"`api0` and `api1` bring different pages.*--page"):
        page_of(plan("/a", "/b"), None, privileged=False)


def test_what_is_no_page(site: Path) -> None:
    with pytest.raises(UsageError, match="is no directory"):
        page_of(plan(), str(site / "index.html"), privileged=False)
    (site / "index.html").unlink()
    with pytest.raises(UsageError, match=r"holds no index\.html"):
        page_of(plan(), str(site), privileged=False)


@pytest.mark.parametrize("name", ["", "index.html"])
def test_as_root_everybody_must_be_able_to_read_it(site: Path, name: str) -> None:
    (site / name).chmod(0o700)
    assert page_of(plan(), str(site), privileged=False) == str(site)
    with pytest.raises(UsageError, match="chmod"):
        page_of(plan(), str(site), privileged=True)


def test_the_gateway_sees_it_read_only() -> None:
    config = gateway_config("/run/x", user=None, open_door=False, page="/srv/my $page")
    sandbox = config["sandboxes"]
    assert {"target": PAGE, "source": "/srv/my $$page", "mode": "ro"} in sandbox["namespace"]["mounts"]
    assert f"--page={PAGE}" in sandbox["commands"]["exec"]["args"]
    without = gateway_config("/run/x", user=None, open_door=False)["sandboxes"]
    assert PAGE not in [mount["target"] for mount in without["namespace"]["mounts"]]


# Further directories.


def test_aliases(site: Path) -> None:
    assert aliases_of([f"/a:{site}", f"/b/c:{site}/."], privileged=True) == [
        ("/a", str(site)), ("/b/c", str(site)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "option",
    ["", "/a", "a:{site}", "/:{site}", "/a/:{site}", "/../a:{site}", "/.a:{site}", "/a b:{site}",
     "/a:{site}/no", "/api:{site}", "/api/x:{site}", "/login:{site}", "/initspawn:{site}",
     "/a:{site}/index.html"],
)  # fmt: skip
def test_what_is_no_alias(site: Path, option: str) -> None:
    with pytest.raises(UsageError, match="--alias"):
        aliases_of([option.format(site=site)], privileged=False)


def test_an_alias_is_given_once_and_must_be_readable(site: Path) -> None:
    with pytest.raises(UsageError, match="taken"):
        aliases_of([f"/a:{site}", f"/a:{site}"], privileged=False)
    site.chmod(0o700)
    with pytest.raises(UsageError, match="chmod"):
        aliases_of([f"/a:{site}"], privileged=True)
