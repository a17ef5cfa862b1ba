"""The settings: every key has a default, later sources win, and every fault is named with its place and mend."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.core.errors import SettingsError
from dicom_node.core.priority import Priority
from dicom_node.settings import ARRAYS, Peer, settings_reference
from dicom_node.settings_file import lines_of
from dicom_node.settings_loading import load_settings

PACS = """
[[peers]]
name = "pacs"
ae_title = "ORTHANC"
host = "10.0.0.5"
port = 4242
results = true
"""

ROUTE = """
[[routes]]
name = "lung nodules on chest CT"
algorithm = "lung_nodule"
when = 'Modality == "CT" and not derived'
"""


@pytest.fixture
def load(tmp_path):
    """Loads settings from a text, an environment and options."""

    def load_text(text="", environment=None, **options):
        path = tmp_path / "node.toml"
        path.write_text(text, encoding="utf-8")
        overrides = {name.replace("__", "."): value for name, value in options.items()}
        return load_settings(path, environment or {}, overrides)

    return load_text


@pytest.fixture
def faults(load):
    """The lines of what is said of settings that cannot be used."""

    def faults_of(*arguments, **options):
        with pytest.raises(SettingsError) as refused:
            load(*arguments, **options)
        head, *rows = str(refused.value).splitlines()
        assert "cannot be used" in head
        return [row.strip() for row in rows]

    return faults_of


def test_every_key_has_a_default(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    settings = load_settings(None, {})
    assert (settings.node.ae_title, settings.node.port, settings.web.port) == ("TRIAGE", 11112, 8080)
    assert settings.node.data_dir == Path("/home/someone/.local/share/dicom-node")
    assert settings.peers == ()
    (route,) = settings.routes
    assert (route.name, route.algorithm) == ("lung nodules on chest CT", "lung_nodule")
    assert route.when.text == 'Modality == "CT" and SliceThickness <= 5 and not derived'


def test_settings_cannot_be_changed(load):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().node.port = 1


def test_a_file_sets_what_it_names_and_leaves_the_rest(load):
    settings = load(
        '[node]\nae_title = "T2"\ndata_dir = "/data"\n[completeness]\nquiet_seconds_when_whole = 3\n'
        '[admission]\ncalling_ae_titles = ["CT1", "PACS"]\n' + PACS + ROUTE + 'send_to = ["pacs"]\npriority = "HIGH"\n'
    )
    assert (settings.node.ae_title, settings.node.data_dir, settings.node.port) == ("T2", Path("/data"), 11112)
    assert settings.completeness.quiet_seconds_when_whole == 3.0
    assert isinstance(settings.completeness.quiet_seconds_when_whole, float)
    assert settings.admission.calling_ae_titles == ("CT1", "PACS")
    assert settings.peers == (Peer(name="pacs", ae_title="ORTHANC", host="10.0.0.5", port=4242, results=True),)
    (route,) = settings.routes
    assert (route.send_to, route.priority) == (("pacs",), Priority.HIGH)
    assert route.when.matches({"Modality": "CT"})


def test_the_example_that_users_are_given_can_be_used(load):
    settings = load(
        '[index]\nurl = "postgresql+psycopg://node@db/triage"\n[broker]\nurl = "redis://queue:6379/0"\n' + PACS + ROUTE
    )
    assert settings.index.url == "postgresql+psycopg://node@db/triage"
    assert settings.broker.url == "redis://queue:6379/0"


def test_urls_may_hold_passwords_and_are_not_shown(load):
    text = repr(load('[index]\nurl = "postgresql://node:hidden@db"\n[broker]\nurl = "redis://:hidden@q"\n'))
    assert "hidden" not in text


def test_the_environment_wins_over_the_file_and_options_over_both(load):
    text = "[node]\nport = 1\n[web]\nport = 1\n[queue]\nmaximum_attempts = 1\n"
    environment = {"DICOM_NODE_NODE__PORT": "2", "DICOM_NODE_WEB__PORT": "2", "PATH": "/bin"}
    settings = load(text, environment, node__port=3, node__host=None)
    assert (settings.node.port, settings.web.port, settings.queue.maximum_attempts) == (3, 2, 1)


@pytest.mark.parametrize(
    ("variable", "value", "section", "key", "expected"),
    [
        ("DICOM_NODE_NODE__AE_TITLE", "12", "node", "ae_title", "12"),
        ("DICOM_NODE_DELIVERY__TIMEOUT_SECONDS", "1.5", "delivery", "timeout_seconds", 1.5),
        ("DICOM_NODE_ADMISSION__CALLED_AE_TITLE_MUST_MATCH", "false", "admission", "called_ae_title_must_match", False),
        ("DICOM_NODE_WORKER__QUEUES", "stat, urgent", "worker", "queues", ("stat", "urgent")),
        ("DICOM_NODE_WORKER__QUEUES", '["stat"]', "worker", "queues", ("stat",)),
        ("DICOM_NODE_ADMISSION__CALLING_AE_TITLES", "", "admission", "calling_ae_titles", ()),
        ("DICOM_NODE_WORKER__BUNDLE_DIRS", "/a,/b", "worker", "bundle_dirs", (Path("/a"), Path("/b"))),
    ],
)
def test_text_from_the_environment_becomes_what_the_key_holds(load, variable, value, section, key, expected):
    assert getattr(getattr(load("", {variable: value}), section), key) == expected


def test_peers_may_come_from_the_environment_as_a_toml_list(load):
    settings = load(PACS, {"DICOM_NODE_PEERS": '[{name = "b", ae_title = "B", host = "h", port = 104}]'})
    assert settings.peers == (Peer(name="b", ae_title="B", host="h", port=104),)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_no_setting(load):
    assert load("", {"DICOM_NODE_PORT": "tcp://10.0.0.1:11112", "DICOM_NODE_SERVICE_HOST": "10.0.0.1"})


def test_all_faults_are_named_at_once_in_the_order_of_the_file(faults):
    text = """# our node
[node]
ae_title = "MORE THAN SIXTEEN"
prt = 11112
port = 70000

[admission]
calling_ae_titles = [
    "CT1",
    'B\\C',
]
called_ae_title_must_match = "yes"

[[peers]]
name = "pacs"
ae_title = "ORTHANC"
host = "10.0.0.5"
port = 4242

[[peers]]
name = "second"
host = ""
port = 0

[[routes]]
name = "lungs"
algorithm = "lung_nodule"
when = '''
Modalty == "CT"'''
orientation = "sagital"

[pears]
"""
    assert faults(text, {"DICOM_NODE_WEB__PORT": "x"}, web__hots="h") == [
        'line 3: [node] ae_title is "MORE THAN SIXTEEN"; an AE title is 1 to 16 ASCII characters without backslash',
        "line 4: [node] prt is no setting; did you mean port?",
        "line 5: [node] port is 70000; it must be from 0 to 65535",
        'line 8: [admission] calling_ae_titles is "B\\C"; an AE title is 1 to 16 ASCII characters without backslash',
        'line 12: [admission] called_ae_title_must_match is "yes"; it must be true or false',
        "line 20: [[peers]] number 2 lacks ae_title, its AE title",
        'line 22: [[peers]] number 2 host is ""; it must not be empty',
        "line 23: [[peers]] number 2 port is 0; it must be from 1 to 65535",
        "line 28: [[routes]] number 1 when cannot be used: column 1: Modalty is no attribute keyword; "
        "did you mean Modality?",
        'line 30: [[routes]] number 1 orientation is "sagital"; it must be one of axial, any',
        "line 32: [pears] is no setting; did you mean peers?",
        'environment DICOM_NODE_WEB__PORT: [web] port is "x"; it must be a whole number',
        "option web.hots: [web] hots is no setting; did you mean host?",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("node = 5", "line 1: [node] is a table of settings, no single value"),
        ("[peers]\nname = 'a'", "line 1: [peers] is an array of tables; write [[peers]]"),
        ("peers = [5]", "line 1: [[peers]] number 1 is a table of settings, no single value"),
        ("[node]\nport = true", "line 2: [node] port is true; it must be a whole number"),
        ("[node]\nport = 1.0", "line 2: [node] port is 1.0; it must be a whole number"),
        ("[node]\nae_title = 5", "line 2: [node] ae_title is 5; it must be a text in quotes"),
        ("[node]\nae_title = '  '", 'line 2: [node] ae_title is "  "; an AE title is'),
        ("[node]\nae_title = 'Ä'", 'line 2: [node] ae_title is "Ä"; an AE title is'),
        ("[node]\ndata_dir = ''", "line 2: [node] data_dir is empty; it must be a folder"),
        ("[worker]\nqueues = 'stat'", 'line 2: [worker] queues is "stat"; it must be a list'),
        ("[worker]\nqueues = []", "line 2: [worker] queues is empty; the worker would have nothing to do"),
        ("[worker]\nqueues = ['now']", 'line 2: [worker] queues is "now"; queues are stat, urgent, routine'),
        ("[worker]\ndevice = 'gpu'", 'line 2: [worker] device is "gpu"; write auto, cpu, cuda or cuda:0'),
        ("[queue]\nlease_seconds = nan", "line 2: [queue] lease_seconds is nan; it must be a number"),
        ("[queue]\nlease_seconds = '9'", 'line 2: [queue] lease_seconds is "9"; it must be a number'),
        ("[delivery]\nfirst_wait_seconds = 1000", "[delivery] maximum_wait_seconds is shorter than first_wait_seconds"),
        ("[queue]\nfirst_wait_seconds = 1000", "[queue] maximum_wait_seconds is shorter than first_wait_seconds"),
        (
            "[completeness]\nquestion_first_wait_seconds = 1000",
            "[completeness] question_maximum_wait_seconds is shorter than question_first_wait_seconds",
        ),
        (
            "[completeness]\nmaximum_waiting_seconds = 10",
            "[completeness] maximum_waiting_seconds is shorter than quiet_seconds_otherwise",
        ),
        (
            "[completeness]\nquiet_seconds_otherwise = 1",
            "line 2: [completeness] quiet_seconds_otherwise is shorter than",
        ),
        (PACS + PACS, 'line 10: [[peers]] number 2 name "pacs" is already the name of number 1'),
        (PACS.replace("pacs", "p" * 65), "a name is one line of at most 64 characters"),
        (ROUTE + ROUTE, "line 8: [[routes]] number 2 name"),
        (
            ROUTE + "send_to = ['pacs']",
            'line 6: [[routes]] number 1 send_to names "pacs", no peer; there are no [[peers]]',
        ),
        (PACS + ROUTE + "send_to = ['pasc']", 'send_to names "pasc", no peer; peers are pacs'),
        (PACS + ROUTE + "send_to = ['pacs', 'pacs']", 'send_to names "pacs" twice'),
        (ROUTE + "priority = 'SOON'", 'priority is "SOON"; it must be one of STAT, HIGH, ROUTINE, MEDIUM, LOW'),
        (ROUTE.replace("Modality", "StationName"), "StationName is not kept by this node"),
        ("zebra = 1", "line 1: [zebra] is no setting; there are node, index,"),
    ],
)
def test_each_fault_is_named_with_its_line_and_mend(faults, text, fault):
    (row,) = faults(text)
    assert fault in row


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("DICOM_NODE_PEARS__X", "1", "[pears] is no setting; did you mean peers?"),
        ("DICOM_NODE_NODE__PROT", "1", "[node] prot is no setting; did you mean port?"),
        ("DICOM_NODE_NODE__PORT", "", '[node] port is ""; it must be a whole number'),
        ("DICOM_NODE_PEERS", "pacs", '[peers] is "pacs"; it must be a TOML list'),
        ("DICOM_NODE_PEERS", "[{name = 'a'}]", "[[peers]] number 1 lacks ae_title, its AE title"),
        ("DICOM_NODE_PEERS__0__PORT", "1", "is no setting; write DICOM_NODE_SECTION__KEY, or a whole TOML list as"),
        ("DICOM_NODE_ADMISSION__CALLING_AE_TITLES", "[1", 'calling_ae_titles is "[1"; it must be a TOML list'),
        ("DICOM_NODE_ADMISSION__CALLED_AE_TITLE_MUST_MATCH", "maybe", "it must be true or false"),
    ],
)
def test_a_fault_of_the_environment_names_its_variable(faults, variable, value, fault):
    rows = faults(PACS, {variable: value})
    assert any(row.startswith(f"environment {variable}: ") and fault in row for row in rows)


def test_who_can_be_asked_is_known_by_every_title_that_it_sends_under(load):
    second = PACS.replace('"pacs"', '"second"').replace("4242", '4243\nquery = true\nsends_as = ["OUT", "ORTHANC"]')
    third = PACS.replace('"pacs"', '"third"').replace("4242", '4244\nquery = true\nsends_as = ["OUT"]')
    settings = load(PACS + second + third)
    assert settings.askable_peers == {"ORTHANC": ("second", "third"), "OUT": ("second", "third")}
    assert load(PACS).askable_peers == {}


def test_a_file_that_is_not_there_or_no_toml_or_no_text_is_named(tmp_path, load):
    with pytest.raises(SettingsError, match=r"absent.toml cannot be read.*--config"):
        load_settings(tmp_path / "absent.toml", {})
    with pytest.raises(SettingsError, match=r"is no TOML: .*line 2"):
        load("[node]\nport = \n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "binary.toml", {})


def test_lines_are_right_beside_comments_and_long_strings():
    text = 'a = """\n[b]\nc = 1\n"""  # [d]\n\n# e = 1\n[b] # first\nc.x = 1\nc.y = [\n 1,\n 2]\n'
    text += "[[d]]\n[[d]]\nz = {q = 1}\n"
    lines = lines_of(text)
    assert {path: line for path, line in lines.items() if path} == {
        ("a",): 1, ("b",): 7, ("b", "c"): 8, ("b", "c", "x"): 8, ("b", "c", "y"): 9, ("b", "c", "y", 0): 9,
        ("b", "c", "y", 1): 9, ("d",): 12, ("d", 0): 12, ("d", 1): 13, ("d", 1, "z"): 14, ("d", 1, "z", "q"): 14,
    }  # fmt: skip


def test_lines_are_right_in_a_file_with_windows_line_ends(tmp_path):
    (tmp_path / "node.toml").write_bytes(b"# ours\r\n[node]\r\n\r\nport = 'x'\r\n")
    with pytest.raises(SettingsError, match=r"line 4: \[node\] port"):
        load_settings(tmp_path / "node.toml", {})


@given(
    st.lists(
        st.sampled_from(["", "# x", "[[peers]]", 'name = "a"', "long = '''\n\n'''", "list = [\n1,\n]"]), max_size=12
    )
)
def test_every_key_is_found_on_a_line_that_names_it(statements):
    rows = []
    for number, statement in enumerate(statements):
        key, _, rest = statement.partition(" ")
        rows.append(f"{key}{number} {rest}" if rest and key != "#" else statement)
    text = "\n".join(rows)
    for path, line in lines_of(text).items():
        if path and isinstance(path[-1], str):
            assert path[-1] in text.split("\n")[line - 1]


def test_the_reference_names_every_setting_once_with_a_meaning():
    rows = settings_reference()
    places = [(row.section, row.key) for row in rows]
    assert len(set(places)) == len(places)
    assert {"node", "peers", "routes"} <= {row.section for row in rows}
    assert all(row.meaning for row in rows)


def test_the_defaults_of_the_reference_are_the_defaults(load):
    """A file that writes out every default means what an empty one means."""
    sections: dict[str, list[str]] = {}
    for row in settings_reference():
        if row.section not in ARRAYS:
            sections.setdefault(row.section, []).append(f"{row.key} = {row.default}")
    text = "\n".join(line for section, rows in sections.items() for line in [f"[{section}]", *rows])
    assert load(text) == load("")


def peers_text(**instead: str) -> str:
    """Peers by name, each with the name of the one instead of it."""
    entry = '[[peers]]\nname = "{}"\nae_title = "A"\nhost = "h"\nport = 104\ninstead = "{}"\n'
    return "".join(entry.format(name, other) for name, other in instead.items())


def test_a_peer_may_name_another_one_instead(load):
    first, _, last = load(peers_text(a="b", b="c", c="")).peers
    assert (first.instead, last.instead, first.commitment) == ("b", "", False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (peers_text(a="b"), r'line 6: \[\[peers\]\] number 1 instead names "b", no peer; other peers are none'),
        (peers_text(a="a"), "instead leads back to itself: a -> a"),
        (peers_text(a="b", b="c", c="a"), "instead leads back to itself: a -> b -> c -> a"),
        ("[delivery]\ncommitment_timeout_seconds = 4000", "is shorter than commitment_timeout_seconds"),
    ],
)
def test_an_alternative_that_is_none_and_waits_that_shrink_are_named(load, text, words):
    with pytest.raises(SettingsError, match=words):
        load(text)
