"""The pages in real Chromium: log in, watch, open, scroll, read, send again, withdraw; by pointer and by keyboard.

Each page's picture is kept as NAME.png in `pages-output`, for whoever wants to look.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicom_node.archive.files import Archive
from dicom_node.archive.index import Index
from dicom_node.audit import SEEN, AuditFile, AuditTrail, Happening
from dicom_node.core.access import Role, Scope
from dicom_node.core.lifecycle import StudyState
from dicom_node.credentials import Passwords
from dicom_node.settings import NodeSettings, Peer, Settings, WebSettings
from dicom_node.web.application import build_application
from dicom_node.web.server import WebServer
from tests.populated_index import NOW, claim, instance, objects, populate, queue, study_uid, summary
from tests.read_study import read_study
from tests.waiting import wait_until

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PICTURES = Path(__file__).parents[2] / "pages-output"
PASSWORD = "correct-horse-battery"
#: PS3.5 Section 9.1: 64 characters.
LONGEST_UID = "1.2." + "9" * 60
LENGTHS = {"stat": 0, "urgent": 1, "routine": 3}


class Site:
    """A served node with a busy morning and one study that was really read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = Index.open(f"sqlite:///{folder / 'index.sqlite'}")
        archive = Archive(folder / "archive")
        populate(self.index)
        self.index.studies.add_instance(instance("long", 1, at=NOW, study_instance_uid=LONGEST_UID))
        self.study = read_study(self.index, archive, folder / "series", at=NOW - 500)
        for row in self.index.deliveries.of_study(self.study):
            self.index.deliveries.accepted(row, reason="0x0000 Success", at=NOW - 400)
        for role in Role:
            self.index.users.add(f"an-{role}", role=role, password=Passwords().hash(PASSWORD), at=NOW)
        settings = Settings(
            node=NodeSettings(data_dir=folder),
            peers=(Peer(name="pacs", ae_title="ORTHANC", host="10.0.0.5", port=4242, results=True),),
            web=WebSettings(study_link="https://pacs.example/open?study={study}"),
        )
        audit = AuditTrail([AuditFile(folder / "audit")], source="TRIAGE")
        health = {"receiver": True, "worker": False}
        application = build_application(
            self.index,
            lambda: LENGTHS,
            lambda: health,
            lambda: NOW,
            settings=settings,
            archive=archive,
            audit=audit,
            free_bytes=lambda: 40_000_000_000,
            echo=lambda _name: 0.012,
        )
        self.server = WebServer(application, "127.0.0.1", 0)
        self.server.start()
        self.address = f"http://127.0.0.1:{self.server.port}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("site"))
    yield site
    site.server.stop()
    site.index.close()


@pytest.fixture(scope="module")
def browser(program: Callable[[str], Path]) -> Iterator[Any]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=str(program("chromium")), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, site: Site) -> Iterator[Any]:
    """A window of nobody; it may speak with our server alone, and what a page breaks fails the test."""
    context = browser.new_context(
        base_url=site.address, viewport={"width": 1280, "height": 1000}, timezone_id="Europe/Berlin"
    )
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(site.address) or wrong.append(request.url))
    page.on("console", lambda said: said.type == "error" and "401" not in said.text and wrong.append(said.text))
    yield page
    context.close()
    assert wrong == []


def log_in(page: Any, role: Role = Role.OPERATOR) -> None:
    page.goto("/")
    page.get_by_label("User").fill(f"an-{role}")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Reading worklist").wait_for()


@pytest.fixture
def keep() -> Callable[..., Path]:
    """Keeps a picture of the whole page, and looks whether anything runs over its right side."""

    def take(page: Any, name: str) -> Path:
        PICTURES.mkdir(exist_ok=True)
        path = PICTURES / f"{name}.png"
        page.screenshot(path=str(path), full_page=True)
        wide, seen = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= seen, f"{name} is {wide} wide, the screen {seen}"
        return path

    return take


def faults(page: Any) -> list[str]:
    """What axe-core finds serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def test_log_in_with_a_wrong_and_the_right_password(page: Any, keep: Callable[..., Path]) -> None:
    page.goto("/")
    page.get_by_label("User").fill("an-reader")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("do not go together").wait_for()
    keep(page, "login")
    assert faults(page) == []
    log_in(page, Role.READER)


def test_the_worklist_shows_the_outlined_finding_and_times_in_the_readers_zone(
    page: Any, site: Site, keep: Callable[..., Path]
) -> None:
    log_in(page)
    line = page.locator(f"[data-study='{site.study}']")
    line.get_by_text("2 nodules found").wait_for()
    image = line.locator("img")
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    assert "GMT+1" in line.locator("time").inner_text() or "CET" in line.locator("time").inner_text()
    path = keep(page, "worklist")
    assert faults(page) == []
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == np.array([0x10, 0x16, 0x1D])).all(axis=2).mean() > 0.2, "it is dark"


def test_a_study_that_arrives_appears_and_climbs_without_a_reload(page: Any, site: Site) -> None:
    log_in(page)
    page.get_by_text("Live.").wait_for()
    page.evaluate("window.mark = 1")
    job, study = queue(site.index, "just now", at=NOW), study_uid("just now")
    page.locator(f"[data-study='{study}'].routine").wait_for(timeout=60000)
    site.index.jobs.report(claim(site.index, job, at=NOW), objects("just now"), summary=summary(2), at=NOW)
    page.locator(f"[data-study='{study}'].actionable").wait_for(timeout=60000)
    urgencies = page.locator("[data-study]").evaluate_all(
        "(all, study) => all.map(one => [one.dataset.study === study, one.classList.contains('routine')])", study
    )
    own = next(place for place, (is_it, _) in enumerate(urgencies) if is_it)
    assert not any(is_routine for _, is_routine in urgencies[: own + 1]), "it stands before every routine study"
    assert page.evaluate("window.mark") == 1


def test_the_worklist_is_walked_by_keys(page: Any) -> None:
    log_in(page)
    page.get_by_text("Live.").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    second = page.locator("a.open").nth(1)
    assert second.evaluate("link => link === document.activeElement")
    page.keyboard.press("k")
    where = page.locator("a.open").first.get_attribute("href")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{where}")
    page.go_back()
    page.keyboard.press("/")
    assert page.locator("#number").evaluate("field => field === document.activeElement")


def test_slices_scroll_by_wheel_and_keys_and_findings_are_found(
    page: Any, site: Site, keep: Callable[..., Path]
) -> None:
    log_in(page)
    page.goto(f"/studies/{site.study}")
    page.locator("#where").get_by_text("of 20").wait_for()
    where = page.locator("#where")
    page.get_by_role("button", name="Show finding 1").click()
    assert "finding 1" in where.inner_text()
    at = int(where.inner_text().split()[0])
    page.keyboard.press("ArrowDown")
    assert int(where.inner_text().split()[0]) == at + 1
    page.locator(".picture").hover()
    page.mouse.wheel(0, -100)
    page.wait_for_function(f"document.getElementById('where').textContent.startsWith('{at} of')")
    lung = page.locator("#slice").get_attribute("src")
    page.keyboard.press("2")
    assert page.locator("#slice").get_attribute("src") != lung
    page.keyboard.press("1")
    page.locator("#slice").evaluate("image => image.decode()")
    page.get_by_text("scores depended on").click()
    assert page.get_by_text("without what is outlined").is_visible()
    keep(page, "study")
    assert faults(page) == []


def test_the_report_reads_as_text(page: Any, site: Site, keep: Callable[..., Path]) -> None:
    log_in(page, Role.READER)
    page.goto(f"/studies/{site.study}")
    page.get_by_role("link", name="Report as text").click()
    page.get_by_text("Not for diagnosis").first.wait_for()
    assert "Nodule" in page.locator("main").inner_text()
    keep(page, "report")
    assert faults(page) == []


def test_on_a_phone_nothing_runs_over_the_side(page: Any, site: Site, keep: Callable[..., Path]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    log_in(page)
    keep(page, "worklist on a phone")
    page.goto(f"/studies/{site.study}")
    page.locator("#where").get_by_text("of 20").wait_for()
    keep(page, "study on a phone")
    page.get_by_role("link", name="Report as text").click()
    page.get_by_text("everything that was measured").first.click()
    keep(page, "report on a phone")
    page.goto(f"/studies/{LONGEST_UID}")
    keep(page, "longest UID on a phone")
    page.goto("/overview")
    keep(page, "overview on a phone")


def test_a_failed_study_is_read_again(page: Any, site: Site) -> None:
    log_in(page)
    failed = site.index.studies.rows(limit=500)
    study = next(row.study_instance_uid for row in failed if row.state is StudyState.FAILED)
    page.goto(f"/studies/{study}")
    page.get_by_role("button", name="Read again").click()
    page.get_by_text("asked for again").first.wait_for()
    assert site.index.studies.rows(study)[0].state is StudyState.COMPLETE
    assert site.index.studies.history(study)[-1].actor == "user an-operator"


def test_a_result_is_sent_again_and_withdrawn(page: Any, site: Site, keep: Callable[..., Path]) -> None:
    log_in(page)
    study = study_uid("delivered 1")
    page.goto(f"/studies/{study}")
    page.get_by_role("button", name="Send again").click()
    page.get_by_text("asked to be sent again").first.wait_for()
    assert site.index.studies.rows(study)[0].state is StudyState.REPORTED
    page.get_by_label("Reason, without names").fill("outlined <b>the wrong</b> lung")
    page.get_by_role("button", name="Withdraw").click()
    page.get_by_text("outlined <b>the wrong</b> lung").first.wait_for()
    page.get_by_text("To be told to pacs").wait_for()
    keep(page, "withdrawn")
    assert site.index.studies.rows(study)[0].state is StudyState.WITHDRAWN


def test_a_reader_sees_no_button_that_changes_anything(page: Any, site: Site) -> None:
    log_in(page, Role.READER)
    page.goto(f"/studies/{site.study}")
    assert page.get_by_role("button", name="Withdraw").count() == 0
    assert page.get_by_role("button", name="Read again").count() == 0


def test_the_overview_passes_axe_core(page: Any, keep: Callable[..., Path]) -> None:
    log_in(page)
    page.goto("/overview")
    text = page.locator("main").inner_text()
    for words in ("Not running: worker", study_uid("reading stat"), "silent for"):
        assert words in text
    keep(page, "overview")
    assert faults(page) == []


def test_the_queue_page_tells_what_waits_and_changes_a_priority(
    page: Any, site: Site, keep: Callable[..., Path]
) -> None:
    log_in(page, Role.ADMIN)
    page.goto("/queue")
    page.get_by_role("heading", name="Waiting, in the order of reading").wait_for()
    told = page.locator("svg title").first.text_content()
    assert told.startswith("02/29/2024, 10:20:00 GMT+1: "), "as every other time"
    keep(page, "queue")
    assert faults(page) == []
    page.get_by_role("button", name="C-ECHO to pacs").click()
    page.get_by_text("pacs answered C-ECHO in 12 ms.").wait_for()
    page.get_by_text("12 ms, 0.0 s ago").wait_for()
    select = page.get_by_label("Priority of").last
    study = (select.get_attribute("aria-label") or "").removeprefix("Priority of ")
    select.select_option("STAT")
    page.get_by_role("button", name="Change").last.click()
    # A click does not wait for what it asks of the server.
    wait_until(lambda: site.index.studies.rows(study)[0].priority == "STAT")
    page.wait_for_load_state()
    page.set_viewport_size({"width": 390, "height": 844})
    keep(page, "queue on a phone")


def test_the_rule_tester_says_which_route_takes_it(page: Any, site: Site, keep: Callable[..., Path]) -> None:
    log_in(page, Role.ADMIN)
    page.goto("/rules")
    page.get_by_role("button", name="Test").click()
    page.get_by_text("takes it, priority").wait_for()
    keep(page, "rules")
    assert faults(page) == []
    page.get_by_label("Expression to try").fill('Modality == "MR"')
    page.get_by_role("button", name="Test").click()
    page.get_by_text("No route takes it").wait_for()
    page.get_by_label("Study Instance UID of").fill(site.study)
    page.get_by_role("button", name="Test").click()
    page.get_by_text('not "MR"').first.wait_for()


def test_deliveries_that_say_the_same_are_one_line_that_opens_and_stays_open(
    page: Any, site: Site, keep: Callable[..., Path]
) -> None:
    log_in(page, Role.READER)
    page.goto(f"/studies/{study_uid('reported')}")
    deliveries = page.locator("#deliveries")
    deliveries.get_by_text("2 objects").focus()
    page.keyboard.press("Enter")
    deliveries.locator("details li").nth(1).wait_for()
    page.locator("#history").click()
    page.evaluate("follow()")
    page.wait_for_function("!busy")
    assert deliveries.locator("details[open]").count() == 1
    keep(page, "deliveries")
    assert faults(page) == []


def test_an_admin_makes_a_user_and_a_token_and_takes_them_back_by_keyboard(
    page: Any, site: Site, keep: Callable[..., Path]
) -> None:
    site.index.users.add("from.the.provider@hospital.example", role=Role.READER, password="", at=NOW - 5e6)
    site.index.users.change("from.the.provider@hospital.example", disabled=True, at=NOW - 100)
    site.index.tokens.add("prometheus", scopes=[Scope.METRICS], at=NOW - 5e6)
    site.index.tokens.add("old-viewer", scopes=[Scope.DICOMWEB_READ], at=NOW - 5e6, expires_at=NOW - 60)
    log_in(page, Role.ADMIN)
    page.get_by_role("link", name="Users").click()
    adding = page.locator("form[action='/users/add']")
    adding.get_by_label("Name").fill("dr.new")
    adding.get_by_label("Role").select_option("operator")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    password = page.locator("section.secret code").inner_text()
    assert len(password) == 24
    keep(page, "users, a password shown once")
    assert faults(page) == []
    page.get_by_role("link", name="I have it").click()
    page.wait_for_url("**/users#user-dr.new")
    assert password not in page.content()
    making = page.locator("form[action='/tokens/add']")
    making.get_by_label("Name").fill("viewer")
    making.get_by_label("dicomweb:read").check()
    making.get_by_label("Days").fill("90")
    page.keyboard.press("Enter")
    assert page.locator("section.secret code").inner_text().startswith("dn_")
    page.get_by_role("link", name="I have it").click()
    page.get_by_label("Change dr.new").focus()
    page.keyboard.press("Enter")
    keep(page, "users")
    assert faults(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    keep(page, "users on a phone")
    page.get_by_role("button", name="Disable dr.new").press("Enter")
    page.locator("#user-dr\\.new").get_by_text("disabled").wait_for()
    page.get_by_role("button", name="Withdraw viewer").press("Enter")
    page.wait_for_url("**/users#tokens")
    assert [row.name for row in site.index.tokens.rows()] == ["old-viewer", "prometheus"]


def test_the_audit_trail_is_filtered_and_walked(page: Any, site: Site, keep: Callable[..., Path]) -> None:
    trail = AuditTrail([AuditFile(site.folder / "audit")], source="TRIAGE")
    for number in range(130):
        seen = {"description": "study page", "studies": [study_uid(f"seen {number}")], "address": "10.0.0.17"}
        trail.note(Happening(event=SEEN, at=NOW - 900 + number, user="dr.who", **seen))
    log_in(page, Role.ADMIN)
    page.get_by_role("link", name="Audit").click()
    page.get_by_role("heading", name="Audit trail").wait_for()
    keep(page, "audit")
    assert faults(page) == []
    page.get_by_label("From,").fill("2024-02-29T10:59")
    page.get_by_label("Who:").fill("dr.w")
    page.get_by_label("What was done").select_option("saw a study")
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Show").press("Enter")
    page.wait_for_url("**who=dr.w**")
    assert "from=2024-02-29T09%3A59" in page.url, "typed in the reader's zone, asked for in UTC"
    assert page.get_by_label("From,").input_value() == "2024-02-29T10:59"
    rows = page.locator("tbody tr")
    assert rows.count() == 100
    assert "CET" in rows.first.locator("time").inner_text() or "GMT+1" in rows.first.locator("time").inner_text()
    page.get_by_role("link", name="Earlier").click()
    page.get_by_role("link", name="Newest").wait_for()
    assert rows.count() == 30
    page.set_viewport_size({"width": 390, "height": 844})
    keep(page, "audit on a phone")
