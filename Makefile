# The course in a few words: `make` alone lists them. Needs Python 3.11 or newer.
# Another Python: make course PYTHON=/path/to/python3.11

PYTHON ?=
PYTHONS = $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python)
VENV   := .venv
PY     := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)/python
WANTED := requirements.txt
NEWER  := import sys; sys.exit(sys.version_info < (3, 11))
TORCH   = $(shell sed -n 's/^\(torch[=0-9.]*\) .*/\1/p' $(WANTED))

# PyTorch keeps small builds for computers without an NVIDIA GPU under an address of their
# own (its "Get Started" page shows it): make course TORCH_INDEX=<that address>
TORCH_INDEX ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# make grade LAB=lab02_soft_targets SUBMISSIONS=folder OUT=grades
LAB ?=
SUBMISSIONS ?= submissions
OUT ?= grades
OPTIONS ?=

# Tests run side by side, each worker with one thread; a notebook stays with its worker.
WORKERS ?= 2
PYTEST   = $(PY) -m pytest -n $(WORKERS) --dist loadfile
# make test ONLY=04, or ONLY=lab04: this notebook or lab alone
ONLY    :=
ONE     := $(strip $(ONLY))
ALONE   := $(if $(ONE),$(wildcard notebooks/$(ONE)_*.ipynb solutions/$(ONE)_*.ipynb))
OF_IT   := $(basename $(notdir $(ALONE)))$(if $(filter lab%,$(ONE)), or $(ONE)-)

.PHONY: help course lab check test lint drift labs grade refresh weights clean

help:
	@echo "make course   set everything up and run the whole series, with progress"
	@echo "make lab      open JupyterLab and work through it"
	@echo "make check    the fast checks: lint, rules of the house, quick unit tests"
	@echo "make test     every check: all unit tests, each notebook run and compared"
	@echo "make test ONLY=04   one notebook (or ONLY=lab04) and the checks of it"
	@echo "make drift    the fast checks with the newest packages, for who keeps the pins"
	@echo "make labs     write the learner's copies in labs/ from solutions/, and check both"
	@echo "make grade LAB=lab02_soft_targets SUBMISSIONS=folder OUT=grades"
	@echo "              grade a folder of notebooks or zips, each in a sandbox"
	@echo "make refresh  run the notebooks in place and store their outputs (for authors)"
	@echo "make weights  retrain the shipped teacher and student"
	@echo "make clean    remove what runs leave behind (the environment .venv stays)"

course: $(VENV)/.stamp
	@$(PY) -m helpers.course

lab: $(VENV)/.stamp
	$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks

check: $(VENV)/.stamp lint
	$(PYTEST) tests -m "not slow"

ifneq ($(if $(ONE),$(words $(ALONE)),1),1)
$(error no notebook or lab $(ONLY): write its number, 04 or lab04)
endif

test: $(VENV)/.stamp lint
ifeq ($(ONE),)
	$(PYTEST)
else
	$(PYTEST) tests/test_house.py tests/notebooks tests/labs $(ALONE) -k "$(OF_IT)"
endif

lint: $(VENV)/.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m check_jsonschema --builtin-schema vendor.github-workflows $(wildcard .github/workflows/*.yml)

SAME := sed 's/+.*//' | tr 'A-Z_' 'a-z-' | sort  # one spelling of names and versions

# The fast checks with the newest packages, in an environment apart: which pins are behind,
# and what breaks when they are raised?
drift:
	@mkdir -p build
	@sed 's/==[^ ;]*//' requirements.txt > build/newest.txt
	@$(MAKE) .venv-newest/.stamp VENV=.venv-newest WANTED=build/newest.txt
	@sed -n 's/\[[a-z]*\]//; s/^\([^ ]*==[^ ;]*\).*/\1/p' requirements.txt | $(SAME) > build/pins
	@.venv-newest/bin/python -m pip list --format=freeze | $(SAME) > build/found
	@echo "Pins that are no longer the newest:"; comm -23 build/pins build/found
	@$(MAKE) check VENV=.venv-newest WANTED=build/newest.txt

labs: $(VENV)/.stamp
	@$(PY) -m helpers.labs

grade: $(VENV)/.stamp
	@$(PY) -m helpers.grade "$(LAB)" "$(SUBMISSIONS)" "$(OUT)" $(OPTIONS)

refresh: $(VENV)/.stamp
	@$(PY) -m helpers.course --refresh

weights: $(VENV)/.stamp
	$(PY) -m helpers.pretrain teacher
	$(PY) -m helpers.pretrain student

clean:
	rm -rf executed build dist .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find helpers tests notebooks labs solutions \( -name __pycache__ -o \
	  -name .ipynb_checkpoints \) -prune -exec rm -rf {} + 2>/dev/null || true

# The environment: rebuilt when one of these two files changes, repaired when it is broken.
$(VENV)/.stamp: $(WANTED) pyproject.toml
	@if ! $(PY) -c 'import pip; $(NEWER)' 2>/dev/null; then \
	  for python in $(PYTHONS); do \
	    if $$python -c '$(NEWER)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "The course needs Python 3.11 or newer. What was tried:"; \
	    for python in $(PYTHONS); do \
	      echo "  $$python: $$($$python --version 2>&1 | tail -n 1)"; \
	    done; \
	    echo "Get it from https://www.python.org/downloads/ or name the one you have:"; \
	    echo "  make course PYTHON=/path/to/python3.11"; \
	    echo "More help: TROUBLESHOOTING.md, 'Wrong Python'."; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$($$found --version); the first time takes minutes."; \
	  $$found -m venv --clear $(VENV); \
	fi
	$(if $(TORCH_INDEX),$(PY) -m pip install --index-url $(TORCH_INDEX) $(TORCH))
	$(PY) -m pip install -r $(WANTED)
	$(PY) -m pip install --quiet --no-deps -e .
	@touch $@
