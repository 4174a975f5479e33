# Whis Box: `make demo` from a fresh clone to cited answers, `make test` for the whole suite.
# Needs: Python 3.11+ with venv, a C++ compiler, make, and a Python package index. Nothing else is downloaded.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RAGAS  := .venv-ragas
RUN    := $(BIN)/python -m
PIP    := $(RUN) pip --disable-pip-version-check
LOCKED := $(PIP) install --quiet --require-hashes
TORCH  := torch==2.13.0
WORKERS ?= $(shell nproc)
COMMIT_TIME := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
ISSUED_AT = $(shell date -u +%Y-%m-%dT%H:%M:%SZ)
RELEASE = build/release/$(SEQUENCE)

export HF_HUB_OFFLINE := 1
export PYTHONUNBUFFERED := 1

.PHONY: demo test check ragas evaluate bench box frozen release fuzz models index dataset embedder ner detector lock clean

demo: box                          ## build what is missing, then check, ask and triage
	$(BIN)/whis doctor
	$(BIN)/python examples/demo.py

box: index                         ## assemble build/box with its manifest
	$(BIN)/whis box build

index: models                      ## ingest data/raw and index it
	$(BIN)/whis ingest data/raw --source whis-field-guide --workers $(WORKERS)
	$(BIN)/whis index build --workers $(WORKERS)

models: $(VENV)/.installed         ## fetch, verify, re-quantize and export the models
	$(RUN) convert.fetch
	$(RUN) convert.quantize
	$(RUN) convert.embedder

frozen: $(VENV)/.freeze-installed  ## dist/whis: the program without Python, weights and index
	PYTHONHASHSEED=1 SOURCE_DATE_EPOCH=$(COMMIT_TIME) $(RUN) PyInstaller --noconfirm --log-level WARN build.spec

release: check frozen index        ## a signed box in build/release/SEQUENCE; docs/operations.md has the checklist
	@test -n "$(SEQUENCE)" -a -n "$(KEY)" || { echo "make release SEQUENCE=N KEY=FILE TRUST=FOLDER"; exit 2; }
	$(BIN)/whis box build --program dist/whis --trust "$(TRUST)" --sequence $(SEQUENCE) --issued-at $(ISSUED_AT) --out $(RELEASE)
	$(BIN)/whis box sign --box $(RELEASE) --secret-key "$(KEY)"
	$(BIN)/whis box verify --box $(RELEASE) --key "$(KEY).pub"
	cd $(RELEASE) && sha256sum --check --quiet --strict SHA256SUMS
	cd $(RELEASE) && minisign -Vm manifest.json -p "$(abspath $(KEY)).pub" && minisign -Vm SHA256SUMS -p "$(abspath $(KEY)).pub"
	$(RELEASE)/whis doctor --box $(RELEASE)
	$(RELEASE)/whis box self-test --box $(RELEASE)

test: box ragas $(VENV)/.test-installed  ## everything a fresh machine needs, then the whole suite
	$(RUN) pytest --cov --cov-report=term:skip-covered tests

check: $(VENV)/.test-installed     ## style, types, fast tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(RUN) pytest -m "not e2e and not gpu" tests

dataset: index                     ## data/datasets/whis-soc from the indexed corpus
	$(RUN) train.dataset

detector: $(VENV)/.train-installed ## fit the guards' detector again
	$(RUN) train.detector

embedder: models $(VENV)/.train-installed ## tune the embedder: CORPORA=folder of enterprise-attack.json.gz and sigma-rules.zip
	$(RUN) convert.fetch all-minilm-l6-v2
	$(RUN) train.embedder --attack $(CORPORA)/enterprise-attack.json.gz
	$(RUN) train.embedder --attack $(CORPORA)/enterprise-attack.json.gz --sigma $(CORPORA)/sigma-rules.zip --start build/embedder-tuned
	$(RUN) convert.embedder --source build/embedder-tuned --target data/embedder

ner: models $(VENV)/.train-installed ## train and export the people-finder (about 40 minutes on two cores)
	$(RUN) convert.fetch all-minilm-l6-v2
	$(RUN) train.ner
	$(RUN) convert.ner

fuzz: $(VENV)/.bench-installed     ## one hour on the parsers of a medium
	mkdir -p build/fuzz
	$(RUN) tests.fuzz.parsers -max_total_time=3600 -max_len=4096 -rss_limit_mb=1500 build/fuzz

$(VENV)/.freeze-installed: requirements/freeze.lock $(VENV)/.installed
	$(LOCKED) -r requirements/freeze.lock
	@touch $@

$(VENV)/.bench-installed: requirements/bench.lock $(VENV)/.test-installed
	$(LOCKED) -r requirements/bench.lock
	@touch $@

bench: box $(VENV)/.bench-installed ## the figures of docs/measurements.md; CORPORA=folder adds the retrieval on public questions
	$(BIN)/whis bench
	$(RUN) tests.bench.grammar_backends
	$(RUN) tests.bench.evidence_budget
	$(RUN) tests.bench.scale
	$(if $(CORPORA),$(RUN) tests.bench.retrieval_quality --corpora "$(CORPORA)")
	$(if $(CORPORA),$(RUN) tests.bench.rerankers --corpora "$(CORPORA)")

ragas: $(RAGAS)/.installed         ## ragas in a virtual environment of its own

$(RAGAS)/.installed: requirements/ragas.lock
	@echo "installing ragas in $(RAGAS)"
	$(PYTHON) -m venv $(RAGAS)
	$(RAGAS)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/ragas.lock
	@touch $@

evaluate: box ragas                ## the golden sets against build/box, and its gate
	$(BIN)/whis eval run
	$(BIN)/whis eval gate

$(VENV)/bin/python:
	@echo "creating $(VENV)"
	$(PYTHON) -m venv $(VENV)

$(VENV)/.bootstrapped: requirements/bootstrap.lock | $(VENV)/bin/python
	@echo "installing build tools"
	$(LOCKED) -r requirements/bootstrap.lock
	@touch $@

$(VENV)/.installed: requirements/runtime.lock requirements/build.lock requirements/native.lock pyproject.toml convert/native.py $(VENV)/.bootstrapped
	@echo "installing locked dependencies"
	$(LOCKED) -r requirements/runtime.lock
	$(LOCKED) -r requirements/build.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --no-index --editable .
	$(RUN) convert.native
	@touch $@

$(VENV)/.train-installed: requirements/train.lock $(VENV)/.installed
	@echo "installing training dependencies"
	$(PIP) install --quiet "$(TORCH)"
	$(LOCKED) --no-deps -r requirements/train.lock
	@touch $@

$(VENV)/.test-installed: requirements/test.lock requirements/eval.lock $(VENV)/.train-installed
	@echo "installing test dependencies"
	$(LOCKED) -r requirements/test.lock
	$(LOCKED) --no-deps -r requirements/eval.lock
	@touch $@

lock:                              ## renew the lock files (needs pip-tools)
	@for name in bootstrap runtime build freeze test train bench eval ragas; do \
	  echo "locking $$name"; \
	  pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-index-url \
	    --no-emit-find-links --no-emit-trusted-host -o requirements/$$name.lock requirements/$$name.in; \
	done
	@awk '/^[a-z]/ {drop = ($$0 ~ /^(torch|triton|nvidia-[a-z0-9-]*|cuda-[a-z]*)==/)} !drop' requirements/train.lock > requirements/.train.lock
	@mv requirements/.train.lock requirements/train.lock

clean:                             ## remove what was built; the wheel cache outside the tree stays
	rm -rf build $(VENV) $(RAGAS) .pytest_cache .mypy_cache .ruff_cache
