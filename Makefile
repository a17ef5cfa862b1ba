# The verbs of this repository. Each sets up .venv from constraints.txt when that is missing or out of date.
#
#   PYTHON=python3.12   the Python that makes .venv, 3.11 or newer
#   STUDY=DIR           demo, bench-infer: that folder's study  KEEP=1  demo: leave the node running
#   CONFIG=FILE         serve, viewer: the settings file
#   TESTS="tests/unit -k routing"  test: only these           PROCESSES=N  test: side by side in so many; 0: in this one
#   DICOMWEB_EXAMPLES=N test: so many bodies that are stored over DICOMweb are made up for each address, 25 otherwise
#   SHAPES=N            test: so many odd shapes are measured and reported beside one of every kind, 5 otherwise
#   ROUNDS=N WORKLOADS=ct,big   bench-receive: how often, and which     SHORT=1  one run of each
#   INSTANCES=N ORTHANC=N       bench-web: rows of our index, and instances in Orthanc
#   SEED=N STUDIES=N FAULTS=N   chaos: which plan, and how large it is     SOAK=SECONDS  chaos, soak: how long it goes on
#   CASES=N             evaluate: so many volumes with nodules, half as many without
#   FUZZ=N              fuzz: how many associations, of about two mutations each   ROWS=N   bench-index: of the full index

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PROCESSES ?= 4
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: help setup demo serve test lint bench bench-evidence bench-index bench-infer bench-receive bench-web viewer chaos fuzz overhead soak \
        throughput evaluate clean

help:  ## list the verbs
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(READY)  ## make .venv, if it is missing or out of date

demo: $(READY)  ## send a chest CT through the whole node and show what comes back
	@$(RUN) -m deploy.demo $(if $(STUDY),--study "$(STUDY)") $(if $(KEEP),--keep)

serve: $(READY)  ## run the node until Ctrl-C
	@exec $(VENV)/bin/dicom-node serve $(if $(CONFIG),--config "$(CONFIG)")

test: $(READY)  ## run every test
	@$(RUN) -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

lint: $(READY)  ## ruff, mypy, import contracts; all of them, even when one fails
	@status=0; \
	$(RUN) -m ruff check . || status=1; \
	$(RUN) -m mypy || status=1; \
	$(VENV)/bin/lint-imports --no-logo || status=1; \
	exit $$status

bench: $(READY)  ## measure the node over ten phantom studies
	@$(RUN) -m deploy.bench

bench-infer: $(READY)  ## measure a reading by stage, beside MONAI's plain sliding window
	@$(RUN) -m deploy.bench_infer $(if $(STUDY),--study "$(STUDY)")

bench-evidence: $(READY)  ## measure how long a report's objects take, beside highdicom's plain way
	@$(RUN) -m deploy.bench_evidence

bench-receive: $(READY)  ## measure the receive path beside DCMTK's storescp and Orthanc
	@$(RUN) -m deploy.bench_receive $(if $(ROUNDS),--rounds "$(ROUNDS)") $(if $(WORKLOADS),--workloads "$(WORKLOADS)") $(if $(SHORT),--short)

bench-index: $(READY)  ## measure C-STORE into an index of 4.5 million instances beside an empty one
	@$(RUN) -m deploy.bench_index $(if $(ROWS),--rows "$(ROWS)")

bench-web: $(READY)  ## measure DICOMweb: searches over INSTANCES rows, and the frames of a series, beside Orthanc
	@$(RUN) -m deploy.bench_web $(if $(INSTANCES),--instances "$(INSTANCES)") $(if $(ORTHANC),--orthanc "$(ORTHANC)")

viewer: $(READY)  ## fetch OHIF once, so that the node serves it at /viewer
	@$(RUN) -m deploy.viewer $(if $(CONFIG),--config "$(CONFIG)")

chaos: $(READY)  ## studies under faults: kill, stop, fill the disk, cut the wire; nothing may be lost
	@$(RUN) -m deploy.chaos $(if $(SEED),--seed "$(SEED)") $(if $(STUDIES),--studies "$(STUDIES)") $(if $(FAULTS),--faults "$(FAULTS)")
	@$(RUN) -m deploy.soak $(if $(SEED),--seed "$(SEED)") $(if $(SOAK),--seconds "$(SOAK)")

soak: $(READY)  ## the second part of chaos: senders that abort, and a receiver that is killed
	@$(RUN) -m deploy.soak $(if $(SEED),--seed "$(SEED)") $(if $(SOAK),--seconds "$(SOAK)")

fuzz: $(READY)  ## 55,000 associations with 100,000 mutated PDUs and command sets against the receive path
	@$(RUN) -m deploy.fuzz $(if $(FUZZ),--count "$(FUZZ)") $(if $(SEED),--seed "$(SEED)")

overhead: $(READY)  ## measure what the node adds to the inference, over small studies
	@$(RUN) -m deploy.overhead

throughput: $(READY)  ## measure the machinery alone: 20 studies a second for five minutes
	@$(RUN) -m deploy.throughput

evaluate: $(READY)  ## judge the shipped detector as it serves, on drawn volumes and two real scans
	@$(RUN) -m deploy.evaluate $(if $(CASES),--cases "$(CASES)")

clean:  ## remove .venv and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not that. Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV): once, about 125 packages, a few minutes."
	@$(PYTHON) -m venv $(VENV) || { \
		echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(RUN) -m pip install --disable-pip-version-check -c constraints.txt -e '.[train,test,lint]'
	@touch $@
