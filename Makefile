# Everything there is to do with Mynah. Each target first makes the environment if it is missing or stale.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
LLAMA_CPP := .cache/ecosystem/llama.cpp
TRL := .cache/ecosystem/trl
AUDIT := .cache/audit

.PHONY: setup run test test-ecosystem soak lint audit demo bench bench-speed bench-endurance screenshots lock clean

setup: $(STAMP)

$(STAMP): requirements.lock deploy/torch.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r deploy/torch.txt
	touch $(STAMP)

run: setup  ## start Mynah; the first run fetches the base model and makes the admin account
	$(BIN)/python app.py serve

test: setup  ## every test, the browser tests included
	sh deploy/install-chromium.sh
	# Servers and workers run side by side: more threads than cores only spin. Much of a test is waiting: three at once.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile

soak: setup  ## the tests of chance with their whole counts; `make test` tries a tenth (tests/soak.py)
	OMP_NUM_THREADS=1 MYNAH_SOAK=1 $(BIN)/python -m pytest tests/security tests/feedback --timeout 14400

test-ecosystem: setup $(LLAMA_CPP)/.made  ## what needs other projects: llama.cpp loads an export (compiled first: minutes)
	$(BIN)/python -m pytest -m ecosystem tests/ecosystem

$(LLAMA_CPP)/.made:
	$(PYTHON) -m venv $(LLAMA_CPP)
	# Not for this very processor: virtual machines tell of instructions (AMX) that they then refuse.
	CMAKE_ARGS=-DGGML_NATIVE=OFF $(LLAMA_CPP)/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-cache-dir llama-cpp-python==0.3.36
	touch $@

$(TRL)/.made: $(STAMP)
	$(PYTHON) -m venv $(TRL)
	# What Mynah runs on, and beside it only what TRL needs more: both run the same torch, transformers and PEFT.
	$(TRL)/bin/python -c "import glob, pathlib, site; pathlib.Path(site.getsitepackages()[0], 'mynah.pth').write_text(\
		glob.glob('$(CURDIR)/$(VENV)/lib/python*/site-packages')[0])"
	$(TRL)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		trl==1.9.2 datasets==5.2.0 pyarrow multiprocess dill xxhash
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(AUDIT)/.made  ## known weaknesses of what is locked; asks PyPI's list of them over the network
	$(AUDIT)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes --requirement requirements.lock
	$(AUDIT)/bin/pip-audit --strict --progress-spinner off --disable-pip --no-deps --requirement deploy/torch.txt

$(AUDIT)/.made:
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.9.0
	touch $@

# How fast it writes and trains, against transformers, PEFT, llama.cpp (compiled first: minutes) and TRL in the same run.
bench-speed: setup $(LLAMA_CPP)/.made $(TRL)/.made
	$(BIN)/python -m benchmarks.speed

# A day of forty people, compressed into minutes: what a server's memory grows by.
bench-endurance: setup
	$(BIN)/python -m benchmarks.endurance

demo: setup  ## the whole loop without a browser, for simulated people, with a report
	$(BIN)/python -m benchmarks.demo

bench: setup  ## every figure in README
	$(BIN)/python -m benchmarks.head
	$(BIN)/python -m benchmarks.probation
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.personalize
	sh deploy/install-chromium.sh
	$(BIN)/python -m benchmarks.browser_load

screenshots: setup  ## pictures of every page, light and dark, desktop and phone; README shows some of them
	sh deploy/install-chromium.sh
	$(BIN)/python -m tests.browser.screenshots

lock:  ## write requirements.lock anew from pyproject.toml
	sh deploy/lock.sh $(PYTHON)

clean:
	rm -rf $(VENV)
