# The course in a few words: `make` alone lists them. Needs Python 3.11 or newer.
# Another Python: make course PYTHON=/path/to/python3.11

PYTHON ?=
PYTHONS = $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python)
PY     := .venv/bin/python
NEWER  := import sys; sys.exit(sys.version_info < (3, 11))
TORCH   = $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.txt)

# PyTorch keeps small builds for computers without an NVIDIA GPU under an address of their
# own (its "Get Started" page shows it): make course TORCH_INDEX=<that address>
TORCH_INDEX ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

# make grade LAB=lab02_soft_targets SUBMISSIONS=folder OUT=grades
LAB ?=
SUBMISSIONS ?= submissions
OUT ?= grades
OPTIONS ?=

.PHONY: help course lab test labs grade refresh weights clean

help:
	@echo "make course   set everything up and run the whole series, with progress"
	@echo "make lab      open JupyterLab and work through it"
	@echo "make test     every check: lint, unit tests, each notebook run and compared"
	@echo "make labs     write the learner's copies in labs/ from solutions/, and check both"
	@echo "make grade LAB=lab02_soft_targets SUBMISSIONS=folder OUT=grades"
	@echo "              grade a folder of notebooks or zips, each in a sandbox"
	@echo "make refresh  run the notebooks in place and store their outputs (for authors)"
	@echo "make weights  retrain the shipped teacher and student"
	@echo "make clean    remove what runs leave behind (the environment .venv stays)"

course: .venv/.stamp
	@$(PY) -m helpers.course

lab: .venv/.stamp
	$(PY) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks

test: .venv/.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest

labs: .venv/.stamp
	@$(PY) -m helpers.labs

grade: .venv/.stamp
	@$(PY) -m helpers.grade "$(LAB)" "$(SUBMISSIONS)" "$(OUT)" $(OPTIONS)

refresh: .venv/.stamp
	@$(PY) -m helpers.course --refresh

weights: .venv/.stamp
	$(PY) -m helpers.pretrain teacher
	$(PY) -m helpers.pretrain student

clean:
	rm -rf executed build dist .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find helpers tests notebooks labs solutions \( -name __pycache__ -o \
	  -name .ipynb_checkpoints \) -prune -exec rm -rf {} + 2>/dev/null || true

# The environment: rebuilt when one of these two files changes, repaired when it is broken.
.venv/.stamp: requirements.txt pyproject.toml
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
	  echo "Making .venv with $$($$found --version); the first time takes minutes."; \
	  $$found -m venv --clear .venv; \
	fi
	$(if $(TORCH_INDEX),$(PY) -m pip install --index-url $(TORCH_INDEX) $(TORCH))
	$(PY) -m pip install -r requirements.txt
	$(PY) -m pip install --quiet --no-deps -e .
	@touch $@
