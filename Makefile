# make demo: from nothing to an extracted voice on one page. make test: lint, types, the site and tests; SLOW=1: the slow tests too.
# Both make their own environment.
# make web: the browser page, as the folder web/dist for any static host. make web-test: its tests in Chromium.
# make gpu: on a machine with a GPU, with the PYTHON that has torch there: its tests, its speed, and a training for the time left.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0 # any >= 2.7; for the smaller CPU build: TORCH="torch --index-url https://download.pytorch.org/whl/cpu"
CORPUS ?= # a folder in LibriSpeech's layout; empty: synthetic voices
OUT ?= demo-output
MINUTES ?= 6 # of training
EXTRAS ?= train,demo,wandb,dev,docs,rooms,cluster,shards # of pyproject.toml; a test whose package is missing is skipped
RUN = $(abspath $(VENV))/bin/python

.PHONY: demo test docs gpu web web-test clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	PYTHON=$(RUN) OUT=$(OUT) CORPUS=$(strip $(CORPUS)) MINUTES=$(strip $(MINUTES)) demo/run.sh

test: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --site-dir $(VENV)/site
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal $(if $(SLOW),,-m "not slow")

docs: $(VENV)/installed # shows the site on http://127.0.0.1:8000 and builds it anew when a page changes
	$(RUN) -m mkdocs serve

web: $(VENV)/web
	$(MAKE) -C libss wasm ZIG="$(RUN) -m ziglang"
	PYTHONPATH=. $(RUN) web/build.py web/dist

web-test: web $(VENV)/installed # needs Chromium: CHROMIUM=/path/to/it where it is not on the PATH
	OMP_NUM_THREADS=1 REALTIME=1 $(RUN) -m pytest -s tests/test_web.py

gpu:
	PYTHON=$(PYTHON) OUT=$(OUT)-gpu CORPUS=$(strip $(CORPUS)) NOISE=$(NOISE) RIRS=$(RIRS) MINUTES=$(if $(filter command line environment,$(origin MINUTES)),$(MINUTES),8) demo/gpu.sh

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip setuptools wheel
	$(RUN) -m pip install --quiet $(TORCH)
	$(RUN) -m pip install --quiet --editable ".[$(strip $(EXTRAS))]"
	$(RUN) -m pip install --quiet --editable ".[pesq]" || echo "pesq could not be built (it needs a C compiler): PESQ will be missing"
	touch $@

# The packaged model needs no torch; where the package has none for the C library, the checkpoint is exported.
$(VENV)/web: pyproject.toml $(if $(wildcard ss/pretrained/spexplus_online/int8/model.ss),,$(VENV)/installed)
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip setuptools wheel
	$(RUN) -m pip install --quiet --editable ".[web]"
	touch $@

clean:
	rm -rf $(VENV) $(OUT) web/dist libss/build
