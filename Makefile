# The developer's verbs. Each sets up .venv by itself (python3 >= 3.11 and pip are enough), says what it does, and how
# long it took. Packages are installed again only when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
BIN := .venv/bin
CODE := sim calibrate dashboard tests
WITH_EXTRAS := '.[dev,calibrate,kernels]'
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A file of tests stays in one process (one browser, one server); files start in their order, so no long one comes last.
# One process more than cores, since those with a browser wait for it half of the time.
ON_EVERY_CORE := -n $$(( $$(nproc) + 1 )) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# $(call timed,WHAT,COMMAND): run the command between two lines that say what it is and how long it took.
timed = @echo "==> $(1)"; start=$$(date +%s); $(2); status=$$?; \
	echo "==> $(1): $$([ $$status = 0 ] && echo done || echo "FAILED ($$status)") in $$(($$(date +%s) - start)) s"; \
	exit $$status

.PHONY: help demo test fuzz lint bench dashboard gpu-check clean

help:
	@echo "make demo       DeepSeek-V3.2 against V3.1 on the Azure conversation trace: throughput, latency, price"
	@echo "make test       every test"
	@echo "make fuzz       thousands of broken scenarios, traces, configurations, records, profiles and uploads"
	@echo "make lint       ruff, mypy, import-linter"
	@echo "make bench      the simulator's own speed"
	@echo "make dashboard  the web app"
	@echo "make gpu-check  tests and a quick calibration on the GPU of this machine"
	@echo "make clean      remove .venv and everything built"

demo: .venv/.run
	$(call timed,demo: DeepSeek-V3.2 against V3.1 on H200 with the Azure conversation trace,\
		$(BIN)/tokenworks compare scenarios/azure-v3.2.yaml scenarios/azure-v3.1.yaml --out out/demo)

test: .venv/.test .venv/.browser
	$(call timed,test: every test,$(BIN)/python -m pytest $(ON_EVERY_CORE))

# Minutes to an hour; `make test` runs a short part of it.
fuzz: .venv/.test
	$(call timed,fuzz: broken input of every kind,$(BIN)/python -m tests.fuzz --all --workers $$(nproc))

lint: .venv/.test
	$(call timed,lint: ruff,$(BIN)/ruff check $(CODE) && $(BIN)/ruff format --check --quiet $(CODE))
	$(call timed,lint: mypy,$(BIN)/mypy)
	$(call timed,lint: import-linter,$(BIN)/lint-imports --no-cache)

bench: .venv/.run
	$(call timed,bench: what a request costs beside a bare SimPy loop,\
		$(BIN)/python -m sim.bench_cases --out out/bench.json)

dashboard: .venv/.run
	$(BIN)/tokenworks dashboard

# On a machine with a GPU, with no network and no pip: any interpreter that has torch and Triton will do.
gpu-check:
	@python=$(BIN)/python; \
	if ! [ -f .venv/.test ]; then \
		if $(PYTHON) -c 'import torch, triton' 2>/dev/null; then python=$(PYTHON); else $(MAKE) --no-print-directory .venv/.test || exit 1; fi; \
	fi; \
	echo "==> gpu-check: every backend against its reference, then a quick calibration, with $$python"; \
	$$python -m calibrate.bare --device cuda --out out/gpu-check

clean:
	rm -rf .venv build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(call timed,set-up: virtual environment in .venv,$(PYTHON) -m venv .venv)

.venv/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(call timed,set-up: tokenworks and its libraries,$(PIP) -e . && touch $@)

# torch comes first and alone: an exact version takes a CPU build where one is provided, a range takes several GB of CUDA.
.venv/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(call timed,set-up: torch,$(PIP) torch)
	$(call timed,set-up: tokenworks with what its tests need,$(PIP) -e $(WITH_EXTRAS) && touch $@ .venv/.run)

# Browser tests drive a Chromium of the system; where there is none and none can be installed, they are skipped.
.venv/.browser: | $(BIN)/python
	@if ! command -v chromium chromium-browser google-chrome >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "==> set-up: chromium for the browser tests"; \
			(timeout 60 apt-get -qq update; timeout 300 apt-get -qq install -y chromium) >/dev/null 2>&1 \
				|| echo "    not available: browser tests will be skipped"; \
		else echo "==> no chromium: browser tests will be skipped"; fi; fi
	@touch $@
