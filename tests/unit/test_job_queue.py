import time

import pytest

from dicom_node.core.errors import QueueUnavailable
from dicom_node.core.priority import QUEUES
from dicom_node.job_queue import VISIBILITY_TIMEOUT_SECONDS, CeleryJobQueue, celery_options
from dicom_node.settings import QueueSettings
from tests.peers import free_port
from tests.populated_index import NOW, Index, queue


def test_both_sides_speak_json_alone_and_look_into_the_most_urgent_queue_first() -> None:
    options = celery_options("redis://queue:6379/0")
    assert (options["task_serializer"], options["accept_content"]) == ("json", ["json"])
    transport = options["broker_transport_options"]
    assert isinstance(transport, dict)
    assert transport["queue_order_strategy"] == "priority"
    assert options["task_default_queue"] == QUEUES[-1]


def test_a_message_is_not_handed_out_twice_while_any_reading_can_last() -> None:
    assert QueueSettings().lease_seconds * 100 < VISIBILITY_TIMEOUT_SECONDS


def test_a_broker_that_is_away_is_told_soon_by_an_error_of_ours() -> None:
    index = Index.open("sqlite://")
    job = queue(index, "a", at=NOW)
    index.close()
    jobs = CeleryJobQueue(f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    with pytest.raises(QueueUnavailable, match="the broker does not answer"):
        jobs.lengths()
    with pytest.raises(QueueUnavailable, match=r"the broker took no message .*; the job waits"):
        jobs.send(job)
    jobs.close()
    assert time.monotonic() - began < 10
